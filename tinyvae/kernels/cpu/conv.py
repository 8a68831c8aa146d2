"""Convolution, its gradient to the input and to the weight, on the register tile; channels last.
It knows windows, padding and threads; the tile knows registers, scratch.py how much memory is there.

Channels last, the part of a window in one row of a padded image, KW·C numbers, lies in one piece in memory. So the tile
reads windows where they stand: it is given the address of each window's first number, the distance from one row of
the image to the next, and runs over the KH rows. No window is ever stored, but where the images are so narrow that a
row of the tile would be mostly empty.

Each image is copied into a padded one in scratch memory first, small enough to stay in the cache, with zeros around
it: then no window needs a question about borders.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from ..reference import RELU
from ..scratch import NARROW, TASKS, images_together, partial_sums, phase_rows, room, up
from .compile import jit, parallel
from .dense import bias_grad
from .elementwise import finish
from .product import PANEL_BYTES, SMALL, TABLE, pack_panels, pack_transposed
from .stack import add_number, add_vector, copy_vector, copy_whole, move, put, stack
from .tile import ACROSS, FROM_BIAS, FROM_C, FROM_ZERO, MIDDLE, TALL, VECTOR_BYTES, tile, tile_address

JOINED = 4096  # numbers of the weight's gradient whose partial sums are added at a time


@jit
def aligned(work):
    """The first address in `work` on a vector's boundary; the scratch has room for what is left out."""
    return (work.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES


@jit
def clear(kind, lanes, size, target, count):
    """`count` zeros, rounded up to whole vectors."""
    for i in range(0, count, lanes):
        copy_vector(kind, target, target + i * size, 0)


@jit
def copy_padded(kind, lanes, size, image, rows, count, target, target_row, first):
    """Rows of `count` numbers into a padded image, `first` bytes from its beginning. The zeros around them stay."""
    for h in range(rows):
        source, at = image + h * count * size, target + first + h * target_row
        for i in range(0, count, lanes):
            copy_vector(kind, source + i * size, at + i * size, count - i)


@jit
def window_grid(
    tiles, kind, size, lanes, source, down, right, out, out_down, out_right, R, Q, K, runs, run_row, packed, N,
    start, bias, relu,
):  # fmt: skip
    """out[r, q, :] = start + Σ_u Σ_k window[r, q, u, k] · weight[u, k, :] for R × Q windows.

    source, out: addresses; down, right, out_down, out_right: bytes from one window, or its sums, to the next.
    A window is `runs` pieces of K numbers, run_row bytes apart. packed: the weight (runs·K, N) in panels.
    """
    rows, outs = stack(TABLE), stack(TABLE)
    panel = ACROSS * lanes
    for j in range(0, N, panel):
        weight, wide = packed + j // panel * runs * K * PANEL_BYTES, min(panel, N - j)
        r = q = 0
        for p in range(0, R * Q, TALL):
            height = min(TALL, R * Q - p)
            for i in range(height):
                put(rows, i, source + r * down + q * right)
                put(outs, i, out + r * out_down + q * out_right)
                q += 1
                if q == Q:
                    r, q = r + 1, 0
            tile(
                tiles, kind, rows, size, run_row, 0, weight, PANEL_BYTES, K * PANEL_BYTES, 0, outs, j * size, K, runs,
                1, start, bias, relu, height, wide,
            )  # fmt: skip


# ---------------------------------------------------------------------------------------------- forward


@jit
def forward_images(tiles, kind, x, packed, b, geometry, relu, y, pad, n0, n1):
    """y of the images n0 … n1 − 1; pad: the address of this task's padded image."""
    _, H, W, C = x.shape
    _, OH, OW, F = y.shape
    KH, KW, sh, sw, ph, pw = geometry
    size = y.itemsize
    lanes, wide = VECTOR_BYTES // size, (W + 2 * pw) * C * size
    clear(kind, lanes, size, pad, (H + 2 * ph) * (W + 2 * pw) * C)
    start = FROM_BIAS if b.size else FROM_ZERO
    for n in range(n0, n1):
        copy_padded(
            kind, lanes, size, x.ctypes.data + n * H * W * C * size, H, W * C, pad, wide, ph * wide + pw * C * size
        )
        window_grid(
            tiles, kind, size, lanes, pad, sh * wide, sw * C * size, y.ctypes.data + n * OH * OW * F * size,
            OW * F * size, F * size, OH, OW, KW * C, KH, wide, packed, F, start, b.ctypes.data, relu,
        )  # fmt: skip


@parallel
def forward_tasks(tiles, kind, x, packed, b, geometry, relu, y, pad, apart, tasks):
    """forward_images in pieces of the batch."""
    B = x.shape[0]
    for each in prange(tasks):
        task = np.int64(each)
        n0, n1 = B * task // tasks, B * (task + 1) // tasks
        forward_images(tiles, kind, x, packed, b, geometry, relu, y, pad + task * apart, n0, n1)


@jit
def forward(tiles, x, w, b, geometry, relu, work, y, tasks, pads, apart):
    """conv2d in `tasks` pieces. work: the packed weight, then, `pads` numbers on, the padded images."""
    KH, KW, C, F = w.shape
    kind, size = y.dtype.type(0), y.itemsize
    K, packed = KH * KW * C, aligned(work)
    pack_panels(kind, size, VECTOR_BYTES // size, w.ctypes.data, F * size, False, 0, K, 0, F, packed, K * PANEL_BYTES)
    pad = packed + pads * size
    forward_tasks(tiles, kind, x, packed, b, geometry, relu, y, pad, apart * size, tasks)


# ---------------------------------------------------------------------------------------------- gradient to the input
#
# With as many channels as a vector has lanes, the gradient is a convolution again. The pixels h of the image fall into
# `stride` phases: those with h + padding = stride·t + a meet the kernel's rows u = a, a + stride, … only, at the
# output's rows t, t − 1, … So each phase is a convolution of stride 1 over the padded gradient, with its own part of
# the kernel, turned round, and no sum is ever scattered.


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


# ---------------------------------------------------------------------------------------------- gradient to the weight
#
# grad_w[k, f] = Σ window[k] · grad_y[f] over all windows. The tile's rows are numbers k of the window, its columns are
# f: the windows of one row of the output are equally far apart, so each k is read where it stands in the padded image.


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


# The functions below run in Python: the number of threads and the address of the tile are asked for there, since code
# that asks for them cannot be cached.


def _tasks(grad_y, w) -> int:
    """Pieces of the batch: one where the work is small, else an equal share for every thread."""
    threads = min(get_num_threads(), TASKS)
    worth = grad_y.size * w.size // w.shape[3] >= SMALL
    return min(threads, grad_y.shape[0]) if worth else 1


def conv2d(x, w, b, stride, padding, act, work, y):
    """reference.conv2d: y = act(windows of x · w + b)."""
    KH, KW, C, F = w.shape
    _, H, W, _ = x.shape
    geometry, apart = (KH, KW, *stride, *padding), room(H + 2 * padding[0], W + 2 * padding[1], C)
    forward(
        tile_address(y.itemsize), x, w, b, geometry, int(act == RELU), work, y, _tasks(y, w), KH * KW * C * up(F), apart
    )
    finish(y, act)


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x):
    """reference.conv2d_grad_x: grad_x = act(windows of grad_y · wᵀ, scattered, + b)."""
    KH, KW, C, F = w.shape
    _, OH, OW, _ = grad_y.shape
    _, H, W, _ = grad_x.shape
    geometry, tiles, tasks = (KH, KW, *stride, *padding), tile_address(w.itemsize), _tasks(grad_y, w)
    if C < NARROW:
        K, apart = up(KH * KW * C), room(H + 2 * padding[0], W + 2 * padding[1], C)
        patches = F * K + TASKS * apart
        backward_x_narrow(
            tiles, grad_y, w, b, geometry, int(act == RELU), work, grad_x, tasks, F * K, apart, patches, TALL * K
        )  # fmt: skip
    else:
        down = phase_rows(H, OH, KH, stride[0], padding[0])
        right = phase_rows(W, OW, KW, stride[1], padding[1])
        before, padded = (down[0], right[0]), (down[1], right[1])
        backward_x(
            tiles, grad_y, w, b, geometry, before, padded, int(act == RELU), work, grad_x, tasks, KH * KW * F * up(C),
            room(*padded, F),
        )  # fmt: skip
    finish(grad_x, act)


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b):
    """reference.conv2d_grad_w: grad_w (+)= windows of xᵀ · grad_y, grad_b (+)= Σ grad_y."""
    KH, KW, C, F = grad_w.shape
    _, H, W, _ = x.shape
    B, OH, OW, _ = grad_y.shape
    image = room(H + 2 * padding[0], W + 2 * padding[1], C)
    backward_w(
        tile_address(x.itemsize), x, grad_y, (KH, KW, *stride, *padding), add, work, grad_w,
        min(partial_sums(B * OH * OW), B * OH), up(KH * KW * C * F),
        image, images_together(image),
    )  # fmt: skip
    if grad_b.size:
        bias_grad(grad_y.reshape(-1, F), add, work, grad_b)
