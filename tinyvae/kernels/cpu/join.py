"""Labels appended to rows, sums of two arrays, upsampled images."""

from __future__ import annotations

from .engine.compile import jit
from .engine.parts import CHUNK, LIGHT, in_parts
from .engine.sums import add_to, copy


@in_parts(CHUNK, pays=LIGHT)
def _add(first, last, a, b, y):
    a, b, y = a[first:last], b[first:last], y[first:last]
    for i in range(y.size):
        y[i] = a[i] + b[i]


def add(a, b, y):
    """ops.join.add in one pass."""
    _add(y.size, y.size, a, b, y)


@jit
def concat_label(x, label, y):
    """ops.join.concat_label, row by row."""
    N, k = x.shape[1], x.shape[0] // label.shape[0]
    for r in range(x.shape[0]):
        copy(x[r], y[r, :N])
        copy(label[r // k], y[r, N:])


@jit
def concat_label_grad(grad_y, grad_x):
    """ops.join.concat_label_grad, row by row."""
    for r in range(grad_x.shape[0]):
        copy(grad_y[r, : grad_x.shape[1]], grad_x[r])


# ---------------------------------------------------------------------------------------------- enlarging


@in_parts(1)
def _upsample(first, last, x, y):
    _, H, W, _ = x.shape
    fh, fw = y.shape[1] // H, y.shape[2] // W
    for row in range(first, last):
        b, i = row // y.shape[1], row % y.shape[1]
        for j in range(y.shape[2]):
            copy(x[b, i // fh, j // fw], y[b, i, j])


def upsample(x, y):
    """ops.join.upsample, pixel by pixel of y."""
    _upsample(y.shape[0] * y.shape[1], y.size, x, y)


@in_parts(1)
def _upsample_grad(first, last, grad_y, grad_x):
    _, H, W, _ = grad_x.shape
    fh, fw = grad_y.shape[1] // H, grad_y.shape[2] // W
    for row in range(first, last):
        b, i = row // H, row % H
        for j in range(W):
            copy(grad_y[b, i * fh, j * fw], grad_x[b, i, j])
            for u in range(fh):
                for v in range(fw):
                    if u + v > 0:
                        add_to(grad_y[b, i * fh + u, j * fw + v], grad_x[b, i, j])


def upsample_grad(grad_y, grad_x):
    """ops.join.upsample_grad, each block summed row by row."""
    _upsample_grad(grad_x.shape[0] * grad_x.shape[1], grad_x.size, grad_y, grad_x)
