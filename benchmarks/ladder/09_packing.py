"""Rung 9, packing: A and B are first copied into the order in which the tile reads them, one number after another.

The tile of rung 8 reads B with a stride: 2 vectors of a row, then the same of the next row, 4·N bytes further. When N
is a power of two this is the worst there is. A cache finds a line by some bits of its address, and lines 2,048 bytes
apart share 2 of the 64 places of a first-level cache; at 4,096 bytes they share one, which holds 8 to 12 lines. The 14
rows of A crowd it the same way. Besides, each row is on another page from N = 1,024 on, and the processor remembers the
places of some 64 pages.

So B is copied once, into panels of COLUMNS columns whose rows lie end to end: reading a panel is one walk through
memory, and that is what caches expect. Of A, each strip of ROWS rows is copied, each row an odd number of lines after
the one before, so that no two fall on the same place. A copy of B costs K·N numbers, read and written, and serves M·K·N
multiply-adds: one in M.

Look at: --size 1024 or 2048. At 512 the caches still manage, and the copying costs about what it gives.
"""

from importlib import import_module

import numba
import numpy as np
from numba import prange

rung8 = import_module("08_vector_tile")
tile, small, ROWS, COLUMNS = rung8.tile, rung8.small, rung8.ROWS, rung8.COLUMNS

IDEA = "A and B packed in reading order"
# as in rung 8: ROWS of A and COLUMNS of B for ROWS · COLUMNS multiply-adds; the copies are 1/M and 1/N of it
FLOP_PER_BYTE = 2 * ROWS * COLUMNS / (4 * (ROWS + COLUMNS))
LINE = 16  # numbers in a cache line of 64 bytes


@numba.njit
def aligned(rows, columns):
    """An empty array that starts on a cache line, so that no vector lies across two lines."""
    spare = np.empty(rows * columns + LINE, np.float32)
    start = (-spare.ctypes.data // 4) % LINE
    return spare[start : start + rows * columns].reshape(rows, columns)


@numba.njit
def pack(source, target):
    """target = source, row by row."""
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            target[i, j] = source[i, j]


@numba.njit(parallel=True)
def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    M, N = c.shape
    K = a.shape[1]
    if M < ROWS or N < COLUMNS:
        small(a, b, c)
    else:
        panels = (N + COLUMNS - 1) // COLUMNS
        b_packed = aligned(panels * K, COLUMNS)  # panel p is rows p·K … p·K + K − 1
        for panel in prange(panels):
            j = min(panel * COLUMNS, N - COLUMNS)
            pack(b[:, j : j + COLUMNS], b_packed[panel * K : panel * K + K])
        for strip in prange((M + ROWS - 1) // ROWS):
            i = min(strip * ROWS, M - ROWS)
            a_packed = aligned(ROWS, ((K + LINE - 1) // LINE | 1) * LINE)  # | 1: an odd number of lines
            pack(a[i : i + ROWS], a_packed)
            for panel in range(panels):
                j = min(panel * COLUMNS, N - COLUMNS)
                b_panel = b_packed[panel * K : panel * K + K]
                tile(a_packed[:, :K], b_panel, c[i : i + ROWS, j : j + COLUMNS])
