"""The batches that are gathered or drawn from a set of images."""

from __future__ import annotations

import numpy as np

from ...device import cuda
from .. import clock
from .engine.compile import aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import load4, store4
from .engine.philox import THREADS, first_of_four, get_four, put_four, unit, words_of


@device_function
def chosen(order, counters, b, M, N):
    """The image for row b of a batch, or −1 where the order or the set is too short: such a row becomes NaN."""
    place = counters[clock.CURSOR] + np.uint64(b)
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
        position, step = (counters[clock.ROW] + np.uint64(b)) * np.uint64(P), counters[clock.STEP]
    w0, w1, w2, w3, lane = words_of(position, first, step, stream, counters[clock.SEED])
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
    """ops.batches.gather."""
    _rows(gather_kernel, images, order, counters, x, x.dtype.type(scale))


def gather_binary(images, order, counters, scale, stream, dynamic, x):
    """ops.batches.gather_binary; bytes are compared in float64, as there."""
    scale = float(scale) if images.dtype == np.uint8 else images.dtype.type(scale)
    _rows(gather_binary_kernel, images, order, counters, x, scale, int(stream), int(dynamic))
