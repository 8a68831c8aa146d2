"""Convolution, its gradient to the input and to the weight, as products on the register tile; channels last.
It knows which pixels a window sees and where its sums belong; no window is ever stored for the whole batch.

Channels last, the part of a window in one row of the image, KW·C numbers, lies in one piece in memory. So a window is
gathered as KH pieces into a row of a small buffer, and scattered back as KH pieces. A row of kernel numbers is called a
*run* here: run u holds k = u·KW·C … (u + 1)·KW·C − 1 of the K = KH·KW·C numbers of a window.
"""

from __future__ import annotations

from numba import get_num_threads, prange

from .. import partial_sums
from .compile import jit, parallel
from .product import (
    A_BYTES,
    A_ROW,
    ALIASED,
    B_BYTES,
    DEPTH,
    GROUP,
    PANEL_BYTES,
    SMALL,
    bias_grad,
    finish,
    pack_rows,
    pack_transposed,
)
from .stack import clear, copy_vector, stack
from .tile import ACROSS, TALL, VECTOR_BYTES, tile
from .vector_math import apply_activation

TASKS = 16  # pieces that a batch is cut into; a number of its own, so that the bits do not depend on the threads
PIXELS = 128  # windows gathered at a time for the weight's gradient
WINDOW_ROW = DEPTH * 8 + VECTOR_BYTES
WINDOW_BYTES = PIXELS * WINDOW_ROW


@jit
def gather_window(kind, size, lanes, x, H, W, C, top, left, KW, k0, k1, target):
    """Numbers k0 … k1 − 1 of the window whose corner is (top, left) of the image at x, zeros outside; ascending in k.

    Whole vectors are written, so up to lanes − 1 numbers behind the last are overwritten: the next piece mends them.
    """
    run = KW * C
    k = k0
    while k < k1:
        u = k // run
        first, end = k - u * run, min(k1 - u * run, run)  # within the run
        h = top + u
        inside, until = max(first, min(end, -left * C)), max(first, min(end, (W - left) * C))
        if h < 0 or h >= H or until < inside:
            inside = until = end
        for s in range(first, inside):
            clear(kind, target + (k - k0 + s - first) * size)
        source = x + (h * W + left) * C * size
        for s in range(inside, until, lanes):
            copy_vector(kind, source + s * size, target + (k - k0 + s - first) * size, until - s)
        for s in range(until, end):
            clear(kind, target + (k - k0 + s - first) * size)
        k = u * run + end


@jit
def windows_product(kind, size, lanes, x, shape, w, bias, geometry, act, out, p0, p1):
    """out[p0:p1] = act(windows w + bias) for the output pixels p0 … p1 − 1; out is (pixels, F)."""
    H, W, C, OH, OW = shape
    KH, KW, sh, sw, ph, pw = geometry
    F, K = out.shape[1], KH * KW * C
    panel = ACROSS * lanes
    a_pack, b_pack = stack(A_BYTES), stack(B_BYTES)
    for j0 in range(0, F, GROUP * panel):
        j1 = min(j0 + GROUP * panel, F)
        for k0 in range(0, K, DEPTH):
            depth = min(DEPTH, K - k0)
            for j in range(j0, j1, panel):
                target = b_pack + (j - j0) // panel * DEPTH * PANEL_BYTES
                source, wide = w + (k0 * F + j) * size, min(panel, j1 - j)
                pack_rows(kind, size, lanes, source, F * size, depth, wide, target, PANEL_BYTES)
            for p in range(p0, p1, TALL):
                height = min(TALL, p1 - p)
                for i in range(height):
                    n, pixel = (p + i) // (OH * OW), (p + i) % (OH * OW)
                    top, left = pixel // OW * sh - ph, pixel % OW * sw - pw
                    image = x + n * H * W * C * size
                    gather_window(kind, size, lanes, image, H, W, C, top, left, KW, k0, k0 + depth, a_pack + i * A_ROW)
                for j in range(j0, j1, panel):
                    packed, wide = b_pack + (j - j0) // panel * DEPTH * PANEL_BYTES, min(panel, j1 - j)
                    target = out.ctypes.data + (p * F + j) * size
                    add = 1 if k0 > 0 else 0
                    tile(
                        kind,
                        a_pack,
                        A_ROW,
                        size,
                        packed,
                        PANEL_BYTES,
                        target,
                        F * size,
                        depth,
                        add,
                        height,
                        wide,
                        lanes,
                    )
                if k0 + depth == K and (bias.size or act):
                    finish(out, p, p + height, j0, j1, bias, act)


