"""Random numbers, and rows that they disturb."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from ..clock import SEED, STEP
from .engine.compile import jit, parallel
from .engine.parts import LIGHT, chunks, part
from .engine.philox import BUFFER, CHUNK, FOUR, PAYS, SPACE, below, draw, parts, position_of
from .engine.vector_math import cos_sin_turn, log, muladd, stack_array, unit


@jit
def _bits(counters, stream, out, first, last):
    words, flat = carray(stack_array(np.uint32(0), SPACE), SPACE), out.reshape(-1)
    for start in range(first, last, BUFFER):
        piece = flat[start : min(start + BUFFER, last)]
        position = position_of(counters, out, start)
        drawn = draw(position, piece.size, counters[STEP], np.uint64(stream), counters[SEED], words)
        for i in range(piece.size):
            piece[i] = drawn[i]


@parallel
def _bits_parts(counters, stream, out):
    for c in prange(parts(out)):
        _bits(counters, stream, out, c * CHUNK, min(out.size, (c + 1) * CHUNK))


def philox_bits(counters, stream, out):
    """reference.philox_bits, eight or more blocks at a time."""
    if out.size >= PAYS:
        _bits_parts(counters, stream, out)
    else:
        _bits(counters, stream, out, 0, out.size)


@jit
def _uniform(counters, stream, out, first, last):
    words, flat = carray(stack_array(np.uint32(0), SPACE), SPACE), out.reshape(-1)
    zero = out.dtype.type(0)
    for start in range(first, last, BUFFER):
        piece = flat[start : min(start + BUFFER, last)]
        position = position_of(counters, out, start)
        drawn = draw(position, piece.size, counters[STEP], np.uint64(stream), counters[SEED], words)
        for i in range(piece.size):
            piece[i] = unit(drawn[i], zero)


@parallel
def _uniform_parts(counters, stream, out):
    for c in prange(parts(out)):
        _uniform(counters, stream, out, c * CHUNK, min(out.size, (c + 1) * CHUNK))


def philox_uniform(counters, stream, out):
    """reference.philox_uniform, eight or more blocks at a time."""
    if out.size >= PAYS:
        _uniform_parts(counters, stream, out)
    else:
        _uniform(counters, stream, out, 0, out.size)


@jit
def _normal(counters, stream, out, first, last):
    real, flat = out.dtype.type, out.reshape(-1)
    tiny, minus_two = real(2.0**-24), real(-2)
    words = carray(stack_array(np.uint32(0), SPACE), SPACE)
    normals = carray(stack_array(tiny, SPACE), SPACE)
    for start in range(first, last, BUFFER):
        piece = flat[start : min(start + BUFFER, last)]
        position = position_of(counters, out, start)
        draw(position, piece.size, counters[STEP], np.uint64(stream), counters[SEED], words)
        lane = np.int64(position % FOUR)
        for pair in range((lane + piece.size + 1) // 2):
            radius = math.sqrt(minus_two * log(unit(words[2 * pair], tiny) + tiny))
            cosine, sine = cos_sin_turn(unit(words[2 * pair + 1], tiny))
            normals[2 * pair], normals[2 * pair + 1] = radius * cosine, radius * sine
        drawn = normals[lane:]
        for i in range(piece.size):
            piece[i] = drawn[i]


@parallel
def _normal_parts(counters, stream, out):
    for c in prange(parts(out)):
        _normal(counters, stream, out, c * CHUNK, min(out.size, (c + 1) * CHUNK))


def philox_normal(counters, stream, out):
    """reference.philox_normal: words, then pairs of normals, in buffers that stay in the first-level cache."""
    if out.size >= PAYS:
        _normal_parts(counters, stream, out)
    else:
        _normal(counters, stream, out, 0, out.size)


@jit
def _bernoulli(p, counters, stream, out, first, last):
    position, one = position_of(counters, out, first), out.dtype.type(1)
    coins, chances = out.reshape(-1)[first:last], p.reshape(-1)[first:last]
    below(position, counters[STEP], stream, counters[SEED], chances, one, coins)


@parallel
def _bernoulli_parts(p, counters, stream, out):
    for c in prange(parts(out)):
        _bernoulli(p, counters, stream, out, c * CHUNK, min(out.size, (c + 1) * CHUNK))


def philox_bernoulli(p, counters, stream, out):
    """reference.philox_bernoulli, eight or more blocks at a time."""
    if out.size >= PAYS:
        _bernoulli_parts(p, counters, stream, out)
    else:
        _bernoulli(p, counters, stream, out, 0, out.size)


# ---------------------------------------------------------------------------------------------- disturbed rows


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
