"""The batches that are gathered or drawn from a set of images, and their labels."""

from __future__ import annotations

import numpy as np
from numba import prange

from ..clock import CURSOR, ROW, SEED, STEP
from .engine.compile import jit, parallel
from .engine.philox import PAYS, below

INTERPRETED = ("gather",)
MANY = 1 << 18  # numbers from which threads pay, where each is only copied


@jit
def chosen(images, order, counters, b):
    """The image for row b of a batch, or −1 where the order or the set is too short: such a row becomes NaN."""
    place = np.int64(counters[CURSOR]) + b
    image = order[place] if 0 <= place < order.size else -1
    return image if 0 <= image < images.shape[0] else -1


@jit
def _gather(images, order, counters, scale, x, first, last):
    real = x.dtype.type
    factor = real(scale)
    for b in range(first, last):
        image, row = chosen(images, order, counters, b), x[b]
        if image < 0:
            row[:] = real(np.nan)
        else:
            source = images[image]
            for i in range(row.size):
                row[i] = real(source[i]) * factor


@parallel
def _gather_parts(images, order, counters, scale, x):
    for b in prange(x.shape[0]):
        _gather(images, order, counters, scale, x, b, b + 1)


def gather(images, order, counters, scale, x):
    """reference.gather, row by row."""
    if x.size >= MANY:
        _gather_parts(images, order, counters, scale, x)
    else:
        _gather(images, order, counters, scale, x, 0, x.shape[0])


@jit
def _gather_binary(images, order, counters, scale, stream, dynamic, x, first, last):
    P, seed = np.uint64(x.shape[1]), counters[SEED]
    for b in range(first, last):
        image, row = chosen(images, order, counters, b), x[b]
        if image < 0:
            row[:] = x.dtype.type(np.nan)
        elif dynamic:
            position = (counters[ROW] + np.uint64(b)) * P
            below(position, counters[STEP], stream, seed, images[image], scale, row)
        else:
            below(np.uint64(image) * P, np.uint64(0), stream, seed, images[image], scale, row)


@parallel
def _gather_binary_parts(images, order, counters, scale, stream, dynamic, x):
    for b in prange(x.shape[0]):
        _gather_binary(images, order, counters, scale, stream, dynamic, x, b, b + 1)


def gather_binary(images, order, counters, scale, stream, dynamic, x):
    """reference.gather_binary, row by row; bytes are compared in float64, as there."""
    scale = float(scale) if images.dtype == np.uint8 else images.dtype.type(scale)
    if x.size >= PAYS:
        _gather_binary_parts(images, order, counters, scale, stream, dynamic, x)
    else:
        _gather_binary(images, order, counters, scale, stream, dynamic, x, 0, x.shape[0])


@jit
def gather_labels(labels, order, counters, y):
    """reference_layers.gather_labels; a row becomes NaN where order, set or classes are too short for it."""
    real = y.dtype.type
    for b in range(y.shape[0]):
        place = np.int64(counters[CURSOR]) + b
        image = order[place] if 0 <= place < order.size else -1
        label = labels[image] if 0 <= image < labels.size else -1
        y[b, :] = real(0) if 0 <= label < y.shape[1] else real(np.nan)
        if 0 <= label < y.shape[1]:
            y[b, label] = real(1)
