"""Batch and layer normalisation, forward and back: a few columns, or a row, at a time.

Sums are in float64: they cost as much as reading, and a variance is the small difference of large numbers.
"""

from __future__ import annotations

import math

from numba import carray

from .engine.compile import inner
from .engine.parts import in_parts
from .engine.sums import add_to, dot64, sum64
from .engine.vector_math import add_in_any_order, muladd, stack_array

COLUMNS = 32  # columns taken at a time, by one thread
ROWS = 16  # rows taken at a time, by one thread
PAYS = 1 << 16  # numbers from which threads pay


@inner
def _clear(a):
    for i in range(a.size):
        a[i] = 0.0


# ---------------------------------------------------------------------------------------------- batch


@inner
def _add_squares(row, mean, total):
    for i in range(row.size):
        d = float(row[i]) - mean[i]
        total[i] = muladd(d, d, total[i])


@inner
def _scaled(row, mean, rstd, gamma, beta, y):
    for i in range(row.size):
        y[i] = muladd(gamma[i], (row[i] - mean[i]) * rstd[i], beta[i])


@in_parts(COLUMNS)
def _batch(start, stop, x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y):
    """batch_norm of the columns start … stop − 1."""
    R, n, real = x.shape[0], stop - start, x.dtype.type
    m, v = carray(stack_array(0.0, COLUMNS), COLUMNS)[:n], carray(stack_array(0.0, COLUMNS), COLUMNS)[:n]
    _clear(m)
    _clear(v)
    for r in range(R):
        add_to(x[r, start:stop], m)
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


def batch_norm(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y):
    """ops.normalise.batch_norm, a few columns at a time: three sweeps over memory."""
    statistics = (running_mean, running_var, mean, rstd)
    _batch(x.shape[1], x.size, x, gamma, beta, float(epsilon), float(momentum), *statistics, y)


@in_parts(ROWS, pays=PAYS)
def _frozen(first, last, x, mean, var, gamma, beta, epsilon, y):
    real = x.dtype.type
    for start in range(0, x.shape[1], COLUMNS):
        part = slice(start, min(x.shape[1], start + COLUMNS))
        rstd = carray(stack_array(real(0), COLUMNS), COLUMNS)[: part.stop - start]
        for i in range(rstd.size):
            rstd[i] = real(1 / math.sqrt(float(var[start + i]) + epsilon))
        for r in range(first, last):
            _scaled(x[r, part], mean[part], rstd, gamma[part], beta[part], y[r, part])


def batch_norm_frozen(x, mean, var, gamma, beta, epsilon, y):
    """ops.normalise.batch_norm_frozen, row by row."""
    _frozen(x.shape[0], x.size, x, mean, var, gamma, beta, float(epsilon), y)


@inner
def _add_products(row, mean, rstd, grad, total, along):
    """total += g, along += g · n for one row."""
    for i in range(row.size):
        g = float(grad[i])
        total[i] += g
        along[i] = muladd(g, float((row[i] - mean[i]) * rstd[i]), along[i])


@inner
def _batch_grad_row(row, mean, rstd, gamma, grad, total, along, R, grad_x):
    real = row.dtype.type
    for i in range(row.size):
        n = (row[i] - mean[i]) * rstd[i]
        grad_x[i] = gamma[i] * rstd[i] * (grad[i] - real(total[i] / R) - n * real(along[i] / R))


@inner
def _write_or_add(total, add, out):
    """out = total, or out + total; nothing where out has length 0."""
    real = out.dtype.type
    for i in range(out.size):
        out[i] = real(float(out[i]) + total[i]) if add else real(total[i])


@in_parts(COLUMNS)
def _batch_grad(start, stop, x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
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
        _write_or_add(along, add, grad_gamma[part])
        _write_or_add(total, add, grad_beta[part])


def batch_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """ops.normalise.batch_norm_grad, a few columns at a time."""
    grad_x = grad_x if grad_x.size else grad_y[:0]  # "none" may come in any shape
    _batch_grad(x.shape[1], x.size, x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x)


# ---------------------------------------------------------------------------------------------- layer


@inner
def _mean_square(row, mean):
    total = 0.0
    for i in range(row.size):
        d = float(row[i]) - mean
        total = add_in_any_order(total, d * d)
    return total / row.size


@inner
def _scaled_row(row, mean, rstd, gamma, beta, y):
    for i in range(row.size):
        y[i] = muladd(gamma[i], (row[i] - mean) * rstd, beta[i])


@in_parts(1)
def _layer(first, last, x, gamma, beta, epsilon, mean, rstd, y):
    real = x.dtype.type
    for r in range(first, last):
        m = sum64(x[r]) / x.shape[1]
        mean[r], rstd[r] = real(m), real(1 / math.sqrt(_mean_square(x[r], m) + epsilon))
        _scaled_row(x[r], mean[r], rstd[r], gamma, beta, y[r])


def layer_norm(x, gamma, beta, epsilon, mean, rstd, y):
    """ops.normalise.layer_norm, row by row."""
    _layer(x.shape[0], x.size, x, gamma, beta, float(epsilon), mean, rstd, y)


@inner
def _mean_along(row, mean, rstd, gamma, grad):
    total = 0.0
    for i in range(row.size):
        total = add_in_any_order(total, float(gamma[i] * grad[i]) * float((row[i] - mean) * rstd))
    return total / row.size


@inner
def _layer_grad_row(row, mean, rstd, gamma, grad, level, along, grad_x):
    for i in range(row.size):
        n = (row[i] - mean) * rstd
        grad_x[i] = rstd * (gamma[i] * grad[i] - level - n * along)


@in_parts(1)
def _layer_grad_x(first, last, x, mean, rstd, gamma, grad_y, grad_x):
    real = x.dtype.type
    for r in range(first, last):
        level = real(dot64(gamma, grad_y[r]) / x.shape[1])
        along = real(_mean_along(x[r], mean[r], rstd[r], gamma, grad_y[r]))
        _layer_grad_row(x[r], mean[r], rstd[r], gamma, grad_y[r], level, along, grad_x[r])


@inner
def _add_row(row, mean, rstd, grad, total, along):
    for i in range(row.size):
        g = float(grad[i])
        total[i] += g
        along[i] = muladd(g, float((row[i] - mean) * rstd), along[i])


@in_parts(COLUMNS)
def _layer_grad_weights(start, stop, x, mean, rstd, grad_y, add, grad_gamma, grad_beta):
    total = carray(stack_array(0.0, COLUMNS), COLUMNS)[: stop - start]
    along = carray(stack_array(0.0, COLUMNS), COLUMNS)[: stop - start]
    _clear(total)
    _clear(along)
    for r in range(x.shape[0]):
        _add_row(x[r, start:stop], mean[r], rstd[r], grad_y[r, start:stop], total, along)
    _write_or_add(along, add, grad_gamma[start:stop])
    _write_or_add(total, add, grad_beta[start:stop])


def layer_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """ops.normalise.layer_norm_grad: rows for grad_x, columns for the other two."""
    if grad_x.size:
        _layer_grad_x(x.shape[0], x.size, x, mean, rstd, gamma, grad_y, grad_x)
    if grad_gamma.size:
        _layer_grad_weights(x.shape[1], x.size, x, mean, rstd, grad_y, add, grad_gamma, grad_beta)
