"""Philox words for four places to a thread, and how the elements at these places are read and written.

A thread computes one block of Philox, four words, for the four positions that they belong to. A row may begin in the
middle of a block: its element 0 is then at place `lane` of the first block, and the places before it are left out,
like those behind its end. The clock is read by the kernels and never by the host: a recorded step draws anew.
"""

from __future__ import annotations

import numpy as np

from ... import clock
from .compile import device_function
from .intrinsics import load4, store4

THREADS = 128
MASK, HALF, FOUR = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(4)
MULTIPLY0, MULTIPLY1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL0, WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@device_function
def philox(block, step, stream, seed):
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit words of the counter (block low, block high, step, stream).

    Products of masked words: the compiler sees that they are 32 bits wide and makes one instruction of each.
    """
    c0, c1, c2, c3 = block & MASK, block >> HALF, step & MASK, np.uint64(stream)
    k0, k1 = seed & MASK, seed >> HALF
    for _ in range(10):
        p0, p1 = c0 * MULTIPLY0, c2 * MULTIPLY1
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & MASK, (p0 >> HALF) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL0) & MASK, (k1 + WEYL1) & MASK
    return np.uint32(c0), np.uint32(c1), np.uint32(c2), np.uint32(c3)


@device_function
def unit(word, real):
    """(word >> 8) · 2⁻²⁴: uniform in [0, 1), exact in both dtypes."""
    return real(np.uint32(word >> np.uint32(8))) * real(2.0**-24)


# ---------------------------------------------------------------------------------------------- four places


@device_function
def first_of_four(block, thread):
    """The first of a thread's four places."""
    return np.uint32(4) * np.uint32(np.uint32(block) * np.uint32(THREADS) + np.uint32(thread))


@device_function
def words_of(position, first, step, stream, seed):
    """The words at the four places from `first` on, and lane, the place of element 0, whose flat position is given."""
    w0, w1, w2, w3 = philox(position // FOUR + np.uint64(first) // FOUR, step, stream, seed)
    return w0, w1, w2, w3, np.uint32(position % FOUR)


@device_function
def words_at(counters, stream, width, first):
    """words_of an array whose first element is the first one of row ROW."""
    position = counters[clock.ROW] * np.uint64(width)
    return words_of(position, first, counters[clock.STEP], stream, counters[clock.SEED])


@device_function
def get_one(array, start, n, place, lane):
    if lane <= place < n + lane:
        return array[start + (place - lane)]
    return array.dtype.type(0)


@device_function
def get_four(array, start, n, first, lane, whole):
    """The elements at four places of the n that begin at array[start]; 0 where there is none.

    whole: array[start] is aligned to a vector.
    """
    if whole and lane == 0 and first + np.uint32(4) <= n:
        return load4(array, start + first)
    return (
        get_one(array, start, n, first, lane),
        get_one(array, start, n, first + np.uint32(1), lane),
        get_one(array, start, n, first + np.uint32(2), lane),
        get_one(array, start, n, first + np.uint32(3), lane),
    )


@device_function
def put_one(array, start, n, place, lane, value):
    if lane <= place < n + lane:
        array[start + (place - lane)] = value


@device_function
def put_four(array, start, n, first, lane, whole, a, b, c, d):
    """Writes the elements at four places, as `get_four` reads them."""
    if whole and lane == 0 and first + np.uint32(4) <= n:
        store4(array, start + first, a, b, c, d)
    else:
        put_one(array, start, n, first, lane, a)
        put_one(array, start, n, first + np.uint32(1), lane, b)
        put_one(array, start, n, first + np.uint32(2), lane, c)
        put_one(array, start, n, first + np.uint32(3), lane, d)
