"""Matrix products on the register tile, for all three uses in a dense layer, with bias and activation behind the last
sum. It knows blocks, packing and threads; the tile knows registers.

Operands are first *packed*: copied, block by block, into small buffers on the stack in the order in which the tile
reads them. Then every read of the tile is the neighbour of the one before, whatever the strides were, a transposed
operand costs little more than a plain one, and no two rows fall on the same place of the cache. The sum over k is cut
into the same blocks whatever the number of threads, and each element of C belongs to one task, so the bits do not
depend on the threads.
"""

from __future__ import annotations

from numba import get_num_threads, prange

from .compile import jit, parallel
from .stack import copy_vector, move, stack, transpose_block
from .tile import ACROSS, TALL, VECTOR_BYTES, tile
from .vector_math import apply_activation

DEPTH = 384  # k of a block: TALL rows of it, and a few rows of B, stay in the first-level cache
GROUP = 4  # tiles side by side that share a packed block of A
PANEL_BYTES = ACROSS * VECTOR_BYTES  # one row of a tile
A_ROW = DEPTH * 8 + VECTOR_BYTES  # bytes between packed rows of A: no power of two, wide enough for float64
A_STEP = -(-TALL * 8 // VECTOR_BYTES) * VECTOR_BYTES  # bytes of TALL packed numbers, in whole vectors
A_BYTES = max(TALL * A_ROW, DEPTH * A_STEP)
B_BYTES = GROUP * DEPTH * PANEL_BYTES
SMALL = 1_000_000  # multiply-adds under which entering a parallel region costs more than it gives
ALIASED = 1024  # bytes: rows at multiples of this crowd the same sets of the first-level cache


@jit
def pack_rows(kind, size, lanes, source, row, count, columns, target, target_row):
    """`count` rows of `columns` numbers, the last vector of each filled up with zeros."""
    for i in range(count):
        for j in range(0, columns, lanes):
            copy_vector(kind, source + i * row + j * size, target + i * target_row + j * size, columns - j)


@jit
def pack_transposed(kind, size, lanes, source, row, count, columns, target, target_row):
    """target[j, i] = source[i, j]: `count` rows become columns, lanes × lanes numbers at a time."""
    whole = count - count % lanes
    for i in range(0, whole, lanes):
        inner = columns - columns % lanes
        for j in range(0, inner, lanes):
            transpose_block(kind, source + i * row + j * size, row, target + j * target_row + i * size, target_row)
        for j in range(inner, columns):
            for q in range(i, i + lanes):
                move(kind, source + q * row + j * size, target + j * target_row + q * size)
    for i in range(whole, count):
        for j in range(columns):
            move(kind, source + i * row + j * size, target + j * target_row + i * size)


@jit
def block(kind, size, lanes, a, a_row, a_turned, b, b_row, b_turned, y, y_row, i0, i1, j0, j1, K, add, bias, act, out):
    """out[i0:i1, j0:j1] (+)= A B for all k, then bias and activation.

    a, b, y: addresses; rows a_row, b_row, y_row bytes apart. a_turned: A is stored as (K, M); b_turned: B as (N, K).
    bias: (N,) or length 0. out: the array at y.
    """
    a_pack, b_pack = stack(A_BYTES), stack(B_BYTES)
    panel = ACROSS * lanes
    for k0 in range(0, K, DEPTH):
        depth = min(DEPTH, K - k0)
        last = k0 + depth == K
        for j in range(j0, j1, panel):
            wide, target = min(panel, j1 - j), b_pack + (j - j0) // panel * DEPTH * PANEL_BYTES
            if b_turned:
                pack_transposed(kind, size, lanes, b + j * b_row + k0 * size, b_row, wide, depth, target, PANEL_BYTES)
            else:
                pack_rows(kind, size, lanes, b + k0 * b_row + j * size, b_row, depth, wide, target, PANEL_BYTES)
        for i in range(i0, i1, TALL):
            height = min(TALL, i1 - i)
            source, row, step = a + i * a_row + k0 * size, a_row, size
            if a_turned and a_row % ALIASED == 0:
                source, row, step = a_pack, size, A_STEP
                pack_rows(kind, size, lanes, a + k0 * a_row + i * size, a_row, depth, height, a_pack, step)
            elif a_turned:
                source, row, step = a + k0 * a_row + i * size, size, a_row
            elif a_row % ALIASED == 0:
                source, row = a_pack, A_ROW
                pack_rows(kind, size, lanes, a + i * a_row + k0 * size, a_row, height, depth, a_pack, A_ROW)
            adding = 1 if add or k0 > 0 else 0
            for j in range(j0, j1, panel):
                packed = b_pack + (j - j0) // panel * DEPTH * PANEL_BYTES
                target, wide = y + i * y_row + j * size, min(panel, j1 - j)
                tile(kind, source, row, step, packed, PANEL_BYTES, target, y_row, depth, adding, height, wide, lanes)
            if last and (bias.size or act):
                finish(out, i, i + height, j0, j1, bias, act)


@jit
def finish(out, i0, i1, j0, j1, bias, act):
    """out[i0:i1, j0:j1] ← act(out + bias), while it is in the cache."""
    for i in range(i0, i1):
        row = out[i, j0:j1]
        if bias.size:
            for j in range(j1 - j0):
                row[j] += bias[j0 + j]
        if act:
            apply_activation(row, act)


@parallel
def spread(kind, size, lanes, a, a_row, a_turned, b, b_row, b_turned, y, y_row, M, N, K, add, bias, act, out, tall):
    """The product in tasks of `tall` rows and GROUP tiles across, spread over the threads."""
    wide = GROUP * ACROSS * lanes
    down, across = (M + tall - 1) // tall, (N + wide - 1) // wide
    for task in prange(down * across):
        i, j = task % down * tall, task // down * wide
        block(
            kind, size, lanes, a, a_row, a_turned, b, b_row, b_turned, y, y_row,
            i, min(i + tall, M), j, min(j + wide, N), K, add, bias, act, out,
        )  # fmt: skip


@jit
def product(a, a_turned, b, b_turned, add, bias, act, out, threads):
    """out (M, N) (+)= A B, A = a or aᵀ, B = b or bᵀ, then bias and activation; threads where it is worth one."""
    M, N = out.shape
    K = a.shape[0] if a_turned else a.shape[1]
    kind, size = out.dtype.type(0), out.itemsize
    lanes = VECTOR_BYTES // size
    a_at, b_at, y_at = a.ctypes.data, b.ctypes.data, out.ctypes.data
    a_row, b_row, y_row = a.shape[1] * size, b.shape[1] * size, N * size
    wide = GROUP * ACROSS * lanes
    if M * N * K < SMALL or threads == 1:
        for j in range(0, N, wide):
            block(
                kind, size, lanes, a_at, a_row, a_turned, b_at, b_row, b_turned, y_at, y_row,
                0, M, j, min(j + wide, N), K, add, bias, act, out,
            )  # fmt: skip
    else:
        # few tasks across: cut the rows too, so that every thread has its share
        across = (N + wide - 1) // wide
        cuts = 1 if across >= 4 * threads or across % threads == 0 else min(threads, (M + TALL - 1) // TALL)
        tall = ((M + cuts - 1) // cuts + TALL - 1) // TALL * TALL
        spread(
            kind, size, lanes, a_at, a_row, a_turned, b_at, b_row, b_turned, y_at, y_row,
            M, N, K, add, bias, act, out, tall,
        )  # fmt: skip


# The functions below run in Python: the number of threads is asked for there, since code that asks for it cannot be
# cached.


def dense(x, w, b, act, y):
    """reference.dense: y = act(x w + b)."""
    product(x, False, w, False, 0, b, act, y, get_num_threads())


def dense_grad_x(grad_y, w, work, grad_x):
    """reference.dense_grad_x: grad_x = grad_y wᵀ."""
    product(grad_y, False, w, True, 0, work[:0], 0, grad_x, get_num_threads())


def dense_grad_w(x, grad_y, add, work, grad_w, grad_b):
    """reference.dense_grad_w: grad_w (+)= xᵀ grad_y, grad_b (+)= Σ_B grad_y."""
    product(x, True, grad_y, False, add, work[:0], 0, grad_w, get_num_threads())
    if grad_b.size:
        bias_grad(grad_y, add, work, grad_b)


@jit
def bias_grad(grad_y, add, work, grad_b):
    """reference.bias_grad: grad_b (+)= Σ_R grad_y, row by row in order."""
    R, N = grad_y.shape
    if not add:
        for j in range(N):
            grad_b[j] = 0
    for r in range(R):
        for j in range(N):
            grad_b[j] += grad_y[r, j]
