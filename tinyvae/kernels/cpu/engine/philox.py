"""Philox words, many at a time: the random bits behind every draw.

A block of Philox gives four words. Words of consecutive positions are computed into a small buffer on the stack, whole
blocks at a time, in a loop that LLVM turns into vector code; a second loop then reads from there, starting at whatever
lane the first position has. So rows may start anywhere, and no position costs more than another.
"""

from __future__ import annotations

import numpy as np
from numba import carray

from ... import clock
from .compile import inner
from .parts import in_parts
from .vector_math import inlined, stack_array, unit

BUFFER = 1024  # words computed at a time
GROUP = 8  # blocks in a round of the vector loop: always whole rounds, a block alone costs as much as eight
SPACE = BUFFER + 4 * (GROUP + 1)  # for a first position within a block and a last round that is not full
CHUNK = 8 * BUFFER  # positions per part
PAYS = 1 << 15  # numbers from which threads pay, where each is drawn
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


@inner
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


@inner
def position_of(counters, out, start):
    """The flat position of element `start` of out, whose rows begin at row ROW of the whole array."""
    return counters[clock.ROW] * np.uint64(out.shape[1]) + np.uint64(start)


@inner
def below(position, step, stream, seed, p, scale, out):
    """out = 1 where uniform < p · scale, else 0, in the precision of that product. p, out: (n,)."""
    words = carray(stack_array(np.uint32(0), SPACE), SPACE)
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for start in range(0, out.size, BUFFER):
        piece, chance = out[start : start + BUFFER], p[start : start + BUFFER]
        drawn = draw(position + np.uint64(start), piece.size, step, np.uint64(stream), seed, words)
        for i in range(piece.size):
            piece[i] = one if unit(drawn[i], scale) < chance[i] * scale else zero


def drawing(fill):
    """An op that draws a word for each element of `out`, row by row, CHUNK of them on a thread.

    fill(words, drawn, start, piece, *arguments) writes `piece`, the elements of out from the flat
    index `start` on. The word of piece[i] is drawn[i]; `words` are whole blocks, of which `drawn`
    is a part. Called from Python as run(out.size, out.size, counters, stream, out, *arguments).
    """
    fill = inner(fill)

    @in_parts(CHUNK, pays=PAYS)
    def draws(first, last, counters, stream, out, *arguments):
        words, flat = carray(stack_array(np.uint32(0), SPACE), SPACE), out.reshape(-1)
        step, seed = counters[clock.STEP], counters[clock.SEED]
        for start in range(first, last, BUFFER):
            piece = flat[start : min(start + BUFFER, last)]
            position = position_of(counters, out, start)
            drawn = draw(position, piece.size, step, np.uint64(stream), seed, words)
            fill(words, drawn, start, piece, *arguments)

    return draws
