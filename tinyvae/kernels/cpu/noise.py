"""Random numbers, dropout, and noise added to rows."""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from .engine.parts import CHUNK, LIGHT, in_parts
from .engine.philox import SPACE, drawing
from .engine.vector_math import cos_sin_turn, log, muladd, stack_array, unit


@drawing
def _bits(words, drawn, start, piece):
    for i in range(piece.size):
        piece[i] = drawn[i]


def philox_bits(counters, stream, out):
    """ops.noise.philox_bits, eight or more blocks at a time."""
    _bits(out.size, out.size, counters, stream, out)


@drawing
def _uniform(words, drawn, start, piece):
    zero = piece.dtype.type(0)
    for i in range(piece.size):
        piece[i] = unit(drawn[i], zero)


def philox_uniform(counters, stream, out):
    """ops.noise.philox_uniform, eight or more blocks at a time."""
    _uniform(out.size, out.size, counters, stream, out)


@drawing
def _normal(words, drawn, start, piece):
    real = piece.dtype.type
    tiny, minus_two, lane = real(2.0**-24), real(-2), words.size - drawn.size
    normals = carray(stack_array(tiny, SPACE), SPACE)
    for pair in range((lane + piece.size + 1) // 2):
        radius = math.sqrt(minus_two * log(unit(words[2 * pair], tiny) + tiny))
        cosine, sine = cos_sin_turn(unit(words[2 * pair + 1], tiny))
        normals[2 * pair], normals[2 * pair + 1] = radius * cosine, radius * sine
    wanted = normals[lane:]
    for i in range(piece.size):
        piece[i] = wanted[i]


def philox_normal(counters, stream, out):
    """ops.noise.philox_normal: words, then pairs of normals, in buffers that stay in the first-level cache."""
    _normal(out.size, out.size, counters, stream, out)


@drawing
def _bernoulli(words, drawn, start, piece, p):
    one, zero, chance = piece.dtype.type(1), piece.dtype.type(0), p.reshape(-1)[start:]
    for i in range(piece.size):
        piece[i] = one if unit(drawn[i], one) < chance[i] * one else zero


def philox_bernoulli(p, counters, stream, out):
    """ops.noise.philox_bernoulli, eight or more blocks at a time."""
    _bernoulli(out.size, out.size, counters, stream, out, p)


# ---------------------------------------------------------------------------------------------- disturbed rows


@drawing
def _dropout(words, drawn, start, piece, x, threshold, scale):
    zero, source = piece.dtype.type(0), x.reshape(-1)[start:]
    for i in range(piece.size):
        piece[i] = source[i] * scale if (drawn[i] >> np.uint32(8)) >= threshold else zero


def dropout(x, counters, stream, rate, scale, y):
    """ops.noise.dropout; words are compared as integers: (word >> 8) · 2⁻²⁴ ≥ rate."""
    threshold, scale = np.uint32(math.ceil(rate * 2**24)), x.dtype.type(scale)
    _dropout(y.size, y.size, counters, stream, y, x, threshold, scale)


@in_parts(CHUNK, pays=LIGHT)
def _disturb(first, last, x, sigma, y):
    x, y = x[first:last], y[first:last]
    for i in range(y.size):
        y[i] = muladd(sigma, y[i], x[i])


def add_noise(x, counters, stream, sigma, y):
    """ops.noise.add_noise: normals first, then the sum in their place."""
    philox_normal(counters, stream, y)
    _disturb(y.size, y.size, x.reshape(-1), y.dtype.type(sigma), y.reshape(-1))
