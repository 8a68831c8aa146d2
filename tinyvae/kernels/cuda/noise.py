"""Philox words and what is drawn from them, and the batches that are gathered or drawn from a set of images.
It knows counters and flat positions; who draws is told by `stream`.

A thread computes one block of Philox, four words, for the four positions that they belong to. A row may begin in the
middle of a block: its element 0 then stands at place `lane` of the first block, and the places before it are left out,
like those behind its end. The clock is read by the kernels and never by the host: a recorded step draws anew.
"""

from __future__ import annotations

import math

import numpy as np

from ...device import cuda
from ..clock import CURSOR, ROW, SEED, STEP
from .engine.compile import aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import cos_pi, load4, sin_pi, store4

THREADS = 128

MASK, HALF, FOUR = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(4)
MULTIPLY0, MULTIPLY1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL0, WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


# ---------------------------------------------------------------------------------------------- Philox


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


@device_function
def normals(a, b, real):
    """Box & Muller's pair of normals. Angles in half turns, which leave nothing to reduce by π."""
    radius = real(math.sqrt(real(-2) * real(math.log(unit(a, real) + real(2.0**-24)))))
    angle = real(2) * unit(b, real)
    return radius * cos_pi(angle), radius * sin_pi(angle)


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
    return words_of(counters[ROW] * np.uint64(width), first, counters[STEP], stream, counters[SEED])


@device_function
def get_one(array, start, n, place, lane):
    if lane <= place < n + lane:
        return array[start + (place - lane)]
    return array.dtype.type(0)


