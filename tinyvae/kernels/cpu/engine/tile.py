"""The register tile: the inner loop of every product, written as LLVM vector code so that it runs at the machine's
rate.

    C[i, j] = start[i, j] + Σ_n Σ_u Σ_k A[i, n, u, k] · B[n, u, k, j]      i < rows ≤ TALL, j < columns ≤ ACROSS · lanes

An ordinary product has one n and one u. In a convolution u counts rows of an image, where each piece of K numbers is
contiguous in memory; in the gradient of its weight n counts images.

LLVM is the compiler behind Numba. Its code is typed: <16 x float> is a vector of 16 floats that lives in one register
of an AVX-512 machine. A loop is a block that jumps back to itself, and a *phi* at its top says where a value comes
from: from before the loop in the first round, from the round before in all others. The tile keeps ROWS × VECTORS such
phis, the sums, in registers through the whole loop over k; each round loads one row of B (VECTORS loads), and for
each row of A one number that is repeated in all lanes, and makes ROWS · VECTORS fused multiply-adds. Nothing else
touches memory.

The nine tiles (three heights, full or ragged) are compiled once, into one function, and called by address: compiled
into each of their callers they would cost seconds every time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, get_type_hints

import llvmlite.binding as llvm
from llvmlite import ir
from numba import float32, float64, int64, types, void
from numba.core import cgutils
from numba.extending import intrinsic

from .compile import jit

I1, I32, I64 = ir.IntType(1), ir.IntType(32), ir.IntType(64)


@dataclass(frozen=True)
class Shape:
    """The tile for one machine and dtype: rows, vectors across, lanes of a vector."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Columns of C that a tile covers."""
        return self.vectors * self.lanes


# Bytes of a vector, rows of the tall, the middle and the low tile, vectors across. rows · vectors sums, the vectors
# of B and one repeated number must fit the registers: 32 of 64 bytes with AVX-512 (28 + 2 + 1), 16 of 32 bytes with
# AVX2 (12 + 2 + 1), 32 of 16 bytes with NEON (24 + 4 + 1). The lower tiles serve the rows that are left over.
MACHINES = {
    "avx512": (64, (14, 8, 4), 2),
    "avx2": (32, (6, 4, 2), 2),
    "neon": (16, (6, 4, 2), 4),
    "plain": (16, (4, 2, 1), 2),
}


def machine() -> str:
    """The vector set of this host, or what TINYVAE_VECTOR names (to try the others: avx512 needs the hardware)."""
    named = os.environ.get("TINYVAE_VECTOR")
    if named:
        if named not in MACHINES:
            raise ValueError(f"TINYVAE_VECTOR={named!r} is not known; use one of {', '.join(MACHINES)}")
        return named
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return "avx512"
    if features.get("avx2") and features.get("fma"):
        return "avx2"
    return "neon" if "aarch64" in llvm.get_process_triple() or "arm64" in llvm.get_process_triple() else "plain"


