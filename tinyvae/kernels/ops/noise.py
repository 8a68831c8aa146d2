"""Random numbers: Philox 4×32-10, a function of (seed, step, stream, position), and the ops that draw them."""

from __future__ import annotations

import numpy as np

from .. import clock
from ..op import COUNTERS_IN, In, Op, Option, Out, per, three_examples


def _philox(block, step, stream, seed):
    """Philox4x32-10 (Salmon et al. 2011): ten rounds over the counter (block low, block high, step, stream).

    block: uint64 array of any shape. Returns four uint64 arrays of that shape that hold 32-bit words.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1 = block & mask, block >> half
    c2 = np.full_like(block, int(step) & 0xFFFFFFFF)
    c3 = np.full_like(block, int(stream) & 0xFFFFFFFF)
    k0, k1 = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & mask, (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _words(first, width, step, stream, seed):
    """The 32-bit words at flat positions first[r] + 0 … width − 1, and for each whether its lane is odd.

    A block of four lanes serves four positions; rows need not start at a multiple of four.
    Returns pairs (even lane's word, odd lane's word) of each position's Box–Muller pair, and the lane.
    """
    first = np.asarray(first, np.uint64)
    blocks = first[:, None] // np.uint64(4) + np.arange((width + 3) // 4 + 1, dtype=np.uint64)  # (R, blocks)
    lanes = np.stack(_philox(blocks, step, stream, seed), axis=-1).reshape(len(first), -1)  # (R, 4·blocks)
    columns = (first[:, None] % np.uint64(4)).astype(np.int64) + np.arange(width)  # (R, width)
    return lanes, columns


def _bits(first, width, step, stream, seed):
    lanes, columns = _words(first, width, step, stream, seed)
    return np.take_along_axis(lanes, columns, axis=1)


def _row_starts(counters, out):
    """The flat position of each row's first element: the rows of `out` start at row ROW of the whole array."""
    R, width = out.shape
    return (counters[clock.ROW] + np.arange(R, dtype=np.uint64)) * np.uint64(width)


def philox_bits(counters, stream, out):
    """out[r, j] = the Philox word at flat position (ROW + r)·width + j of (SEED, STEP, stream).

    Key = SEED's two halves; counter words = (position//4 low, position//4 high, STEP, stream); lane = position % 4.
    counters: (5,) uint64. out: (R, width) uint32.
    """
    out[...] = _bits(_row_starts(counters, out), out.shape[1], counters[clock.STEP], stream, counters[clock.SEED])


def philox_uniform(counters, stream, out):
    """out = (word >> 8) · 2⁻²⁴, uniform in [0, 1). counters: (5,) uint64. out: (R, width)."""
    bits = _bits(_row_starts(counters, out), out.shape[1], counters[clock.STEP], stream, counters[clock.SEED])
    out[...] = (bits >> np.uint64(8)) * 2.0**-24


def philox_normal(counters, stream, out):
    """Standard normals by Box & Muller 1958 over the lane pairs (0, 1) and (2, 3) of each Philox block.

    With words a, b of a pair: r = √(−2 log(((a >> 8) + 1) · 2⁻²⁴)), θ = 2π (b >> 8) · 2⁻²⁴; the even lane gets r cos θ,
    the odd lane r sin θ. counters: (5,) uint64. out: (R, width).
    """
    width = out.shape[1]
    lanes, columns = _words(_row_starts(counters, out), width, counters[clock.STEP], stream, counters[clock.SEED])
    radius = np.sqrt(-2 * np.log(((lanes[:, 0::2] >> np.uint64(8)) + np.uint64(1)) * 2.0**-24))
    angle = (lanes[:, 1::2] >> np.uint64(8)) * (2.0**-24 * 2 * np.pi)
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(lanes.shape)
    out[...] = np.take_along_axis(normals, columns, axis=1)


def philox_bernoulli(p, counters, stream, out):
    """out = 1 where uniform < p, else 0. p, out: (R, width). counters: (5,) uint64."""
    bits = _bits(_row_starts(counters, out), out.shape[1], counters[clock.STEP], stream, counters[clock.SEED])
    out[...] = (bits >> np.uint64(8)) * 2.0**-24 < p


def dropout(x, counters, stream, rate, scale, y):
    """y = scale · x where a uniform number is at least `rate`, else 0: each number is left out with probability `rate`.

    The uniform at the same place of (SEED, STEP, stream) is always the same one, so the gradient is this op on grad_y
    and no mask is kept. Srivastava et al. 2014, section 4, with scale = 1 / (1 − rate) instead of smaller weights
    later; Vincent et al. 2008, section 2.3, with scale = 1. x, y: (R, width). counters: (5,) uint64.
    """
    bits = _bits(_row_starts(counters, y), y.shape[1], counters[clock.STEP], stream, counters[clock.SEED])
    y[...] = np.where((bits >> np.uint64(8)) * 2.0**-24 >= rate, x * x.dtype.type(scale), 0)


def add_noise(x, counters, stream, sigma, y):
    """y = x + sigma · eps, eps standard normal as philox_normal draws it. x, y: (R, width). counters: (5,) uint64."""
    philox_normal(counters, stream, y)
    y *= y.dtype.type(sigma)
    y += x


def _normal_terms(a):
    """The radius of each Box–Muller pair: a cosine near 0 is only as good as its angle."""
    R, width = a["out"].shape
    positions = np.arange(R * width).reshape(R, width)  # the example's ROW is 0
    flat = np.empty((1, R * width + 1))
    philox_uniform(a["counters"], a["stream"], flat)
    return {"out": np.sqrt(-2 * np.log(flat[0] + 2.0**-24))[positions - positions % 2]}


def _add_noise_terms(a):
    return {"y": np.abs(a["x"]) + a["sigma"] * _normal_terms(a | {"out": a["y"]})["out"]}


def _examples(width, **options):
    """width: of the largest example's rows."""
    return three_examples({"R": 1, "width": 1}, {"R": 5, "width": 7}, {"R": 128, "width": width}, stream=16, **options)


_STREAM, _OUT = Option("stream"), Out("out", "R", "width")
_X, _Y = In("x", "R", "width"), Out("y", "R", "width")

OPS = (
    Op(
        "philox_bits", (COUNTERS_IN, _STREAM, Out("out", "R", "width", dtype="uint32")),
        _examples(20), per("R", "width", cost=25), ulp=0,
    ),
    Op("philox_uniform", (COUNTERS_IN, _STREAM, _OUT), _examples(20), per("R", "width", cost=26), ulp=0),
    Op(
        "philox_normal", (COUNTERS_IN, _STREAM, _OUT),
        _examples(20), per("R", "width", cost=40), ulp=12, terms=_normal_terms,
    ),
    Op(
        "philox_bernoulli", (In("p", "R", "width", draw="unit"), COUNTERS_IN, _STREAM, _OUT),
        _examples(20), per("R", "width", cost=27), ulp=0,
    ),
    Op(
        "dropout", (_X, COUNTERS_IN, _STREAM, Option("rate"), Option("scale"), _Y),
        _examples(784, rate=0.3, scale=1 / 0.7), per("R", "width", cost=27), ulp=1,
        variants=({"rate": 0.0},),
    ),
    Op(
        "add_noise", (_X, COUNTERS_IN, _STREAM, Option("sigma"), _Y),
        _examples(784, sigma=0.5), per("R", "width", cost=42), ulp=12, terms=_add_noise_terms,
    ),
)  # fmt: skip
