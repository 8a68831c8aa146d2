"""The GPU's peak, which the rungs are compared with: multiply-adds per second when nothing is loaded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import float32

from tinyvae.device import cuda
from tinyvae.kernels.cuda.engine.compile import kernel, launch

CHAINS, REPEATS = 16, 8  # sums that do not wait for one another; how often a round goes through them
ROUNDS, THREADS, BLOCKS = 2_000, 256, 8  # blocks for each multiprocessor: 2,048 threads, as many as it holds


@kernel()
def multiply_adds(rounds, out):
    """x ← x · 0.999 + 0.001 in registers; a number is written that no sum can be, so that all are needed."""
    x = cuda.local.array(CHAINS, float32)
    for i in range(CHAINS):
        x[i] = np.float32(cuda.threadIdx.x)
    while rounds > 0:
        rounds = np.uint32(rounds - 1)
        for _ in range(REPEATS):
            for i in range(CHAINS):
                x[i] = x[i] * np.float32(0.999) + np.float32(0.001)
    total = np.float32(0)
    for i in range(CHAINS):
        total += x[i]
    if total < 0:
        out[0] = total


def work(multiprocessors: int, out) -> tuple[Callable[[], None], int]:
    """A function to time, and its flop."""
    blocks = multiprocessors * BLOCKS
    return (
        lambda: launch(multiply_adds, blocks, THREADS, ROUNDS, out),
        2 * blocks * THREADS * ROUNDS * REPEATS * CHAINS,
    )
