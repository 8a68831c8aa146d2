"""Rung 4, register column: each thread makes 8 elements of C, one below the other, and keeps their sums in registers.

As on the CPU the way out is the registers, the one memory that gives every operand at once. A thread that makes 8 rows
of a column needs, for one k, one number of B and 8 of A. The number of B is loaded once and serves 8 times. For the 8
values of k of a tile that is 8 + 64 numbers for 64 multiply-adds, where rung 3 took 128 for as many. Since A's tile
lies along k the compiler fetches four of its numbers at a time: 24 loads for 64 multiply-adds.

All threads of a warp want the same number of A (shared memory then sends it to all 32 at once) and 32 neighbours of B.
A block of 512 threads makes 64 × 64 of C, so what is fetched from afar serves twice as often as before. The tiles are
only 8 deep: depth does not change how much is fetched, it only spreads the barriers.

`cuda.local.array` is a thread's own. Its numbers stay in registers only if every index into it is known while
compiling, which is so where all loops over it have constant bounds and are unrolled; else they would go to memory.
`stack` in --code would show it.

Look at: multiply-adds per load in --code, and × before.
"""

import numpy as np
from numba import float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import blocks_for, kernel, launch

IDEA = "8 sums in a thread's registers"
# a block fetches 64 · DEPTH numbers of A and as many of B for 64 · 64 · DEPTH multiply-adds
FLOP_PER_BYTE = 2 * 64 * 64 / (4 * (64 + 64))
SIDE, DEPTH, ROWS = 64, 8, 8
THREADS = SIDE * SIDE // ROWS


@kernel()
def register_column(a, b, M, K, N, c):
    """c = a b; a thread makes ROWS rows of one column. Each tile has one number for each thread."""
    t = np.uint32(cuda.threadIdx.x)
    i0, j0 = np.uint32(cuda.blockIdx.y * SIDE), np.uint32(cuda.blockIdx.x * SIDE)
    row, column = np.uint32(t // SIDE * ROWS), np.uint32(t % SIDE)  # of C, from here down
    a_row, a_k, b_k = np.uint32(t // DEPTH), np.uint32(t % DEPTH), np.uint32(t // SIDE)  # what it fetches
    a_tile = cuda.shared.array((SIDE, DEPTH), float32)
    b_tile = cuda.shared.array((DEPTH, SIDE), float32)
    sums = cuda.local.array(ROWS, float32)
    of_b = cuda.local.array(DEPTH, float32)
    zero = np.float32(0)
    for r in range(ROWS):
        sums[r] = zero
    i, j = np.uint32(i0 + a_row), np.uint32(j0 + column)
    for k0 in range(0, K, DEPTH):
        k = np.uint32(k0 + a_k)
        a_tile[a_row, a_k] = a[i * K + k] if i < M and k < K else zero
        k = np.uint32(k0 + b_k)
        b_tile[b_k, column] = b[k * N + j] if k < K and j < N else zero
        cuda.syncthreads()
        for k in range(DEPTH):
            of_b[k] = b_tile[k, column]
        for r in range(ROWS):
            for k in range(DEPTH):
                sums[r] += a_tile[row + r, k] * of_b[k]
        cuda.syncthreads()
    for r in range(ROWS):
        i = np.uint32(i0 + row + r)
        if i < M and j < N:
            c[i * N + j] = sums[r]


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    (M, K), N = a.shape, b.shape[1]
    launch(register_column, (blocks_for(N, SIDE), blocks_for(M, SIDE)), THREADS, a, b, M, K, N, c)
