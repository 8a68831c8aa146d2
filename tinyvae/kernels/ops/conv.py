"""Convolution, its two gradients, and thereby the transposed convolution. Images are channels last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..op import ADD, WORK, In, Op, Option, Out
from ..scratch import forward_workspace, image_grad_workspace, output_size, weight_grad_workspace
from .activation import ACT, ACTS, BY_CODE, IDENTITY, RELU
from .dense import dense as _dense
from .dense import dense_grad_w as _dense_grad_w

Pair = tuple[int, int]


def _windows(x, KH, KW, stride, padding):
    """Every window that the kernel sees, as a view of the zero-padded x: (B, OH, OW, KH, KW, C)."""
    (ph, pw), (sh, sw) = padding, stride
    x = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (KH, KW), axis=(1, 2))  # (B, H', W', C, KH, KW)
    return windows[:, ::sh, ::sw].transpose(0, 1, 2, 4, 5, 3)


def conv2d(x, w, b, stride, padding, act, work, y):
    """y[n, i, j, f] = act(b[f] + Σ_{u, v, c} x[n, i·sh + u − ph, j·sw + v − pw, c] · w[u, v, c, f]).

    x: (B, H, W, C), taken as 0 outside. w: (KH, KW, C, F). b: (F,), or length 0 for none. stride (sh, sw), padding
    (ph, pw). y: (B, OH, OW, F) with OH = (H + 2 ph − KH) // sh + 1, OW alike.
    """
    KH, KW, C, F = w.shape
    patches = _windows(x, KH, KW, stride, padding).reshape(-1, KH * KW * C)  # one row per output pixel
    _dense(patches, w.reshape(KH * KW * C, F), b, act, y.reshape(-1, F))


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x):
    """grad_x[n, p, q, c] = act(b[c] + Σ grad_y[n, i, j, f] · w[u, v, c, f]) over i·sh + u − ph = p, j·sw + v − pw = q.

    The adjoint of conv2d. As a gradient it is called with b of length 0 and act = IDENTITY; with a bias and an
    activation it is the forward pass of the transposed convolution.
    grad_y: (B, OH, OW, F). w: (KH, KW, C, F). b: (C,), or length 0 for none. grad_x: (B, H, W, C).
    """
    (sh, sw), (ph, pw) = stride, padding
    KH, KW, C, F = w.shape
    B, OH, OW, _ = grad_y.shape
    H, W = grad_x.shape[1:3]
    padded = np.zeros((B, H + 2 * ph, W + 2 * pw, C), grad_x.dtype)
    taps = (grad_y.reshape(-1, F) @ w.reshape(-1, F).T).reshape(B, OH, OW, KH, KW, C)
    for u in range(KH):
        for v in range(KW):
            padded[:, u : u + sh * OH : sh, v : v + sw * OW : sw] += taps[:, :, :, u, v]
    grad_x[...] = padded[:, ph : ph + H, pw : pw + W]
    if b.size:
        grad_x += b
    if act != IDENTITY:
        grad_x[...] = BY_CODE[act].value(grad_x)


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b):
    """grad_w[u, v, c, f] = Σ_{n, i, j} x[n, i·sh + u − ph, j·sw + v − pw, c] · grad_y[n, i, j, f]; grad_b = Σ grad_y.

    With add = 1 both are added to what is there.
    x: (B, H, W, C). grad_y: (B, OH, OW, F). grad_w: (KH, KW, C, F). grad_b: (F,), or length 0 for none.
    """
    KH, KW, C, F = grad_w.shape
    patches = _windows(x, KH, KW, stride, padding).reshape(-1, KH * KW * C)
    _dense_grad_w(patches, grad_y.reshape(-1, F), add, work, grad_w.reshape(KH * KW * C, F), grad_b)


def _rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    for axis in (0, 1):
        size, out, kernel = dims["HW"[axis]], dims[("OH", "OW")[axis]], dims[("KH", "KW")[axis]]
        stride, padding = options["stride"][axis], options["padding"][axis]
        if stride < 1 or padding < 0:
            return f"stride must be at least 1 and padding at least 0, got {options['stride']}, {options['padding']}"
        expected = output_size(size, kernel, stride, padding)
        if expected < 1 or out != expected:
            name = ("height", "width")[axis]
            return f"{name} {size}, kernel {kernel}, stride {stride}, padding {padding} give {expected}, not {out}"
    return None


def _lengths(B: int, H: int, W: int, C: int, F: int, kernel: Pair, stride: Pair, padding: Pair) -> dict[str, Any]:
    """Lengths and options of one convolution."""
    OH, OW = (output_size(n, kernel[i], stride[i], padding[i]) for i, n in enumerate((H, W)))
    return {
        "B": B, "H": H, "W": W, "C": C, "F": F, "KH": kernel[0], "KW": kernel[1], "OH": OH, "OW": OW,
        "stride": stride, "padding": padding, "act": RELU, "add": 0,
    }  # fmt: skip


# ragged: no two lengths alike, and the last row and column of x are never read
_EXAMPLES = {
    "tiny": _lengths(2, 3, 4, 1, 2, (1, 2), (1, 1), (0, 0)),
    "ragged": _lengths(6, 10, 17, 5, 7, (4, 2), (3, 2), (1, 0)),
    "model": _lengths(128, 28, 28, 1, 32, (4, 4), (2, 2), (1, 1)),
}


def _flops(d: Mapping[str, Any]) -> float:
    return 2.0 * d["B"] * d["OH"] * d["OW"] * d["F"] * d["KH"] * d["KW"] * d["C"]


_X = In("x", "B", "H", "W", "C")
_GRAD_Y = In("grad_y", "B", "OH", "OW", "F")
_W = In("w", "KH", "KW", "C", "F")
_GEOMETRY = (Option("stride", "pair"), Option("padding", "pair"))

OPS = (
    Op(
        "conv2d",
        (_X, _W, In("b", "F", optional=True), *_GEOMETRY, ACT, WORK, Out("y", "B", "OH", "OW", "F")),
        _EXAMPLES, _flops, ulp=8, reduction=("KH", "KW", "C"), linear=True, rule=_rule,
        work=forward_workspace, variants=({"no_b": True}, *ACTS),
    ),
    Op(
        "conv2d_grad_x",
        (_GRAD_Y, _W, In("b", "C", optional=True), *_GEOMETRY, ACT, WORK,
         Out("grad_x", "B", "H", "W", "C")),
        _EXAMPLES, _flops, ulp=8, reduction=("KH", "KW", "F"), linear=True, rule=_rule,
        work=image_grad_workspace, variants=({"no_b": True}, *ACTS),
    ),
    Op(
        "conv2d_grad_w",
        (_X, _GRAD_Y, *_GEOMETRY, ADD, WORK,
         Out("grad_w", "KH", "KW", "C", "F"), Out("grad_b", "F", optional=True)),
        _EXAMPLES, _flops, ulp=1, reduction=("B", "OH", "OW"), linear=True, rule=_rule,
        work=weight_grad_workspace, variants=({"no_grad_b": True}, {"add": 1}),
    ),
)  # fmt: skip
