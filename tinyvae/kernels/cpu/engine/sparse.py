"""Products whose left factor is mostly zeros, as the pixels of digits are: C = A B over the k where A is not zero.
`pays` says whether the zeros are many enough.

Two rows of A are taken together. The k at which either is not zero are listed, with B's row and the two numbers; then
two long rows of C are summed in registers, WIDE or SLIM vectors each, over the list. A row of B, once loaded, serves
both rows of C, which is what keeps the multiply-add units busy: B comes from the second-level cache at half their
rate.

0 · ∞ and 0 · NaN are skipped with the zeros: a B that is not finite shows only where A is not zero.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from .compile import inner, jit, parallel
from .product import SMALL, pack_transposed
from .stack import lanes_of, move, put, size_of, stack, vectors_of
from .tile import ACROSS, FROM_BIAS, FROM_ZERO, I1, I64, TALL, VECTOR_BYTES, Area, Ends, Matrix, address, call

WIDE = (TALL * ACROSS - 2) // 2  # vectors of a row of C: two rows of them fill the registers as the tallest tile does
SLIM = WIDE * 5 // 8  # the same where it covers a row with less overlap
DEEP = 1024  # k that are listed at a time, at most: the list lies on the stack
LIST = DEEP * 24  # bytes of a list: an offset and two numbers for each k
B_BYTES = 512 * 1024  # of B that are used at a time: they must stay in the second-level cache
SHARE = 0.3  # of A not zero, at most, for the list to win


@intrinsic
def lanes_not_zero(typing, kind, source, count):
    """A bit for each of the next min(count, lanes) numbers: 1 where it is not zero (NaN is not)."""

    def generate(context, builder, signature, arguments):
        v = vectors_of(builder, signature.args[0])
        numbers = v.load(arguments[1], v.lanes_below(arguments[2]))
        bits = builder.bitcast(builder.fcmp_unordered("!=", numbers, v.zero), ir.IntType(v.lanes))
        return builder.zext(bits, I64)

    return types.int64(kind, types.int64, types.int64), generate


@intrinsic
def lowest_bit(typing, bits):
    """The place of the lowest 1 of `bits`, which is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(I1, 1))

    return types.int64(types.int64), generate


def make_pair(across: int):
    """The intrinsic for two rows of C, `across` vectors each."""

    @intrinsic
    def pair(typing, kind, entries, count, b, first, second, bias, add, relu, skip):
        """C = start + Σ a · b over a list, for two rows of C at the addresses first and second.

        entries: the address of `count` entries of a list, as list_pair writes them. b: the address of B in these
        columns. The start is C itself where add = 1, else the numbers at bias, else, where bias = 0, zeros. relu: 1 for
        max(·, 0) at the end. skip: vectors at the beginning that another strip has already written.
        """

        def generate(context, builder, signature, arguments):
            _Pair(builder, vectors_of(builder, signature.args[0]), across, arguments[1:]).write()
            return context.get_dummy_value()

        return types.void(kind, *[types.int64] * 9), generate

    return pair


