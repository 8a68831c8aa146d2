"""The gradient of a convolution to its weight, in partial sums over fixed pieces of the batch.
It knows windows and pieces; the tile knows registers.

grad_w[k, f] = Σ window[k] · grad_y[f] over all windows. The tile's rows are numbers k of the window, its columns are f:
the windows of one row of the output are equally far apart, so each k is read where it stands in the padded image.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import jit, parallel
from .product import TABLE
from .stack import put, stack
from .tile import ACROSS, FROM_C, FROM_ZERO, MIDDLE, TALL, VECTOR_BYTES, tile
from .windows import aligned, clear, copy_padded

JOINED = 4096  # numbers of the gradient whose partial sums are added at a time


@jit
def weight_band(tiles, kind, size, lanes, pad, wide, apart, images, grad, shape, geometry, total, oh0, oh1, start):
    """total (KH·KW·C, F) (+)= the rows oh0 … oh1 − 1 of an image, or all rows of several, whose padded images lie
    `apart` bytes from one another; grad: the address of the first one's gradient."""
    C, OW, F = shape
    KH, KW, sh, sw, _, _ = geometry
    rows, outs = stack(TABLE), stack(TABLE)
    run, panel = KW * C, ACROSS * lanes
    K = KH * run
    most = MIDDLE if K % MIDDLE == 0 and K % TALL else TALL
    for k in range(0, K, most):
        height = min(most, K - k)
        for i in range(height):
            put(rows, i, pad + (oh0 * sh + (k + i) // run) * wide + (k + i) % run * size)
            put(outs, i, total + (k + i) * F * size)
        for f in range(0, F, panel):
            tile(
                tiles, kind, rows, sw * C * size, sh * wide, apart, grad + (oh0 * OW * F + f) * size, F * size,
                OW * F * size, (oh1 - oh0) * OW * F * size, outs, f * size, OW, oh1 - oh0, images, start, 0, 0,
                height, min(panel, F - f),
            )  # fmt: skip


@jit
def weight_task(tiles, kind, x, grad_y, geometry, total, pad, apart, together, r0, r1):
    """total = Σ over the output's rows r0 … r1 − 1, counted through the batch; `together` images at a time."""
    _, H, W, C = x.shape
    _, OH, OW, F = grad_y.shape
    _, _, _, _, ph, pw = geometry
    size = x.itemsize
    lanes, wide, shape = VECTOR_BYTES // size, (W + 2 * pw) * C * size, (C, OW, F)
    clear(kind, lanes, size, pad, together * apart // size)
    start, n = FROM_ZERO, r0 // OH
    while n * OH < r1:
        oh0, oh1 = max(r0 - n * OH, 0), min(r1 - n * OH, OH)
        images = 1 if oh0 > 0 or oh1 < OH else min(together, (r1 - n * OH) // OH)
        for i in range(images):
            source, first = x.ctypes.data + (n + i) * H * W * C * size, ph * wide + pw * C * size
            copy_padded(kind, lanes, size, source, H, W * C, pad + i * apart, wide, first)
        grad = grad_y.ctypes.data + n * OH * OW * F * size
        weight_band(
            tiles, kind, size, lanes, pad, wide, apart, images, grad, shape, geometry, total, oh0, oh1, start
        )  # fmt: skip
        start = FROM_C
        n += images


@parallel
def weight_tasks(tiles, kind, x, grad_y, geometry, total, apart, pad, pad_apart, together, tasks):
    """weight_task in pieces of the batch, each into a sum of its own."""
    rows = grad_y.shape[0] * grad_y.shape[1]
    for each in prange(tasks):
        task = np.int64(each)
        weight_task(
            tiles, kind, x, grad_y, geometry, total + task * apart, pad + task * together * pad_apart, pad_apart,
            together, rows * task // tasks, rows * (task + 1) // tasks,
        )  # fmt: skip


@jit
def backward_w(tiles, x, grad_y, geometry, add, work, grad_w, tasks, apart, pad_apart, together):
    """conv2d_grad_w without the bias: partial sums of fixed pieces of the batch, added in order. work: the sums, the
    padded images, of each one for each task."""
    kind, size = grad_w.dtype.type(0), grad_w.itemsize
    total = aligned(work)
    pad = total + tasks * apart * size
    weight_tasks(
        tiles, kind, x, grad_y, geometry, total, apart * size, pad, pad_apart * size, together, tasks
    )  # fmt: skip
    join_tasks(work[(total - work.ctypes.data) // size :], grad_w.reshape(-1), add, tasks, apart)


@parallel
def join_tasks(work, flat, add, tasks, apart):
    """flat (+)= the partial sums, in order."""
    pieces = (flat.size + JOINED - 1) // JOINED
    for each in prange(pieces):
        first = np.int64(each) * JOINED
        last = min(flat.size, first + JOINED)
        total = work[first:last]
        for task in range(1, tasks):
            part = work[task * apart + first : task * apart + last]
            for i in range(last - first):
                total[i] += part[i]
        target = flat[first:last]
        for i in range(last - first):
            target[i] = target[i] + total[i] if add else total[i]
