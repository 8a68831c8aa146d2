"""The matrix product c = act(a b + bias) on the GPU, tile by tile: two buffers of shared memory, filled in the background,
and a register tile for each thread. It knows tiles and sums; where a tile's numbers come from is an Operand's business.

A block makes one tile of c. It walks along the depth K; while the threads multiply one stage, copies fill the next.
A stage holds a piece of a and a piece of b, each as it stands in memory, line by line, with a gap behind each line:
    deep:  one line for each row of a (column of b), `depth` numbers long: what lies along K in memory
    flat:  one line for each of `depth` steps along K, as long as the tile is: what lies along M (or N) in memory
Three pairs are met with: x w is deep · flat, grad_y wᵀ deep · deep, xᵀ grad_y flat · flat.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ...device import cuda
from .compile import Kernel, device_function
from .elementwise import activated
from .intrinsics import commit_copies, copy1, copy16, load4, store4, wait_copies

GAP = 4  # numbers behind each line, so that neighbouring lines begin in different banks


class Tile(NamedTuple):
    """What a block computes: rows × columns of c, `depth` steps at a time, tall × wide of them by each thread.

    slices: groups of threads that make the same tile from different steps of a stage, where a tile alone would leave
    too few threads. stages: buffers, a power of two; all but one are being filled ahead.
    """

    rows: int
    columns: int
    depth: int
    tall: int
    wide: int
    slices: int
    stages: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.tall * (self.columns // self.wide) * self.slices


NOWHERE = np.uint32(0xFFFFFFFF)  # the place of a number that is not stored


@device_function
def equal_shares(geometry, part, share, K):
    """The steps along K that part z of the grid sums: z · share to (z + 1) · share."""
    first = np.uint32(part * share)
    end = np.uint32(first + share)
    return first, end if end < K else K


class Operand(NamedTuple):
    """How a's or b's numbers come into shared memory: two device functions that each thread calls.

    Every number is a uint32; `source` is the flat array, `geometry` a tuple of uint32 that the launch hands over,
    `notes` a local array of `notes` uint32 in which a thread keeps what it has worked out once. For b read column for
    row.
        begin(notes, geometry, part, first, thread)
            once per block, of this part of the grid; the tile's first row of a is `first`. Rows beyond the last may be taken for any other row:
            nothing that they give is stored.
        fill(tile, at, source, geometry, notes, k, k_end, thread)
            begins this thread's share of the copies (copy1, copy16) of steps k to k + depth of all rows of the tile to
            tile[at:], line l beginning at tile[at + l · pitch(deep, …)]. Steps from k_end on must become zeros.
        steps(geometry, part, share, K)
            of a: the first step of this part of the grid, and the one behind its last
    """

    deep: bool
    notes: int
    begin: Callable[..., None]
    fill: Callable[..., None]
    steps: Callable[..., Any] = equal_shares


def pitch(deep: bool, length: int, depth: int) -> int:
    """From one line of a stage to the next; `length` is the tile's rows for a, its columns for b."""
    return (depth if deep else length) + GAP


def lines(deep: bool, length: int, depth: int) -> int:
    """Lines of a stage."""
    return length if deep else depth


