"""Spectral normalisation, forward and back: a matrix divided by its largest singular value.

Sums are in float64, each along one row or one column, so their bits do not depend on the threads.
"""

from __future__ import annotations

import math

from numba import carray, prange

from ..ops.spectral import LEAST_LENGTH
from .engine.compile import inner, parallel
from .engine.sums import dot64
from .engine.vector_math import muladd, stack_array
from .normalise import COLUMNS, ROWS

PARTIALS = 64  # sums of <grad_normalised, normalised>, added in order


@inner
def _count(n, unit):
    """How many parts of `unit` there are in n."""
    return (n + unit - 1) // unit


@inner
def _length(a):
    return math.sqrt(dot64(a, a))


@inner
def _divide(a, length):
    for i in range(a.size):
        a[i] = a.dtype.type(a[i] / length)


@inner
def _add_scaled(row, factor, total):
    for i in range(row.size):
        total[i] = muladd(factor, float(row[i]), total[i])


@inner
def _rows_times(weight, u, v, first, last):
    """v = W u, for the rows first … last of W."""
    for k in range(first, last):
        v[k] = v.dtype.type(dot64(weight[k], u))


@inner
def _columns_times(weight, v, u, start, stop):
    """u = Wᵀ v, for the columns start … stop of W."""
    total = carray(stack_array(0.0, COLUMNS), COLUMNS)[: stop - start]
    for i in range(total.size):
        total[i] = 0.0
    for k in range(v.size):
        _add_scaled(weight[k, start:stop], float(v[k]), total)
    for i in range(total.size):
        u[start + i] = u.dtype.type(total[i])


@inner
def _quotient(row, sigma, out):
    for i in range(row.size):
        out[i] = row[i] / sigma


@parallel
def spectral_norm(weight, iterations, u, v, sigma, normalised):
    """ops.spectral.spectral_norm: W u by rows, Wᵀ v by columns, a few at a time."""
    K, N = weight.shape
    v[:], sigma[0] = 0, 1
    for _ in range(iterations):
        before = _length(u)
        for c in prange(_count(K, ROWS)):
            _rows_times(weight, u, v, c * ROWS, min(K, (c + 1) * ROWS))
        length = _length(v)
        if not length > LEAST_LENGTH * before:
            v[:] = 0
            break
        _divide(v, length)
        for c in prange(_count(N, COLUMNS)):
            _columns_times(weight, v, u, c * COLUMNS, min(N, (c + 1) * COLUMNS))
        sigma[0] = _length(u)
        _divide(u, float(sigma[0]))
    for k in prange(K):
        _quotient(weight[k], sigma[0], normalised[k])


@inner
def _grad_row(grad, u, factor, sigma, add, out):
    """(grad − factor · u) / sigma, written or added."""
    for i in range(grad.size):
        value = (grad[i] - factor * u[i]) / sigma
        out[i] = out[i] + value if add else value


@parallel
def _grad_parts(grad_normalised, normalised, u, v, sigma, add, grad_weight):
    K = v.size
    partials = carray(stack_array(0.0, PARTIALS), PARTIALS)
    length = _count(K, PARTIALS)
    for p in prange(PARTIALS):
        part = slice(min(K, p * length), min(K, (p + 1) * length))
        partials[p] = dot64(grad_normalised[part].reshape(-1), normalised[part].reshape(-1))
    along = 0.0
    for p in range(PARTIALS):
        along += partials[p]
    for k in prange(K):
        factor = u.dtype.type(along * v[k])
        _grad_row(grad_normalised[k], u, factor, sigma[0], add, grad_weight[k])


def spectral_norm_grad(grad_normalised, normalised, u, v, sigma, add, grad_weight):
    """ops.spectral.spectral_norm_grad: the product summed in fixed parts of the rows, then row by row."""
    _grad_parts(grad_normalised, normalised, u, v, sigma, bool(add), grad_weight)
