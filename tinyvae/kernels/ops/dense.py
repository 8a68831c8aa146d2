"""Products: the dense layer, its two gradients, and the gradient of a bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..op import ADD, WORK, In, Op, Out, per, three_examples
from ..scratch import line_parts_workspace, transposed_weight_workspace, transposed_x_workspace
from .activation import ACT, ACTS, BY_CODE, IDENTITY, RELU


def dense(x, w, b, act, y):
    """y = act(x w + b).

    x: (B, K). w: (K, N). b: (N,), or length 0 for none. y: (B, N).
    """
    np.matmul(x, w, out=y)
    if b.size:
        y += b
    if act != IDENTITY:
        y[...] = BY_CODE[act].value(y)


def dense_grad_x(grad_y, w, work, grad_x):
    """grad_x = grad_y wᵀ. grad_y: (B, N). w: (K, N). grad_x: (B, K)."""
    np.matmul(grad_y, w.T, out=grad_x)


def dense_grad_w(x, grad_y, add, work, grad_w, grad_b):
    """grad_w = xᵀ grad_y, grad_b = Σ_B grad_y; with add = 1 both are added to what is there.

    x: (B, K). grad_y: (B, N). grad_w: (K, N). grad_b: (N,), or length 0 for none.
    """
    if add:
        grad_w += x.T @ grad_y
    else:
        np.matmul(x.T, grad_y, out=grad_w)
    if grad_b.size:
        bias_grad(grad_y, add, work, grad_b)


def bias_grad(grad_y, add, work, grad_b):
    """grad_b = Σ_R grad_y; with add = 1 it is added to what is there. grad_y: (R, N). grad_b: (N,)."""
    total = grad_y.sum(axis=0)
    grad_b[...] = grad_b + total if add else total


def _examples(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples(
        {"B": 1, "K": 2, "N": 3}, {"B": 7, "K": 33, "N": 15}, {"B": 128, "K": 784, "N": 400}, **options
    )


def _flops(dims: Mapping[str, Any]) -> float:
    return 2.0 * dims["B"] * dims["K"] * dims["N"]


OPS = (
    Op(
        "dense",
        (In("x", "B", "K"), In("w", "K", "N"), In("b", "N", optional=True), ACT, Out("y", "B", "N")),
        _examples(act=RELU), _flops, ulp=8, reduction=("K",), linear=True,
        variants=({"no_b": True}, *ACTS),
    ),
    Op(
        "dense_grad_x",
        (In("grad_y", "B", "N"), In("w", "K", "N"), WORK, Out("grad_x", "B", "K")),
        _examples(), _flops, ulp=1, reduction=("N",), linear=True, work=transposed_weight_workspace,
    ),
    Op(
        "dense_grad_w",
        (In("x", "B", "K"), In("grad_y", "B", "N"), ADD, WORK,
         Out("grad_w", "K", "N"), Out("grad_b", "N", optional=True)),
        _examples(add=0), _flops, ulp=1, reduction=("B",), linear=True, work=transposed_x_workspace,
        variants=({"no_grad_b": True}, {"add": 1}),
    ),
    Op(
        "bias_grad", (In("grad_y", "R", "N"), ADD, WORK, Out("grad_b", "N")),
        three_examples({"R": 1, "N": 1}, {"R": 9, "N": 7}, {"R": 128, "N": 400}, add=0),
        per("R", "N"), ulp=1, reduction=("R",), linear=True, work=line_parts_workspace,
        variants=({"add": 1},),
    ),
)  # fmt: skip
