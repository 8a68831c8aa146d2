"""The register tile: the inner loop of every product, written as LLVM vector code so that it runs at the machine's
rate. It knows addresses, strides and lengths; which product they belong to is product.py's and conv.py's affair.

    C[i, j] (+)= Σ_k A[i, k] · B[k, j]          i < rows ≤ ROWS, j < columns ≤ COLUMNS = VECTORS · LANES

LLVM is the compiler behind Numba. Its code is typed: <16 x float> is a vector of 16 floats that lives in one register
of an AVX-512 machine. A loop is a block that jumps back to itself, and a *phi* at its top says where a value comes
from: from before the loop in the first round, from the round before in all others. The tile keeps ROWS × VECTORS such
phis, the sums, in registers through the whole loop over k; each round loads one row of B (VECTORS loads), and for
each row of A one number that is repeated in all lanes, and makes ROWS · VECTORS fused multiply-adds. Nothing else
touches memory.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
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

    def lanes_below(self, count: ir.Value) -> ir.Value:
        """The mask that is on in the lanes 0 … count − 1."""
        kind = ir.VectorType(I64, self.lanes)
        places = ir.Constant(kind, [ir.Constant(I64, i) for i in range(self.lanes)])
        return self.builder.icmp_signed("<", places, self.repeat(count, kind))


def make_tile(rows: int, slim: bool, edge: bool):
    """tile(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns): the intrinsic for one height.

    kind: any number of the dtype meant. a, b, c: addresses of A[0, 0], B[0, 0], C[0, 0]. a_row, a_k, b_k, c_row:
    strides in bytes; the columns of B and C are neighbours. K ≥ 1. add: 0 overwrites C, 1 adds to it. slim: one
    vector wide. edge=False takes height and columns as full; edge=True reads row min(i, height − 1) of A in the place
    of a missing one, leaves missing columns of B unread, and writes only what is there.
    """

    @intrinsic
    def tile(typing, kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns):
        def generate(context, builder, signature, arguments):
            itemsize = signature.args[0].bitwidth // 8
            full = SHAPES[itemsize]
            shape = Shape(rows, 1 if slim else full.vectors, full.lanes)
            _Tile(builder, shape, itemsize, edge, arguments[1:]).write()
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 11), generate

    return tile


class _Tile:
    """Writes the code of one tile: addresses, the loop over k, the end."""

    def __init__(self, builder: ir.IRBuilder, shape: Shape, itemsize: int, edge: bool, arguments) -> None:
        self.b, self.shape, self.edge = builder, shape, edge
        self.v = Vectors(builder, shape.lanes, itemsize)
        names = ("a", "a_row", "a_k", "b", "b_k", "c", "c_row", "K", "add", "height", "columns")
        self.at = dict(zip(names, arguments, strict=True))
        self.step = shape.lanes * itemsize  # bytes from one vector to the next
        self.masks = [self._mask(j) for j in range(shape.vectors)]

    def _mask(self, j: int) -> ir.Value | None:
        if not self.edge:
            return None
        return self.v.lanes_below(self.b.sub(self.at["columns"], ir.Constant(I64, j * self.shape.lanes)))

    def _row(self, i: int) -> ir.Value:
        """Bytes from A[0, k] to A[i, k]."""
        row: ir.Value = ir.Constant(I64, i)
        if self.edge:
            last = self.b.sub(self.at["height"], ir.Constant(I64, 1))
            row = self.b.select(self.b.icmp_signed("<", row, last), row, last)
        return self.b.mul(row, self.at["a_row"])

    def write(self) -> None:
        b, v, at = self.b, self.v, self.at
        rows, vectors = range(self.shape.rows), range(self.shape.vectors)
        offsets = [self._row(i) for i in rows]
        before, loop, after = b.block, b.append_basic_block("over_k"), b.append_basic_block("end")
        b.branch(loop)

        b.position_at_end(loop)
        k, a, row_of_b = b.phi(I64), b.phi(I64), b.phi(I64)
        sums = [[b.phi(v.vector) for _ in vectors] for _ in rows]
        columns = [v.load(b.add(row_of_b, ir.Constant(I64, j * self.step)), self.masks[j]) for j in vectors]
        totals = []
        for i in rows:
            number = v.load_repeated(b.add(a, offsets[i]))
            totals.append([v.fma(number, columns[j], sums[i][j]) for j in vectors])
        advanced = ((k, ir.Constant(I64, 0), b.add(k, ir.Constant(I64, 1))),
                    (a, at["a"], b.add(a, at["a_k"])), (row_of_b, at["b"], b.add(row_of_b, at["b_k"])))  # fmt: skip
        for phi, first, following in advanced:
            phi.add_incoming(first, before)
            phi.add_incoming(following, loop)
        for i in rows:
            for j in vectors:
                sums[i][j].add_incoming(v.zero, before)
                sums[i][j].add_incoming(totals[i][j], loop)
        b.cbranch(b.icmp_signed("<", advanced[0][2], at["K"]), loop, after)

        b.position_at_end(after)
        with b.if_else(b.icmp_signed("!=", at["add"], ir.Constant(I64, 0))) as (adding, overwriting):
            with adding:
                self._store(totals, add=True)
            with overwriting:
                self._store(totals, add=False)

    def _store(self, totals, add: bool) -> None:
        for i in range(self.shape.rows):
            if self.edge:
                with self.b.if_then(self.b.icmp_signed("<", ir.Constant(I64, i), self.at["height"])):
                    self._store_row(totals[i], i, add)
            else:
                self._store_row(totals[i], i, add)

    def _store_row(self, row, i: int, add: bool) -> None:
        start = self.b.add(self.at["c"], self.b.mul(ir.Constant(I64, i), self.at["c_row"]))
        for j, total in enumerate(row):
            address = self.b.add(start, ir.Constant(I64, j * self.step))
            if add:
                total = self.b.fadd(total, self.v.load(address, self.masks[j]))
            self.v.store(total, address, self.masks[j])


FULL_TALL, FULL_MIDDLE, FULL_LOW = (make_tile(rows, slim=False, edge=False) for rows in HEIGHTS)
EDGE_TALL, EDGE_MIDDLE, EDGE_LOW = (make_tile(rows, slim=False, edge=True) for rows in HEIGHTS)
SLIM_TALL, SLIM_MIDDLE, SLIM_LOW = (make_tile(rows, slim=True, edge=True) for rows in HEIGHTS)


@jit
def tile(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns, lanes):
    """The tile that fits a block of height × columns: full where both are, the lowest and slimmest that will do
    elsewhere.

    height ≤ TALL, columns ≤ ACROSS · lanes; the arguments are those of make_tile's intrinsic.
    """
    if columns == ACROSS * lanes and (height in (TALL, MIDDLE, LOW)):
        if height == TALL:
            FULL_TALL(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
        elif height == MIDDLE:
            FULL_MIDDLE(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
        else:
            FULL_LOW(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
    elif columns > lanes:
        if height > MIDDLE:
            EDGE_TALL(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
        elif height > LOW:
            EDGE_MIDDLE(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
        else:
            EDGE_LOW(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
    elif height > MIDDLE:
        SLIM_TALL(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
    elif height > LOW:
        SLIM_MIDDLE(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
    else:
        SLIM_LOW(kind, a, a_row, a_k, b, b_k, c, c_row, K, add, height, columns)