class _Pair:
    """Writes the code of two rows: the start, the loop over the list, the end."""

    def __init__(self, builder: ir.IRBuilder, v, across: int, arguments) -> None:
        self.b, self.v, self.across = builder, v, range(across)
        names = ("entries", "count", "b", "first", "second", "bias", "add", "relu", "skip")
        self.at = dict(zip(names, arguments, strict=True))

    def _place(self, address: ir.Value, j: int) -> ir.Value:
        return self.b.add(address, ir.Constant(I64, j * self.v.lanes * self.v.itemsize))

    def _row(self, address: ir.Value) -> list[ir.Value]:
        return [self.v.load(self._place(address, j), None) for j in self.across]

    def write(self) -> None:
        b, v, zero = self.b, self.v, ir.Constant(I64, 0)
        start = self._start()
        entry, loop, end = b.block, b.append_basic_block("over_list"), b.append_basic_block("end")
        b.cbranch(b.icmp_signed(">", self.at["count"], zero), loop, end)
        b.position_at_end(loop)
        left, place = b.phi(I64), b.phi(I64)
        sums = [[b.phi(v.vector) for _ in self.across] for _ in range(2)]
        row = b.add(self.at["b"], b.load(b.inttoptr(place, I64.as_pointer())))
        numbers = [v.load_repeated(b.add(place, ir.Constant(I64, 8 + i * v.itemsize))) for i in range(2)]
        totals: list[list[ir.Value]] = [[], []]
        for j in self.across:
            vector = v.load(self._place(row, j), None)
            for i in range(2):
                totals[i].append(v.fma(numbers[i], vector, sums[i][j]))
        fewer, onward = b.sub(left, ir.Constant(I64, 1)), b.add(place, ir.Constant(I64, 8 + 2 * v.itemsize))
        for phi, first, following in ((left, self.at["count"], fewer), (place, self.at["entries"], onward)):
            phi.add_incoming(first, entry)
            phi.add_incoming(following, loop)
        for i in range(2):
            for j in self.across:
                sums[i][j].add_incoming(start[i][j], entry)
                sums[i][j].add_incoming(totals[i][j], loop)
        b.cbranch(b.icmp_signed(">", fewer, zero), loop, end)

        b.position_at_end(end)
        for i in range(2):
            for j in self.across:
                result = b.phi(v.vector)
                result.add_incoming(start[i][j], entry)
                result.add_incoming(totals[i][j], loop)
                start[i][j] = result
        with b.if_then(b.icmp_signed("!=", self.at["relu"], zero)):
            clipped = [[v.at_least_zero(value) for value in row] for row in start]
            clipping = b.block
        for i in range(2):
            for j in self.across:
                result = b.phi(v.vector)
                result.add_incoming(start[i][j], end)
                result.add_incoming(clipped[i][j], clipping)
                start[i][j] = result
        with b.if_else(b.icmp_signed("==", self.at["skip"], zero)) as (whole, partly):
            with whole:
                self._store(start, 0, len(self.across))
            with partly:
                for j in self.across:
                    with b.if_then(b.icmp_signed("<=", self.at["skip"], ir.Constant(I64, j))):
                        self._store(start, j, j + 1)

    def _store(self, rows: list[list[ir.Value]], first: int, last: int) -> None:
        for out, row in zip(("first", "second"), rows, strict=True):
            for j in range(first, last):
                self.v.store(row[j], self._place(self.at[out], j), None)

    def _start(self) -> list[list[ir.Value]]:
        """What the sums begin with: C, or a row of biases, or zeros."""
        b, zero = self.b, ir.Constant(I64, 0)
        from_c, other, biased, begin = (b.append_basic_block(n) for n in ("from_c", "other", "from_bias", "begin"))
        b.cbranch(b.icmp_signed("!=", self.at["add"], zero), from_c, other)
        b.position_at_end(other)
        b.cbranch(b.icmp_signed("!=", self.at["bias"], zero), biased, begin)
        b.position_at_end(biased)
        biases = self._row(self.at["bias"])
        b.branch(begin)
        b.position_at_end(from_c)
        current = [self._row(self.at["first"]), self._row(self.at["second"])]
        b.branch(begin)
        b.position_at_end(begin)
        sums: list[list[ir.Value]] = [[], []]
        for i in range(2):
            for j in self.across:
                phi = b.phi(self.v.vector)
                phi.add_incoming(self.v.zero, other)
                phi.add_incoming(biases[j], biased)
                phi.add_incoming(current[i][j], from_c)
                sums[i].append(phi)
        return sums


WIDE_PAIR, SLIM_PAIR = make_pair(WIDE), make_pair(SLIM)


@inner
def list_pair(kind, first, second, K, b_row, target):
    """Writes an entry for each k < K at which one of two rows of A, at the addresses first and second, is not zero:
    the offset of B's row k, and the two numbers. Returns how many."""
    size, lanes, count = size_of(kind), lanes_of(kind), 0
    for k in range(0, K, lanes):
        bits = lanes_not_zero(kind, first + k * size, K - k) | lanes_not_zero(kind, second + k * size, K - k)
        while bits != 0:
            at = k + lowest_bit(bits)
            bits &= bits - 1
            put(target, 0, at * b_row)
            move(kind, first + at * size, target + 8)
            move(kind, second + at * size, target + 8 + size)
            target += 8 + 2 * size
            count += 1
    return count


