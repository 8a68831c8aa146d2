"""Batch and layer normalisation, forward and back: a few columns, or a row, at a time.
It knows arrays of rows and columns; which of them are channels is not its affair.

Sums are in float64: they cost as much as reading, and a variance is the small difference of large numbers.
"""

from __future__ import annotations

import math

from numba import carray, prange

from .engine.compile import jit, parallel
from .engine.vector_math import add_in_any_order, muladd, stack_array

COLUMNS = 32  # columns taken at a time, by one thread
ROWS = 16  # rows taken at a time, by one thread
PAYS = 1 << 16  # numbers from which threads pay


@jit
def blocks(n, size):
    """The number of stretches of `size` in n."""
    return (n + size - 1) // size


@jit
def _clear(a):
    for i in range(a.size):
        a[i] = 0.0


# ---------------------------------------------------------------------------------------------- batch


@jit
def _add_to(row, total):
    for i in range(row.size):
        total[i] += float(row[i])


@jit
def _add_squares(row, mean, total):
    for i in range(row.size):
        d = float(row[i]) - mean[i]
        total[i] = muladd(d, d, total[i])


@jit
def _scaled(row, mean, rstd, gamma, beta, y):
    for i in range(row.size):
        y[i] = muladd(gamma[i], (row[i] - mean[i]) * rstd[i], beta[i])


@jit
def _batch_columns(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y, start, stop):
    """batch_norm of the columns start … stop."""
    R, n, real = x.shape[0], stop - start, x.dtype.type
    m, v = carray(stack_array(0.0, COLUMNS), COLUMNS)[:n], carray(stack_array(0.0, COLUMNS), COLUMNS)[:n]
    _clear(m)
    _clear(v)
    for r in range(R):
        _add_to(x[r, start:stop], m)
    for i in range(n):
        m[i] /= R
    for r in range(R):
        _add_squares(x[r, start:stop], m, v)
    for i in range(n):
        c = start + i
        mean[c], rstd[c] = real(m[i]), real(1 / math.sqrt(v[i] / R + epsilon))
        running_mean[c] = real((1 - momentum) * running_mean[c] + momentum * m[i])
        running_var[c] = real((1 - momentum) * running_var[c] + momentum * v[i] / max(1, R - 1))
    part = slice(start, stop)
    for r in range(R):
        _scaled(x[r, start:stop], mean[part], rstd[part], gamma[part], beta[part], y[r, start:stop])


@parallel
def _batch_parts(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y):
    C = x.shape[1]
    for c in prange(blocks(C, COLUMNS)):
        start, stop = c * COLUMNS, min(C, (c + 1) * COLUMNS)
        _batch_columns(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y, start, stop)


def batch_norm(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y):
    """reference_layers.batch_norm, a few columns at a time: three sweeps over memory."""
    _batch_parts(x, gamma, beta, float(epsilon), float(momentum), running_mean, running_var, mean, rstd, y)


@jit
def _frozen(x, mean, var, gamma, beta, epsilon, y, first, last):
    real = x.dtype.type
    for start in range(0, x.shape[1], COLUMNS):
        part = slice(start, min(x.shape[1], start + COLUMNS))
        rstd = carray(stack_array(real(0), COLUMNS), COLUMNS)[: part.stop - start]
        for i in range(rstd.size):
            rstd[i] = real(1 / math.sqrt(float(var[start + i]) + epsilon))
        for r in range(first, last):
            _scaled(x[r, part], mean[part], rstd, gamma[part], beta[part], y[r, part])


@parallel
def _frozen_parts(x, mean, var, gamma, beta, epsilon, y):
    for c in prange(blocks(x.shape[0], ROWS)):
        _frozen(x, mean, var, gamma, beta, epsilon, y, c * ROWS, min(x.shape[0], (c + 1) * ROWS))


def batch_norm_frozen(x, mean, var, gamma, beta, epsilon, y):
    """reference_layers.batch_norm_frozen, row by row."""
    if x.size >= PAYS:
        _frozen_parts(x, mean, var, gamma, beta, float(epsilon), y)
    else:
        _frozen(x, mean, var, gamma, beta, float(epsilon), y, 0, x.shape[0])


@jit
def _add_products(row, mean, rstd, grad, total, along):
    """total += g, along += g · n for one row."""
    for i in range(row.size):
        g = float(grad[i])
        total[i] += g
        along[i] = muladd(g, float((row[i] - mean[i]) * rstd[i]), along[i])


@jit
def _batch_grad_row(row, mean, rstd, gamma, grad, total, along, R, grad_x):
    real = row.dtype.type
    for i in range(row.size):
        n = (row[i] - mean[i]) * rstd[i]
        grad_x[i] = gamma[i] * rstd[i] * (grad[i] - real(total[i] / R) - n * real(along[i] / R))


@jit
def write_or_add(total, add, out):
    """out = total, or out + total; nothing where out has length 0."""
    real = out.dtype.type
    for i in range(out.size):
        out[i] = real(float(out[i]) + total[i]) if add else real(total[i])


