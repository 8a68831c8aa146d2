"""Numbers left out or disturbed, labels put beside rows, sums of two arrays, enlarged images.
It knows flat positions, rows and pixels; the layers that ask are not its affair."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from ..clock import CURSOR, SEED, STEP
from .elementwise import LIGHT, _copy, chunks, part
from .engine.compile import jit, parallel
from .engine.vector_math import muladd, stack_array
from .noise import BUFFER, CHUNK, PAYS, SPACE, draw, parts, philox_normal, position_of

# ---------------------------------------------------------------------------------------------- noise


@jit
def _kept(words, threshold, scale, x, y):
    zero = x.dtype.type(0)
    for i in range(y.size):
        y[i] = x[i] * scale if (words[i] >> np.uint32(8)) >= threshold else zero


@jit
def _dropout(x, counters, stream, threshold, scale, y, first, last):
    words, source, flat = carray(stack_array(np.uint32(0), SPACE), SPACE), x.reshape(-1), y.reshape(-1)
    for start in range(first, last, BUFFER):
        stop = min(start + BUFFER, last)
        position = position_of(counters, y, start)
        drawn = draw(position, stop - start, counters[STEP], np.uint64(stream), counters[SEED], words)
        _kept(drawn, threshold, scale, source[start:stop], flat[start:stop])


@parallel
def _dropout_parts(x, counters, stream, threshold, scale, y):
    for c in prange(parts(y)):
        _dropout(x, counters, stream, threshold, scale, y, c * CHUNK, min(y.size, (c + 1) * CHUNK))


def dropout(x, counters, stream, rate, scale, y):
    """reference_layers.dropout; words are compared as integers: (word >> 8) · 2⁻²⁴ ≥ rate."""
    threshold, scale = np.uint32(math.ceil(rate * 2**24)), x.dtype.type(scale)
    if y.size >= PAYS:
        _dropout_parts(x, counters, stream, threshold, scale, y)
    else:
        _dropout(x, counters, stream, threshold, scale, y, 0, y.size)


@jit
def _disturb(x, sigma, y):
    for i in range(y.size):
        y[i] = muladd(sigma, y[i], x[i])


@parallel
def _disturb_parts(x, sigma, y):
    for c in prange(chunks(y.size)):
        _disturb(part(x, c), sigma, part(y, c))


def add_noise(x, counters, stream, sigma, y):
    """reference_layers.add_noise: normals first, then the sum in their place."""
    philox_normal(counters, stream, y)
    (_disturb_parts if y.size >= LIGHT else _disturb)(x.reshape(-1), y.dtype.type(sigma), y.reshape(-1))


# ---------------------------------------------------------------------------------------------- joining


@jit
def _add(a, b, y):
    for i in range(y.size):
        y[i] = a[i] + b[i]


@parallel
def _add_parts(a, b, y):
    for c in prange(chunks(y.size)):
        _add(part(a, c), part(b, c), part(y, c))


def add(a, b, y):
    """reference_layers.add in one pass."""
    (_add_parts if y.size >= LIGHT else _add)(a, b, y)


@jit
def concat_label(x, label, y):
    """reference_layers.concat_label, row by row."""
    N, k = x.shape[1], x.shape[0] // label.shape[0]
    for r in range(x.shape[0]):
        _copy(x[r], y[r, :N])
        _copy(label[r // k], y[r, N:])


@jit
def concat_label_grad(grad_y, grad_x):
    """reference_layers.concat_label_grad, row by row."""
    for r in range(grad_x.shape[0]):
        _copy(grad_y[r, : grad_x.shape[1]], grad_x[r])


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


# ---------------------------------------------------------------------------------------------- enlarging


@parallel
def upsample(x, y):
    """reference_layers.upsample, pixel by pixel of y."""
    B, H, W, _ = x.shape
    fh, fw = y.shape[1] // H, y.shape[2] // W
    for row in prange(B * y.shape[1]):
        b, i = row // y.shape[1], row % y.shape[1]
        for j in range(y.shape[2]):
            _copy(x[b, i // fh, j // fw], y[b, i, j])


@jit
def _add_to(pixel, total):
    for c in range(total.size):
        total[c] += pixel[c]


@parallel
def upsample_grad(grad_y, grad_x):
    """reference_layers.upsample_grad, each block summed row by row."""
    B, H, W, _ = grad_x.shape
    fh, fw = grad_y.shape[1] // H, grad_y.shape[2] // W
    for row in prange(B * H):
        b, i = row // H, row % H
        for j in range(W):
            _copy(grad_y[b, i * fh, j * fw], grad_x[b, i, j])
            for u in range(fh):
                for v in range(fw):
                    if u + v > 0:
                        _add_to(grad_y[b, i * fh + u, j * fw + v], grad_x[b, i, j])
