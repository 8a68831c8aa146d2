"""The sum of the threads of a block, in an order that depends on their number alone.

A kernel makes the buffer, one number a thread: shared = cuda.shared.array(THREADS, x.dtype). Blocks
are one-dimensional. Every thread of the block must call, also those with nothing to add.
"""

from __future__ import annotations

import numpy as np

from ....device import cuda
from .compile import device_function


@device_function
def group_sum(value, shared, group):
    """The sum over the threads of the caller's group: `group` neighbours, a power of two. Every thread gets it."""
    thread = np.uint32(cuda.threadIdx.x)
    place = thread & np.uint32(group - 1)
    shared[thread] = value
    cuda.syncthreads()
    half = np.uint32(group >> 1)
    while half > 0:
        if place < half:
            shared[thread] += shared[thread + half]
        cuda.syncthreads()
        half = np.uint32(half >> 1)
    total = shared[thread - place]
    cuda.syncthreads()  # nobody still reads: the buffer may be used again
    return total


@device_function
def block_sum(value, shared):
    """The sum over all threads of the block, a power of two of them. Every thread gets it."""
    return group_sum(value, shared, np.uint32(cuda.blockDim.x))


def power_of_two(count, most):
    """The smallest power of two that is not below `count`, and not above `most`, itself one."""
    return min(most, 1 << max(0, count - 1).bit_length())