@jit
def _batch_grad_columns(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x, start, stop):
    R, n, part = x.shape[0], stop - start, slice(start, stop)
    total, along = carray(stack_array(0.0, COLUMNS), COLUMNS)[:n], carray(stack_array(0.0, COLUMNS), COLUMNS)[:n]
    _clear(total)
    _clear(along)
    for r in range(R):
        _add_products(x[r, start:stop], mean[part], rstd[part], grad_y[r, start:stop], total, along)
    if grad_x.size:
        for r in range(R):
            g, out = grad_y[r, start:stop], grad_x[r, start:stop]
            _batch_grad_row(x[r, start:stop], mean[part], rstd[part], gamma[part], g, total, along, R, out)
    if grad_gamma.size:
        write_or_add(along, add, grad_gamma[part])
        write_or_add(total, add, grad_beta[part])


@parallel
def _batch_grad_parts(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    C = x.shape[1]
    for c in prange(blocks(C, COLUMNS)):
        start, stop = c * COLUMNS, min(C, (c + 1) * COLUMNS)
        _batch_grad_columns(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x, start, stop)


def batch_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """reference_layers.batch_norm_grad, a few columns at a time."""
    grad_x = grad_x if grad_x.size else grad_y[:0]  # "none" may come in any shape
    _batch_grad_parts(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x)


# ---------------------------------------------------------------------------------------------- layer


@jit
def _mean(row):
    total = 0.0
    for i in range(row.size):
        total = add_in_any_order(total, float(row[i]))
    return total / row.size


@jit
def _mean_square(row, mean):
    total = 0.0
    for i in range(row.size):
        d = float(row[i]) - mean
        total = add_in_any_order(total, d * d)
    return total / row.size


@jit
def _scaled_row(row, mean, rstd, gamma, beta, y):
    for i in range(row.size):
        y[i] = muladd(gamma[i], (row[i] - mean) * rstd, beta[i])


@parallel
def _layer_parts(x, gamma, beta, epsilon, mean, rstd, y):
    for r in prange(x.shape[0]):
        m, real = _mean(x[r]), x.dtype.type
        mean[r], rstd[r] = real(m), real(1 / math.sqrt(_mean_square(x[r], m) + epsilon))
        _scaled_row(x[r], mean[r], rstd[r], gamma, beta, y[r])


def layer_norm(x, gamma, beta, epsilon, mean, rstd, y):
    """reference_layers.layer_norm, row by row."""
    _layer_parts(x, gamma, beta, float(epsilon), mean, rstd, y)


@jit
def _mean_product(a, b):
    total = 0.0
    for i in range(a.size):
        total = add_in_any_order(total, float(a[i]) * float(b[i]))
    return total / a.size


@jit
def _mean_along(row, mean, rstd, gamma, grad):
    total = 0.0
    for i in range(row.size):
        total = add_in_any_order(total, float(gamma[i] * grad[i]) * float((row[i] - mean) * rstd))
    return total / row.size


@jit
def _layer_grad_row(row, mean, rstd, gamma, grad, level, along, grad_x):
    for i in range(row.size):
        n = (row[i] - mean) * rstd
        grad_x[i] = rstd * (gamma[i] * grad[i] - level - n * along)


@parallel
def _layer_grad_rows(x, mean, rstd, gamma, grad_y, grad_x):
    for r in prange(x.shape[0]):
        real = x.dtype.type
        level = real(_mean_product(gamma, grad_y[r]))
        along = real(_mean_along(x[r], mean[r], rstd[r], gamma, grad_y[r]))
        _layer_grad_row(x[r], mean[r], rstd[r], gamma, grad_y[r], level, along, grad_x[r])


@jit
def _add_row(row, mean, rstd, grad, total, along):
    for i in range(row.size):
        g = float(grad[i])
        total[i] += g
        along[i] = muladd(g, float((row[i] - mean) * rstd), along[i])


@parallel
def _layer_grad_weights(x, mean, rstd, grad_y, add, grad_gamma, grad_beta):
    C = x.shape[1]
    for c in prange(blocks(C, COLUMNS)):
        start, stop = c * COLUMNS, min(C, (c + 1) * COLUMNS)
        n = stop - start
        total, along = carray(stack_array(0.0, COLUMNS), COLUMNS)[:n], carray(stack_array(0.0, COLUMNS), COLUMNS)[:n]
        _clear(total)
        _clear(along)
        for r in range(x.shape[0]):
            _add_row(x[r, start:stop], mean[r], rstd[r], grad_y[r, start:stop], total, along)
        write_or_add(along, add, grad_gamma[start:stop])
        write_or_add(total, add, grad_beta[start:stop])


def layer_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """reference_layers.layer_norm_grad: rows for grad_x, columns for the other two."""
    if grad_x.size:
        _layer_grad_rows(x, mean, rstd, gamma, grad_y, grad_x)
    if grad_gamma.size:
        _layer_grad_weights(x, mean, rstd, grad_y, add, grad_gamma, grad_beta)
