"""Small memory and whole vectors for packing: a buffer on the stack, copies of a vector, transposed blocks, single
numbers. All of it takes a `kind`, a
number of the dtype that is meant, so that one text serves float32 and float64.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .tile import I32, I64, SHAPES, Vectors


@intrinsic
def stack(typing, size):
    """The address of `size` bytes (a literal) on the stack, on a 64-byte boundary; gone when the function returns."""
    if not isinstance(size, types.IntegerLiteral):
        return None
    count = size.literal_value

    def generate(context, builder, signature, arguments):
        with builder.goto_entry_block():
            buffer = builder.alloca(ir.ArrayType(ir.IntType(8), count))
            buffer.align = 64
        return builder.ptrtoint(buffer, I64)

    return types.int64(size), generate


@intrinsic
def size_of(typing, kind):
    """Bytes of a number of kind's dtype: a constant."""
    size = kind.bitwidth // 8
    return types.int64(kind), lambda context, builder, signature, arguments: ir.Constant(I64, size)


@intrinsic
def lanes_of(typing, kind):
    """Numbers of kind's dtype in a vector: a constant."""
    lanes = SHAPES[kind.bitwidth // 8].lanes
    return types.int64(kind), lambda context, builder, signature, arguments: ir.Constant(I64, lanes)


def vectors_of(builder, kind) -> Vectors:
    itemsize = kind.bitwidth // 8
    return Vectors(builder, SHAPES[itemsize].lanes, itemsize)


@intrinsic
def copy_vector(typing, kind, source, target, count):
    """Copies min(count, lanes) numbers and fills the other lanes with zeros: always writes a whole vector."""

    def generate(context, builder, signature, arguments):
        v = vectors_of(builder, signature.args[0])
        v.store(v.load(arguments[1], v.lanes_below(arguments[3])), arguments[2], None)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.int64), generate


@intrinsic
def transpose_block(typing, kind, source, source_row, target, target_row):
    """target[j, i] = source[i, j] for a block of lanes × lanes numbers; row strides in bytes.

    In log₂(lanes) rounds: round s swaps, between rows i and i + s, the lanes that have bit s against those that have
    not (Eklundh 1972). After the last round row j holds what column j held.
    """

    def generate(context, builder, signature, arguments):
        v = vectors_of(builder, signature.args[0])
        _, source, source_row, target, target_row = arguments
        lanes = range(v.lanes)

        def at(start, stride, i):
            return builder.add(start, builder.mul(ir.Constant(I64, i), stride))

        def pick(x, y, places):
            mask = ir.Constant(ir.VectorType(I32, v.lanes), [ir.Constant(I32, p) for p in places])
            return builder.shuffle_vector(x, y, mask)

        rows = [v.load(at(source, source_row, i), None) for i in lanes]
        s = 1
        while s < v.lanes:
            for i in lanes:
                if not i & s:
                    x, y = rows[i], rows[i + s]
                    rows[i] = pick(x, y, [v.lanes + j - s if j & s else j for j in lanes])
                    rows[i + s] = pick(x, y, [v.lanes + j if j & s else j + s for j in lanes])
            s *= 2
        for i in lanes:
            v.store(rows[i], at(target, target_row, i), None)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def put(typing, table, place, address):
    """table[place] = address, in a table of addresses."""

    def generate(context, builder, signature, arguments):
        table, place, address = arguments
        builder.store(address, builder.gep(builder.inttoptr(table, I64.as_pointer()), [place]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def move(typing, kind, source, target):
    """Copies one number from address to address."""

    def generate(context, builder, signature, arguments):
        pointer = vectors_of(builder, signature.args[0]).scalar.as_pointer()
        value = builder.load(builder.inttoptr(arguments[1], pointer))
        builder.store(value, builder.inttoptr(arguments[2], pointer))
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64), generate


@intrinsic
def copy_whole(typing, kind, source, target):
    """Copies one whole vector."""

    def generate(context, builder, signature, arguments):
        v = vectors_of(builder, signature.args[0])
        v.store(v.load(arguments[1], None), arguments[2], None)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64), generate


@intrinsic
def add_vector(typing, kind, source, target, count):
    """target += source for min(count, lanes) numbers; nothing else is touched."""

    def generate(context, builder, signature, arguments):
        v = vectors_of(builder, signature.args[0])
        _, source, target, count = arguments
        mask = v.lanes_below(count)
        v.store(builder.fadd(v.load(target, mask), v.load(source, mask)), target, mask)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64, types.int64), generate


@intrinsic
def add_number(typing, kind, source, target):
    """target += source for one number."""

    def generate(context, builder, signature, arguments):
        pointer = vectors_of(builder, signature.args[0]).scalar.as_pointer()
        source, target = (builder.inttoptr(address, pointer) for address in arguments[1:])
        builder.store(builder.fadd(builder.load(target), builder.load(source)), target)
        return context.get_dummy_value()

    return types.void(kind, types.int64, types.int64), generate