VECTOR_BYTES, HEIGHTS, ACROSS = MACHINES[machine()]
TALL, MIDDLE, LOW = HEIGHTS
SHAPES = {itemsize: Shape(TALL, ACROSS, VECTOR_BYTES // itemsize) for itemsize in (4, 8)}


class Vectors:
    """The few vector instructions the tile needs, for one element type, spelled in LLVM's IR."""

    def __init__(self, builder: ir.IRBuilder, lanes: int, itemsize: int) -> None:
        self.builder, self.itemsize, self.lanes = builder, itemsize, lanes
        self.scalar = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, lanes)
        self.mask = ir.VectorType(I1, lanes)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)
        self.suffix = f"v{lanes}f{8 * itemsize}"

    def function(self, name: str, result: ir.Type, *arguments: ir.Type) -> ir.Function:
        """An LLVM intrinsic, declared once per module."""
        module = self.builder.module
        return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a · b + c with one rounding."""
        fma = self.function(f"llvm.fma.{self.suffix}", self.vector, *[self.vector] * 3)
        return self.builder.call(fma, [a, b, c])

    def repeat(self, value: ir.Value, kind: ir.VectorType) -> ir.Value:
        """A vector with `value` in every lane."""
        nothing = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(nothing, value, ir.Constant(I32, 0))
        lanes = ir.Constant(ir.VectorType(I32, kind.count), [ir.Constant(I32, 0)] * kind.count)
        return self.builder.shuffle_vector(first, nothing, lanes)

    def load_repeated(self, address: ir.Value) -> ir.Value:
        """One number from memory in every lane."""
        number = self.builder.load(self.builder.inttoptr(address, self.scalar.as_pointer()))
        number.align = self.itemsize
        return self.repeat(number, self.vector)

    def load(self, address: ir.Value, mask: ir.Value | None) -> ir.Value:
        """A vector from memory; where the mask is off, 0 and no access."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            value = self.builder.load(pointer)
            value.align = self.itemsize
            return value
        types_ = (pointer.type, I32, self.mask, self.vector)
        load = self.function(f"llvm.masked.load.{self.suffix}.p0", self.vector, *types_)
        return self.builder.call(load, [pointer, ir.Constant(I32, self.itemsize), mask, self.zero])

    def store(self, value: ir.Value, address: ir.Value, mask: ir.Value | None) -> None:
        """A vector to memory; where the mask is off, no access."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if mask is None:
            self.builder.store(value, pointer).align = self.itemsize
            return
        types_ = (self.vector, pointer.type, I32, self.mask)
        store = self.function(f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), *types_)
        self.builder.call(store, [value, pointer, ir.Constant(I32, self.itemsize), mask])

    def prefetch(self, address: ir.Value) -> None:
        """Asks for a line of memory that will be written soon."""
        pointer = self.builder.inttoptr(address, ir.IntType(8).as_pointer())
        kinds = [ir.Constant(I32, n) for n in (1, 3, 1)]  # to write; into the first-level cache; data
        prefetch = self.function("llvm.prefetch.p0", ir.VoidType(), pointer.type, I32, I32, I32)
        self.builder.call(prefetch, [pointer, *kinds])

    def at_least_zero(self, value: ir.Value) -> ir.Value:
        """max(value, 0); NaN stays NaN."""
        return self.builder.select(self.builder.fcmp_ordered("<", value, self.zero), self.zero, value)

    def lanes_below(self, count: ir.Value) -> ir.Value:
        """The mask that is on in the lanes 0 … count − 1."""
        kind = ir.VectorType(I32, self.lanes)
        places = ir.Constant(kind, [ir.Constant(I32, i) for i in range(self.lanes)])
        most = ir.Constant(I64, self.lanes)
        count = self.builder.select(self.builder.icmp_signed("<", count, most), count, most)
        return self.builder.icmp_signed("<", places, self.repeat(self.builder.trunc(count, I32), kind))


FROM_ZERO, FROM_C, FROM_BIAS = 0, 1, 2


class Steps(NamedTuple):
    """A number for each of a product's loops over terms: bytes from one k, run or image to the next, or how many."""

    k: int
    run: int
    image: int


class Ends(NamedTuple):
    """How a product's sums begin and end.

    start: FROM_ZERO, FROM_C, what C holds, or FROM_BIAS, a row of numbers at the address `bias`.
    relu: 1 for max(·, 0) at the end.
    """

    start: int
    bias: int
    relu: int


class Matrix(NamedTuple):
    """A matrix in memory: its address, bytes from row to row, and whether it is stored transposed."""

    at: int
    row: int
    transposed: int


class Area(NamedTuple):
    """Rows i0 … i1 − 1 and columns j0 … j1 − 1 of a product."""

    i0: int
    i1: int
    j0: int
    j1: int


def _type_of(hint):
    """Numba's type of an integer, or of a NamedTuple of integers."""
    return types.NamedUniTuple(int64, len(hint._fields), hint) if hasattr(hint, "_fields") else int64


ARGUMENTS = (  # of a tile, behind `kind`; and their types, as some are passed together
    "rows", "a_k", "a_run", "a_image", "b", "b_k", "b_run", "b_image", "outs", "offset", "K", "runs", "images", "start",
    "bias", "relu", "height", "columns",
)  # fmt: skip
NUMBERS = [_type_of(kind) for kind in (int, Steps, int, Steps, int, int, Steps, Ends, int, int)]