@jit
def listed_rows(kind: float, a: Matrix, b: Matrix, y: Matrix, area: Area, across: int, K: int, N: int, ends: Ends):
    """An area of C, from zeros or a bias on; its columns are counted in strips of `across` vectors. The last strip ends
    where the row does, and may cover some of the one before, which it leaves as it is."""
    size, lanes, entries = size_of(kind), lanes_of(kind), stack(LIST)
    i0, i1, c0, c1 = area
    wide = across * lanes
    deep = min(DEEP, max(lanes, B_BYTES // (min(c1 * wide, N) - c0 * wide) // size // lanes * lanes))
    if N % lanes:
        deep = K  # strips then overlap within a vector, which must not be added to twice
    for k0 in range(0, K, deep):
        depth = min(deep, K - k0)
        add, relu = 1 if k0 > 0 else 0, ends.relu if k0 + depth == K else 0
        for i in range(i0, i1, 2):
            second = i + 1 if i + 1 < i1 else i
            first_at, second_at = a.at + i * a.row + k0 * size, a.at + second * a.row + k0 * size
            count = list_pair(kind, first_at, second_at, depth, b.row, entries)
            for c in range(c0, c1):
                begin = min(c * wide, N - wide)
                j, skip = begin * size, (c * wide - begin) // lanes
                row, bias = b.at + k0 * b.row + j, ends.bias + j if ends.bias else 0
                first, last = y.at + i * y.row + j, y.at + second * y.row + j
                if across == WIDE:
                    WIDE_PAIR(kind, entries, count, row, first, last, bias, add, relu, skip)
                else:
                    SLIM_PAIR(kind, entries, count, row, first, last, bias, add, relu, skip)


@inner
def cut(count, part, parts, unit):
    """Where a part of `count` begins and ends, at multiples of `unit`; the last one ends with the whole."""
    first, last = count * part // parts, count * (part + 1) // parts
    return first // unit * unit, last // unit * unit if part + 1 < parts else last


@inner
def address_of(array):
    """Signed: Numba's addresses are not, and with a signed number they would become floats."""
    return np.int64(array.ctypes.data)


@parallel
def spread_listed(rows, kind, a, w, bias, relu, y, across, down, beside):
    """y = a w + bias, or max(·, 0) of it, in down × beside tasks. rows: the address of listed_rows."""
    M, K = a.shape
    N, size, wide = y.shape[1], y.itemsize, across * lanes_of(kind)
    strips = (N + wide - 1) // wide
    left = Matrix(address_of(a), K * size, 0)
    right, out = Matrix(address_of(w), N * size, 0), Matrix(address_of(y), N * size, 0)
    ends = Ends(FROM_BIAS, address_of(bias) if bias.size else 0, relu)
    for each in prange(down * beside):
        task = np.int64(each)
        p, q = task // beside, task % beside
        i0, i1 = cut(M, p, down, 2)
        area = Area(i0, i1, strips * q // beside, strips * (q + 1) // beside)
        call(rows, kind, (left, right, out, area, across, K, N, ends))


@parallel
def spread_transposed(rows, kind, a, b, work, y, across, tasks):
    """y = aᵀ b: each task transposes its own columns of a into rows of `work` first."""
    K, M = a.shape
    N, size, lanes = y.shape[1], y.itemsize, lanes_of(kind)
    strips = (N + across * lanes - 1) // (across * lanes)
    row = (K + lanes - 1) // lanes * lanes * size
    a_at, columns = address_of(a), Matrix(address_of(work), row, 0)
    right, out = Matrix(address_of(b), N * size, 0), Matrix(address_of(y), N * size, 0)
    for each in prange(tasks):
        task = np.int64(each)
        i0, i1 = cut(M, task, tasks, 2)
        pack_transposed(kind, a_at + i0 * size, M * size, K, i1 - i0, columns.at + i0 * row, row)
        call(rows, kind, (columns, right, out, Area(i0, i1, 0, strips), across, K, N, Ends(FROM_ZERO, 0, 0)))


@parallel
def transpose(kind, w, out, tasks):
    """out = wᵀ."""
    K, N = w.shape
    size, lanes, w_at, out_at = w.itemsize, lanes_of(kind), address_of(w), address_of(out)
    for each in prange(tasks):
        task = np.int64(each)
        i0, i1 = cut(K, task, tasks, lanes)
        pack_transposed(kind, w_at + i0 * N * size, N * size, i1 - i0, N, out_at + i0 * size, K * size)


@jit
def few(a, share):
    """Whether at most `share` of the numbers of a are not zero."""
    flat, count = a.reshape(-1), 0
    for i in range(flat.size):
        count += flat[i] != 0
    return count <= share * flat.size


def strip_for(N: int, itemsize: int) -> int:
    """Vectors of a strip, WIDE or SLIM, whichever covers N columns with less overlap."""
    vectors = -(-N * itemsize // VECTOR_BYTES)
    return min(WIDE, SLIM, key=lambda across: -(-vectors // across) * across)


def pays(a, N: int, K: int) -> bool:
    """Whether a's zeros make its product, N columns wide and K deep, quicker by lists."""
    lanes = VECTOR_BYTES // a.itemsize
    return a.size * N >= SMALL and WIDE * lanes <= N and (K <= DEEP or N % lanes == 0) and few(a, SHARE)


def dense_listed(x, w, b, relu, y, threads: int) -> None:
    """y = x w + b, or max(·, 0) of it; the columns are spread over the threads, so that each needs its part of w."""
    across = strip_for(y.shape[1], y.itemsize)
    strips = -(-y.shape[1] * y.itemsize // (across * VECTOR_BYTES))
    beside = min(threads, strips) if y.shape[1] % (VECTOR_BYTES // y.itemsize) == 0 else 1
    spread_listed(
        address(listed_rows, y.itemsize), y.dtype.type(0), x, w, b, relu, y, across, max(1, threads // beside), beside
    )


def grad_x_listed(grad_y, w, work, grad_x, threads: int) -> None:
    """grad_x = grad_y wᵀ, with w transposed first: a list wants whole rows."""
    K, N = w.shape
    transposed = work[: N * K].reshape(N, K)
    transpose(w.dtype.type(0), w, transposed, threads)
    dense_listed(grad_y, transposed, work[:0], 0, grad_x, threads)


def grad_w_listed(x, grad_y, work, grad_w, threads: int) -> None:
    """grad_w = xᵀ grad_y."""
    across = strip_for(grad_w.shape[1], x.itemsize)
    spread_transposed(address(listed_rows, x.itemsize), x.dtype.type(0), x, grad_y, work, grad_w, across, threads)
