"""Sums, labels appended to rows, and upsampled images: what joins the parts of a network."""

from __future__ import annotations

import numpy as np

from ..op import In, Op, Out, flat_examples, per, rows_rule, three_examples


def add(a, b, y):
    """y = a + b. a, b, y: (n,)."""
    np.add(a, b, out=y)


def concat_label(x, label, y):
    """y[r] = x[r], and behind it label[r // k]: the label of the image that row r belongs to, k = R / B.

    x: (R, N). label: (B, M). y: (R, N + M).
    """
    k = len(x) // len(label)
    y[:, : x.shape[1]] = x
    y[:, x.shape[1] :] = np.repeat(label, k, axis=0)


def concat_label_grad(grad_y, grad_x):
    """grad_x = the first N columns of grad_y; a label has no gradient. grad_y: (R, N + M). grad_x: (R, N)."""
    grad_x[...] = grad_y[:, : grad_x.shape[1]]


def upsample(x, y):
    """y[b, i, j] = x[b, i // fh, j // fw]: each pixel becomes a block of fh × fw equal ones (nearest neighbour).

    x: (B, H, W, C). y: (B, OH, OW, C) with OH = fh · H, OW = fw · W.
    """
    fh, fw = y.shape[1] // x.shape[1], y.shape[2] // x.shape[2]
    y[...] = x.repeat(fh, axis=1).repeat(fw, axis=2)


def upsample_grad(grad_y, grad_x):
    """grad_x = the sums of grad_y over the blocks of fh × fw pixels, the adjoint of upsample.

    grad_y: (B, OH, OW, C). grad_x: (B, H, W, C).
    """
    B, H, W, C = grad_x.shape
    fh, fw = grad_y.shape[1] // H, grad_y.shape[2] // W
    grad_x[...] = grad_y.reshape(B, H, fh, W, fw, C).sum(axis=(2, 4))


def _label_rule(dims, options):
    if "M" in dims and dims["N+M"] != dims["N"] + dims["M"]:
        return f"y must have N + M = {dims['N'] + dims['M']} columns, got {dims['N+M']}"
    if dims["N+M"] < dims["N"]:
        return f"grad_x has {dims['N']} columns, more than the {dims['N+M']} of grad_y"
    return rows_rule(dims, options) if "B" in dims else None


def _blocks_rule(dims, options):
    for small, large in (("H", "OH"), ("W", "OW")):
        if dims[small] < 1 or dims[large] % dims[small]:
            return f"the length {large} = {dims[large]} must be a multiple of {small} = {dims[small]}"
    return None


_LABELS = three_examples(
    {"B": 1, "R": 1, "N": 1, "M": 1, "N+M": 2}, {"B": 3, "R": 6, "N": 37, "M": 5, "N+M": 42},
    {"B": 128, "R": 128, "N": 784, "M": 10, "N+M": 794},
)  # fmt: skip
_BLOCKS = three_examples(
    {"B": 1, "H": 1, "W": 2, "C": 1, "OH": 2, "OW": 2},
    {"B": 3, "H": 4, "W": 5, "C": 7, "OH": 8, "OW": 15},
    {"B": 128, "H": 7, "W": 7, "C": 64, "OH": 14, "OW": 14},
)

OPS = (
    Op("add", (In("a", "n"), In("b", "n"), Out("y", "n")), flat_examples(), per("n"), linear=True),
    Op(
        "concat_label", (In("x", "R", "N"), In("label", "B", "M"), Out("y", "R", "N+M")),
        _LABELS, per("R", "N+M"), ulp=0, rule=_label_rule,
    ),
    Op(
        "concat_label_grad", (In("grad_y", "R", "N+M"), Out("grad_x", "R", "N")),
        _LABELS, per("R", "N"), ulp=0, rule=_label_rule,
    ),
    Op(
        "upsample", (In("x", "B", "H", "W", "C"), Out("y", "B", "OH", "OW", "C")),
        _BLOCKS, per("B", "OH", "OW", "C"), ulp=0, rule=_blocks_rule,
    ),
    Op(
        "upsample_grad", (In("grad_y", "B", "OH", "OW", "C"), Out("grad_x", "B", "H", "W", "C")),
        _BLOCKS, per("B", "OH", "OW", "C"), ulp=1, reduction=("OH", "OW"), linear=True,
        rule=_blocks_rule,
    ),
)  # fmt: skip
