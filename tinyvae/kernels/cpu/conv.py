"""Convolution, and the three ops of convolutions as they are called: with how many threads, in which way."""

from __future__ import annotations

import numpy as np
from numba import get_num_threads

from ..ops.activation import RELU
from ..scratch import NARROW, TASKS, images_together, padded_size, partial_sums, phase_rows, round_up
from .activation import finish
from .dense import bias_grad
from .engine.compile import jit
from .engine.conv_grad_w import backward_w
from .engine.conv_grad_x import backward_x, backward_x_narrow
from .engine.parts import in_tasks
from .engine.product import PANEL_BYTES, SMALL, pack_panels
from .engine.stack import size_of
from .engine.tile import FROM_BIAS, FROM_ZERO, TALL, Ends, Matrix, tile_address
from .engine.windows import Grid, Pieces, aligned, clear, copy_padded, window_grid


@in_tasks
def forward_tasks(task, n0, n1, geometry, tiles, kind, x, packed, b, relu, y, pad, spacing):
    """y of the images n0 … n1 − 1; the padded images of the tasks lie `spacing` bytes apart, from `pad` on."""
    _, H, W, C = x.shape
    _, OH, OW, F = y.shape
    KH, KW, sh, sw, ph, pw = geometry
    size, wide = size_of(kind), (W + 2 * pw) * C * size_of(kind)
    pad += task * spacing
    clear(kind, pad, (H + 2 * ph) * (W + 2 * pw) * C)
    source, window = Grid(pad, sh * wide, sw * C * size), Pieces(KW * C, KH, wide)
    ends = Ends(FROM_BIAS if b.size else FROM_ZERO, np.int64(b.ctypes.data), relu)
    for n in range(n0, n1):
        image, first = np.int64(x.ctypes.data) + n * H * W * C * size, ph * wide + pw * C * size
        copy_padded(kind, image, H, W * C, pad, wide, first)
        out = Grid(np.int64(y.ctypes.data) + n * OH * OW * F * size, OW * F * size, F * size)
        window_grid(tiles, kind, source, out, OH, OW, window, packed, F, ends)


@jit
def forward(tiles, x, w, b, geometry, relu, work, y, tasks, pads, spacing):
    """conv2d in `tasks` pieces. work: the packed weight, then, `pads` numbers on, the padded images."""
    KH, KW, C, F = w.shape
    kind, size = y.dtype.type(0), y.itemsize
    K, packed = KH * KW * C, np.int64(aligned(work))
    weight = Matrix(np.int64(w.ctypes.data), F * size, 0)
    pack_panels(kind, weight, 0, K, 0, F, packed, K * PANEL_BYTES)
    pad = packed + pads * size
    forward_tasks(x.shape[0], tasks, geometry, tiles, kind, x, packed, b, relu, y, pad, spacing * size)


# The functions below run in Python: the number of threads and the address of the tile are read there, since code
# that reads them cannot be cached.


def _tasks(grad_y, w) -> int:
    """Pieces of the batch: one where the work is small, else an equal share for every thread."""
    threads = min(get_num_threads(), TASKS)
    large = grad_y.size * w.size // w.shape[3] >= SMALL
    return min(threads, grad_y.shape[0]) if large else 1


def conv2d(x, w, b, stride, padding, act, work, y):
    """ops.conv.conv2d: y = act(windows of x · w + b)."""
    KH, KW, C, F = w.shape
    _, H, W, _ = x.shape
    geometry, spacing = (KH, KW, *stride, *padding), padded_size(H + 2 * padding[0], W + 2 * padding[1], C)
    packed = KH * KW * C * round_up(F)
    forward(tile_address(y.itemsize), x, w, b, geometry, int(act == RELU), work, y, _tasks(y, w), packed, spacing)
    finish(y, act)


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x):
    """ops.conv.conv2d_grad_x: grad_x = act(windows of grad_y · wᵀ, scattered, + b)."""
    KH, KW, C, F = w.shape
    _, OH, OW, _ = grad_y.shape
    _, H, W, _ = grad_x.shape
    geometry, tiles, tasks = (KH, KW, *stride, *padding), tile_address(w.itemsize), _tasks(grad_y, w)
    if C < NARROW:
        K, spacing = round_up(KH * KW * C), padded_size(H + 2 * padding[0], W + 2 * padding[1], C)
        patches = F * K + TASKS * spacing
        backward_x_narrow(
            tiles, grad_y, w, b, geometry, int(act == RELU), work, grad_x, tasks, F * K, spacing, patches, TALL * K
        )  # fmt: skip
    else:
        above, rows = phase_rows(H, OH, KH, stride[0], padding[0])
        before, columns = phase_rows(W, OW, KW, stride[1], padding[1])
        numbers, spacing = (*geometry, above, before, rows, columns), padded_size(rows, columns, F)
        packed = KH * KW * F * round_up(C)
        backward_x(tiles, grad_y, w, b, numbers, int(act == RELU), work, grad_x, tasks, packed, spacing)
    finish(grad_x, act)


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b):
    """ops.conv.conv2d_grad_w: grad_w (+)= windows of xᵀ · grad_y, grad_b (+)= Σ grad_y."""
    KH, KW, C, F = grad_w.shape
    _, H, W, _ = x.shape
    B, OH, OW, _ = grad_y.shape
    image = padded_size(H + 2 * padding[0], W + 2 * padding[1], C)
    backward_w(
        tile_address(x.itemsize), x, grad_y, (KH, KW, *stride, *padding), add, work, grad_w,
        min(partial_sums(B * OH * OW), B * OH), round_up(KH * KW * C * F),
        image, images_together(image),
    )  # fmt: skip
    if grad_b.size:
        bias_grad(grad_y.reshape(-1, F), add, work, grad_b)
