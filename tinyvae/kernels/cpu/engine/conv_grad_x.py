"""The gradient of a convolution to its input, which is also the transposed convolution.
It knows phases and windows that are scattered; windows.py knows how windows are read.

With as many channels as a vector has lanes, the gradient is a convolution again. The pixels h of the image fall into
`stride` phases: those with h + padding = stride·t + a meet the kernel's rows u = a, a + stride, … only, at the
output's rows t, t − 1, … So each phase is a convolution of stride 1 over the padded gradient, with its own part of
the kernel, turned round, and no sum is ever scattered. With fewer channels the windows of the gradient are made, a
few at a time, and added to the image where they belong.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .compile import jit, parallel
from .product import PANEL_BYTES, TABLE, pack_panels, pack_transposed
from .stack import add_number, add_vector, copy_whole, move, put, stack
from .tile import ACROSS, FROM_BIAS, FROM_ZERO, TALL, VECTOR_BYTES, tile
from .windows import aligned, clear, copy_padded, window_grid


@jit
def pack_phase(kind, size, lanes, w, shape, a, b, sh, sw, target):
    """The part of the kernel (KH, KW, C, F) that phase (a, b) meets, turned round, as (taps, F) rows of C columns."""
    KH, KW, C, F = shape
    panel = ACROSS * lanes
    for c in range(0, C, panel):
        for r in range((KH - a + sh - 1) // sh - 1, -1, -1):
            for s in range((KW - b + sw - 1) // sw - 1, -1, -1):
                source = w + (((a + sh * r) * KW + b + sw * s) * C + c) * F * size
                pack_transposed(kind, size, lanes, source, F * size, min(panel, C - c), F, target, PANEL_BYTES)
                target += F * PANEL_BYTES
    return target


@jit
def first_and_count(size, phase, stride, padding):
    """t of the first pixel of a phase, and how many there are: pixel = stride·t + phase − padding, within the image."""
    first = max(0, (padding - phase + stride - 1) // stride)
    last = (size - 1 + padding - phase) // stride
    return first, max(0, last - first + 1)


@jit
def gradient_images(tiles, kind, grad_y, packed, b, geometry, before, padded, relu, grad_x, pad, n0, n1):
    """grad_x of the images n0 … n1 − 1, phase by phase; pad: the address of this task's padded gradient."""
    _, OH, OW, F = grad_y.shape
    _, H, W, C = grad_x.shape
    KH, KW, sh, sw, ph, pw = geometry
    size = grad_x.itemsize
    lanes, panel, wide = VECTOR_BYTES // size, ACROSS * VECTOR_BYTES // size, padded[1] * F * size
    panels = (C + panel - 1) // panel
    clear(kind, lanes, size, pad, padded[0] * padded[1] * F)
    start = FROM_BIAS if b.size else FROM_ZERO
    for n in range(n0, n1):
        first = before[0] * wide + before[1] * F * size
        copy_padded(kind, lanes, size, grad_y.ctypes.data + n * OH * OW * F * size, OH, OW * F, pad, wide, first)
        weight = packed
        for a in range(sh):
            t, R = first_and_count(H, a, sh, ph)
            down = (KH - a + sh - 1) // sh
            for c in range(sw):
                s, Q = first_and_count(W, c, sw, pw)
                right = (KW - c + sw - 1) // sw
                h, v = sh * t + a - ph, sw * s + c - pw
                if down <= 0 or right <= 0:
                    untouched(grad_x[n], h, v, sh, sw, R, Q, b, relu)
                    continue
                source = pad + (before[0] + t - down + 1) * wide + (before[1] + s - right + 1) * F * size
                out = grad_x.ctypes.data + ((n * H + h) * W + v) * C * size
                window_grid(
                    tiles, kind, size, lanes, source, wide, F * size, out, sh * W * C * size, sw * C * size, R, Q,
                    right * F, down, wide, weight, C, start, b.ctypes.data, relu,
                )  # fmt: skip
                weight += down * right * F * panels * PANEL_BYTES


@jit
def untouched(image, h, v, sh, sw, R, Q, b, relu):
    """Pixels that no window reads: the bias alone, as at all others."""
    for r in range(R):
        for q in range(Q):
            for c in range(image.shape[2]):
                value = b[c] if b.size else 0
                image[h + r * sh, v + q * sw, c] = 0 if relu and value < 0 else value


@parallel
def gradient_tasks(tiles, kind, grad_y, packed, b, geometry, before, padded, relu, grad_x, pad, apart, tasks):
    """gradient_images in pieces of the batch."""
    B = grad_x.shape[0]
    for each in prange(tasks):
        task = np.int64(each)
        n0, n1 = B * task // tasks, B * (task + 1) // tasks
        gradient_images(
            tiles, kind, grad_y, packed, b, geometry, before, padded, relu, grad_x, pad + task * apart, n0, n1
        )  # fmt: skip