@parallel
def forward_tasks(kind, size, lanes, x, shape, w, bias, geometry, act, out, tasks):
    """windows_product over all pixels, cut into tasks at multiples of the tile's height."""
    pixels = out.shape[0]
    tall = ((pixels + tasks - 1) // tasks + TALL - 1) // TALL * TALL
    for task in prange(tasks):
        p0, p1 = min(task * tall, pixels), min((task + 1) * tall, pixels)
        if p0 < p1:
            windows_product(kind, size, lanes, x, shape, w, bias, geometry, act, out, p0, p1)


@jit
def forward(x, w, b, stride, padding, act, y, tasks):
    """conv2d in `tasks` pieces; one piece stays on this thread."""
    _, H, W, C = x.shape
    KH, KW, _, F = w.shape
    B, OH, OW, _ = y.shape
    kind, size = y.dtype.type(0), y.itemsize
    shape, geometry = (H, W, C, OH, OW), (KH, KW, stride[0], stride[1], padding[0], padding[1])
    out, x_at, w_at = y.reshape(B * OH * OW, F), x.ctypes.data, w.ctypes.data
    if tasks == 1:
        windows_product(kind, size, VECTOR_BYTES // size, x_at, shape, w_at, b, geometry, act, out, 0, B * OH * OW)
    else:
        forward_tasks(kind, size, VECTOR_BYTES // size, x_at, shape, w_at, b, geometry, act, out, tasks)


@jit
def scatter_window(patch, row, image, H, W, C, top, left, KW, k0, k1):
    """image += numbers k0 … k1 − 1 of a window, patch[row, 0 …], with its corner at (top, left); what is outside
    falls."""
    run = KW * C
    k = k0
    while k < k1:
        u = k // run
        first, end = k - u * run, min(k1 - u * run, run)
        h = top + u
        if 0 <= h < H:
            inside, until = max(first, -left * C), min(end, (W - left) * C)
            start, source = (h * W + left) * C, k - k0 - first
            for s in range(inside, until):
                image[start + s] += patch[row, source + s]
        k = u * run + end


@jit
def images_grad_x(kind, size, lanes, grad_y, w, bias, shape, geometry, act, images, patch, n0, n1):
    """grad_x of the images n0 … n1 − 1: windows of gradients, grad_y wᵀ, scattered where the windows were read."""
    H, W, C, OH, OW, F = shape
    KH, KW, sh, sw, ph, pw = geometry
    K, panel, pixels = KH * KW * C, ACROSS * lanes, OH * OW
    a_pack, b_pack = stack(A_BYTES), stack(B_BYTES)
    images[n0:n1] = 0
    patch_row = patch.shape[1] * size
    for f0 in range(0, F, DEPTH):
        depth = min(DEPTH, F - f0)
        for k0 in range(0, K, GROUP * panel):
            k1 = min(k0 + GROUP * panel, K)
            for j in range(k0, k1, panel):
                target, wide = b_pack + (j - k0) // panel * DEPTH * PANEL_BYTES, min(panel, k1 - j)
                pack_transposed(kind, size, lanes, w + (j * F + f0) * size, F * size, wide, depth, target, PANEL_BYTES)
            for n in range(n0, n1):
                for p in range(0, pixels, TALL):
                    height = min(TALL, pixels - p)
                    source, row = grad_y + ((n * pixels + p) * F + f0) * size, F * size
                    if row % ALIASED == 0:
                        pack_rows(kind, size, lanes, source, row, height, depth, a_pack, A_ROW)
                        source, row = a_pack, A_ROW
                    for j in range(k0, k1, panel):
                        packed, wide = b_pack + (j - k0) // panel * DEPTH * PANEL_BYTES, min(panel, k1 - j)
                        target = patch.ctypes.data + (j - k0) * size
                        tile(
                            kind,
                            source,
                            row,
                            size,
                            packed,
                            PANEL_BYTES,
                            target,
                            patch_row,
                            depth,
                            0,
                            height,
                            wide,
                            lanes,
                        )
                    for i in range(height):
                        top, left = (p + i) // OW * sh - ph, (p + i) % OW * sw - pw
                        scatter_window(patch, i, images[n], H, W, C, top, left, KW, k0, k1)
    if bias.size:
        for n in range(n0, n1):
            for q in range(0, H * W * C, C):
                for c in range(C):
                    images[n, q + c] += bias[c]
    if act:
        for n in range(n0, n1):
            apply_activation(images[n], act)


@parallel
def grad_x_tasks(kind, size, lanes, grad_y, w, bias, shape, geometry, act, images, patches, tasks):
    """images_grad_x over the batch, an image never in two tasks."""
    B = images.shape[0]
    for task in prange(tasks):
        n0, n1 = task * B // tasks, (task + 1) * B // tasks
        if n0 < n1:
            images_grad_x(kind, size, lanes, grad_y, w, bias, shape, geometry, act, images, patches[task], n0, n1)


@jit
def backward_x(grad_y, w, b, stride, padding, act, work, grad_x, tasks, parallel_tasks):
    """conv2d_grad_x; work holds one patch (TALL, GROUP tiles) per task."""
    B, OH, OW, F = grad_y.shape
    _, H, W, C = grad_x.shape
    KH, KW = w.shape[0], w.shape[1]
    kind, size = grad_x.dtype.type(0), grad_x.itemsize
    lanes = VECTOR_BYTES // size
    shape, geometry = (H, W, C, OH, OW, F), (KH, KW, stride[0], stride[1], padding[0], padding[1])
    images, wide = grad_x.reshape(B, H * W * C), GROUP * ACROSS * lanes
    patches = work[: tasks * TALL * wide].reshape(tasks, TALL, wide)
    g_at, w_at = grad_y.ctypes.data, w.ctypes.data
    if parallel_tasks:
        grad_x_tasks(kind, size, lanes, g_at, w_at, b, shape, geometry, act, images, patches, tasks)
    else:
        images_grad_x(kind, size, lanes, g_at, w_at, b, shape, geometry, act, images, patches[0], 0, B)


@jit
def windows_grad_w(kind, size, lanes, x, grad_y, shape, geometry, total, p0, p1):
    """total (K, F) = Σ over the pixels p0 … p1 − 1 of windowᵀ grad_y."""
    H, W, C, OH, OW, F = shape
    KH, KW, sh, sw, ph, pw = geometry
    K, panel = KH * KW * C, ACROSS * lanes
    windows = stack(WINDOW_BYTES)
    for k0 in range(0, K, DEPTH):
        k1 = min(k0 + DEPTH, K)
        for p in range(p0, p1, PIXELS):
            count = min(PIXELS, p1 - p)
            for i in range(count):
                n, pixel = (p + i) // (OH * OW), (p + i) % (OH * OW)
                top, left = pixel // OW * sh - ph, pixel % OW * sw - pw
                image = x + n * H * W * C * size
                gather_window(kind, size, lanes, image, H, W, C, top, left, KW, k0, k1, windows + i * WINDOW_ROW)
            add = 1 if p > p0 else 0
            for k in range(k0, k1, TALL):
                height = min(TALL, k1 - k)
                source = windows + (k - k0) * size
                for j in range(0, F, panel):
                    gradient, wide = grad_y + (p * F + j) * size, min(panel, F - j)
                    target = total.ctypes.data + (k * F + j) * size
                    tile(
                        kind, source, size, WINDOW_ROW, gradient, F * size, target, F * size, count, add, height,
                        wide, lanes
                    )  # fmt: skip


@parallel
def grad_w_tasks(kind, size, lanes, x, grad_y, shape, geometry, totals, pixels):
    """windows_grad_w in pieces of the batch, each into a sum of its own."""
    tasks = totals.shape[0]
    for task in prange(tasks):
        p0, p1 = task * pixels // tasks, (task + 1) * pixels // tasks
        windows_grad_w(kind, size, lanes, x, grad_y, shape, geometry, totals[task], p0, p1)


@jit
def backward_w(x, grad_y, stride, padding, add, work, grad_w, tasks, parallel_tasks):
    """conv2d_grad_w without the bias: partial sums of fixed pieces of the batch, added in order."""
    _, H, W, C = x.shape
    B, OH, OW, F = grad_y.shape
    KH, KW = grad_w.shape[0], grad_w.shape[1]
    kind, size = grad_w.dtype.type(0), grad_w.itemsize
    lanes, K = VECTOR_BYTES // size, KH * KW * C
    shape, geometry = (H, W, C, OH, OW, F), (KH, KW, stride[0], stride[1], padding[0], padding[1])
    totals, pixels = work[: tasks * K * F].reshape(tasks, K, F), B * OH * OW
    if parallel_tasks:
        grad_w_tasks(kind, size, lanes, x.ctypes.data, grad_y.ctypes.data, shape, geometry, totals, pixels)
    else:
        for task in range(tasks):
            p0, p1 = task * pixels // tasks, (task + 1) * pixels // tasks
            windows_grad_w(
                kind, size, lanes, x.ctypes.data, grad_y.ctypes.data, shape, geometry, totals[task], p0, p1
            )  # fmt: skip
    flat, parts = grad_w.reshape(K * F), totals.reshape(tasks, K * F)
    if not add:
        flat[:] = 0
    for task in range(tasks):
        for i in range(K * F):
            flat[i] += parts[task, i]


# The functions below run in Python: the number of threads is asked for there, since code that asks for it cannot be
# cached.


def conv2d(x, w, b, stride, padding, act, work, y):
    """reference.conv2d: y = act(windows of x · w + b)."""
    worth = y.size * w.size // w.shape[3] >= SMALL and get_num_threads() > 1
    forward(x, w, b, stride, padding, act, y, TASKS if worth else 1)


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x):
    """reference.conv2d_grad_x: grad_x = act(windows of grad_y · wᵀ, scattered, + b)."""
    worth = grad_y.size * w.size // w.shape[3] >= SMALL and get_num_threads() > 1
    backward_x(grad_y, w, b, stride, padding, act, work, grad_x, TASKS, worth)


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b):
    """reference.conv2d_grad_w: grad_w (+)= windows of xᵀ · grad_y, grad_b (+)= Σ grad_y."""
    worth = grad_y.size * grad_w.size // grad_w.shape[3] >= SMALL and get_num_threads() > 1
    tasks = partial_sums(grad_y.size // grad_y.shape[3])
    backward_w(x, grad_y, stride, padding, add, work, grad_w, tasks, worth)
    if grad_b.size:
        bias_grad(grad_y.reshape(-1, grad_y.shape[3]), add, work, grad_b)
