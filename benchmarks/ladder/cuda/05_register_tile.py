"""Rung 5, register tile: each thread makes 8 × 8 elements of C. For one k, 16 numbers serve 64 multiply-adds.

A column of 8 uses a number of B 8 times and a number of A once. A square uses both 8 times: 8 + 8 loads for 8 · 8
multiply-adds, 4 for each load. Now the arithmetic and the shared memory want the same time: 64 multiply-adds of a warp
take 16 cycles at 4 in a cycle, and 16 loads take 16. It is what rung 6 of the CPU's ladder did with rows, and rung 8
with a tile; there the vector registers set its size, here it is the 255 registers that a thread may have. 64 sums and
16 numbers leave room for addresses, and room for other warps: all threads of a multiprocessor share 65,536 registers.

A block of 256 threads makes 128 × 128 of C. Which 8 rows and columns a thread takes is free to choose: here every 16th,
so that 16 neighbouring threads read 16 neighbours of B and write 16 neighbours of C. Shared memory has 32 *banks*, word
after word, and each serves one word in a cycle: had a thread 8 columns in a row, the words of 16 threads would be 8
apart, all on 4 of the banks, and a load would take 4 cycles.

Look at: registers in --code, and FFMA to LDS.
"""

import numpy as np
from numba import float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import blocks_for, kernel, launch

IDEA = "8 × 8 sums in registers"
# a block fetches 128 · DEPTH numbers of A and as many of B for 128 · 128 · DEPTH multiply-adds
FLOP_PER_BYTE = 2 * 128 * 128 / (4 * (128 + 128))
SIDE, DEPTH, EACH = 128, 8, 8
ACROSS = SIDE // EACH
THREADS = ACROSS * ACROSS


@kernel()
def register_tile(a, b, M, K, N, c):
    """c = a b; a thread makes rows down + 0, 16, …, 112 and columns across + 0, 16, …, 112 of its block's tile."""
    t = np.uint32(cuda.threadIdx.x)
    down, across = np.uint32(t // ACROSS), np.uint32(t % ACROSS)
    i0, j0 = np.uint32(cuda.blockIdx.y * SIDE), np.uint32(cuda.blockIdx.x * SIDE)
    a_tile = cuda.shared.array((SIDE, DEPTH), float32)
    b_tile = cuda.shared.array((DEPTH, SIDE), float32)
    sums = cuda.local.array((EACH, EACH), float32)
    of_a = cuda.local.array(EACH, float32)
    of_b = cuda.local.array(EACH, float32)
    zero = np.float32(0)
    for r in range(EACH):
        for q in range(EACH):
            sums[r, q] = zero
    for k0 in range(0, K, DEPTH):
        for s in range(SIDE * DEPTH // THREADS):
            e = np.uint32(t + s * THREADS)  # which number of each tile this thread fetches
            i, k = np.uint32(i0 + e // DEPTH), np.uint32(k0 + e % DEPTH)
            a_tile[e // DEPTH, e % DEPTH] = a[i * K + k] if i < M and k < K else zero
            k, j = np.uint32(k0 + e // SIDE), np.uint32(j0 + e % SIDE)
            b_tile[e // SIDE, e % SIDE] = b[k * N + j] if k < K and j < N else zero
        cuda.syncthreads()
        for k in range(DEPTH):
            for r in range(EACH):
                of_a[r] = a_tile[down + r * ACROSS, k]
            for q in range(EACH):
                of_b[q] = b_tile[k, across + q * ACROSS]
            for r in range(EACH):
                for q in range(EACH):
                    sums[r, q] += of_a[r] * of_b[q]
        cuda.syncthreads()
    for r in range(EACH):
        i = np.uint32(i0 + down + r * ACROSS)
        for q in range(EACH):
            j = np.uint32(j0 + across + q * ACROSS)
            if i < M and j < N:
                c[i * N + j] = sums[r, q]


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    (M, K), N = a.shape, b.shape[1]
    launch(register_tile, (blocks_for(N, SIDE), blocks_for(M, SIDE)), THREADS, a, b, M, K, N, c)
