"""Rung 6, vector loads: four neighbours travel in one instruction of 128 bits, from memory and from shared memory.

Rung 5 makes 4 multiply-adds for each load that it issues, and an instruction costs its place in the queue whatever it
moves. Loads of 128 bits move 4 numbers: 4 instructions for 64 multiply-adds instead of 16. Numba has no name for them;
`load4` and `store4` are an *intrinsic* each, a few lines of LLVM's language (kernels/cuda/engine/intrinsics.py).

They ask for two things. Four numbers must lie side by side, so a thread now takes 2 × 2 squares of 4 × 4 elements. And
since a step of k needs 8 rows of A, A's tile lies on its side, k by k: it is turned while it is stored, one number at a
time. Its lines are 132 long and not 128, since the 32 threads of a warp store 16 rows of two quads of k, 4 lines apart:
4 · 132 moves the second half by 16 banks, and all 32 stores find a bank of their own.

And the address must be a multiple of 16 bytes, in every row: so this kernel is for K and N that 4 divides, and arrays
that begin on 16 bytes. Shared arrays begin where their item may; complex128 is an item of 16 bytes. For all else there
is rung 5. A quad of k or of columns is then inside or outside as a whole.

Look at: LDS.128 and LDG in --code.
"""

from importlib import import_module

import numpy as np
from numba import complex128, float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import aligned, blocks_for, kernel, launch
from tinyvae.kernels.cuda.engine.intrinsics import load4, store4

rung5 = import_module("05_register_tile")

IDEA = "128 bits in a load"
# as in rung 5
FLOP_PER_BYTE = rung5.FLOP_PER_BYTE
SIDE, DEPTH, EACH = 128, 8, 8
ACROSS, HALF = SIDE // EACH, SIDE // 2
THREADS = ACROSS * ACROSS
LINE = SIDE + 4  # of A's tile
A_QUADS, B_QUADS = DEPTH * LINE // 4, DEPTH * SIDE // 4


@kernel(expect=("LDG.128", "LDS.128", "STG.128"))
def vector_loads(a, b, M, K, N, c):
    """c = a b; a thread makes rows down + 0 … 3 and down + 64 … 67, and such columns, of its block's tile."""
    t = np.uint32(cuda.threadIdx.x)
    down, across = np.uint32(t // ACROSS * 4), np.uint32(t % ACROSS * 4)
    i0, j0 = np.uint32(cuda.blockIdx.y * SIDE), np.uint32(cuda.blockIdx.x * SIDE)
    a_row, a_k = np.uint32(t // 2), np.uint32(t % 2 * 4)  # the quads that this thread fetches
    b_k, b_column = np.uint32(t // 32), np.uint32(t % 32 * 4)
    a_tile = cuda.shared.array(A_QUADS, complex128).view(np.float32)  # (DEPTH, LINE)
    b_tile = cuda.shared.array(B_QUADS, complex128).view(np.float32)  # (DEPTH, SIDE)
    sums = cuda.local.array((EACH, EACH), float32)
    of_a = cuda.local.array(EACH, float32)
    of_b = cuda.local.array(EACH, float32)
    zero = np.float32(0)
    for r in range(EACH):
        for q in range(EACH):
            sums[r, q] = zero
    for k0 in range(0, K, DEPTH):
        i, k = np.uint32(i0 + a_row), np.uint32(k0 + a_k)
        n0, n1, n2, n3 = load4(a, i * K + k) if i < M and k < K else (zero, zero, zero, zero)
        a_tile[a_k * LINE + a_row] = n0
        a_tile[(a_k + 1) * LINE + a_row] = n1
        a_tile[(a_k + 2) * LINE + a_row] = n2
        a_tile[(a_k + 3) * LINE + a_row] = n3
        k, j = np.uint32(k0 + b_k), np.uint32(j0 + b_column)
        n0, n1, n2, n3 = load4(b, k * N + j) if k < K and j < N else (zero, zero, zero, zero)
        store4(b_tile, b_k * SIDE + b_column, n0, n1, n2, n3)
        cuda.syncthreads()
        for k in range(DEPTH):
            of_a[0], of_a[1], of_a[2], of_a[3] = load4(a_tile, k * LINE + down)
            of_a[4], of_a[5], of_a[6], of_a[7] = load4(a_tile, k * LINE + down + HALF)
            of_b[0], of_b[1], of_b[2], of_b[3] = load4(b_tile, k * SIDE + across)
            of_b[4], of_b[5], of_b[6], of_b[7] = load4(b_tile, k * SIDE + across + HALF)
            for r in range(EACH):
                for q in range(EACH):
                    sums[r, q] += of_a[r] * of_b[q]
        cuda.syncthreads()
    for r in range(EACH):
        i = np.uint32(i0 + down + r // 4 * HALF + r % 4)
        for q in range(0, EACH, 4):
            j = np.uint32(j0 + across + q // 4 * HALF)
            if i < M and j < N:
                store4(c, i * N + j, sums[r, q], sums[r, q + 1], sums[r, q + 2], sums[r, q + 3])


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    (M, K), N = a.shape, b.shape[1]
    if K % 4 or N % 4 or not aligned(a, b, c):
        rung5.product(a, b, c)
    else:
        launch(vector_loads, (blocks_for(N, SIDE), blocks_for(M, SIDE)), THREADS, a, b, M, K, N, c)
