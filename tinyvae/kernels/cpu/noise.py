"""Philox words and what is drawn from them, and the batches that are gathered or drawn from a set of images.
It knows counters and flat positions; who draws is told by `stream`.

A block of Philox gives four words. Words of consecutive positions are computed into a small buffer on the stack, whole
blocks at a time, in a loop that LLVM turns into vector code; a second loop then reads from there, starting at whatever
lane the first position has. So rows may start anywhere, and no position costs more than another.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from ..clock import CURSOR, ROW, SEED, STEP
from .engine.compile import jit, parallel
from .engine.vector_math import cos_sin_turn, inlined, log, stack_array, unit

BUFFER = 1024  # words computed at a time
GROUP = 8  # blocks in a round of the vector loop: always whole rounds, a block alone costs as much as eight
SPACE = BUFFER + 4 * (GROUP + 1)  # for a first position within a block and a last round that is not full
CHUNK = 8 * BUFFER  # positions per part, where parts are drawn side by side
PAYS = 1 << 15  # numbers from which threads pay, where each is drawn
MANY = 1 << 18  # and where each is only copied

MASK, HALF, ONE, FOUR = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(1), np.uint64(4)
MULTIPLY0, MULTIPLY1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL0, WEYL1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)


@inlined
def philox(block, step, stream, seed):
    """Philox4x32-10 (Salmon et al. 2011): four 32-bit words of the counter (block low, block high, step, stream)."""
    c0, c1, c2, c3 = block & MASK, block >> HALF, step & MASK, stream & MASK
    k0, k1 = seed & MASK, seed >> HALF
    for _ in range(10):
        p0, p1 = c0 * MULTIPLY0, c2 * MULTIPLY1
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & MASK, (p0 >> HALF) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + WEYL0) & MASK, (k1 + WEYL1) & MASK
    return c0, c1, c2, c3


@jit
def draw(position, count, step, stream, seed, words):
    """Whole blocks into `words`; returns the view of it that starts at `position`.

    A view and not an offset: of words[offset + i] LLVM would not know that the index is no negative one, and load one
    word at a time.
    """
    lane = np.int64(position % FOUR)
    blocks = ((lane + count + 3) // 4 + GROUP - 1) // GROUP * GROUP
    first = position // FOUR
    for b in range(blocks):
        w0, w1, w2, w3 = philox(first + np.uint64(b), step, stream, seed)
        words[4 * b] = np.uint32(w0)
        words[4 * b + 1] = np.uint32(w1)
        words[4 * b + 2] = np.uint32(w2)
        words[4 * b + 3] = np.uint32(w3)
    return words[lane:]


@jit
def parts(out):
    """The number of parts of an array of any shape."""
    return (out.size + CHUNK - 1) // CHUNK


@jit
def position_of(counters, out, start):
    """The flat position of element `start` of out, whose rows begin at row ROW of the whole array."""
    return counters[ROW] * np.uint64(out.shape[1]) + np.uint64(start)


# ---------------------------------------------------------------------------------------------- words


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


# ---------------------------------------------------------------------------------------------- coins


@jit
def below(position, step, stream, seed, p, scale, out):
    """out = 1 where uniform < p · scale, else 0, in the precision of that product. p, out: (n,)."""
    words = carray(stack_array(np.uint32(0), SPACE), SPACE)
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for start in range(0, out.size, BUFFER):
        piece, chance = out[start : start + BUFFER], p[start : start + BUFFER]
        drawn = draw(position + np.uint64(start), piece.size, step, np.uint64(stream), seed, words)
        for i in range(piece.size):
            piece[i] = one if unit(drawn[i], scale) < chance[i] * scale else zero


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


# ---------------------------------------------------------------------------------------------- batches


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
