"""Products whose left factor is mostly zeros, as the pixels of digits are: C = A B over the k where A is not zero.
It knows rows, lists and threads; product.py decides by counting whether it is asked.

Two rows of A are taken together. The k at which either is not zero are listed, with B's row and the two numbers; then
two long rows of C are summed in registers, PAIR vectors each, over the list. A row of B, once loaded, serves both rows
of C, which is what keeps the multiply-add units busy: B comes from the second-level cache at half their rate.

0 · ∞ and 0 · NaN are skipped with the zeros: a B that is not finite shows only where A is not zero.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from .compile import jit, parallel
from ..reference import RELU
from .product import SMALL, finish, pack_transposed
from .stack import vectors_of, move, put, stack
from .tile import ACROSS, I1, I64, TALL, VECTOR_BYTES

PAIR = (TALL * ACROSS - 2) // 2  # vectors of a row of C: two rows of them fill the registers as the tallest tile does
LONGEST = 4096  # k at most: the list must fit on the stack
LIST = LONGEST * 24  # bytes of a list: an offset and two numbers for each k
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


@intrinsic
def pair_of_rows(typing, kind, entries, count, b, first, second, bias, relu):
    """Two rows of C, PAIR vectors each, at the addresses first and second: start + Σ a · b over a list.

    entries: the address of `count` entries of a list, as list_pair writes them. b: the address of B in these columns.
    bias: the address of the numbers to start from, or 0. relu: 1 for max(·, 0) at the end.
    """

    def generate(context, builder, signature, arguments):
        _, entries, count, b, first, second, bias, relu = arguments
        v = vectors_of(builder, signature.args[0])
        step, zero = v.lanes * v.itemsize, ir.Constant(I64, 0)

        def at(address, j):
            return builder.add(address, ir.Constant(I64, j * step))

        before = builder.block
        with builder.if_then(builder.icmp_signed("!=", bias, zero)):
            biases = [v.load(at(bias, j), None) for j in range(PAIR)]
            biased = builder.block
        start = [builder.phi(v.vector) for _ in range(PAIR)]
        for phi, value in zip(start, biases, strict=True):
            phi.add_incoming(v.zero, before)
            phi.add_incoming(value, biased)

        entry = builder.block
        loop, end = builder.append_basic_block("over_list"), builder.append_basic_block("end")
        builder.cbranch(builder.icmp_signed(">", count, zero), loop, end)
        builder.position_at_end(loop)
        left, place = builder.phi(I64), builder.phi(I64)
        sums = [[builder.phi(v.vector) for _ in range(PAIR)] for _ in range(2)]
        row = builder.add(b, builder.load(builder.inttoptr(place, I64.as_pointer())))
        numbers = [v.load_repeated(builder.add(place, ir.Constant(I64, 8 + i * v.itemsize))) for i in range(2)]
        totals: list[list[ir.Value]] = [[], []]
        for j in range(PAIR):
            vector = v.load(at(row, j), None)
            for i in range(2):
                totals[i].append(v.fma(numbers[i], vector, sums[i][j]))
        fewer = builder.sub(left, ir.Constant(I64, 1))
        onward = builder.add(place, ir.Constant(I64, 8 + 2 * v.itemsize))
        for phi, initial, following in ((left, count, fewer), (place, entries, onward)):
            phi.add_incoming(initial, entry)
            phi.add_incoming(following, loop)
        for i in range(2):
            for j in range(PAIR):
                sums[i][j].add_incoming(start[j], entry)
                sums[i][j].add_incoming(totals[i][j], loop)
        builder.cbranch(builder.icmp_signed(">", fewer, zero), loop, end)

        builder.position_at_end(end)
        results: list[list[ir.Value]] = [[], []]
        for i in range(2):
            for j in range(PAIR):
                phi = builder.phi(v.vector)
                phi.add_incoming(start[j], entry)
                phi.add_incoming(totals[i][j], loop)
                results[i].append(phi)
        with builder.if_else(builder.icmp_signed("!=", relu, zero)) as (bent, straight):
            for branch, change in ((bent, v.at_least_zero), (straight, lambda value: value)):
                with branch:
                    for i, out in enumerate((first, second)):
                        for j in range(PAIR):
                            v.store(change(results[i][j]), at(out, j), None)
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 7), generate


@jit
def list_pair(kind, size, lanes, first, second, K, b_row, target):
    """Writes an entry for each k < K at which one of two rows of A, at the addresses first and second, is not zero:
    the offset of B's row k, and the two numbers. Returns how many."""
    count = 0
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
def listed_rows(kind, size, lanes, a, a_row, b, b_row, y, y_row, i0, i1, c0, c1, K, N, bias, relu):
    """Rows i0 … i1 − 1 of C, its stretches c0 … c1 − 1 of PAIR vectors; the last stretch ends where the row does, and
    may cover some of the one before, which it finds the same."""
    entries = stack(LIST)
    wide = PAIR * lanes
    for i in range(i0, i1, 2):
        second = i + 1 if i + 1 < i1 else i
        count = list_pair(kind, size, lanes, a + i * a_row, a + second * a_row, K, b_row, entries)
        for c in range(c0, c1):
            j = min(c * wide, N - wide) * size
            pair_of_rows(
                kind, entries, count, b + j, y + i * y_row + j, y + second * y_row + j, bias + j if bias else 0, relu
            )


