"""Convolution, its gradient to the input and to the weight, channels last: products whose left
matrix is never stored."""

from __future__ import annotations

import numpy as np

from ..ops.activation import IDENTITY
from ..scratch import depth_parts
from .engine.compile import aligned, blocks_for, device_function, launch
from .engine.product import product
from .engine.sums import add_lines
from .engine.tile import NOWHERE, PLAIN, SMALL, TINY, Tile, matrix, row_major, tile_for
from .engine.windows import divisor, flat_windows, gathered, quad, split, windows_in, windows_of

FEW = 32  # columns up to which the phases of an image's gradient are side by side
U = np.uint32

# tall tiles, since there are more pixels than channels; a thread of 128 × 128 would have no registers left for windows
TALL, NARROW = Tile(128, 64, 16, 8, 8, 1, 2), Tile(128, 32, 16, 8, 4, 1, 2)
TILES = PLAIN | {4: (TALL, NARROW, SMALL, TINY)}  # by the bytes of a number
TENSOR = tuple(tile._replace(tensor=True) for tile in (TALL, NARROW, SMALL))


def launch_tiles(tile, left, right, bias, sizes, parts, act, place, geometry, quads, y):
    """y = act(a b + bias), each sum where `place` says. left, right: an Operand, its array and its geometry."""
    M, N, K = sizes
    (a, x, geometry_a), (b, w, geometry_b) = left, right
    launch(
        product(y.dtype, tile, a, b, place, quads),
        (blocks_for(M, tile.rows), blocks_for(N, tile.columns), parts), tile.threads,
        x, geometry_a, w, geometry_b, bias if bias.size else y, (M, N, K, K), (int(bias.size > 0), act, 0), geometry,
        y, y,
    )  # fmt: skip


# ---------------------------------------------------------------------------------------------- forward


whole = windows_in(lambda geometry, part: geometry)


def conv2d(x, w, b, stride, padding, act, work, y, tiles=None):
    """ops.conv.conv2d: y = act(windows of x · w + b)."""
    KH, KW, C, N = w.shape
    M, K = y.size // N, KH * KW * C
    tile = tile_for(tiles or TILES[y.dtype.itemsize], M, N, 1)
    windows = gathered(tile, tile.rows, quad(C, x), *whole)
    weight = matrix(False, tile.columns, tile, quad(N, w))
    quads = N % 4 == 0 and aligned(y, b if b.size else y)
    geometry = windows_of(x, y, KH, KW, stride, padding)
    left, right = (windows, x, geometry), (weight, w, (N, N))
    launch_tiles(tile, left, right, b, (M, N, K), 1, act, row_major, (M, N), quads, y)


# ---------------------------------------------------------------------------------------------- gradient to the input
#
# A phase is the pixels of the image that are alike modulo the stride. With p + padding = stride · t + a they use the
# kernel's rows a, a + stride, … only, at the output's rows t, t − 1, … So each is a convolution of stride 1 over the
# gradient, with its own part of the kernel rotated by 180°, and no sum is ever scattered.
#
# Each phase is a part of the grid, and has as many steps as its taps need. But where channels are few and all phases
# have equally many taps, the phases are laid side by side as columns (a, b, c) of one product; some of its sums lie
# outside the image.


@device_function
def weight_at(geometry, part, start, u, v, f, r, q):
    """The weight's index r rows and q columns before the tap (u, v), and that there is one."""
    KW, size = geometry[0]
    return U(start + f + ((u - r) * KW + v - q) * size), True


@device_function
def of_axis(z, axis):
    """Of the pixels z, z + stride, …: the output's row at which the first begins, its last tap, how many it has."""
    stride, padding, kernel = axis
    t, a = split(U(z + padding), stride)
    taps, _ = split(U(kernel + stride[0] - U(1) - a), stride)
    return t, U(a + stride[0] * U(taps - U(1))) if taps else a, taps


@device_function
def phase(phases, part):
    """(first row, last tap, taps) of a part of the grid, and of its columns; the last as a divisor."""
    down, right, fewer, more = phases
    y, x = split(part, right[0])
    left, v, taps = of_axis(x, right)
    return of_axis(y, down), (left, v, more if taps == more[0] else fewer)


