"""A product's tiles: which one is taken, how it is shared out among threads, how numbers come into shared memory.

A stage holds a piece of a and a piece of b, each as it is in memory, line by line, with a gap behind each line:
    deep:  one line for each row of a (column of b), `depth` numbers long: what lies along K in memory
    flat:  one line for each of `depth` steps along K, as long as the tile is: what lies along M (or N) in memory
Three pairs are met with: x w is deep · flat, grad_y wᵀ deep · deep, xᵀ grad_y flat · flat.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ...scratch import BLOCKS
from .compile import blocks_for, device_function
from .intrinsics import copy1, copy16


class Tile(NamedTuple):
    """What a block computes: rows × columns of c, `depth` steps at a time.

    tall × wide: a's rows by b's columns that a thread loads. slices: groups of threads that make the same tile from
    different steps of a stage, where a tile alone would leave too few threads. stages: buffers, of which all but one
    are filled ahead. tensor: on tensor cores, one thread for two of ordinary arithmetic.
    """

    rows: int
    columns: int
    depth: int
    tall: int
    wide: int
    slices: int
    stages: int
    tensor: bool = False

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.tall * (self.columns // self.wide) * self.slices // (2 if self.tensor else 1)

    def stage(self, deep: bool, length: int) -> tuple[int, int]:
        """Lines of a stage, and from one to the next; `length` is the tile's rows for a, its columns for b. The gap
        between them lets lines that are read together begin in different banks."""
        if not deep:
            return self.depth, length + 4
        return length, self.depth + (4 if not self.tensor else 8 - self.depth % 16)

    @property
    def cycles(self) -> float:
        """About what one step along K takes a multiprocessor: 128 of the threads' instructions a cycle, 45 of them for
        a stage's copies, or 6 numbers from the second-level cache."""
        each = self.tall * self.wide + (self.tall + self.wide) / 4 + 45 * self.slices / self.depth
        threads = self.rows // self.tall * (self.columns // self.wide)
        return max(threads * each / 128, (self.rows + self.columns) / 6)


LARGE, MEDIUM = Tile(128, 128, 16, 8, 8, 1, 2), Tile(64, 64, 16, 4, 4, 1, 4)
SMALL, TINY = Tile(32, 32, 32, 4, 4, 4, 4), Tile(16, 32, 32, 4, 4, 4, 4)
PLAIN = {  # by the bytes of a number
    4: (LARGE, MEDIUM, SMALL, TINY),
    8: (MEDIUM._replace(stages=2), SMALL._replace(depth=16), TINY._replace(depth=16)),
}
TENSOR = tuple(tile._replace(tensor=True) for tile in (LARGE, MEDIUM, SMALL))


