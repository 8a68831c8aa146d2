"""Rung 7, copies in the background: while the threads multiply one pair of tiles, the next pair is already on its way.

Rung 6 stands still in every step: loads from memory take hundreds of cycles, and until they have come the block cannot
multiply. Another block may fill the gap, but with about 100 registers a thread a multiprocessor holds only two of them.
So there are two buffers for each tile. A step starts the copies into one and multiplies what is in the other.

A plain load would need a register for each number on its way, for as long as it takes. `cp.async` copies 16 bytes from
memory to shared memory by way of no register, in the background; `copy16` is that instruction. What stands outside of A
or B arrives as zeros. A thread closes its copies of a step as a group, and waits for its groups; the barrier after that
tells it of the other threads' copies. It also tells that all have left the other buffer: one barrier a step is enough.

Nothing can be turned on the way, so A's tile lies as A does, along k. A thread loads four values of k of a row at once,
8 loads for 8 rows, and then for each k two quads of B: 16 loads for 4 · 64 multiply-adds, as many as in rung 6. The
tiles are 16 deep, for half as many barriers and more time for each copy to arrive.

Look at: fetched in --code, which is LDGSTS now: global, to shared, without a register between.
"""

from importlib import import_module

import numpy as np
from numba import complex128, float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import aligned, blocks_for, device_function, kernel, launch
from tinyvae.kernels.cuda.engine.intrinsics import commit_copies, copy16, load4, store4, wait_copies

rung5 = import_module("05_register_tile")

IDEA = "the next tiles come meanwhile"
# as in rung 5
FLOP_PER_BYTE = rung5.FLOP_PER_BYTE
SIDE, DEPTH, EACH = 128, 16, 8
ACROSS, HALF = SIDE // EACH, SIDE // 2
THREADS = ACROSS * ACROSS
TILE = SIDE * DEPTH  # numbers in one buffer of A, and of B
QUADS = 2 * TILE // 4  # in both buffers


@device_function
def fetch(a, b, M, K, N, i0, j0, k0, a_tiles, b_tiles):
    """Begins this thread's copies of the tiles at k0, and closes their group."""
    t = np.uint32(cuda.threadIdx.x)
    buffer = np.uint32(k0 // DEPTH % 2 * TILE)
    for s in range(TILE // 4 // THREADS):
        e = np.uint32(t + s * THREADS)  # a quad of each tile
        i, k = np.uint32(i0 + e // (DEPTH // 4)), np.uint32(k0 + e % (DEPTH // 4) * 4)
        copy16(a_tiles, buffer + e * 4, a, i * K + k, i < M and k < K)
        k, j = np.uint32(k0 + e // (SIDE // 4)), np.uint32(j0 + e % (SIDE // 4) * 4)
        copy16(b_tiles, buffer + e * 4, b, k * N + j, k < K and j < N)
    commit_copies()


@kernel(expect=("LDGSTS.128", "LDS.128", "STG.128"))
def async_copies(a, b, M, K, N, c):
    """c = a b; a thread makes rows down + 0, 16, …, 112 and columns across + 0 … 3 and across + 64 … 67."""
    t = np.uint32(cuda.threadIdx.x)
    down, across = np.uint32(t // ACROSS), np.uint32(t % ACROSS * 4)
    i0, j0 = np.uint32(cuda.blockIdx.y * SIDE), np.uint32(cuda.blockIdx.x * SIDE)
    a_tiles = cuda.shared.array(QUADS, complex128).view(np.float32)  # (2, SIDE, DEPTH)
    b_tiles = cuda.shared.array(QUADS, complex128).view(np.float32)  # (2, DEPTH, SIDE)
    sums = cuda.local.array((EACH, EACH), float32)
    of_a = cuda.local.array((EACH, 4), float32)
    of_b = cuda.local.array(EACH, float32)
    for r in range(EACH):
        for q in range(EACH):
            sums[r, q] = 0
    fetch(a, b, M, K, N, i0, j0, np.uint32(0), a_tiles, b_tiles)
    for k0 in range(0, K, DEPTH):
        wait_copies(0)
        cuda.syncthreads()
        if k0 + DEPTH < K:
            fetch(a, b, M, K, N, i0, j0, np.uint32(k0 + DEPTH), a_tiles, b_tiles)
        buffer = np.uint32(k0 // DEPTH % 2 * TILE)
        for k in range(0, DEPTH, 4):
            for r in range(EACH):
                at = buffer + (down + r * ACROSS) * DEPTH + k
                of_a[r, 0], of_a[r, 1], of_a[r, 2], of_a[r, 3] = load4(a_tiles, at)
            for s in range(4):
                at = buffer + (k + s) * SIDE + across
                of_b[0], of_b[1], of_b[2], of_b[3] = load4(b_tiles, at)
                of_b[4], of_b[5], of_b[6], of_b[7] = load4(b_tiles, at + HALF)
                for r in range(EACH):
                    for q in range(EACH):
                        sums[r, q] += of_a[r, s] * of_b[q]
    for r in range(EACH):
        i = np.uint32(i0 + down + r * ACROSS)
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
        launch(async_copies, (blocks_for(N, SIDE), blocks_for(M, SIDE)), THREADS, a, b, M, K, N, c)