def make_tile(height: int, slim: bool, edge: bool):
    """The intrinsic for one height. Its arguments are those of ARGUMENTS, some of them together; strides are in bytes.

    kind: any number of the dtype meant. rows: the address of a table of `height` addresses, those of A[i, 0, 0, 0].
    a = (a_k, a_run, a_image): from one k, u, n to the next in A. b_at: address of B[0, 0, 0, 0]; b: as a; its columns
    are neighbours. outs: the address of a table of addresses, those of C[i, 0] less `offset`. count = (K, runs,
    images), each ≥ 1: how many k, u, n. ends: the bias is a row of numbers that begins at bias + offset.
    slim: one vector wide. edge=False takes height and columns as full; edge=True reads row min(i, height − 1) of A in
    the place of a missing one, leaves missing columns of B unread, and writes only what is there.
    """

    @intrinsic
    def tile(typing, kind, rows, a, b_at, b, outs, offset, count, ends, height_, columns):
        def generate(context, builder, signature, arguments):
            itemsize = signature.args[0].bitwidth // 8
            full = SHAPES[itemsize]
            shape = Shape(height, 1 if slim else full.vectors, full.lanes)
            flat = []
            for value, given in zip(arguments[1:], signature.args[1:], strict=True):
                flat += [value] if given is types.int64 else cgutils.unpack_tuple(builder, value)
            _Tile(builder, shape, itemsize, edge, flat).write()
            return context.get_dummy_value()

        return types.void(kind, *NUMBERS), generate

    return tile