@cache
def matrix(deep: bool, length: int, tile: Tile, width: int) -> Operand:
    """A row-major matrix as it stands; geometry = (numbers in a row of it, rows of a or columns of b).

    deep: its rows lie along K. length: tile.rows for a, tile.columns for b. width: numbers copied at a time, 16 bytes
    of them where the matrix is aligned and its rows are whole multiples, else 1.
    """
    run = tile.depth if deep else length
    lanes = run // width  # threads that share a line
    step = tile.threads // lanes  # lines copied at a time
    count, PITCH = lines(deep, length, tile.depth) // step, pitch(deep, length, tile.depth)
    if not count:
        raise ValueError(f"{tile} has more threads than a stage has numbers to copy")
    copy = copy16 if width > 1 else copy1
    U, LANES, WIDTH, LAST = np.uint32, np.uint32(lanes), np.uint32(width), np.uint32(width)

    @device_function
    def begin_deep(notes, geometry, part, first, thread):
        stride, limit = geometry
        for i in range(count):
            line = U(first + thread // LANES + U(i * step))
            line = line if line < limit else U(limit - U(1))
            notes[i] = U(line * stride + thread % LANES * WIDTH)

    @device_function
    def fill_deep(tile, at, source, geometry, notes, k, k_end, thread):
        inside = U(k + thread % LANES * WIDTH) < k_end
        to = U(at + thread // LANES * U(PITCH) + thread % LANES * WIDTH)
        for i in range(count):
            copy(tile, to + i * step * PITCH, source, U(notes[i] + k), inside)

    @device_function
    def begin_flat(notes, geometry, part, first, thread):
        stride, limit = geometry
        column = U(first + thread % LANES * WIDTH)
        notes[0] = column if column < limit else U(limit - LAST)

    @device_function
    def fill_flat(tile, at, source, geometry, notes, k, k_end, thread):
        stride, limit = geometry
        line = thread // LANES
        to = U(at + line * U(PITCH) + thread % LANES * WIDTH)
        for i in range(count):
            step_k = U(k + line + U(i * step))
            copy(tile, to + i * step * PITCH, source, U(notes[0] + step_k * stride), step_k < k_end)

    return Operand(True, count, begin_deep, fill_deep) if deep else Operand(False, 1, begin_flat, fill_flat)


@device_function
def row_major(geometry, part, row, column):
    """c as it is computed, part behind part: geometry = (M, N)."""
    return np.uint32((part * geometry[0] + row) * geometry[1] + column), column


@cache
def product(dtype: Any, tile: Tile, a: Operand, b: Operand, place: Callable[..., Any], quads: bool) -> Kernel:
    """The kernel for grid (tiles of rows, tiles of columns, parts of K) and tile.threads threads. Its arguments:

        a, geometry_a, b, geometry_b, bias, has_bias, M, N, K, share, act, add, geometry_c, c

    c[to] = act(Σ a b + bias[channel]), added to what is there where add is 1; (to, channel) = place(geometry_c, part,
    row, column), to = NOWHERE where nothing is stored. Part z sums the steps that a.steps gives it; share is a multiple
    of tile.depth. quads: whether c, bias and every place stand on 16 bytes and N is a multiple of 4.
    """
    U = np.uint32
    kind = np.dtype(dtype).type
    quad = np.complex128  # an item of 16 bytes, on which shared memory then begins
    ROWS, COLUMNS, DEPTH, TALL, WIDE, SLICES, STAGES = tile
    THREADS, ACROSS, DOWN = tile.threads, COLUMNS // WIDE, ROWS // TALL
    GROUP, SPAN, WARPS = ACROSS * DOWN, DEPTH // SLICES, ACROSS // 8
    DEEP_A, DEEP_B = a.deep, b.deep
    PITCH_A, PITCH_B = pitch(a.deep, ROWS, DEPTH), pitch(b.deep, COLUMNS, DEPTH)
    SIZE_A, SIZE_B = PITCH_A * lines(a.deep, ROWS, DEPTH), PITCH_B * lines(b.deep, COLUMNS, DEPTH)
    SHARED_A, SHARED_B = (STAGES * size * np.dtype(dtype).itemsize // 16 for size in (SIZE_A, SIZE_B))
    NOTES_A, NOTES_B, AHEAD, SUMS, FOUR_B = a.notes, b.notes, STAGES - 2, TALL * WIDE, 4 * WIDE
    PITCH_C = COLUMNS + 8
    RISE = TALL  # rows of each thread that are stored together: as many as a's buffers hold
    while SLICES * RISE * DOWN * PITCH_C > STAGES * SIZE_A:
        RISE //= 2
    STORED = RISE * DOWN  # rows of the tile
    STRIP = 1
    begin_a, begin_b, fill_a, fill_b, steps = a.begin, b.begin, a.fill, b.fill, a.steps

    def product_kernel(a, geometry_a, b, geometry_b, bias, has_bias, M, N, K, share, act, add, geometry_c, c):
        tiles_a = cuda.shared.array(SHARED_A, quad).view(kind)
        tiles_b = cuda.shared.array(SHARED_B, quad).view(kind)
        notes_a = cuda.local.array(NOTES_A, U)
        notes_b = cuda.local.array(NOTES_B, U)
        sums = cuda.local.array(SUMS, kind)
        four_b = cuda.local.array(FOUR_B, kind)
        some_a = cuda.local.array(TALL, kind)
        thread = U(cuda.threadIdx.x)
        row0, column0 = U(U(cuda.blockIdx.x) * U(ROWS)), U(U(cuda.blockIdx.y) * U(COLUMNS))
        # a warp is 4 rows by 8 columns of threads, neighbours in a zigzag: fewest different words in each half of a load
        inner, lane, slice_ = U(thread % U(GROUP)), U(thread % U(32)), U(thread // U(GROUP))
        warp = U(inner // U(32))
        down = U(warp // U(WARPS) * U(4) + lane // U(16) * U(2) + lane % U(2))
        across = U(warp % U(WARPS) * U(8) + lane // U(2) % U(8))
        first_k = U(slice_ * U(SPAN))
        at_a = U(down * U(PITCH_A) + first_k) if DEEP_A else U(first_k * U(PITCH_A) + down * U(4))
        at_b = U(across * U(PITCH_B) + first_k) if DEEP_B else U(first_k * U(PITCH_B) + across * U(4))

        part = U(cuda.blockIdx.z)
        k, k_end = steps(geometry_a, part, share, K)
        ahead = k
        begin_a(notes_a, geometry_a, part, row0, thread)
        begin_b(notes_b, geometry_b, part, column0, thread)
        for stage in range(STAGES - 1):
            if ahead < k_end:
                fill_a(tiles_a, U(stage * SIZE_A), a, geometry_a, notes_a, ahead, k_end, thread)
                fill_b(tiles_b, U(stage * SIZE_B), b, geometry_b, notes_b, ahead, k_end, thread)
            commit_copies()
            ahead = U(ahead + U(DEPTH))
        for i in range(SUMS):
            sums[i] = 0

        stage = U(0)
        while k < k_end:
            wait_copies(AHEAD)
            cuda.syncthreads()  # this stage is filled, and the one before is no longer read
            if ahead < k_end:
                free = U((stage + U(STAGES - 1)) % U(STAGES))
                fill_a(tiles_a, U(free * U(SIZE_A)), a, geometry_a, notes_a, ahead, k_end, thread)
                fill_b(tiles_b, U(free * U(SIZE_B)), b, geometry_b, notes_b, ahead, k_end, thread)
            commit_copies()
            from_a, from_b = U(at_a + stage * U(SIZE_A)), U(at_b + stage * U(SIZE_B))
            for k4 in range(0, SPAN, 4):
                for j in range(WIDE):  # four steps of this thread's columns
                    if DEEP_B:
                        x = load4(tiles_b, from_b + (j * ACROSS * PITCH_B + k4))
                        four_b[j], four_b[WIDE + j], four_b[2 * WIDE + j], four_b[3 * WIDE + j] = x
                    else:
                        n = 4 * j
                        x = load4(tiles_b, from_b + ((k4 + n // WIDE) * PITCH_B + n % WIDE * ACROSS))
                        four_b[n], four_b[n + 1], four_b[n + 2], four_b[n + 3] = x
                if DEEP_A:
                    for i in range(TALL):
                        a0, a1, a2, a3 = load4(tiles_a, from_a + (i * DOWN * PITCH_A + k4))
                        for j in range(WIDE):
                            sums[i * WIDE + j] += a0 * four_b[j]
                        for j in range(WIDE):
                            sums[i * WIDE + j] += a1 * four_b[WIDE + j]
                        for j in range(WIDE):
                            sums[i * WIDE + j] += a2 * four_b[2 * WIDE + j]
                        for j in range(WIDE):
                            sums[i * WIDE + j] += a3 * four_b[3 * WIDE + j]
                else:
                    for n in range(4):
                        for i in range(0, TALL, 4):
                            x = load4(tiles_a, from_a + ((k4 + n) * PITCH_A + i * DOWN))
                            some_a[i], some_a[i + 1], some_a[i + 2], some_a[i + 3] = x
                        for i in range(TALL):
                            for j in range(WIDE):
                                sums[i * WIDE + j] += some_a[i] * four_b[n * WIDE + j]
            stage = U((stage + U(1)) % U(STAGES))
            k, ahead = U(k + U(DEPTH)), U(ahead + U(DEPTH))

        # the sums go by way of shared memory: slices are added there, and neighbouring threads store neighbours
        board = tiles_a
        for turn in range(TALL // RISE):
            cuda.syncthreads()
            for i in range(TALL):
                if i // RISE == turn:
                    to = U(((slice_ * U(RISE) + U(i % RISE)) * U(DOWN) + down) * U(PITCH_C))
                    for j in range(0, WIDE):
                        column = across + U(j * ACROSS) if DEEP_B else across * U(4) + U(j // 4 * 4 * ACROSS + j % 4)
                        board[U(to + column)] = sums[i * WIDE + j]
            cuda.syncthreads()
            e = U(thread * U(STRIP))
            while e < U(STORED * COLUMNS):
                line, column = U(e // U(COLUMNS)), U(e % U(COLUMNS))
                i, d = U(U(turn * RISE) + line // U(DOWN)), U(line % U(DOWN))
                row = U(row0 + (d + i * U(DOWN) if DEEP_A else i // U(4) * U(4 * DOWN) + d * U(4) + i % U(4)))
                to, channel = NOWHERE, U(0)
                if row < M and U(column0 + column) < N:
                    to, channel = place(geometry_c, part, row, U(column0 + column))
                if to != NOWHERE:
                    y = board[U(line * U(PITCH_C) + column)]
                    for s in range(1, SLICES):
                        y += board[U((U(s * STORED) + line) * U(PITCH_C) + column)]
                    if has_bias:
                        y += bias[channel]
                    y = activated(y, act)
                    c[to] = c[to] + y if add else y
                e = U(e + U(THREADS * STRIP))

    return Kernel(product_kernel, max_registers=128)
