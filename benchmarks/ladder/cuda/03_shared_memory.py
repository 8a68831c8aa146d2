"""Rung 3, shared memory: a block fetches a tile of A and a tile of B once, and all its threads read them from there.

The 1,024 threads of a block make 32 × 32 elements of C. Together they need 32 rows of A and 32 columns of B, and in
rung 2 each number of them was asked for 32 times. Each multiprocessor has a small memory of its own that a block can
use as it likes, *shared* by its threads. So the sum over k goes in steps of 32: every thread fetches one number of A
and one of B into two tiles of 32 × 32, and then makes 32 multiply-adds out of them. From afar come 2 numbers for 32
multiply-adds.

Two barriers keep the threads together: nobody reads before all have fetched, and nobody fetches anew before all have
read. Outside of A and B the tiles hold zeros, which add nothing; so the loop in the middle needs no guard.

What it cannot mend: each multiply-add still takes a number of A and one of B out of shared memory. The compiler sees
that a row of A's tile lies in a row and takes four of it at a time, 5 loads for 4 multiply-adds. Shared memory serves
one warp in a cycle, 32 numbers, so 5 cycles pass where the arithmetic wants 1.

Look at: FFMA, LDS and LDS.128 in --code: multiply-adds, and loads from shared memory of one number and of four.
"""

import numpy as np
from numba import float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import blocks_for, kernel, launch

IDEA = "tiles in shared memory"
# a block fetches 2 tiles of SIDE × SIDE for SIDE³ multiply-adds
FLOP_PER_BYTE = 2 * 32**3 / (4 * 2 * 32**2)
SIDE = 32


@kernel()
def shared_memory(a, b, M, K, N, c):
    """c = a b; threads (SIDE, SIDE), one element of C each."""
    row, column = np.uint32(cuda.threadIdx.y), np.uint32(cuda.threadIdx.x)
    i, j = np.uint32(cuda.blockIdx.y * SIDE + row), np.uint32(cuda.blockIdx.x * SIDE + column)
    a_tile = cuda.shared.array((SIDE, SIDE), float32)
    b_tile = cuda.shared.array((SIDE, SIDE), float32)
    zero = np.float32(0)
    total = zero
    for k0 in range(0, K, SIDE):
        a_k, b_k = np.uint32(k0 + column), np.uint32(k0 + row)
        a_tile[row, column] = a[i * K + a_k] if i < M and a_k < K else zero
        b_tile[row, column] = b[b_k * N + j] if b_k < K and j < N else zero
        cuda.syncthreads()
        for k in range(SIDE):
            total += a_tile[row, k] * b_tile[k, column]
        cuda.syncthreads()
    if i < M and j < N:
        c[i * N + j] = total


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    (M, K), N = a.shape, b.shape[1]
    launch(shared_memory, (blocks_for(N, SIDE), blocks_for(M, SIDE)), (SIDE, SIDE), a, b, M, K, N, c)
