"""The dense layer's three products: how each matrix is read, and the call of product.py."""

from __future__ import annotations

from ..ops.activation import IDENTITY
from ..scratch import depth_parts, line_parts
from .engine.compile import aligned, blocks_for, launch
from .engine.product import product
from .engine.sums import add_lines
from .engine.tile import PLAIN, TENSOR, matrix, row_major, tile_for


def multiply(tiles, a, deep_a, b, deep_b, sizes, c, bias=None, act=IDENTITY, add=0, grad_b=None, parts=1):
    """c (+)= act(a b + bias), and grad_b (+)= the sums of b's columns; with parts, the two of each behind each other.

    sizes: M, N, K. a is (M, K) where it is deep, else (K, M); b is (N, K) where it is deep, else (K, N).
    """
    M, N, K = sizes
    tile = tile_for(tiles, M, N, parts)
    wide = 16 // c.dtype.itemsize
    operands = [
        matrix(deep, length, tile, wide if aligned(array) and array.shape[1] % wide == 0 else 1)
        for array, deep, length in ((a, deep_a, tile.rows), (b, deep_b, tile.columns))
    ]
    quads = N % 4 == 0 and aligned(c, c if bias is None else bias)
    share = blocks_for(blocks_for(K, parts), tile.depth) * tile.depth
    grid = (blocks_for(M, tile.rows) + (grad_b is not None), blocks_for(N, tile.columns), parts)
    launch(
        product(c.dtype, tile, *operands, row_major, quads), grid, tile.threads,
        a, (a.shape[1], M), b, (b.shape[1], N), c if bias is None else bias,
        (M, N, K, share), (int(bias is not None), act, add), (M + (grad_b is not None), N),
        c, c if grad_b is None else grad_b,
    )  # fmt: skip


def dense(x, w, b, act, y, tiles=None):
    """ops.dense.dense: y = act(x w + b)."""
    (B, K), N = x.shape, w.shape[1]
    multiply(tiles or PLAIN[x.dtype.itemsize], x, True, w, False, (B, N, K), y, b if b.size else None, act)


def dense_grad_x(grad_y, w, work, grad_x, tiles=None):
    """ops.dense.dense_grad_x: grad_x = grad_y wᵀ."""
    (B, N), K = grad_y.shape, w.shape[0]
    multiply(tiles or PLAIN[w.dtype.itemsize], grad_y, True, w, True, (B, K, N), grad_x)


def dense_grad_w(x, grad_y, add, work, grad_w, grad_b, tiles=None):
    """ops.dense.dense_grad_w: grad_w (+)= xᵀ grad_y, grad_b (+)= Σ_B grad_y."""
    (B, K), N = x.shape, grad_y.shape[1]
    tiles = tiles or PLAIN[x.dtype.itemsize]
    parts, length = depth_parts(K, N, B), K * N + grad_b.size
    if parts == 1:
        sums = grad_b if grad_b.size else None
        multiply(tiles, x, False, grad_y, False, (K, N, B), grad_w, add=add, grad_b=sums)
    else:
        sums = work[K * N :] if grad_b.size else None
        multiply(tiles, x, False, grad_y, False, (K, N, B), work, grad_b=sums, parts=parts)
        add_lines(work, parts, length, K * N, add, grad_w, grad_b if grad_b.size else grad_w)


def bias_grad(grad_y, add, work, grad_b):
    """ops.dense.bias_grad: grad_b (+)= Σ_R grad_y."""
    R, N = grad_y.shape
    parts = line_parts(R, N)
    if parts == 1:
        add_lines(grad_y, R, N, N, add, grad_b, grad_b)
    else:
        add_lines(grad_y, R, N, N, 0, work, work, parts)
        add_lines(work, parts, N, N, add, grad_b, grad_b)


def dense_tf32(x, w, b, act, y):
    """dense, the factors of each product rounded to tf32."""
    dense(x, w, b, act, y, _tensor(x))


def dense_grad_x_tf32(grad_y, w, work, grad_x):
    """dense_grad_x, the factors of each product rounded to tf32."""
    dense_grad_x(grad_y, w, work, grad_x, _tensor(w))


def dense_grad_w_tf32(x, grad_y, add, work, grad_w, grad_b):
    """dense_grad_w, the factors of each product rounded to tf32; grad_b is what it is without."""
    dense_grad_w(x, grad_y, add, work, grad_w, grad_b, _tensor(x))


def _tensor(array):
    """The tiles on tensor cores; none for float64, which is never rounded."""
    return TENSOR if array.dtype.itemsize == 4 else None


TF32 = {"dense": dense_tf32, "dense_grad_x": dense_grad_x_tf32, "dense_grad_w": dense_grad_w_tf32}