class _Tile:
    """Writes the code of one tile: the start, the loop over k inside the loop over u, the end."""

    def __init__(self, builder: ir.IRBuilder, shape: Shape, itemsize: int, edge: bool, arguments) -> None:
        self.b, self.shape, self.edge = builder, shape, edge
        self.v = Vectors(builder, shape.lanes, itemsize)
        self.at = dict(zip(ARGUMENTS, arguments, strict=True))
        self.step = shape.lanes * itemsize  # bytes from one vector to the next
        self.masks = [self._mask(j) for j in range(shape.vectors)]

    def _mask(self, j: int) -> ir.Value | None:
        if not self.edge:
            return None
        return self.v.lanes_below(self.b.sub(self.at["columns"], ir.Constant(I64, j * self.shape.lanes)))

    def _plus(self, address: ir.Value, j: int) -> ir.Value:
        return self.b.add(address, ir.Constant(I64, j * self.step))

    def _addresses(self, table: str, last: bool) -> list[ir.Value]:
        """The addresses in a table, one per row; with `last`, those of missing rows are that of the last one."""
        found = []
        start = self.b.inttoptr(self.at[table], I64.as_pointer())
        for i in range(self.shape.rows):
            place: ir.Value = ir.Constant(I64, i)
            if self.edge and last:
                highest = self.b.sub(self.at["height"], ir.Constant(I64, 1))
                place = self.b.select(self.b.icmp_signed("<", place, highest), place, highest)
            found.append(self.b.load(self.b.gep(start, [place])))
        return found

    def _outs(self, last: bool) -> list[ir.Value]:
        return [self.b.add(out, self.at["offset"]) for out in self._addresses("outs", last)]

    def write(self) -> None:
        b, at = self.b, self.at
        rows = self._addresses("rows", last=True)
        self._expect()
        loops = [(at[count], at[f"a_{name}"], at[f"b_{name}"])
                 for name, count in (("image", "images"), ("run", "runs"), ("k", "K"))]  # fmt: skip
        totals = self._nest(loops, rows, ir.Constant(I64, 0), at["b"], self._start())
        totals = self._add_c(totals)
        with b.if_else(b.icmp_signed("!=", at["relu"], ir.Constant(I64, 0))) as (clipped, whole):
            with clipped:
                self._store([[self.v.at_least_zero(total) for total in row] for row in totals])
            with whole:
                self._store(totals)

    def _nest(self, loops, rows, a: ir.Value, b_at: ir.Value, sums) -> list[list[ir.Value]]:
        """The loops, outermost first: (rounds, bytes in A, bytes in B) each. Returns the sums after them."""
        if not loops:
            return self._multiply(rows, a, b_at, sums)
        b, (rounds, a_step, b_step) = self.b, loops[0]
        entry, loop = b.block, b.append_basic_block("loop")
        b.branch(loop)
        b.position_at_end(loop)
        steps = [
            (self._phi(first, entry), step)
            for first, step in ((ir.Constant(I64, 0), ir.Constant(I64, 1)), (a, a_step), (b_at, b_step))
        ]
        phis = [[self._phi(value, entry) for value in row] for row in sums]
        totals = self._nest(loops[1:], rows, steps[1][0], steps[2][0], phis)
        following = self._advance(steps, phis, totals, b.block)
        after = b.append_basic_block("after")
        b.cbranch(b.icmp_signed("<", following, rounds), loop, after)
        b.position_at_end(after)
        return totals

    def _phi(self, first: ir.Value, before: ir.Block) -> ir.Value:
        phi = self.b.phi(first.type)
        phi.add_incoming(first, before)
        return phi

    def _advance(self, steps, sums, totals, block: ir.Block) -> ir.Value:
        """Closes a loop: counters and addresses move on, sums are the new totals. Returns the first counter."""
        moved = [self.b.add(phi, step) for phi, step in steps]
        for (phi, _), value in zip(steps, moved, strict=True):
            phi.add_incoming(value, block)
        for row, new in zip(sums, totals, strict=True):
            for phi, value in zip(row, new, strict=True):
                phi.add_incoming(value, block)
        return moved[0]

    def _multiply(self, rows, a_at: ir.Value, b_at: ir.Value, sums) -> list[list[ir.Value]]:
        """One k: the row of B in registers, each number of A repeated."""
        columns = [self.v.load(self._plus(b_at, j), self.masks[j]) for j in range(self.shape.vectors)]
        totals = []
        for row, address in zip(sums, rows, strict=True):
            number = self.v.load_repeated(self.b.add(address, a_at))
            totals.append([self.v.fma(number, columns[j], row[j]) for j in range(self.shape.vectors)])
        return totals

    def _start(self) -> list[list[ir.Value]]:
        """What the sums begin with: zeros, or a row of biases."""
        b, vectors = self.b, range(self.shape.vectors)
        before = b.block
        with b.if_then(b.icmp_signed("==", self.at["start"], ir.Constant(I64, FROM_BIAS))):
            biases = [
                self.v.load(self._plus(self.b.add(self.at["bias"], self.at["offset"]), j), self.masks[j])
                for j in vectors
            ]
            biased = b.block
        sums = [b.phi(self.v.vector) for _ in vectors]
        for phi, bias in zip(sums, biases, strict=True):
            phi.add_incoming(self.v.zero, before)
            phi.add_incoming(bias, biased)
        return [sums] * self.shape.rows

    def _expect(self) -> None:
        """Asks for the lines of C where they will be read: they arrive while the sums are made."""
        with self.b.if_then(self.b.icmp_signed("==", self.at["start"], ir.Constant(I64, FROM_C))):
            for out in self._outs(last=True):
                for j in range(self.shape.vectors):
                    self.v.prefetch(self._plus(out, j))

    def _add_c(self, totals) -> list[list[ir.Value]]:
        """totals, with what C holds added to them when `start` says so."""
        b = self.b
        before = b.block
        with b.if_then(b.icmp_signed("==", self.at["start"], ir.Constant(I64, FROM_C))):
            outs = self._outs(last=True)
            added = [
                [b.fadd(total, self.v.load(self._plus(out, j), self.masks[j])) for j, total in enumerate(row)]
                for out, row in zip(outs, totals, strict=True)
            ]
            adding = b.block
        sums = []
        for row, new in zip(totals, added, strict=True):
            sums.append([b.phi(self.v.vector) for _ in row])
            for phi, total, with_c in zip(sums[-1], row, new, strict=True):
                phi.add_incoming(total, before)
                phi.add_incoming(with_c, adding)
        return sums

    def _store(self, totals) -> None:
        outs = self._outs(last=False)
        for i in range(self.shape.rows):
            if self.edge:
                with self.b.if_then(self.b.icmp_signed("<", ir.Constant(I64, i), self.at["height"])):
                    self._store_row(outs[i], totals[i])
            else:
                self._store_row(outs[i], totals[i])

    def _store_row(self, out: ir.Value, row) -> None:
        for j, total in enumerate(row):
            self.v.store(total, self._plus(out, j), self.masks[j])


