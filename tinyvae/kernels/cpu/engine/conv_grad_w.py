"""The gradient of a convolution to its weight, in partial sums over fixed pieces of the batch.

grad_w[k, f] = Σ window[k] · grad_y[f] over all windows. The tile's rows are numbers k of the window, its columns are f:
the windows of one row of the output are equally far apart, so each k is read in place from the padded image.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import inner, jit, parallel
from .parts import in_tasks
from .product import TABLE
from .stack import lanes_of, put, size_of, stack
from .tile import ACROSS, FROM_C, FROM_ZERO, MIDDLE, TALL, Ends, Steps, tile
from .windows import aligned, clear, copy_padded

JOINED = 4096  # numbers of the gradient whose partial sums are added at a time


@inner
def weight_band(tiles, kind, pad, wide, spacing, images, grad, shape, geometry, total, oh0, oh1, start):
    """total (KH·KW·C, F) (+)= the rows oh0 … oh1 − 1 of an image, or all rows of several, whose padded images lie
    `spacing` bytes from one another; grad: the address of the first one's gradient."""
    C, OW, F = shape
    KH, KW, sh, sw, _, _ = geometry
    rows, outs, size = stack(TABLE), stack(TABLE), size_of(kind)
    run, panel = KW * C, ACROSS * lanes_of(kind)
    a, b = Steps(sw * C * size, sh * wide, spacing), Steps(F * size, OW * F * size, (oh1 - oh0) * OW * F * size)
    K = KH * run
    most = MIDDLE if K % MIDDLE == 0 and K % TALL else TALL
    for k in range(0, K, most):
        height = min(most, K - k)
        for i in range(height):
            put(rows, i, pad + (oh0 * sh + (k + i) // run) * wide + (k + i) % run * size)
            put(outs, i, total + (k + i) * F * size)
        for f in range(0, F, panel):
            tile(
                tiles, kind, rows, a, grad + (oh0 * OW * F + f) * size, b, outs, f * size,
                Steps(OW, oh1 - oh0, images), Ends(start, 0, 0), height, min(panel, F - f),
            )  # fmt: skip


@in_tasks
def weight_tasks(task, r0, r1, geometry, tiles, kind, x, grad_y, total, size_of_total, pad, spacing, together):
    """A sum over the output's rows r0 … r1 − 1, counted through the batch, `together` images at a time. The sums of
    the tasks begin `size_of_total` bytes apart, from `total` on; a task's padded images are `spacing` bytes apart."""
    total, pad = total + task * size_of_total, pad + task * together * spacing
    _, H, W, C = x.shape
    _, OH, OW, F = grad_y.shape
    _, _, _, _, ph, pw = geometry
    size, wide, shape = size_of(kind), (W + 2 * pw) * C * size_of(kind), (C, OW, F)
    clear(kind, pad, together * spacing // size)
    start, n = FROM_ZERO, r0 // OH
    while n * OH < r1:
        oh0, oh1 = max(r0 - n * OH, 0), min(r1 - n * OH, OH)
        images = 1 if oh0 > 0 or oh1 < OH else min(together, (r1 - n * OH) // OH)
        for i in range(images):
            source, first = np.int64(x.ctypes.data) + (n + i) * H * W * C * size, ph * wide + pw * C * size
            copy_padded(kind, source, H, W * C, pad + i * spacing, wide, first)
        grad = np.int64(grad_y.ctypes.data) + n * OH * OW * F * size
        weight_band(tiles, kind, pad, wide, spacing, images, grad, shape, geometry, total, oh0, oh1, start)
        start = FROM_C
        n += images


@jit
def backward_w(tiles, x, grad_y, geometry, add, work, grad_w, tasks, spacing, pad_spacing, together):
    """conv2d_grad_w without the bias: partial sums of fixed pieces of the batch, added in order. work: the sums, the
    padded images, of each one for each task."""
    kind, size = grad_w.dtype.type(0), grad_w.itemsize
    total = np.int64(aligned(work))
    pad = total + tasks * spacing * size
    weight_tasks(
        grad_y.shape[0] * grad_y.shape[1], tasks, geometry, tiles, kind, x, grad_y, total, spacing * size, pad,
        pad_spacing * size, together,
    )  # fmt: skip
    join_tasks(work[(total - np.int64(work.ctypes.data)) // size :], grad_w.reshape(-1), add, tasks, spacing)


@parallel
def join_tasks(work, flat, add, tasks, spacing):
    """flat (+)= the partial sums, in order."""
    pieces = (flat.size + JOINED - 1) // JOINED
    for each in prange(pieces):
        first = np.int64(each) * JOINED
        last = min(flat.size, first + JOINED)
        total = work[first:last]
        for task in range(1, tasks):
            part = work[task * spacing + first : task * spacing + last]
            for i in range(last - first):
                total[i] += part[i]
        target = flat[first:last]
        for i in range(last - first):
            target[i] = target[i] + total[i] if add else total[i]
