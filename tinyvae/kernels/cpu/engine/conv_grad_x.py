"""The gradient of a convolution to its input, which is also the transposed convolution.

With as many channels as a vector has lanes, the gradient is a convolution again. The pixels h of the image fall into
`stride` phases: those with h + padding = stride·t + a use only the kernel's rows u = a, a + stride, …, at the
output's rows t, t − 1, … So each phase is a convolution of stride 1 over the padded gradient, with its own part of
the kernel, rotated by 180°, and no sum is ever scattered. With fewer channels the windows of the gradient are made, a
few at a time, and added to the image where they belong.
"""

from __future__ import annotations

import numpy as np

from .compile import inner, jit
from .parts import in_tasks
from .product import PANEL_BYTES, TABLE, pack_panels, pack_transposed
from .stack import add_number, add_vector, copy_whole, lanes_of, move, put, size_of, stack
from .tile import ACROSS, FROM_BIAS, FROM_ZERO, TALL, Ends, Matrix, Steps, tile
from .windows import Grid, Pieces, aligned, clear, copy_padded, window_grid


@inner
def pack_phase(kind, w, shape, a, b, sh, sw, target):
    """The part of the kernel (KH, KW, C, F) that phase (a, b) uses, rotated by 180°, as (taps, F)
    rows of C columns."""
    KH, KW, C, F = shape
    size, panel = size_of(kind), ACROSS * lanes_of(kind)
    for c in range(0, C, panel):
        for r in range((KH - a + sh - 1) // sh - 1, -1, -1):
            for s in range((KW - b + sw - 1) // sw - 1, -1, -1):
                source = w + (((a + sh * r) * KW + b + sw * s) * C + c) * F * size
                pack_transposed(kind, source, F * size, min(panel, C - c), F, target, PANEL_BYTES)
                target += F * PANEL_BYTES
    return target


@inner
def first_and_count(size, phase, stride, padding):
    """t of the first pixel of a phase, and how many there are: pixel = stride·t + phase − padding, within the image."""
    first = max(0, (padding - phase + stride - 1) // stride)
    last = (size - 1 + padding - phase) // stride
    return first, max(0, last - first + 1)


@in_tasks
def gradient_tasks(task, n0, n1, numbers, tiles, kind, grad_y, packed, b, relu, grad_x, pad, spacing):
    """grad_x of the images n0 … n1 − 1, phase by phase; the padded gradients of the tasks lie `spacing` bytes from each
    other, from `pad` on."""
    _, OH, OW, F = grad_y.shape
    _, H, W, C = grad_x.shape
    KH, KW, sh, sw, ph, pw, above, before, padded_rows, padded_columns = numbers
    size, panel = size_of(kind), ACROSS * lanes_of(kind)
    wide, panels = padded_columns * F * size, (C + panel - 1) // panel
    pad += task * spacing
    clear(kind, pad, padded_rows * padded_columns * F)
    ends = Ends(FROM_BIAS if b.size else FROM_ZERO, np.int64(b.ctypes.data), relu)
    for n in range(n0, n1):
        image = np.int64(grad_y.ctypes.data) + n * OH * OW * F * size
        copy_padded(kind, image, OH, OW * F, pad, wide, above * wide + before * F * size)
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
                corner = pad + (above + t - down + 1) * wide + (before + s - right + 1) * F * size
                first = np.int64(grad_x.ctypes.data) + ((n * H + h) * W + v) * C * size
                source, out = Grid(corner, wide, F * size), Grid(first, sh * W * C * size, sw * C * size)
                window_grid(tiles, kind, source, out, R, Q, Pieces(right * F, down, wide), weight, C, ends)
                weight += down * right * F * panels * PANEL_BYTES


@inner
def untouched(image, h, v, sh, sw, R, Q, b, relu):
    """Pixels that no window reads: the bias alone, as at all others."""
    for r in range(R):
        for q in range(Q):
            for c in range(image.shape[2]):
                value = b[c] if b.size else 0
                image[h + r * sh, v + q * sw, c] = 0 if relu and value < 0 else value


@jit
def backward_x(tiles, grad_y, w, b, numbers, relu, work, grad_x, tasks, pads, spacing):
    """conv2d_grad_x by phases. numbers: the kernel, the stride, the padding, and of the padded gradient the zeros above
    and before it and its shape. work: the packed kernel, then, `pads` numbers on, the padded gradients."""
    sh, sw = numbers[2], numbers[3]
    kind, size = grad_x.dtype.type(0), grad_x.itemsize
    packed = target = np.int64(aligned(work))
    for a in range(sh):
        for c in range(sw):
            target = pack_phase(kind, np.int64(w.ctypes.data), w.shape, a, c, sh, sw, target)
    pad = packed + pads * size
    gradient_tasks(
        grad_x.shape[0], tasks, numbers, tiles, kind, grad_y, packed, b, relu, grad_x, pad, spacing * size
    )  # fmt: skip


# With few channels a row of that tile would be mostly empty. Then whole windows of gradients are made, grad_y wᵀ, TALL
# at a time, and added where the windows were read.


@inner
def scatter(kind, patch, run, runs, image, wide):
    """image += one window: `runs` pieces of `run` numbers, `wide` bytes apart in the image."""
    size, lanes = size_of(kind), lanes_of(kind)
    for u in range(runs):
        source, target = patch + u * run * size, image + u * wide
        if run < lanes // 2:  # single numbers: a vector would read what the window before has just written
            for i in range(run):
                add_number(kind, source + i * size, target + i * size)
        else:
            for i in range(0, run, lanes):
                add_vector(kind, source + i * size, target + i * size, run - i)


@in_tasks
def scattered_tasks(
    task, n0, n1, geometry, tiles, kind, grad_y, packed, b, relu, grad_x, image, spacing, patch, patch_spacing
):  # fmt: skip
    """grad_x of the images n0 … n1 − 1; image, patch: the addresses of the first task's padded image and patch of
    windows; those of the others are `spacing` and `patch_spacing` bytes apart."""
    image, patch = image + task * spacing, patch + task * patch_spacing
    _, OH, OW, F = grad_y.shape
    _, H, W, C = grad_x.shape
    KH, KW, sh, sw, ph, pw = geometry
    size, lanes = size_of(kind), lanes_of(kind)
    wide, K, panel, pixels = (W + 2 * pw) * C * size, KH * KW * C, ACROSS * lanes, OH * OW
    row = (K + lanes - 1) // lanes * lanes * size
    grad_at, out = np.int64(grad_y.ctypes.data), np.int64(grad_x.ctypes.data)
    rows, outs = stack(TABLE), stack(TABLE)
    for i in range(TALL):
        put(outs, i, patch + i * row)
    for n in range(n0, n1):
        clear(kind, image, (H + 2 * ph) * (W + 2 * pw) * C)
        for p in range(0, pixels, TALL):
            height = min(TALL, pixels - p)
            for i in range(height):
                put(rows, i, grad_at + (n * pixels + p + i) * F * size)
            for j in range(0, K, panel):
                weight = packed + j // panel * F * PANEL_BYTES
                tile(
                    tiles, kind, rows, Steps(size, 0, 0), weight, Steps(PANEL_BYTES, 0, 0), outs, j * size,
                    Steps(F, 1, 1), Ends(FROM_ZERO, 0, 0), height, min(panel, K - j),
                )  # fmt: skip
            for i in range(height):
                corner = image + (p + i) // OW * sh * wide + (p + i) % OW * sw * C * size
                scatter(kind, patch + i * row, KW * C, KH, corner, wide)
        for h in range(H):
            source, target = image + (h + ph) * wide + pw * C * size, out + (n * H + h) * W * C * size
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


@jit
def backward_x_narrow(
    tiles, grad_y, w, b, geometry, relu, work, grad_x, tasks, images, spacing, patches, patch_spacing
):
    """conv2d_grad_x by scattering. work: the packed kernel (F, KH·KW·C); from `images` on the padded images, from
    `patches` on the patches."""
    KH, KW, C, F = w.shape
    kind, size = grad_x.dtype.type(0), grad_x.itemsize
    K, packed = KH * KW * C, np.int64(aligned(work))
    pack_panels(kind, Matrix(np.int64(w.ctypes.data), F * size, 1), 0, F, 0, K, packed, F * PANEL_BYTES)
    image, patch = packed + images * size, packed + patches * size
    scattered_tasks(
        grad_x.shape[0], tasks, geometry, tiles, kind, grad_y, packed, b, relu, grad_x, image, spacing * size, patch,
        patch_spacing * size,
    )  # fmt: skip