@parallel
def spread_listed(kind, a, w, bias, act, y, down, across):
    """y = act(a w + bias) in down × across tasks."""
    M, K = a.shape
    N, size = y.shape[1], y.itemsize
    lanes = VECTOR_BYTES // size
    stretches = (N + PAIR * lanes - 1) // (PAIR * lanes)
    a_at, w_at, y_at, bias_at = a.ctypes.data, w.ctypes.data, y.ctypes.data, bias.ctypes.data
    for each in prange(down * across):
        task = np.int64(each)
        p, q = task // across, task % across
        i0, i1 = M * p // down // 2 * 2, M * (p + 1) // down // 2 * 2 if p + 1 < down else M
        listed_rows(
            kind, size, lanes, a_at, K * size, w_at, N * size, y_at, N * size, i0, i1, stretches * q // across,
            stretches * (q + 1) // across, K, N, bias_at if bias.size else 0, 1 if act == RELU else 0,
        )  # fmt: skip
        if act > RELU:
            finish(y, i0, i1, 0, N, act)


@parallel
def spread_turned(kind, a, b, work, y, tasks):
    """y = aᵀ b: each task turns its own columns of a into rows of `work` first."""
    K, M = a.shape
    N, size = y.shape[1], y.itemsize
    lanes = VECTOR_BYTES // size
    stretches = (N + PAIR * lanes - 1) // (PAIR * lanes)
    row = (K + lanes - 1) // lanes * lanes * size
    a_at, b_at, y_at, turned = a.ctypes.data, b.ctypes.data, y.ctypes.data, work.ctypes.data
    for each in prange(tasks):
        task = np.int64(each)
        i0, i1 = M * task // tasks // 2 * 2, M * (task + 1) // tasks // 2 * 2 if task + 1 < tasks else M
        pack_transposed(kind, size, lanes, a_at + i0 * size, M * size, K, i1 - i0, turned + i0 * row, row)
        listed_rows(
            kind, size, lanes, turned, row, b_at, N * size, y_at, N * size, i0, i1, 0, stretches, K, N, 0, 0
        )  # fmt: skip


@jit
def few(a, share):
    """Whether at most `share` of the numbers of a are not zero."""
    flat, count = a.reshape(-1), 0
    for i in range(flat.size):
        count += flat[i] != 0
    return count <= share * flat.size


def worth(a, N: int, K: int) -> bool:
    """Whether a's zeros make its product, N columns wide and K deep, quicker by lists."""
    lanes = VECTOR_BYTES // a.itemsize
    return a.size * N >= SMALL and N >= PAIR * lanes and K <= LONGEST and few(a, SHARE)


def dense_listed(x, w, b, act, y, threads: int) -> None:
    """y = act(x w + b), with the columns spread over the threads, so that each needs only its part of w."""
    stretches = -(-y.shape[1] // (PAIR * VECTOR_BYTES // y.itemsize))
    across = min(threads, stretches) if act <= RELU else 1
    spread_listed(y.dtype.type(0), x, w, b, act, y, max(1, threads // across), across)


def grad_w_listed(x, grad_y, work, grad_w, threads: int) -> None:
    """grad_w = xᵀ grad_y."""
    spread_turned(x.dtype.type(0), x, grad_y, work, grad_w, threads)