FULL_TALL, FULL_MIDDLE, FULL_LOW = (make_tile(rows, slim=False, edge=False) for rows in HEIGHTS)
EDGE_TALL, EDGE_MIDDLE, EDGE_LOW = (make_tile(rows, slim=False, edge=True) for rows in HEIGHTS)
SLIM_TALL, SLIM_MIDDLE, SLIM_LOW = (make_tile(rows, slim=True, edge=True) for rows in HEIGHTS)


@jit
def any_tile(
    kind: float, rows: int, a: Steps, b_at: int, b: Steps, outs: int, offset: int, count: Steps, ends: Ends,
    height: int, columns: int, lanes: int,
):  # fmt: skip
    """The tile that fits a block of height × columns: full where both are, else the lowest and slimmest that will
    do. height ≤ TALL, columns ≤ ACROSS · lanes; the arguments are those of make_tile's intrinsic.
    """
    numbers = (rows, a, b_at, b, outs, offset, count, ends, height, columns)
    if columns == ACROSS * lanes and (height in (TALL, MIDDLE, LOW)):
        if height == TALL:
            FULL_TALL(kind, *numbers)
        elif height == MIDDLE:
            FULL_MIDDLE(kind, *numbers)
        else:
            FULL_LOW(kind, *numbers)
    elif columns > lanes:
        if height > MIDDLE:
            EDGE_TALL(kind, *numbers)
        elif height > LOW:
            EDGE_MIDDLE(kind, *numbers)
        else:
            EDGE_LOW(kind, *numbers)
    elif height > MIDDLE:
        SLIM_TALL(kind, *numbers)
    elif height > LOW:
        SLIM_MIDDLE(kind, *numbers)
    else:
        SLIM_LOW(kind, *numbers)


@intrinsic
def tile(typing, at, kind, rows, a, b_at, b, outs, offset, count, ends, height, columns):
    """Calls any_tile of `kind`'s dtype, which is compiled to the address `at`."""

    def generate(context, builder, signature, arguments):
        lanes = ir.Constant(I64, SHAPES[signature.args[1].bitwidth // 8].lanes)
        function = ir.FunctionType(ir.VoidType(), [argument.type for argument in (*arguments[1:], lanes)])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), [*arguments[1:], lanes])
        return context.get_dummy_value()

    return types.void(types.int64, kind, *NUMBERS), generate


@intrinsic
def call(typing, at, kind, numbers):
    """Calls the function that is compiled to the address `at`: kind first, then what a tuple has."""

    def generate(context, builder, signature, arguments):
        given = [arguments[1], *cgutils.unpack_tuple(builder, arguments[2])]
        function = ir.FunctionType(ir.VoidType(), [argument.type for argument in given])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), given)
        return context.get_dummy_value()

    return types.void(types.int64, kind, numbers), generate


@cache
def address(function, itemsize: int) -> int:
    """Where function(kind, …) for numbers of `itemsize` bytes lies in memory; compiled, or read from the disk, when
    first asked. Its annotations state the types of the other arguments: int, or a NamedTuple of them.

    The address is that of the wrapper that Numba makes for callers in C: plain arguments, no Python objects.
    """
    _, *hints = get_type_hints(function.py_func).values()
    signature = void(float32 if itemsize == 4 else float64, *map(_type_of, hints))
    function.compile(signature)
    compiled = function.overloads[signature.args]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cfunc_wrapper_name)


def tile_address(itemsize: int) -> int:
    """The address of any_tile."""
    return address(any_tile, itemsize)