def of_phase(geometry, part):
    """Windows of stride 1 over the gradient."""
    grid, channels, size, phases = geometry
    (top, _, rows), (left, _, columns) = phase(phases, part)
    above, beside = U(rows - U(1)) if rows else rows, U(columns[0] - U(1)) if columns[0] else columns[0]
    return grid, (channels, columns), size, (U(1), U(1)), (top, left), (above, beside)


phase_windows = windows_in(of_phase)


@device_function
def phase_steps(geometry, part, share, K):
    """As many as its taps ask for."""
    _, channels, _, phases = geometry
    (_, _, rows), (_, _, columns) = phase(phases, part)
    return U(0), U(rows * columns[0] * channels[0])


@device_function
def phase_line(geometry, part, c):
    """Of channel c: the index in a tap, and the last tap."""
    _, C, F, phases = geometry
    (_, u, _), (_, v, _) = phase(phases, part)
    return U((c if c < C else U(C - U(1))) * F[0]), u, v


@device_function
def phase_tap(geometry, part, k):
    """Of step k: the gradient's channel, and how many rows and columns before the last tap."""
    _, _, F, phases = geometry
    tap, f = split(k, F)
    r, q = split(tap, phase(phases, part)[1][2])
    return f, U(r * phases[0][0][0]), U(q * phases[1][0][0])


phase_weight = phase_line, phase_tap, weight_at


@device_function
def phase_place(geometry, part, row, column):
    """A pixel of the phase; the last ones of a phase may lie outside the image."""
    pixels, across, sh, sw, H, W, C = geometry
    n, p = split(row, pixels)
    t, s = split(p, across)
    y, x = split(part, sw)
    h, w = U(t * sh + y), U(s * sw[0] + x)
    return U(((n * H + h) * W + w) * C + column) if h < H and w < W else NOWHERE, column


