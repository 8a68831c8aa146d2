"""Windows of padded images on the register tile, channels last: what a convolution and its gradients share.
It knows addresses and strides; what the sums mean is conv.py's, conv_grad_x.py's and conv_grad_w.py's affair.

Channels last, the part of a window in one row of a padded image, KW·C numbers, lies in one piece in memory. So the tile
reads windows where they stand: it is given the address of each window's first number, the distance from one row of
the image to the next, and runs over the KH rows. No window is ever stored.

Each image is copied into a padded one in scratch memory first, small enough to stay in the cache, with zeros around
it: then no window needs a question about borders.
"""

from __future__ import annotations

from .compile import jit
from .product import PANEL_BYTES, TABLE
from .stack import copy_vector, put, stack
from .tile import ACROSS, TALL, VECTOR_BYTES, tile


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
