"""Windows of padded images on the register tile, channels last: what a convolution and its gradients share.

Channels last, the part of a window in one row of a padded image, KW·C numbers, lies in one piece in memory. So the tile
reads windows in place: it is given the address of each window's first number, the distance from one row of
the image to the next, and runs over the KH rows. No window is ever stored.

Each image is copied into a padded one in scratch memory first, small enough to stay in the cache, with zeros around
it: then no window needs a question about borders.
"""

from __future__ import annotations

from typing import NamedTuple

from .compile import inner
from .product import PANEL_BYTES, TABLE
from .stack import copy_vector, lanes_of, put, size_of, stack
from .tile import ACROSS, TALL, VECTOR_BYTES, Steps, tile


class Grid(NamedTuple):
    """Windows, or their sums: the address of the first, bytes to the one below, and to the one to the right."""

    at: int
    down: int
    right: int


class Pieces(NamedTuple):
    """A window: `runs` pieces of K numbers each, `row` bytes from one to the next."""

    K: int
    runs: int
    row: int


@inner
def aligned(work):
    """The first address in `work` on a vector's boundary; the workspace includes the numbers skipped."""
    return (work.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES


@inner
def clear(kind, target, count):
    """`count` zeros, rounded up to whole vectors."""
    for i in range(0, count, lanes_of(kind)):
        copy_vector(kind, target, target + i * size_of(kind), 0)


@inner
def copy_padded(kind, image, rows, count, target, target_row, first):
    """Rows of `count` numbers into a padded image, `first` bytes from its beginning. The zeros around them stay."""
    size = size_of(kind)
    for h in range(rows):
        source, at = image + h * count * size, target + first + h * target_row
        for i in range(0, count, lanes_of(kind)):
            copy_vector(kind, source + i * size, at + i * size, count - i)


@inner
def window_grid(tiles, kind, source, out, R, Q, window, packed, N, ends):
    """out[r, q, :] = start + Σ_u Σ_k window[r, q, u, k] · weight[u, k, :] for R × Q windows.

    source, out: Grid. window: Pieces. packed: the address of the weight (runs·K, N) in panels.
    """
    rows, outs, size = stack(TABLE), stack(TABLE), size_of(kind)
    panel, depth = ACROSS * lanes_of(kind), window.K * PANEL_BYTES
    for j in range(0, N, panel):
        weight, wide = packed + j // panel * window.runs * depth, min(panel, N - j)
        r = q = 0
        for p in range(0, R * Q, TALL):
            height = min(TALL, R * Q - p)
            for i in range(height):
                put(rows, i, source.at + r * source.down + q * source.right)
                put(outs, i, out.at + r * out.down + q * out.right)
                q += 1
                if q == Q:
                    r, q = r + 1, 0
            tile(
                tiles, kind, rows, Steps(size, window.row, 0), weight, Steps(PANEL_BYTES, depth, 0), outs, j * size,
                Steps(window.K, window.runs, 1), ends, height, wide,
            )  # fmt: skip