def phases_apart(tiles, grad_y, w, b, stride, padding, act, grad_x):
    """conv2d_grad_x, a phase to each part of the grid."""
    (KH, KW, C, F), (sh, sw), (ph, pw), (B, H, W, _) = w.shape, stride, padding, grad_x.shape
    T, S = blocks_for(H, sh), blocks_for(W, sw)
    M, pixels, across = B * T * S, divisor(T * S), divisor(S)
    phases = (divisor(sh), ph, KH), (divisor(sw), pw, KW), divisor(KW // sw), divisor(KW // sw + 1)
    tile = tile_for(tiles, M, C, sh * sw)
    gradient = gathered(tile, tile.rows, quad(F, grad_y), *phase_windows, phase_steps)
    weight = gathered(tile, tile.columns, quad(F, w), *phase_weight)
    place, quads = (pixels, across, sh, divisor(sw), H, W, C), C % 4 == 0 and aligned(grad_x, b if b.size else grad_x)
    launch_tiles(
        tile,
        (gradient, grad_y, ((M, pixels, across), divisor(F), grad_y.shape[1:3], phases)),
        (weight, w, ((KW, C * F), C, divisor(F), phases)),
        b, (M, C, KH * KW * F), sh * sw, act, phase_place, place, quads, grad_x,
    )  # fmt: skip


@device_function
def beside_line(geometry, part, n):
    """Of column n = (a, b, c): the index in a tap, and the last tap."""
    _, limit, sh, sw, C, F, (above, beside), _ = geometry
    z, c = split(n if n < limit else U(limit - U(1)), C)
    a, b = split(z, sw)
    return U(c * F[0]), U(a + sh * above), U(b + sw[0] * beside)


@device_function
def beside_tap(geometry, part, k):
    """As phase_tap."""
    _, _, sh, sw, _, F, _, taps = geometry
    tap, f = split(k, F)
    r, q = split(tap, taps)
    return f, U(r * sh), U(q * sw[0])


beside_weight = beside_line, beside_tap, weight_at


@device_function
def beside_place(geometry, part, row, column):
    """The pixel of a column's phase, where the image has it."""
    pixels, across, (top, left), sh, sw, (ph, pw), H, W, C = geometry
    n, p = split(row, pixels)
    t, s = split(p, across)
    z, c = split(column, C)
    a, b = split(z, sw)
    h, w = U((t + top) * sh + a), U((s + left) * sw[0] + b)
    inside = h >= ph and h < ph + H and w >= pw and w < pw + W
    return U(((n * H + h - ph) * W + w - pw) * C[0] + c) if inside else NOWHERE, c


def phases_beside(tiles, grad_y, w, b, stride, padding, act, grad_x):
    """conv2d_grad_x, the phases side by side as columns."""
    (KH, KW, C, F), (sh, sw), (ph, pw), (B, H, W, _) = w.shape, stride, padding, grad_x.shape
    first, down, right = (ph // sh, pw // sw), blocks_for(KH, sh), blocks_for(KW, sw)
    T, S = (H - 1 + ph) // sh + 1 - first[0], (W - 1 + pw) // sw + 1 - first[1]
    M, N, pixels, across, last = B * T * S, sh * sw * C, divisor(T * S), divisor(S), (down - 1, right - 1)
    tile = tile_for(tiles, M, N, 1)
    gradient = gathered(tile, tile.rows, quad(F, grad_y), *whole)
    weight = gathered(tile, tile.columns, quad(F, w), *beside_weight)
    windows = (M, pixels, across), (divisor(F), divisor(right)), grad_y.shape[1:3], (1, 1), first, last
    launch_tiles(
        tile, (gradient, grad_y, windows),
        (weight, w, ((KW, C * F), N, sh, divisor(sw), divisor(C), divisor(F), last, divisor(right))),
        b, (M, N, down * right * F), 1, act,
        beside_place, (pixels, across, first, sh, divisor(sw), padding, H, W, divisor(C)), False, grad_x,
    )  # fmt: skip


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x, tiles=None):
    """ops.conv.conv2d_grad_x: grad_x = act(windows of grad_y · wᵀ, rotated by 180°, + b)."""
    (KH, KW, C, _), (sh, sw) = w.shape, stride
    few = 1 < sh * sw <= FEW // C and KH % sh == 0 and KW % sw == 0
    way = phases_beside if few else phases_apart
    way(tiles or TILES[w.dtype.itemsize], grad_y, w, b, stride, padding, act, grad_x)


# ---------------------------------------------------------------------------------------------- gradient to the weight
#
# K runs over all pixels of the batch: in parts, where the weight alone has too few numbers for a GPU.


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b, tiles=None):
    """ops.conv.conv2d_grad_w: grad_w (+)= windows of xᵀ · grad_y, grad_b (+)= Σ grad_y."""
    KH, KW, C, N = grad_w.shape
    M, K = KH * KW * C, grad_y.size // N
    parts, rows = depth_parts(M, N, K), M + int(grad_b.size > 0)
    sums, sums_b = (grad_w, grad_b) if parts == 1 else (work, work[M * N :])
    tile = tile_for(tiles or TILES[x.dtype.itemsize], M, N, parts)
    gradient = matrix(False, tile.columns, tile, quad(N, grad_y))
    kernel = product(x.dtype, tile, flat_windows(tile, quad(C, x)), gradient, row_major, N % 4 == 0 and aligned(sums))
    share = blocks_for(blocks_for(K, parts), tile.depth) * tile.depth
    grid = (blocks_for(M, tile.rows) + rows - M, blocks_for(N, tile.columns), parts)
    launch(
        kernel, grid, tile.threads, x, windows_of(x, grad_y, KH, KW, stride, padding), grad_y, (N, N), sums,
        (M, N, K, share), (0, IDENTITY, add if parts == 1 else 0), (rows, N), sums, sums_b,
    )  # fmt: skip
    if parts > 1:
        add_lines(work, parts, rows * N, M * N, add, grad_w, grad_b if grad_b.size else grad_w)


# ---------------------------------------------------------------------------------------------- tensor cores


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
