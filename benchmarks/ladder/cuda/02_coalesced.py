"""Rung 2, coalesced: neighbouring threads take neighbouring columns of C, so that a warp's addresses lie side by side.

x and y of the thread have changed places, and nothing else. The 32 threads of a warp now work on one row of C. They all
want the same number of A, one sector, and 32 neighbours of B, 128 bytes in a row, 4 sectors, all of them used. The
hardware fetches what a warp asks for together: 5 sectors where rung 1 had 33. This is the GPU's counterpart to the
order of the loops on the CPU, with one difference: not one thread's loads must lie side by side in time, but one warp's
in the same instruction.

The machine code is rung 1's to the instruction (look at --code): 2 loads for each multiply-add. So it is still far from
the peak. In a cycle a multiprocessor of Hopper begins the multiply-adds of 4 warps, but the loads of 1: with two loads
for each, an eighth of the peak is the most, even if every number came from its own cache.

Look at: × before.
"""

import numpy as np

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import blocks_for, kernel, launch

IDEA = "a warp reads neighbours"
# 32 multiply-adds of a warp ask for 1 sector of A and 4 of B
FLOP_PER_BYTE = 2 * 32 / (5 * 32)
SIDE = 32


@kernel()
def coalesced(a, b, M, K, N, c):
    """c = a b; threads (SIDE, SIDE), neighbours are columns."""
    i = np.uint32(cuda.blockIdx.y * SIDE + cuda.threadIdx.y)
    j = np.uint32(cuda.blockIdx.x * SIDE + cuda.threadIdx.x)
    if i < M and j < N:
        total = np.float32(0)
        k = np.uint32(0)
        while k < K:
            total += a[i * K + k] * b[k * N + j]
            k += np.uint32(1)
        c[i * N + j] = total


def product(a, b, c):
    """c (M, N) = a (M, K) b (K, N)."""
    (M, K), N = a.shape, b.shape[1]
    launch(coalesced, (blocks_for(N, SIDE), blocks_for(M, SIDE)), (SIDE, SIDE), a, b, M, K, N, c)
