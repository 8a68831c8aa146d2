"""The dense layer's three products: dense or sparse, and with how many threads.
These functions run in Python: the number of threads and the address of the tile are read here, since code that
reads them cannot be cached."""

from __future__ import annotations

from numba import get_num_threads

from ..ops.activation import RELU
from .activation import finish
from .engine.product import SMALL, block, product
from .engine.sparse import dense_listed, grad_w_listed, grad_x_listed, pays
from .engine.sums import column_sums, column_sums_spread
from .engine.tile import address, tile_address

INTERPRETED = ("bias_grad",)
LARGE = 250_000  # numbers from which on threads pay in a column sum
MOST_PARTS, PART = 16, 16_384  # a column sum's pieces at most, and the numbers that one must have


def multiply(a, a_transposed, b, b_transposed, add, bias, relu, out) -> None:
    """product.product with this machine's addresses and threads."""
    size, depth = out.itemsize, a.shape[0 if a_transposed else 1]
    threads = get_num_threads() if out.size * depth >= SMALL else 1
    product(address(block, size), tile_address(size), a, a_transposed, b, b_transposed, add, bias, relu, out, threads)


def dense(x, w, b, act, y):
    """ops.dense.dense: y = act(x w + b)."""
    if pays(x, w.shape[1], w.shape[0]):
        dense_listed(x, w, b, int(act == RELU), y, get_num_threads())
    else:
        multiply(x, 0, w, 0, 0, b, int(act == RELU), y)
    finish(y, act)


def dense_grad_x(grad_y, w, work, grad_x):
    """ops.dense.dense_grad_x: grad_x = grad_y wᵀ."""
    if pays(grad_y, w.shape[0], w.shape[1]):
        grad_x_listed(grad_y, w, work, grad_x, get_num_threads())
    else:
        multiply(grad_y, 0, w, 1, 0, work[:0], 0, grad_x)


def dense_grad_w(x, grad_y, add, work, grad_w, grad_b):
    """ops.dense.dense_grad_w: grad_w (+)= xᵀ grad_y, grad_b (+)= Σ_B grad_y."""
    if not add and pays(x, grad_y.shape[1], x.shape[0]):
        grad_w_listed(x, grad_y, work, grad_w, get_num_threads())
    else:
        multiply(x, 1, grad_y, 0, add, work[:0], 0, grad_w)
    if grad_b.size:
        bias_grad(grad_y, add, work, grad_b)


def bias_grad(grad_y, add, work, grad_b):
    """ops.dense.bias_grad: grad_b (+)= Σ_R grad_y."""
    sums = column_sums if grad_y.size < LARGE else column_sums_spread
    sums(grad_y.reshape(-1), add, grad_b, max(1, min(MOST_PARTS, grad_y.size // PART)))