@device_function
def get_four(array, start, n, first, lane, whole):
    """The elements at four places of the n that begin at array[start]; 0 where there is none.

    whole: array[start] stands where a vector may be loaded.
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


# ---------------------------------------------------------------------------------------------- draws


@kernel(expect=("STG.128",))
def bits_kernel(counters, stream, width, n, whole, out):
    first = first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    put_four(out, np.uint32(0), n, first, lane, whole, w0, w1, w2, w3)


@kernel(expect=("STG.128",))
def uniform_kernel(counters, stream, width, n, whole, out):
    real, first = out.dtype.type, first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    u0, u1, u2, u3 = unit(w0, real), unit(w1, real), unit(w2, real), unit(w3, real)
    put_four(out, np.uint32(0), n, first, lane, whole, u0, u1, u2, u3)


@kernel(expect=("STG.128",))
def normal_kernel(counters, stream, width, n, whole, out):
    real, first = out.dtype.type, first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    x0, x1 = normals(w0, w1, real)
    x2, x3 = normals(w2, w3, real)
    put_four(out, np.uint32(0), n, first, lane, whole, x0, x1, x2, x3)


@kernel(expect=("LDG.128", "STG.128"))
def bernoulli_kernel(p, counters, stream, width, n, whole, out):
    real, first = out.dtype.type, first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    p0, p1, p2, p3 = get_four(p, np.uint32(0), n, first, lane, whole)
    x0, x1 = real(unit(w0, real) < p0), real(unit(w1, real) < p1)
    x2, x3 = real(unit(w2, real) < p2), real(unit(w3, real) < p3)
    put_four(out, np.uint32(0), n, first, lane, whole, x0, x1, x2, x3)


def _draw(kernel, counters, stream, out, *chances):
    """A thread for each block that `out` may touch: one more than it fills, where it begins within one."""
    if out.size:
        whole = int(aligned(out, *chances))
        blocks = blocks_for(out.size + 3, 4 * THREADS)
        launch(kernel, blocks, THREADS, *chances, counters, int(stream), out.shape[1], out.size, whole, out)


def philox_bits(counters, stream, out):
    """reference.philox_bits."""
    _draw(bits_kernel, counters, stream, out)


def philox_uniform(counters, stream, out):
    """reference.philox_uniform."""
    _draw(uniform_kernel, counters, stream, out)


def philox_normal(counters, stream, out):
    """reference.philox_normal."""
    _draw(normal_kernel, counters, stream, out)


def philox_bernoulli(p, counters, stream, out):
    """reference.philox_bernoulli."""
    _draw(bernoulli_kernel, counters, stream, out, p)


# ---------------------------------------------------------------------------------------------- batches


@device_function
def chosen(order, counters, b, M, N):
    """The image for row b of a batch, or −1 where the order or the set is too short: such a row becomes NaN."""
    place = counters[CURSOR] + np.uint64(b)
    image = order[place] if place < np.uint64(M) else np.int64(-1)
    return image if image < np.int64(N) else np.int64(-1)


@kernel(expect=("STG.128",))
def gather_kernel(images, order, counters, scale, N, M, P, whole, x):
    """Block (b, c): part c of row b. Four neighbours to a thread; one here and one there, where rows are no vectors."""
    real, b = x.dtype.type, np.uint32(cuda.blockIdx.x)
    image, start = chosen(order, counters, b, M, N), np.uint32(b * P)
    source = np.uint32(image * P) if image >= 0 else np.uint32(0)
    factor = scale if image >= 0 else real(np.nan)
    first = first_of_four(cuda.blockIdx.y, cuda.threadIdx.x)
    if whole:
        if first < P:
            p0, p1, p2, p3 = load4(images, source + first)
            store4(x, start + first, real(p0) * factor, real(p1) * factor, real(p2) * factor, real(p3) * factor)
    else:
        first = np.uint32(4 * THREADS) * np.uint32(cuda.blockIdx.y) + np.uint32(cuda.threadIdx.x)
        for i in range(4):
            place = first + np.uint32(i * THREADS)
            if place < P:
                x[start + place] = real(images[source + place]) * factor


@kernel(expect=("STG.128",), doubles=True)
def gather_binary_kernel(images, order, counters, scale, stream, dynamic, N, M, P, whole, x):
    """Block (b, c): part c of row b. Uniforms are exact in both dtypes, so that the chance alone decides in which
    precision they are compared: float64 where it is a byte times `scale`."""
    real, b = x.dtype.type, np.uint32(cuda.blockIdx.x)
    image, first = chosen(order, counters, b, M, N), first_of_four(cuda.blockIdx.y, cuda.threadIdx.x)
    source = np.uint32(image * P) if image >= 0 else np.uint32(0)
    one, zero = (real(1), real(0)) if image >= 0 else (real(np.nan), real(np.nan))
    position, step = np.uint64(source), np.uint64(0)
    if dynamic:
        position, step = (counters[ROW] + np.uint64(b)) * np.uint64(P), counters[STEP]
    w0, w1, w2, w3, lane = words_of(position, first, step, stream, counters[SEED])
    p0, p1, p2, p3 = get_four(images, source, P, first, lane, whole)
    x0, x1 = one if unit(w0, real) < p0 * scale else zero, one if unit(w1, real) < p1 * scale else zero
    x2, x3 = one if unit(w2, real) < p2 * scale else zero, one if unit(w3, real) < p3 * scale else zero
    put_four(x, np.uint32(b * P), P, first, lane, whole, x0, x1, x2, x3)


def _rows(kernel, images, order, counters, x, *options):
    """A row of blocks for each image of the batch; vectors where a row is a whole number of them."""
    (N, P), (M,), B = images.shape, order.shape, x.shape[0]
    whole = int(P % 4 == 0 and aligned(images, x))
    launch(kernel, (B, blocks_for(P + 3, 4 * THREADS)), THREADS, images, order, counters, *options, N, M, P, whole, x)


def gather(images, order, counters, scale, x):
    """reference.gather."""
    _rows(gather_kernel, images, order, counters, x, x.dtype.type(scale))


def gather_binary(images, order, counters, scale, stream, dynamic, x):
    """reference.gather_binary; bytes are compared in float64, as there."""
    scale = float(scale) if images.dtype == np.uint8 else images.dtype.type(scale)
    _rows(gather_binary_kernel, images, order, counters, x, scale, int(stream), int(dynamic))
