"""Batches: the images and labels of a slice of the epoch's order."""

from __future__ import annotations

import numpy as np

from .. import clock
from ..op import COUNTERS_IN, In, Op, Option, Out, per, three_examples
from .noise import _bits, _row_starts


def gather(images, order, counters, scale, x):
    """x[b] = scale · images[order[CURSOR + b]].

    images: (N, P) uint8, or of x's dtype. order: (M,) int64. counters: (5,) uint64. x: (B, P).
    """
    cursor = int(counters[clock.CURSOR])
    np.multiply(images[order[cursor : cursor + x.shape[0]]], x.dtype.type(scale), out=x)


def gather_binary(images, order, counters, scale, stream, dynamic, x):
    """x[b] = 1 where uniform < scale · images[order[CURSOR + b]], else 0: a stochastic binarisation.

    dynamic = 1 draws anew at each visit, at the flat position in x and the clock's STEP; dynamic = 0 draws once per
    image, at the flat position in `images` and step 0. Salakhutdinov & Murray 2008; Burda et al. 2015, section 5.
    images: (N, P) uint8, or of x's dtype. order: (M,) int64. counters: (5,) uint64. x: (B, P).
    """
    B, P = x.shape
    cursor = int(counters[clock.CURSOR])
    chosen = order[cursor : cursor + B]
    if dynamic:
        bits = _bits(_row_starts(counters, x), P, counters[clock.STEP], stream, counters[clock.SEED])
    else:
        bits = _bits(chosen.astype(np.uint64) * np.uint64(P), P, 0, stream, counters[clock.SEED])
    x[...] = (bits >> np.uint64(8)) * 2.0**-24 < images[chosen] * float(scale)


def gather_labels(labels, order, counters, y):
    """y[b] = 1 at labels[order[CURSOR + b]], else 0: the labels of the images that `gather` takes, one-hot.

    labels: (N,) int64, from 0 to K − 1. order: (M,) int64. counters: (5,) uint64. y: (B, K).
    """
    cursor = int(counters[clock.CURSOR])
    chosen = labels[order[cursor : cursor + len(y)]]
    y[...] = chosen[:, None] == np.arange(y.shape[1])


def _order_rule(output):
    def rule(dims, options):
        if dims["B"] > dims["M"]:
            return f"{output} has {dims['B']} rows, order only {dims['M']}; a batch is a stretch of the order"
        return None

    return rule


def _examples(**options):
    return three_examples(
        {"N": 3, "P": 1, "M": 5, "B": 1}, {"N": 4, "P": 13, "M": 9, "B": 3},
        {"N": 1000, "P": 784, "M": 1000, "B": 128}, scale=1 / 255, **options,
    )  # fmt: skip


_IMAGES = In("images", "N", "P", dtype="image", draw="bytes")
_ORDER = In("order", "M", dtype="int64", draw="order")

OPS = (
    Op(
        "gather", (_IMAGES, _ORDER, COUNTERS_IN, Option("scale"), Out("x", "B", "P")),
        _examples(), per("B", "P"), ulp=1, rule=_order_rule("x"),
    ),
    Op(
        "gather_binary",
        (_IMAGES, _ORDER, COUNTERS_IN, Option("scale"), Option("stream"), Option("dynamic", "flag"),
         Out("x", "B", "P")),
        _examples(stream=2, dynamic=1), per("B", "P", cost=28), ulp=0, rule=_order_rule("x"),
        variants=({"dynamic": 0},),
    ),
    Op(
        "gather_labels",
        (In("labels", "N", dtype="int64", draw="order"), _ORDER, COUNTERS_IN, Out("y", "B", "K")),
        three_examples({"N": 3, "M": 5, "B": 1, "K": 4}, {"N": 4, "M": 9, "B": 3, "K": 6},
                       {"N": 1000, "M": 1000, "B": 128, "K": 10}),
        per("B", "K"), ulp=0, rule=_order_rule("y"),
    ),
)  # fmt: skip
