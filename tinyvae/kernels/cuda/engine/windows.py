"""The windows of an image as operands of a product: a matrix that is never stored, read from the image in place.
Channels are last.

A row is a window (n, r, q), a column one of its numbers (u, v, c). The number's place in the image is a sum: the
window's corner, and the number's offset from it, each of them an index, a row and a column. Lengths are unsigned, so
what is added comes before what is taken away, and a length that divides travels as a `divisor`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .compile import aligned, device_function
from .intrinsics import copy1, copy16
from .tile import Operand, Tile, equal_shares

U = np.uint32


def divisor(d: int) -> tuple[int, int, int]:
    """d as `split` wants it: n // d = n · magic >> shift for every n below 2³¹ (Granlund & Montgomery 1994)."""
    shift = 31 + (max(d, 1) - 1).bit_length()
    return d, -(-(1 << shift) // max(d, 1)), shift


@device_function
def split(n, by):
    """n // d and n % d, without a division."""
    quotient = U((np.uint64(n) * np.uint64(by[1])) >> np.uint64(by[2]))
    return quotient, U(n - quotient * by[0])


# windows = (how many, divisor of those of an image, divisor of those side by side), (divisor of the channels, of KW),
# (H, W), the step from window to window, the first one's place, the zeros before the image; these three down and across


def windows_of(x: Any, out: Any, KH: int, KW: int, stride: tuple[int, int], padding: tuple[int, int]) -> Any:
    """The windows that a convolution sees, one for each pixel of `out`."""
    (B, H, W, C), (_, OH, OW, _) = x.shape, out.shape
    return (B * OH * OW, divisor(OH * OW), divisor(OW)), (divisor(C), divisor(KW)), (H, W), stride, (0, 0), padding


@device_function
def corner(windows, m):
    """Index, row and column where window m begins, in an image with zeros before it. Beyond the last, the last's."""
    (count, pixels, across), (channels, _), (H, W), (down, right), (top, left), _ = windows
    n, p = split(m if m < count else U(count - U(1)), pixels)
    r, q = split(p, across)
    h, w = U(top + r * down), U(left + q * right)
    return U(((n * H + h) * W + w) * channels[0]), h, w


@device_function
def offset(windows, k):
    """Index, row and column of a window's number k, from its corner."""
    _, (channels, taps), (_, W), _, _, _ = windows
    tap, c = split(k, channels)
    u, v = split(tap, taps)
    return U((u * W + v) * channels[0] + c), u, v


@device_function
def seen(windows, start, h, w, index, u, v):
    """The number's index in the image, and whether it is inside."""
    _, (channels, _), (H, W), _, _, (above, beside) = windows
    h, w = U(h + u), U(w + v)
    inside = (h >= above) & (h < U(above + H)) & (w >= beside) & (w < U(beside + W))
    return U(start + index - (U((above * W + beside) * channels[0]) if inside else U(0))), inside


def windows_in(of: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """line_of, step_of and meet, as `gathered` wants them, of the windows of(geometry, part)."""
    of = device_function(of)

    @device_function
    def line_of(geometry, part, m):
        return corner(of(geometry, part), m)

    @device_function
    def step_of(geometry, part, k):
        return offset(of(geometry, part), k)

    @device_function
    def meet(geometry, part, start, h, w, index, u, v):
        return seen(of(geometry, part), start, h, w, index, u, v)

    return line_of, step_of, meet


def quad(channels: int, array: Any) -> int:
    """Numbers copied at a time where rows of `channels` follow each other: 16 bytes of them, or 1."""
    width = 16 // array.dtype.itemsize
    return width if channels % width == 0 and aligned(array) else 1


@cache
def gathered(
    tile: Tile,
    length: int,
    width: int,
    line_of: Callable[..., Any],
    step_of: Callable[..., Any],
    meet: Callable[..., Any],
    steps: Callable[..., Any] = equal_shares,
) -> Operand:
    """A deep operand whose number (line, k) stands at meet(geometry, part, *line_of(geometry, part, line),
    *step_of(geometry, part, k)): an index, and whether there is such a number; else it is 0. line_of and step_of each
    give three uint32; `part` is that of the grid.

    length: tile.rows for a, tile.columns for b. width: numbers copied at a time. With one at a time a thread has too
    many lines to keep notes of them all.
    """
    lines, pitch = tile.stage(True, length)
    lanes = tile.depth // width  # threads that share a line
    step = tile.threads // lanes  # lines copied at a time
    count, KEEP = lines // step, width > 1
    copy, LANES, WIDTH, PITCH = copy16 if width > 1 else copy1, U(lanes), U(width), U(pitch)

    @device_function
    def begin(notes, geometry, part, first, thread):
        line = U(first + thread // LANES)
        notes[0], notes[1] = part, line
        if KEEP:
            for i in range(count):
                n = 1 + 3 * i
                notes[n], notes[n + 1], notes[n + 2] = line_of(geometry, part, U(line + U(i * step)))

    @device_function
    def fill(stages, at, source, geometry, notes, k, k_end, thread):
        mine, part = U(k + thread % LANES * WIDTH), notes[0]
        index, u, v = step_of(geometry, part, mine if mine < k_end else k)
        to = U(at + thread // LANES * PITCH + thread % LANES * WIDTH)
        for i in range(count):
            if KEEP:
                n = 1 + 3 * i
                start, h, w = notes[n], notes[n + 1], notes[n + 2]
            else:
                start, h, w = line_of(geometry, part, U(notes[1] + U(i * step)))
            place, inside = meet(geometry, part, start, h, w, index, u, v)
            copy(stages, to + i * step * pitch, source, place, inside & (mine < k_end))

    return Operand(True, 3 * count + 1 if KEEP else 2, begin, fill, steps)


@cache
def flat_windows(tile: Tile, width: int) -> Operand:
    """The windows along K, their numbers as rows of a; geometry = windows."""
    lines, pitch = tile.stage(False, tile.rows)
    lanes = tile.rows // width
    step = tile.threads // lanes
    copy, LANES, WIDTH, PITCH = copy16 if width > 1 else copy1, U(lanes), U(width), U(pitch)

    @device_function
    def begin(notes, geometry, part, first, thread):
        notes[0], notes[1], notes[2] = offset(geometry, U(first + thread % LANES * WIDTH))

    @device_function
    def fill(stages, at, source, geometry, notes, k, k_end, thread):
        line = thread // LANES
        to = U(at + line * PITCH + thread % LANES * WIDTH)
        for i in range(lines // step):
            mine = U(k + line + U(i * step))
            start, h, w = corner(geometry, mine)
            place, inside = seen(geometry, start, h, w, notes[0], notes[1], notes[2])
            copy(stages, to + i * step * pitch, source, place, inside & (mine < k_end))

    return Operand(False, 3, begin, fill)