@jit
def backward_x(tiles, grad_y, w, b, geometry, before, padded, relu, work, grad_x, tasks, pads, apart):
    """conv2d_grad_x by phases. work: the packed kernel, then, `pads` numbers on, the padded gradients."""
    _, _, sh, sw, _, _ = geometry
    kind, size = grad_x.dtype.type(0), grad_x.itemsize
    packed = target = aligned(work)
    for a in range(sh):
        for c in range(sw):
            target = pack_phase(kind, size, VECTOR_BYTES // size, w.ctypes.data, w.shape, a, c, sh, sw, target)
    pad = packed + pads * size
    gradient_tasks(tiles, kind, grad_y, packed, b, geometry, before, padded, relu, grad_x, pad, apart * size, tasks)


# With few channels a row of that tile would be mostly empty. Then whole windows of gradients are made, grad_y wᵀ, TALL
# at a time, and added where the windows were read.


@jit
def scatter(kind, size, lanes, patch, run, runs, image, wide):
    """image += one window: `runs` pieces of `run` numbers, `wide` bytes apart in the image."""
    for u in range(runs):
        source, target = patch + u * run * size, image + u * wide
        if run < lanes // 2:  # single numbers: a vector would read what the window before has just written
            for i in range(run):
                add_number(kind, source + i * size, target + i * size)
        else:
            for i in range(0, run, lanes):
                add_vector(kind, source + i * size, target + i * size, run - i)


@jit
def scattered_images(tiles, kind, grad_y, packed, b, geometry, relu, grad_x, image, patch, n0, n1):
    """grad_x of the images n0 … n1 − 1; image, patch: addresses of this task's padded image and patch of windows."""
    _, OH, OW, F = grad_y.shape
    _, H, W, C = grad_x.shape
    KH, KW, sh, sw, ph, pw = geometry
    size = grad_x.itemsize
    lanes, wide = VECTOR_BYTES // size, (W + 2 * pw) * C * size
    K, panel, pixels = KH * KW * C, ACROSS * lanes, OH * OW
    row = (K + lanes - 1) // lanes * lanes * size
    rows, outs = stack(TABLE), stack(TABLE)
    for i in range(TALL):
        put(outs, i, patch + i * row)
    for n in range(n0, n1):
        clear(kind, lanes, size, image, (H + 2 * ph) * (W + 2 * pw) * C)
        for p in range(0, pixels, TALL):
            height = min(TALL, pixels - p)
            for i in range(height):
                put(rows, i, grad_y.ctypes.data + (n * pixels + p + i) * F * size)
            for j in range(0, K, panel):
                weight = packed + j // panel * F * PANEL_BYTES
                tile(
                    tiles, kind, rows, size, 0, 0, weight, PANEL_BYTES, 0, 0, outs, j * size, F, 1, 1, FROM_ZERO, 0, 0,
                    height, min(panel, K - j),
                )  # fmt: skip
            for i in range(height):
                corner = image + (p + i) // OW * sh * wide + (p + i) % OW * sw * C * size
                scatter(kind, size, lanes, patch + i * row, KW * C, KH, corner, wide)
        for h in range(H):
            source, target = image + (h + ph) * wide + pw * C * size, grad_x.ctypes.data + (n * H + h) * W * C * size
            for i in range(0, W * C - lanes + 1, lanes):
                copy_whole(kind, source + i * size, target + i * size)
            for i in range(W * C - W * C % lanes, W * C):
                move(kind, source + i * size, target + i * size)
        if b.size:
            pixels_of_image = grad_x[n].reshape(H * W, C)
            for q in range(H * W):
                for c in range(C):
                    pixels_of_image[q, c] += b[c]
        if relu:
            flat = grad_x[n].reshape(H * W * C)
            for i in range(flat.size):
                flat[i] = 0 if flat[i] < 0 else flat[i]


@parallel
def scattered_tasks(tiles, kind, grad_y, packed, b, geometry, relu, grad_x, image, apart, patch, patch_apart, tasks):
    """scattered_images in pieces of the batch."""
    B = grad_x.shape[0]
    for each in prange(tasks):
        task = np.int64(each)
        n0, n1 = B * task // tasks, B * (task + 1) // tasks
        scattered_images(
            tiles, kind, grad_y, packed, b, geometry, relu, grad_x, image + task * apart, patch + task * patch_apart,
            n0, n1,
        )  # fmt: skip


@jit
def backward_x_narrow(tiles, grad_y, w, b, geometry, relu, work, grad_x, tasks, images, apart, patches, patch_apart):
    """conv2d_grad_x by scattering. work: the packed kernel (F, KH·KW·C); from `images` on the padded images, from
    `patches` on the patches."""
    KH, KW, C, F = w.shape
    kind, size = grad_x.dtype.type(0), grad_x.itemsize
    K, packed = KH * KW * C, aligned(work)
    pack_panels(kind, size, VECTOR_BYTES // size, w.ctypes.data, F * size, True, 0, F, 0, K, packed, F * PANEL_BYTES)
    image, patch = packed + images * size, packed + patches * size
    scattered_tasks(
        tiles, kind, grad_y, packed, b, geometry, relu, grad_x, image, apart * size, patch, patch_apart * size, tasks
    )  # fmt: skip
