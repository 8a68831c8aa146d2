"""Rung 8, tensor cores: a warp multiplies 16 × 8 by 8 × 8 in one instruction, with 10 bits of each factor.

Beside its 128 multiply-adders a multiprocessor has four tensor cores. `mma_tf32` is their instruction: a whole warp
hands over 16 × 8 numbers of A and 8 × 8 of B, spread over the registers of its 32 threads, and each thread gets 4 of
the 16 × 8 sums back: 1,024 multiply-adds, for which the warp would need 32 instructions of its own. Which thread holds
which number is part of it: lane 4 g + q holds of A rows g and g + 8 at columns q and q + 4, of B rows q and q + 4 of
column g, and of the sums columns 2 q and 2 q + 1 of rows g and g + 8.

The price is in the numbers. `tf32` has the exponent of float32 and 10 bits behind the point where float32 has 23: each
factor is off by up to 2⁻¹¹ of itself, hence TERM_ERROR. The products are exact and the sums float32. So this is another
product than that of the rungs below, and it is measured beside cuBLAS with tf32 allowed.

Copies in the background as in rung 7. A warp makes 64 × 32 of the block's 128 × 128: 4 × 4 instructions for 8 steps of
k, for which a thread loads 16 numbers of A and 8 of B. In one load the 32 threads read 8 rows of A by 4 neighbours: in
lines 20 long these lie on 32 different banks, and so do 4 rows of B by 8 neighbours in lines of 136.

Look at: HMMA in --code, each worth 32 multiply-adds of a thread.
"""

from importlib import import_module

import numpy as np
from numba import complex128, float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import aligned, blocks_for, device_function, kernel, launch
from tinyvae.kernels.cuda.engine.intrinsics import commit_copies, copy16, mma_tf32, tf32, wait_copies

rung5 = import_module("05_register_tile")

IDEA = "a warp's product in an instruction"
# as in rung 5
FLOP_PER_BYTE = rung5.FLOP_PER_BYTE
TERM_ERROR = 2.0**-10  # two factors, each rounded to tf32
SIDE, DEPTH, THREADS = 128, 16, 256
DOWN, ACROSS = 4, 4  # instructions of a warp
A_LINE, B_LINE = DEPTH + 4, SIDE + 8
A_TILE, B_TILE = SIDE * A_LINE, DEPTH * B_LINE
A_QUADS, B_QUADS = 2 * A_TILE // 4, 2 * B_TILE // 4  # in both buffers


@device_function
def fetch(a, b, M, K, N, i0, j0, k0, a_tiles, b_tiles):
    """Begins this thread's copies of the tiles at k0, and closes their group."""
    t = np.uint32(cuda.threadIdx.x)
    buffer = np.uint32(k0 // DEPTH % 2)
    for s in range(SIDE * DEPTH // 4 // THREADS):
        e = np.uint32(t + s * THREADS)  # a quad of each tile
        row, column = np.uint32(e // (DEPTH // 4)), np.uint32(e % (DEPTH // 4) * 4)
        i, k = np.uint32(i0 + row), np.uint32(k0 + column)
        copy16(a_tiles, buffer * A_TILE + row * A_LINE + column, a, i * K + k, i < M and k < K)
        row, column = np.uint32(e // (SIDE // 4)), np.uint32(e % (SIDE // 4) * 4)
        k, j = np.uint32(k0 + row), np.uint32(j0 + column)
        copy16(b_tiles, buffer * B_TILE + row * B_LINE + column, b, k * N + j, k < K and j < N)
    commit_copies()


@kernel(expect=("HMMA", "LDGSTS.128"))
def tensor_cores(a, b, M, K, N, c):
    """c = a b; a warp makes 64 rows and 32 columns of its block's tile."""
    t = np.uint32(cuda.threadIdx.x)
    g, q = np.uint32(t % 32 // 4), np.uint32(t % 4)
    down, across = np.uint32(t // 128 * 64 + g), np.uint32(t // 32 % 4 * 32 + g)  # first row of A, first column of B
    i0, j0 = np.uint32(cuda.blockIdx.y * SIDE), np.uint32(cuda.blockIdx.x * SIDE)
    a_tiles = cuda.shared.array(A_QUADS, complex128).view(np.float32)  # (2, SIDE, A_LINE)
    b_tiles = cuda.shared.array(B_QUADS, complex128).view(np.float32)  # (2, DEPTH, B_LINE)
    sums = cuda.local.array((DOWN, ACROSS, 4), float32)
    x = cuda.local.array((DOWN, 4), np.uint32)
    y = cuda.local.array((ACROSS, 2), np.uint32)
    for m in range(DOWN):
        for n in range(ACROSS):
            for s in range(4):
                sums[m, n, s] = 0
    fetch(a, b, M, K, N, i0, j0, np.uint32(0), a_tiles, b_tiles)
    for k0 in range(0, K, DEPTH):
        wait_copies(0)
        cuda.syncthreads()
        if k0 + DEPTH < K:
            fetch(a, b, M, K, N, i0, j0, np.uint32(k0 + DEPTH), a_tiles, b_tiles)
        buffer = np.uint32(k0 // DEPTH % 2)
        for k in range(0, DEPTH, 8):
            for m in range(DOWN):
                at = buffer * A_TILE + (down + m * 16) * A_LINE + k + q
                x[m, 0], x[m, 1] = tf32(a_tiles[at]), tf32(a_tiles[at + 8 * A_LINE])
                x[m, 2], x[m, 3] = tf32(a_tiles[at + 4]), tf32(a_tiles[at + 8 * A_LINE + 4])
            for n in range(ACROSS):
                at = buffer * B_TILE + (k + q) * B_LINE + across + n * 8
                y[n, 0], y[n, 1] = tf32(b_tiles[at]), tf32(b_tiles[at + 4 * B_LINE])
            for m in range(DOWN):
                for n in range(ACROSS):
                    sums[m, n, 0], sums[m, n, 1], sums[m, n, 2], sums[m, n, 3] = mma_tf32(
                        sums[m, n, 0], sums[m, n, 1], sums[m, n, 2], sums[m, n, 3],
                        x[m, 0], x[m, 1], x[m, 2], x[m, 3], y[n, 0], y[n, 1],
                    )  # fmt: skip
    for m in range(DOWN):
        for n in range(ACROSS):
            for s in range(4):
                i = np.uint32(i0 + down + m * 16 + s // 2 * 8)
                j = np.uint32(j0 + across - g + n * 8 + q * 2 + s % 2)
                if i < M and j < N:
                    c[i * N + j] = sums[m, n, s]


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    (M, K), N = a.shape, b.shape[1]
    if K % 4 or N % 4 or not aligned(a, b, c):
        rung5.product(a, b, c)
    else:
        launch(tensor_cores, (blocks_for(N, SIDE), blocks_for(M, SIDE)), THREADS, a, b, M, K, N, c)
