"""Labels put beside rows, sums of two arrays, enlarged images."""

from __future__ import annotations

from numba import prange

from .engine.compile import jit, parallel
from .engine.parts import LIGHT, chunks, part
from .engine.sums import _copy


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
