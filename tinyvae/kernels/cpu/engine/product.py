"""Matrix products on the register tile, for all three uses in a dense layer; the sums begin with the bias, and ReLU
follows the last.

B is first *packed*: copied, block by block, into a small buffer on the stack in the order in which the tile reads it.
Then every read of the tile is the neighbour of the one before, whatever the strides were, and a transposed operand
costs little more than an ordinary one. A is read in place, unless its rows map to the same set of the cache. The
sum over k is cut into the same blocks whatever the number of threads, and each element of C belongs to one task, so the
bits do not depend on the threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import inner, jit, parallel
from .stack import copy_vector, copy_whole, lanes_of, move, put, size_of, stack, transpose_block
from .tile import ACROSS, FROM_BIAS, FROM_C, FROM_ZERO, TALL, VECTOR_BYTES, Area, Ends, Matrix, Steps, call, tile

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
SMALL = 1_000_000  # multiply-adds under which a second thread costs more than it saves
ALIASED = 1024  # bytes: rows at multiples of this share a few sets of the first-level cache


@inner
def pack_rows(kind, source, row, count, columns, target, target_row):
    """`count` rows of `columns` numbers, the last vector of each filled up with zeros."""
    size, lanes = size_of(kind), lanes_of(kind)
    for i in range(count):
        for j in range(0, columns, lanes):
            copy_vector(kind, source + i * row + j * size, target + i * target_row + j * size, columns - j)


@inner
def pack_transposed(kind, source, row, count, columns, target, target_row):
    """target[j, i] = source[i, j]: `count` rows become columns, lanes × lanes numbers at a time."""
    size, lanes = size_of(kind), lanes_of(kind)
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        within = columns - columns % lanes
        for j in range(0, within, lanes):
            transpose_block(kind, source + i * row + j * size, row, target + j * target_row + i * size, target_row)
        for j in range(within, columns):
            for q in range(i, i + lanes):
                move(kind, source + q * row + j * size, target + j * target_row + q * size)
    for i in range(whole, count):
        for j in range(columns):
            move(kind, source + i * row + j * size, target + j * target_row + i * size)


@inner
def pack_columns(kind, source, row, depth, tiles, count, target, step):
    """`tiles` packed tiles of Aᵀ, count columns in all: TALL numbers of one k are neighbours, in `step` bytes."""
    size, lanes = size_of(kind), lanes_of(kind)
    for k in range(depth):
        for t in range(tiles):
            wide = min(TALL, count - t * TALL)
            for s in range(0, wide, lanes):
                at = target + t * A_BYTES + k * step + s * size
                copy_vector(kind, source + k * row + (t * TALL + s) * size, at, wide - s)


@jit
def block(kind: float, tiles: int, a: Matrix, b: Matrix, y: Matrix, area: Area, K: int, ends: Ends):
    """An area of Y = A B, or of what is added to Y, for all k. tiles: the address of the tile."""
    size, lanes = size_of(kind), lanes_of(kind)
    i0, i1, j0, j1 = area
    a_pack, b_pack, rows, outs = stack(A_BLOCK), stack(B_BLOCK), stack(TABLE), stack(TABLE)
    panel, deep = ACROSS * lanes, DEPTH_BYTES // size
    packed_a = a.row % ALIASED == 0 and j1 - j0 > 2 * panel  # packed A must serve more than two tiles
    tall = TILES * TALL if packed_a else 4 * TILES * TALL
    column = (TALL + lanes - 1) // lanes * VECTOR_BYTES  # bytes of TALL packed numbers
    for k0 in range(0, K, deep):
        depth = min(deep, K - k0)
        here = Ends(FROM_C if k0 > 0 else ends.start, ends.bias, ends.relu if k0 + depth == K else 0)
        for ib in range(i0, i1, tall):
            ie = min(ib + tall, i1)
            if packed_a and a.transposed:
                count = (ie - ib + TALL - 1) // TALL
                pack_columns(kind, a.at + k0 * a.row + ib * size, a.row, depth, count, ie - ib, a_pack, column)
            elif packed_a:
                for i in range(ib, ie, TALL):
                    source, target = a.at + i * a.row + k0 * size, a_pack + (i - ib) // TALL * A_BYTES
                    pack_rows(kind, source, a.row, min(TALL, ie - i), depth, target, A_ROW)
            for jb in range(j0, j1, GROUP * panel):
                je = min(jb + GROUP * panel, j1)
                if ib == i0 or j1 - j0 > GROUP * panel:
                    pack_panels(kind, b, k0, depth, jb, je, b_pack, B_BYTES)
                for i in range(ib, ie, TALL):
                    height = min(TALL, ie - i)
                    if packed_a:
                        source = a_pack + (i - ib) // TALL * A_BYTES
                        row, step = (size, column) if a.transposed else (A_ROW, size)
                    elif a.transposed:
                        source, row, step = a.at + k0 * a.row + i * size, size, a.row
                    else:
                        source, row, step = a.at + i * a.row + k0 * size, a.row, size
                    for r in range(height):
                        put(rows, r, source + r * row)
                        put(outs, r, y.at + (i + r) * y.row)
                    for j in range(jb, je, panel):
                        packed, wide = b_pack + (j - jb) // panel * B_BYTES, min(panel, je - j)
                        tile(
                            tiles, kind, rows, Steps(step, 0, 0), packed, Steps(PANEL_BYTES, 0, 0), outs, j * size,
                            Steps(depth, 1, 1), here, height, wide,
                        )  # fmt: skip


@inner
def pack_panels(kind, b, k0, depth, jb, je, target, spacing):
    """Rows k0 … k0 + depth − 1 of the columns jb … je − 1 of B, in panels as wide as a tile, `spacing` bytes apart; the
    last vector is padded with zeros."""
    size, lanes = size_of(kind), lanes_of(kind)
    panel = ACROSS * lanes
    if b.transposed:
        for j in range(jb, je, panel):
            at, wide = target + (j - jb) // panel * spacing, min(panel, je - j)
            pack_transposed(kind, b.at + j * b.row + k0 * size, b.row, wide, depth, at, PANEL_BYTES)
    else:
        whole = (je - jb) // panel
        for k in range(depth):
            source, at = b.at + (k0 + k) * b.row + jb * size, target + k * PANEL_BYTES
            for _ in range(whole):
                for i in range(0, PANEL_BYTES, VECTOR_BYTES):
                    copy_whole(kind, source + i, at + i)
                source, at = source + PANEL_BYTES, at + spacing
            for j in range(jb + whole * panel, je, lanes):
                copy_vector(kind, source, at, je - j)
                source, at = source + VECTOR_BYTES, at + VECTOR_BYTES


@parallel
def spread(blocks, kind, tiles, a, b, y, M, N, K, ends, down, across):
    """The product in down × across tasks, spread over the threads; blocks: the address of `block`."""
    lanes = lanes_of(kind)
    vectors = (N + lanes - 1) // lanes
    for each in prange(down * across):
        task = np.int64(each)
        p, q = task // across, task % across
        j0, j1 = vectors * q // across * lanes, min(N, vectors * (q + 1) // across * lanes)
        area = Area(M * p // down, M * (p + 1) // down, j0, j1)
        call(blocks, kind, (tiles, a, b, y, area, K, ends))


@jit
def product(blocks, tiles, a, a_transposed, b, b_transposed, add, bias, relu, out, threads):
    """out (M, N) (+)= A B, A = a or aᵀ, B = b or bᵀ, from the bias on, then max(·, 0) where relu = 1. blocks, tiles:
    the addresses of `block` and of the tile."""
    M, N = out.shape
    K = a.shape[0] if a_transposed else a.shape[1]
    kind, size = out.dtype.type(0), out.itemsize
    lanes = lanes_of(kind)
    # columns first: then no two threads pack the same numbers of B; rows too where the columns do not suffice
    across = max(1, min(threads, N // (ACROSS * lanes)))
    down = max(1, min(threads // across, M // TALL))
    # Numba's addresses are unsigned, and with a signed number they would become floats
    left = Matrix(np.int64(a.ctypes.data), a.shape[1] * size, a_transposed)
    right = Matrix(np.int64(b.ctypes.data), b.shape[1] * size, b_transposed)
    y = Matrix(np.int64(out.ctypes.data), N * size, 0)
    start = FROM_C if add else FROM_BIAS if bias.size else FROM_ZERO
    ends = Ends(start, np.int64(bias.ctypes.data), relu)
    if down * across == 1:  # without the microseconds that a parallel loop costs
        call(blocks, kind, (tiles, left, right, y, Area(0, M, 0, N), K, ends))
    else:
        spread(blocks, kind, tiles, left, right, y, M, N, K, ends, down, across)
