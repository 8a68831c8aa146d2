"""The batches that are gathered or drawn from a set of images, and their labels."""

from __future__ import annotations

import numpy as np

from .. import clock
from .engine.compile import inner, jit
from .engine.parts import in_parts
from .engine.philox import PAYS, below

INTERPRETED = ("gather",)
MANY = 1 << 18  # numbers from which threads pay, where each is only copied


@inner
def chosen(images, order, counters, b):
    """The image for row b of a batch, or −1 where the order or the set is too short: such a row becomes NaN."""
    place = np.int64(counters[clock.CURSOR]) + b
    image = order[place] if 0 <= place < order.size else -1
    return image if 0 <= image < images.shape[0] else -1


@in_parts(1, pays=MANY)
def _gather(first, last, images, order, counters, scale, x):
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


def gather(images, order, counters, scale, x):
    """ops.batches.gather, row by row."""
    _gather(x.shape[0], x.size, images, order, counters, scale, x)


@in_parts(1, pays=PAYS)
def _gather_binary(first, last, images, order, counters, scale, stream, dynamic, x):
    P, seed = np.uint64(x.shape[1]), counters[clock.SEED]
    for b in range(first, last):
        image, row = chosen(images, order, counters, b), x[b]
        if image < 0:
            row[:] = x.dtype.type(np.nan)
        elif dynamic:
            position = (counters[clock.ROW] + np.uint64(b)) * P
            below(position, counters[clock.STEP], stream, seed, images[image], scale, row)
        else:
            below(np.uint64(image) * P, np.uint64(0), stream, seed, images[image], scale, row)


def gather_binary(images, order, counters, scale, stream, dynamic, x):
    """ops.batches.gather_binary, row by row; bytes are compared in float64, as there."""
    scale = float(scale) if images.dtype == np.uint8 else images.dtype.type(scale)
    _gather_binary(x.shape[0], x.size, images, order, counters, scale, stream, dynamic, x)


@jit
def gather_labels(labels, order, counters, y):
    """ops.batches.gather_labels; a row becomes NaN where order, set or classes are too short for it."""
    real = y.dtype.type
    for b in range(y.shape[0]):
        place = np.int64(counters[clock.CURSOR]) + b
        image = order[place] if 0 <= place < order.size else -1
        label = labels[image] if 0 <= image < labels.size else -1
        y[b, :] = real(0) if 0 <= label < y.shape[1] else real(np.nan)
        if 0 <= label < y.shape[1]:
            y[b, label] = real(1)