def tile_for(tiles: tuple[Tile, ...], M: int, N: int, parts: int = 1) -> Tile:
    """The tile with which the busiest multiprocessor of a large GPU is done first: from the shapes, never from the GPU,
    so that sums have the same order everywhere."""
    blocks = {tile: blocks_for(M, tile.rows) * blocks_for(N, tile.columns) * parts for tile in tiles}
    return min(tiles, key=lambda tile: blocks_for(blocks[tile], BLOCKS // 2) * tile.cycles)


NOWHERE = np.uint32(0xFFFFFFFF)  # the place of a number that is not stored


@device_function
def equal_shares(geometry, part, share, K):
    """The steps along K that part z of the grid sums: z · share to (z + 1) · share."""
    first = np.uint32(part * share)
    end = np.uint32(first + share)
    return first, end if end < K else K


class Operand(NamedTuple):
    """How a's or b's numbers come into shared memory: device functions that each thread calls.

    Every number is a uint32; `source` is the flat array, `geometry` a tuple of uint32 that the launch hands over,
    `part` the block's part of the grid, `notes` a local array of `notes` uint32 in which a thread keeps what it has
    worked out once, in as many registers. For b read column for row.
        begin(notes, geometry, part, first, thread)
            once per block; the tile's first row of a is `first`. Rows beyond the last may be taken for any other row:
            nothing that they give is stored.
        fill(stages, at, source, geometry, notes, k, k_end, thread)
            begins this thread's share of the copies (copy1, copy16) of steps k to k + depth of all rows of the tile to
            stages[at:], its lines laid out as tile.stage says. Steps from k_end on must become zeros.
        steps(geometry, part, share, K)
            of a: the first step of a part of the grid, and the one behind its last
    """

    deep: bool
    notes: int
    begin: Callable[..., None]
    fill: Callable[..., None]
    steps: Callable[..., Any] = equal_shares


class Arithmetic(NamedTuple):
    """What the threads make of a stage: two device functions. A thread loads rows spot(deep_a, i, down, DOWN) of a for
    i < tall, and columns spot(deep_b, j, across, ACROSS) of b for j < wide.

        corner(thread) -> down, across, the first step that it loads, across of its first sum
        multiply(sums, stages, from_a, from_b)
            adds a stage, of which the thread's first numbers are at from_a and from_b;
            sums[(i · wide + j) · pair + p] belongs to row i and column j, p further across
    """

    pair: int
    corner: Callable[..., Any]
    multiply: Callable[..., None]


@device_function
def spot(deep, i, first, spacing):
    """Number i of a thread's rows (or columns) of a tile, for the thread that is the `first` of `spacing`; all uint32.
    Where they are lines, the threads' lines lie side by side; where they lie in lines, a thread has four neighbours at
    a time."""
    four = np.uint32(4)
    return np.uint32(first + i * spacing if deep else (first + i // four * spacing) * four + i % four)


@cache
def matrix(deep: bool, length: int, tile: Tile, width: int) -> Operand:
    """A row-major matrix, read in place; geometry = (numbers in a row of it, rows of a or columns of b).

    deep: its rows lie along K. length: tile.rows for a, tile.columns for b. width: numbers copied at a time, 16 bytes
    of them where the matrix is aligned and its rows are whole multiples, else 1.
    """
    lines, pitch = tile.stage(deep, length)
    lanes = (tile.depth if deep else length) // width  # threads that share a line
    if tile.threads % lanes or lines * lanes % tile.threads:
        raise ValueError(f"the threads of {tile} cannot share {lines} lines of {lanes} copies equally")
    step = tile.threads // lanes  # lines copied at a time
    count = lines // step
    copy = copy16 if width > 1 else copy1
    U, LANES, WIDTH, PITCH = np.uint32, np.uint32(lanes), np.uint32(width), np.uint32(pitch)

    @device_function
    def begin(notes, geometry, part, first, thread):
        notes[0] = first

    @device_function
    def fill_deep(stages, at, source, geometry, notes, k, k_end, thread):
        stride, limit = geometry
        line, place = thread // LANES, U(thread % LANES * WIDTH)
        to, k = U(at + line * PITCH + place), U(k + place)
        for i in range(count):
            row = U(notes[0] + line + U(i * step))
            row = row if row < limit else U(limit - U(1))
            copy(stages, to + i * step * pitch, source, U(row * stride + k), k < k_end)

    @device_function
    def fill_flat(stages, at, source, geometry, notes, k, k_end, thread):
        stride, limit = geometry
        line, place = thread // LANES, U(thread % LANES * WIDTH)
        to, column = U(at + line * PITCH + place), U(notes[0] + place)
        column = column if column < limit else U(limit - WIDTH)
        for i in range(count):
            row = U(k + line + U(i * step))
            copy(stages, to + i * step * pitch, source, U(row * stride + column), row < k_end)

    return Operand(deep, 1, begin, fill_deep if deep else fill_flat)


@device_function
def row_major(geometry, part, row, column):
    """Where a sum goes, and the bias that it gets: row by row, part behind part; geometry = (rows of a part, N)."""
    return np.uint32((part * geometry[0] + row) * geometry[1] + column), column
