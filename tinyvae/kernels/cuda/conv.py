"""Convolution, its gradient to the input and to the weight: products whose left matrix is never stored; channels last.
It knows windows, phases and pixels; product.py knows tiles.

A row of that matrix is a window (n, r, q), a column one of its numbers (u, v, c). Where the number stands in the image
is a sum: the window's corner, and the number's offset from it, each of them an index, a row and a column. Lengths are
unsigned, so what is added comes before what is taken away, and a length that divides travels as a `divisor`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..reference import IDENTITY
from ..scratch import BLOCKS, depth_parts
from .compile import aligned, blocks_for, device_function, launch
from .intrinsics import copy1, copy16
from .product import product
from .sums import add_lines
from .tile import NOWHERE, Operand, Tile, equal_shares, matrix, row_major

NARROW = 32  # columns up to which the phases of an image's gradient stand side by side
U = np.uint32


def divisor(d: int) -> tuple[int, int, int]:
    """d as `split` wants it: n // d = n · magic >> shift for every n below 2³¹ (Granlund & Montgomery 1994)."""
    shift = 31 + (d - 1).bit_length()
    return d, -(-(1 << shift) // d), shift


@device_function
def split(n, by):
    """n // d and n % d, without a division."""
    quotient = U((np.uint64(n) * np.uint64(by[1])) >> np.uint64(by[2]))
    return quotient, U(n - quotient * by[0])


# ---------------------------------------------------------------------------------------------- operands


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

    width: numbers copied at a time. With one at a time a thread has too many lines to keep notes of them all.
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
            copy(stages, to + i * step * pitch, source, place, inside and mine < k_end)

    return Operand(True, 3 * count + 1 if KEEP else 2, begin, fill, steps)


# windows = how many; divisors of their number in an image, of those side by side, of the channels, of KW; H, W, the
# step from window to window (down, right), the first one's place (top, left), the zeros before the image (above, beside).
# Number (u, v, c) of window (n, r, q) is image[n, top + r · down + u − above, left + q · right + v − beside, c].


@device_function
def corner(windows, m):
    """Index, row and column where window m begins, in an image with its zeros before it. Beyond the last, the last's."""
    limit, pixels, across, channels, _, H, W, down, right, top, left, _, _ = windows
    n, p = split(m if m < limit else U(limit - U(1)), pixels)
    r, q = split(p, across)
    h, w = U(top + r * down), U(left + q * right)
    return U(((n * H + h) * W + w) * channels[0]), h, w


@device_function
def offset(windows, k):
    """Index, row and column of a window's number k, from its corner."""
    _, _, _, channels, taps, _, W, _, _, _, _, _, _ = windows
    tap, c = split(k, channels)
    u, v = split(tap, taps)
    return U((u * W + v) * channels[0] + c), u, v


@device_function
def seen(windows, start, h, w, index, u, v):
    """The number's index in the image, and whether it is inside."""
    _, _, _, channels, _, H, W, _, _, _, _, above, beside = windows
    h, w = U(h + u), U(w + v)
    inside = h >= above and h < above + H and w >= beside and w < beside + W
    return U(start + index - (above * W + beside) * channels[0]) if inside else U(0), inside


def windows_in(of: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    """line_of, step_of and meet of the windows of(geometry, part)."""
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


whole = windows_in(lambda geometry, part: geometry)


def windows_of(
    x: Any, out: Any, KH: int, KW: int, stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[Any, ...]:
    """The windows that a convolution sees, one for each pixel of `out`."""
    (B, H, W, C), (_, OH, OW, _) = x.shape, out.shape
    return B * OH * OW, divisor(OH * OW), divisor(OW), divisor(C), divisor(KW), H, W, *stride, 0, 0, *padding


def quad(channels: int, *arrays: Any) -> int:
    """Numbers copied at a time where rows of `channels` follow each other: 16 bytes of them, or 1."""
    width = 16 // arrays[0].dtype.itemsize
    return width if channels % width == 0 and aligned(*arrays) else 1


# 8 × 8 or 8 × 4 sums for each thread, as wide as there are channels: 128, 64, 32; then smaller ones for small images
PLAIN = {
    4: (Tile(128, 128, 16, 8, 8, 1, 2), Tile(128, 64, 16, 8, 8, 1, 2), Tile(128, 32, 16, 8, 4, 1, 2),
        Tile(64, 64, 16, 4, 4, 1, 4), Tile(32, 32, 32, 4, 4, 4, 4)),
    8: (Tile(64, 64, 16, 4, 4, 1, 2), Tile(32, 32, 16, 4, 4, 4, 4)),
}  # fmt: skip
TENSOR = tuple(tile._replace(tensor=True) for tile in PLAIN[4])


def tile_for(tiles: tuple[Tile, ...], M: int, N: int, parts: int) -> Tile:
    """The first tile that is no wider than N, rounded up to 32, and gives a large GPU's multiprocessors a block each;
    else the last."""
    for tile in tiles:
        blocks = blocks_for(M, tile.rows) * blocks_for(N, tile.columns) * parts
        if tile.columns < N + 32 and blocks >= BLOCKS // 2:
            return tile
    return tiles[-1]


# ---------------------------------------------------------------------------------------------- forward


def launch_tiles(tile, a, b, place, quads, x, geometry_a, w, geometry_b, bias, sizes, parts, act, geometry_c, y):
    """y = act(a b + bias): x as the operand a, w as the operand b."""
    M, N, K = sizes
    launch(
        product(y.dtype, tile, a, b, place, quads),
        (blocks_for(M, tile.rows), blocks_for(N, tile.columns), parts), tile.threads,
        x, geometry_a, w, geometry_b, bias if bias.size else y, int(bias.size > 0), M, N, K, K, 0, act, 0, geometry_c,
        y, y,
    )  # fmt: skip


def conv2d(x, w, b, stride, padding, act, work, y, tiles=None):
    """reference.conv2d: y = act(windows of x · w + b)."""
    KH, KW, C, N = w.shape
    M, K = y.size // N, KH * KW * C
    tile = tile_for(tiles or PLAIN[y.dtype.itemsize], M, N, 1)
    windows = gathered(tile, tile.rows, quad(C, x), *whole)
    weight = matrix(False, tile.columns, tile, quad(N, w))
    quads = N % 4 == 0 and aligned(y, b if b.size else y)
    geometry = windows_of(x, y, KH, KW, stride, padding)
    launch_tiles(tile, windows, weight, row_major, quads, x, geometry, w, (N, N), b, (M, N, K), 1, act, (N,), y)


# ---------------------------------------------------------------------------------------------- gradient to the input
#
# A phase is the pixels of the image that are alike modulo the stride. With p + padding = stride · t + a they meet the
# kernel's rows a, a + stride, … only, at the output's rows t, t − 1, … So each is a convolution of stride 1 over the
# gradient, with its own part of the kernel turned round, and no sum is ever scattered.
#
# With many channels each phase is a part of the grid and has as many steps as it has taps:
#     geometry = (windows without step and place, with two divisors: the fewest and the most taps of a phase in a row),
#     divisors of the stride, padding, (KH, KW, C · F), (H, W, C)
# With few, the phases stand side by side as columns (a, b, c) of one product over the taps of the phase that has most.
# Some of its sums lie beside the image:
#     geometry = windows, (sh, divisor of sw), padding, (KH, KW, C · F), (H, W, divisor of C)


@device_function
def phase(geometry, part):
    """Of a part of the grid: its windows, the last of its taps in the kernel (row, column), and how many there are."""
    (limit, pixels, across, channels, fewer, more, H, W), (sh, sw), (ph, pw), (KH, KW, _), _ = geometry
    y, x = split(part, sw)
    top, a = split(U(y + ph), sh)
    left, b = split(U(x + pw), sw)
    down, _ = split(U(KH + sh[0] - U(1) - a), sh)
    right, _ = split(U(KW + sw[0] - U(1) - b), sw)
    above, beside = U(down - U(1)) if down else down, U(right - U(1)) if right else right
    taps = more if right == more[0] else fewer
    windows = limit, pixels, across, channels, taps, H, W, U(1), U(1), top, left, above, beside
    return windows, U(a + sh[0] * above), U(b + sw[0] * beside), U(down * right)


phase_windows = windows_in(lambda geometry, part: phase(geometry, part)[0])


@device_function
def phase_steps(geometry, part, share, K):
    """As many as its taps ask for."""
    return U(0), U(phase(geometry, part)[3] * geometry[0][3][0])


@device_function
def phase_line(geometry, part, c):
    """Of channel c: the index in a tap, and the last tap."""
    _, u, v, _ = phase(geometry, part)
    C = geometry[4][2]
    return U((c if c < C else U(C - U(1))) * geometry[0][3][0]), u, v


@device_function
def phase_tap(geometry, part, k):
    """The gradient's channel, and how many rows and columns of the kernel before the last tap."""
    tap, f = split(k, geometry[0][3])
    r, q = split(tap, phase(geometry, part)[0][4])
    return f, U(r * geometry[1][0][0]), U(q * geometry[1][1][0])


@device_function
def weight_at(geometry, part, start, u, v, f, r, q):
    """The weight's index, and whether the kernel has this tap."""
    KH, KW, size = geometry[3]
    u, v = U(u - r), U(v - q)
    return U(start + f + (u * KW + v) * size), u < KH and v < KW


phase_weight = phase_line, phase_tap, weight_at


@device_function
def phase_place(geometry, part, row, column):
    """A pixel of the phase; the last ones of a phase may lie beside the image."""
    pixels, (sh, sw), _, _, (H, W, C) = geometry
    n, p = split(row, pixels[1])
    t, s = split(p, pixels[2])
    y, x = split(part, sw)
    h, w = U(t * sh[0] + y), U(s * sw[0] + x)
    return U(((n * H + h) * W + w) * C + column) if h < H and w < W else NOWHERE, column


side_windows = windows_in(lambda geometry, part: geometry[0])


@device_function
def side_line(geometry, part, n):
    """Of column n = (a, b, c): the index in a tap, and the last tap."""
    windows, (sh, sw), _, _, (_, _, C) = geometry
    z, c = split(n, C)
    a, b = split(z, sw)
    return U(c * windows[3][0]), U(a + sh * windows[11]), U(b + sw[0] * windows[12])


@device_function
def side_tap(geometry, part, k):
    """As phase_tap."""
    windows, (sh, sw), _, _, _ = geometry
    tap, f = split(k, windows[3])
    r, q = split(tap, windows[4])
    return f, U(r * sh), U(q * sw[0])


side_weight = side_line, side_tap, weight_at


@device_function
def side_place(geometry, part, row, column):
    """The pixel of a column's phase, where the image has it."""
    windows, (sh, sw), (ph, pw), _, (H, W, C) = geometry
    n, p = split(row, windows[1])
    t, s = split(p, windows[2])
    z, c = split(column, C)
    a, b = split(z, sw)
    h, w = U((t + windows[9]) * sh + a), U((s + windows[10]) * sw[0] + b)
    inside = h >= ph and h < ph + H and w >= pw and w < pw + W
    return U(((n * H + h - ph) * W + w - pw) * C[0] + c) if inside else NOWHERE, c


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x, tiles=None):
    """reference.conv2d_grad_x: grad_x = act(windows of grad_y · wᵀ, turned round, + b)."""
    KH, KW, C, F = w.shape
    (sh, sw), (ph, pw), (_, OH, OW, _), (B, H, W, _) = stride, padding, grad_y.shape, grad_x.shape
    tiles = tiles or PLAIN[w.dtype.itemsize]
    beside = sh * sw > 1 and sh * sw * C <= NARROW
    if beside:
        top, left, down, right = ph // sh, pw // sw, blocks_for(KH, sh), blocks_for(KW, sw)
        T, S = (H - 1 + ph) // sh + 1 - top, (W - 1 + pw) // sw + 1 - left
        M, N, K, parts = B * T * S, sh * sw * C, down * right * F, 1
        windows = (
            M, divisor(T * S), divisor(S), divisor(F), divisor(right), OH, OW, 1, 1, top, left, down - 1, right - 1
        )  # fmt: skip
        geometry = windows, (sh, divisor(sw)), padding, (KH, KW, C * F), (H, W, divisor(C))
    else:
        T, S = blocks_for(H, sh), blocks_for(W, sw)
        M, N, K, parts = B * T * S, C, KH * KW * F, sh * sw
        pixels = M, divisor(T * S), divisor(S), divisor(F), divisor(max(1, KW // sw)), divisor(KW // sw + 1), OH, OW
        geometry = pixels, (divisor(sh), divisor(sw)), padding, (KH, KW, C * F), (H, W, C)
    tile = tile_for(tiles, M, N, parts)
    if beside:
        windows = gathered(tile, tile.rows, quad(F, grad_y), *side_windows)
        weight, place, quads = gathered(tile, tile.columns, quad(F, w), *side_weight), side_place, False
    else:
        windows = gathered(tile, tile.rows, quad(F, grad_y), *phase_windows, phase_steps)
        weight, place = gathered(tile, tile.columns, quad(F, w), *phase_weight), phase_place
        quads = C % 4 == 0 and aligned(grad_x, b if b.size else grad_x)
    launch_tiles(
        tile, windows, weight, place, quads, grad_y, geometry, w, geometry, b, (M, N, K), parts, act, geometry, grad_x
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- gradient to the weight
#
# grad_w = windowsᵀ grad_y: K runs over all pixels of the batch, in parts whose sums are added afterwards.


@cache
def flat_windows(tile: Tile, width: int) -> Operand:
    """The windows' numbers as rows of a, the windows along K; geometry = windows, how many numbers each has."""
    lines, pitch = tile.stage(False, tile.rows)
    lanes = tile.rows // width
    step = tile.threads // lanes
    copy, LANES, WIDTH, PITCH = copy16 if width > 1 else copy1, U(lanes), U(width), U(pitch)

    @device_function
    def begin(notes, geometry, part, first, thread):
        windows, taps = geometry
        number = U(first + thread % LANES * WIDTH)
        notes[0], notes[1], notes[2] = offset(windows, number if number < taps else U(taps - WIDTH))

    @device_function
    def fill(stages, at, source, geometry, notes, k, k_end, thread):
        line = thread // LANES
        to = U(at + line * PITCH + thread % LANES * WIDTH)
        for i in range(lines // step):
            mine = U(k + line + U(i * step))
            start, h, w = corner(geometry[0], mine)
            place, inside = seen(geometry[0], start, h, w, notes[0], notes[1], notes[2])
            copy(stages, to + i * step * pitch, source, place, inside and mine < k_end)

    return Operand(False, 3, begin, fill)


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b, tiles=None):
    """reference.conv2d_grad_w: grad_w (+)= windows of xᵀ · grad_y, grad_b (+)= Σ grad_y."""
    KH, KW, C, N = grad_w.shape
    M, K = KH * KW * C, grad_y.size // N
    parts, length = depth_parts(M, N, K), grad_w.size + grad_b.size
    tile = tile_for(tiles or PLAIN[x.dtype.itemsize], M, N, parts)
    sums, apart = (grad_w, 0) if parts == 1 else (work, length)
    sums_b = grad_b if parts == 1 or not grad_b.size else work[M * N :]
    gradient = matrix(False, tile.columns, tile, quad(N, grad_y))
    kernel = product(x.dtype, tile, flat_windows(tile, quad(C, x)), gradient, row_major, N % 4 == 0 and aligned(sums))
    share = blocks_for(blocks_for(K, parts), tile.depth) * tile.depth
    grid = (blocks_for(M, tile.rows) + int(grad_b.size > 0), blocks_for(N, tile.columns), parts)
    launch(
        kernel, grid, tile.threads, x, (windows_of(x, grad_y, KH, KW, stride, padding), M), grad_y, (N, N), sums, 0,
        M, N, K, share, apart, IDENTITY, add if parts == 1 else 0, (N,), sums, sums_b,
    )  # fmt: skip
    if parts > 1:
        add_lines(work, parts, length, M * N, add, grad_w, grad_b if grad_b.size else grad_w)


def conv2d_tf32(x, w, b, stride, padding, act, work, y):
    """conv2d, the factors of each product rounded to tf32."""
    conv2d(x, w, b, stride, padding, act, work, y, tensor(x))


def conv2d_grad_x_tf32(grad_y, w, b, stride, padding, act, work, grad_x):
    """conv2d_grad_x, the factors of each product rounded to tf32."""
    conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x, tensor(w))


def conv2d_grad_w_tf32(x, grad_y, stride, padding, add, work, grad_w, grad_b):
    """conv2d_grad_w, the factors of each product rounded to tf32; grad_b is what it is without."""
    conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b, tensor(x))


def tensor(array):
    """The tiles on tensor cores; none for float64, which is never rounded."""
    return TENSOR if array.dtype.itemsize == 4 else None


TF32 = {"conv2d": conv2d_tf32, "conv2d_grad_x": conv2d_grad_x_tf32, "conv2d_grad_w": conv2d_grad_w_tf32}
