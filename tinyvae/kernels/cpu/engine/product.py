"""Matrix products on the register tile, for all three uses in a dense layer; the sums begin with the bias, and ReLU
comes behind the last. It knows blocks, packing and threads; the tile knows registers.

B is first *packed*: copied, block by block, into a small buffer on the stack in the order in which the tile reads it.
Then every read of the tile is the neighbour of the one before, whatever the strides were, and a transposed operand
costs little more than a plain one. A is read where it stands, unless its rows fall on the same place of the cache. The
sum over k is cut into the same blocks whatever the number of threads, and each element of C belongs to one task, so the
bits do not depend on the threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import jit, parallel
from .stack import copy_vector, copy_whole, move, put, stack, transpose_block
from .tile import ACROSS, FROM_BIAS, FROM_C, FROM_ZERO, TALL, VECTOR_BYTES, call, tile

DEPTH_BYTES = 2048  # k of a block: a few rows of B and TALL rows of it stay in the first-level cache
GROUP = 4  # tiles side by side whose columns of B are packed together
TILES = 19  # tiles of rows whose numbers of A are packed together, where they are packed
PANEL_BYTES = ACROSS * VECTOR_BYTES  # one row of a tile
A_ROW = DEPTH_BYTES + VECTOR_BYTES  # bytes between packed rows of A: no power of two
A_STEPS = {size: -(-TALL * size // VECTOR_BYTES) * VECTOR_BYTES for size in (4, 8)}  # TALL numbers in whole vectors
A_BYTES = max(TALL * A_ROW, *(DEPTH_BYTES // size * step for size, step in A_STEPS.items()))  # one packed tile
B_BYTES = DEPTH_BYTES // 4 * PANEL_BYTES  # one packed panel
A_BLOCK, B_BLOCK = TILES * A_BYTES, GROUP * B_BYTES
TABLE = TALL * 8  # bytes of a table of addresses
SMALL = 1_000_000  # multiply-adds under which a second thread costs more than it gives
ALIASED = 1024  # bytes: rows at multiples of this crowd the same sets of the first-level cache


@jit
def pack_rows(kind, size, lanes, source, row, count, columns, target, target_row):
    """`count` rows of `columns` numbers, the last vector of each filled up with zeros."""
    for i in range(count):
        for j in range(0, columns, lanes):
            copy_vector(kind, source + i * row + j * size, target + i * target_row + j * size, columns - j)


@jit
def pack_transposed(kind, size, lanes, source, row, count, columns, target, target_row):
    """target[j, i] = source[i, j]: `count` rows become columns, lanes × lanes numbers at a time."""
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        inner = columns - columns % lanes
        for j in range(0, inner, lanes):
            transpose_block(kind, source + i * row + j * size, row, target + j * target_row + i * size, target_row)
        for j in range(inner, columns):
            for q in range(i, i + lanes):
                move(kind, source + q * row + j * size, target + j * target_row + q * size)
    for i in range(whole, count):
        for j in range(columns):
            move(kind, source + i * row + j * size, target + j * target_row + i * size)


@jit
def pack_columns(kind, size, lanes, source, row, depth, tiles, count, target, step):
    """`tiles` packed tiles of Aᵀ, count columns in all: TALL numbers of one k are neighbours, in `step` bytes."""
    for k in range(depth):
        for t in range(tiles):
            wide = min(TALL, count - t * TALL)
            for s in range(0, wide, lanes):
                at = target + t * A_BYTES + k * step + s * size
                copy_vector(kind, source + k * row + (t * TALL + s) * size, at, wide - s)


@jit
def block(kind, size, tiles, a, a_row, a_turned, b, b_row, b_turned, y, y_row, i0, i1, j0, j1, K, add, bias, relu):
    """Y[i0:i1, j0:j1] (+)= A B for all k, from the bias on, then max(·, 0) where relu = 1.

    tiles: the address of the tile. a, b, y: addresses; rows a_row, b_row, y_row bytes apart. a_turned = 1: A is stored
    as (K, M); b_turned = 1: B as (N, K). bias: the address of N numbers, or 0.
    """
    lanes = VECTOR_BYTES // size
    a_pack, b_pack, rows, outs = stack(A_BLOCK), stack(B_BLOCK), stack(TABLE), stack(TABLE)
    panel, deep = ACROSS * lanes, DEPTH_BYTES // size
    crowded = a_row % ALIASED == 0 and j1 - j0 > 2 * panel  # packed A must serve more than two tiles
    tall = TILES * TALL if crowded else 4 * TILES * TALL
    column = (TALL + lanes - 1) // lanes * VECTOR_BYTES  # bytes of TALL packed numbers
    for k0 in range(0, K, deep):
        depth = min(deep, K - k0)
        start = FROM_C if add or k0 > 0 else FROM_BIAS if bias else FROM_ZERO
        bend = relu if k0 + depth == K else 0
        for ib in range(i0, i1, tall):
            ie = min(ib + tall, i1)
            if crowded and a_turned:
                count = (ie - ib + TALL - 1) // TALL
                pack_columns(
                    kind, size, lanes, a + k0 * a_row + ib * size, a_row, depth, count, ie - ib, a_pack, column
                )
            elif crowded:
                for i in range(ib, ie, TALL):
                    target = a_pack + (i - ib) // TALL * A_BYTES
                    pack_rows(
                        kind, size, lanes, a + i * a_row + k0 * size, a_row, min(TALL, ie - i), depth, target, A_ROW
                    )
            for jb in range(j0, j1, GROUP * panel):
                je = min(jb + GROUP * panel, j1)
                if ib == i0 or j1 - j0 > GROUP * panel:
                    pack_panels(kind, size, lanes, b, b_row, b_turned, k0, depth, jb, je, b_pack, B_BYTES)
                for i in range(ib, ie, TALL):
                    height = min(TALL, ie - i)
                    if crowded:
                        source = a_pack + (i - ib) // TALL * A_BYTES
                        row, step = (size, column) if a_turned else (A_ROW, size)
                    elif a_turned:
                        source, row, step = a + k0 * a_row + i * size, size, a_row
                    else:
                        source, row, step = a + i * a_row + k0 * size, a_row, size
                    for r in range(height):
                        put(rows, r, source + r * row)
                        put(outs, r, y + (i + r) * y_row)
                    for j in range(jb, je, panel):
                        packed, wide = b_pack + (j - jb) // panel * B_BYTES, min(panel, je - j)
                        tile(
                            tiles, kind, rows, step, 0, 0, packed, PANEL_BYTES, 0, 0, outs, j * size, depth, 1, 1,
                            start, bias, bend, height, wide,
                        )  # fmt: skip


@jit
def pack_panels(kind, size, lanes, b, b_row, b_turned, k0, depth, jb, je, target, apart):
    """Rows k0 … k0 + depth − 1 of the columns jb … je − 1 of B, in panels as wide as a tile, `apart` bytes from one to
    the next; the last vector is filled up with zeros."""
    panel = ACROSS * lanes
    if b_turned:
        for j in range(jb, je, panel):
            at, wide = target + (j - jb) // panel * apart, min(panel, je - j)
            pack_transposed(kind, size, lanes, b + j * b_row + k0 * size, b_row, wide, depth, at, PANEL_BYTES)
    else:
        whole = (je - jb) // panel
        for k in range(depth):
            source, at = b + (k0 + k) * b_row + jb * size, target + k * PANEL_BYTES
            for _ in range(whole):
                for i in range(0, PANEL_BYTES, VECTOR_BYTES):
                    copy_whole(kind, source + i, at + i)
                source, at = source + PANEL_BYTES, at + apart
            for j in range(jb + whole * panel, je, lanes):
                copy_vector(kind, source, at, je - j)
                source, at = source + VECTOR_BYTES, at + VECTOR_BYTES


@parallel
def spread(blocks, kind, size, tiles, a, a_row, a_turned, b, b_row, b_turned, y, y_row, M, N, K, add, bias, relu, down,
           across):  # fmt: skip
    """The product in down × across tasks, spread over the threads; blocks: the address of `block`."""
    lanes = VECTOR_BYTES // size
    vectors = (N + lanes - 1) // lanes
    for each in prange(down * across):
        task = np.int64(each)
        p, q = task // across, task % across
        i0, i1 = M * p // down, M * (p + 1) // down
        j0, j1 = vectors * q // across * lanes, min(N, vectors * (q + 1) // across * lanes)
        numbers = (size, tiles, a, a_row, a_turned, b, b_row, b_turned, y, y_row, i0, i1, j0, j1, K, add, bias, relu)
        call(blocks, kind, numbers)


@jit
def product(blocks, tiles, a, a_turned, b, b_turned, add, bias, relu, out, threads):
    """out (M, N) (+)= A B, A = a or aᵀ, B = b or bᵀ, from the bias on, then max(·, 0) where relu = 1. blocks, tiles:
    the addresses of `block` and of the tile."""
    M, N = out.shape
    K = a.shape[0] if a_turned else a.shape[1]
    size = out.itemsize
    lanes = VECTOR_BYTES // size
    # columns first: then no two threads pack the same numbers of B; rows too where the columns do not suffice
    across = max(1, min(threads, N // (ACROSS * lanes)))
    down = max(1, min(threads // across, M // TALL))
    # Numba's addresses are unsigned, and beside a signed number they would become floats
    a_at, b_at = np.int64(a.ctypes.data), np.int64(b.ctypes.data)
    y_at, bias_at = np.int64(out.ctypes.data), np.int64(bias.ctypes.data)
    if not bias.size:
        bias_at = np.int64(0)
    kind, a_row, b_row, y_row = out.dtype.type(0), a.shape[1] * size, b.shape[1] * size, N * size
    if down * across == 1:  # without the microseconds that a parallel loop costs
        numbers = (size, tiles, a_at, a_row, a_turned, b_at, b_row, b_turned, y_at, y_row, 0, M, 0, N, K, add, bias_at,
                   relu)  # fmt: skip
        call(blocks, kind, numbers)
    else:
        spread(
            blocks, kind, size, tiles, a_at, a_row, a_turned, b_at, b_row, b_turned, y_at, y_row, M, N, K, add, bias_at,
            relu, down, across,
        )  # fmt: skip
