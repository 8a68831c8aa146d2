"""Rung 1, naive: one thread for each element of C, M·N of them, each with the loop over k to itself.

On a GPU nothing need loop over rows and columns: the card is asked for a *grid* of *blocks*, here of 32 × 32 threads,
and each thread finds out from the number of its block and its own number in it which element is its own. The guard
leaves those idle that stand outside of C. A launch wants flat arrays, and each index is an unsigned number of 32 bits:
a Python int would be 64 bits wide and tested for being negative.

Threads do not run alone. The hardware takes 32 neighbours in `threadIdx.x`, a *warp*, and has them all do the same
instruction at the same time. Memory answers warps, in *sectors* of 32 bytes. Here the neighbours are 32 rows of C, so a
warp's load from A touches 32 rows, 4·K bytes apart: 32 sectors, 1,024 bytes, of which 128 are wanted now. From B all 32
want the same number: one sector. That is 33 sectors for 32 multiply-adds, and C is written in scattered places too.

Look at: % of peak, and then at the one line that differs in rung 2.
"""

import numpy as np

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import blocks_for, kernel, launch

IDEA = "a thread for each element"
# 32 multiply-adds (2 flop each) of a warp ask for 32 sectors of A and 1 of B, 32 bytes each
FLOP_PER_BYTE = 2 * 32 / (33 * 32)
SIDE = 32


@kernel()
def naive(a, b, M, K, N, c):
    """c = a b; threads (SIDE, SIDE), neighbours are rows."""
    i = np.uint32(cuda.blockIdx.y * SIDE + cuda.threadIdx.x)
    j = np.uint32(cuda.blockIdx.x * SIDE + cuda.threadIdx.y)
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
    launch(naive, (blocks_for(N, SIDE), blocks_for(M, SIDE)), (SIDE, SIDE), a, b, M, K, N, c)
