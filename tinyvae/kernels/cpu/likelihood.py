"""Likelihoods: a row of pixels at a time.

A row is taken a stretch at a time: a loop that fills a small array with the pixels' terms, one that sums these, and one
that writes the gradient. Plain loops become vector code, and a sum that reads what lies on the stack has one order of
its terms, wherever the arrays stand in memory.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from ..ops.likelihood import COTH, LEAST_LOG_SCALE, LEAST_LOG_SIGMA, LEVELS, LOG_2PI, TINY
from .engine.compile import jit, parallel
from .engine.parts import HEAVY, LIGHT
from .engine.vector_math import (
    add_in_any_order,
    decay,
    exp,
    expm1,
    log,
    log1p,
    muladd,
    polynomial,
    sigmoid,
    softplus,
    stack_array,
    typed,
)

INTERPRETED = ("scale_rows",)
LANES = 16  # maxima kept side by side over the levels of a pixel
STRETCH = 1024  # pixels of a row whose terms are held, then summed


@jit
def _total(terms):
    total = terms.dtype.type(0)
    for i in range(terms.size):
        total = add_in_any_order(total, terms[i])
    return total


def _or_none(grad, outputs):
    """`grad`, or no columns of it where none is wanted: "none" may come in any shape."""
    return grad if grad.size else outputs[:, :0]


# ---------------------------------------------------------------------------------------------- Bernoulli


@jit
def _bernoulli_value(logits, x):
    """nll of one row."""
    total = zero = logits.dtype.type(0)
    for i in range(logits.size):
        a = logits[i]
        softplus = (a if a > 0 else zero) + log1p(decay(a))
        total = add_in_any_order(total, muladd(-x[i], a, softplus))
    return total


@jit
def _decays(logits, decays):
    """decays = exp(−|logits|)."""
    for i in range(logits.size):
        decays[i] = decay(logits[i])


@jit
def _bernoulli_sum(logits, x, decays):
    """nll of a stretch. A loop that only reads: one that also stores has a second body for arrays that stand close
    together in memory, which adds in another order, and then the bits would depend on where the arrays are."""
    total = zero = logits.dtype.type(0)
    for i in range(logits.size):
        a = logits[i]
        total = add_in_any_order(total, muladd(-x[i], a, (a if a > 0 else zero) + log1p(decays[i])))
    return total


@jit
def _bernoulli_grad(logits, x, decays, scale, grad):
    """grad = scale · (sigmoid(logits) − x)."""
    one = logits.dtype.type(1)
    for i in range(logits.size):
        e = decays[i]
        grad[i] = scale * ((e if logits[i] < 0 else one) / (one + e) - x[i])


@jit
def _bernoulli_both(logits, x, scale, grad):
    """nll of one row, and its gradient: softplus and sigmoid from the same exp(−|logits|), a stretch at a time. Three
    plain loops become vector code; one that does it all did not, and took four times as long."""
    total = logits.dtype.type(0)
    decays = carray(stack_array(total, STRETCH), STRETCH)
    for start in range(0, logits.size, STRETCH):
        end = min(start + STRETCH, logits.size)
        a, target, e = logits[start:end], x[start:end], decays[: end - start]
        _decays(a, e)
        total += _bernoulli_sum(a, target, e)
        _bernoulli_grad(a, target, e, scale, grad[start:end])
    return total


@jit
def _bernoulli(logits, x, row_scale, nll, grad_logits, first, last):
    k = logits.shape[0] // x.shape[0]
    for r in range(first, last):
        if grad_logits.shape[1]:
            nll[r] = _bernoulli_both(logits[r], x[r // k], row_scale[r], grad_logits[r])
        else:
            nll[r] = _bernoulli_value(logits[r], x[r // k])


@parallel
def _bernoulli_parts(logits, x, row_scale, nll, grad_logits):
    for r in prange(logits.shape[0]):
        _bernoulli(logits, x, row_scale, nll, grad_logits, np.int64(r), np.int64(r) + 1)


def bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """reference.bernoulli_nll, value and gradient of a row in one pass over its pixels."""
    grad = grad_logits if grad_logits.size else logits[:, :0]  # "none" may come in any shape
    if logits.size >= HEAVY:
        _bernoulli_parts(logits, x, row_scale, nll, grad)
    else:
        _bernoulli(logits, x, row_scale, nll, grad, 0, logits.shape[0])


# ---------------------------------------------------------------------------------------------- continuous Bernoulli


@typed
def log_share(real, F):
    """log((1 − exp(−x)) / x), x ≥ 0: 0 at 0."""
    tiny = real(TINY)

    def log_share(x):
        x = tiny if x < tiny else x
        return log(-expm1(-x) / x)

    return log_share


@typed
def continuous_mean(real, F):
    """1 / (1 − exp(−x)) − 1 / x; between −1 and 1 ½ and a series."""
    COEFFICIENTS, half, one = tuple(real(c) for c in COTH), real(0.5), real(1)

    def continuous_mean(x):
        near = one if x > one else x
        near = -one if near < -one else near
        a = abs(x)
        inside, a = a < one, (one if a < one else a)
        far = -one / expm1(-a) - one / a - half
        return half + (near * polynomial(near * near, COEFFICIENTS) if inside else (-far if x < 0 else far))

    return continuous_mean


@jit
def _continuous_terms(logits, x, terms):
    zero = terms.dtype.type(0)
    for i in range(terms.size):
        a = logits[i]
        terms[i] = muladd(-x[i], a, (a if a > 0 else zero) + log_share(abs(a)))


@jit
def _continuous_grad(logits, x, scale, grad):
    for i in range(grad.size):
        grad[i] = scale * (continuous_mean(logits[i]) - x[i])


@jit
def _continuous(logits, x, row_scale, nll, grad, first, last):
    k, zero = logits.shape[0] // x.shape[0], logits.dtype.type(0)
    room = carray(stack_array(zero, STRETCH), STRETCH)
    for r in range(first, last):
        total, target = zero, x[r // k]
        for start in range(0, target.size, STRETCH):
            end = min(start + STRETCH, target.size)
            terms = room[: end - start]
            _continuous_terms(logits[r, start:end], target[start:end], terms)
            total += _total(terms)
        nll[r] = total
        if grad.shape[1]:
            _continuous_grad(logits[r], target, row_scale[r], grad[r])


@parallel
def _continuous_parts(logits, x, row_scale, nll, grad):
    for r in prange(logits.shape[0]):
        _continuous(logits, x, row_scale, nll, grad, np.int64(r), np.int64(r) + 1)


def continuous_bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """reference_objective.continuous_bernoulli_nll."""
    grad = _or_none(grad_logits, logits)
    if logits.size >= HEAVY:
        _continuous_parts(logits, x, row_scale, nll, grad)
    else:
        _continuous(logits, x, row_scale, nll, grad, 0, logits.shape[0])


# ---------------------------------------------------------------------------------------------- Gaussian


@jit
def _gaussian_row(mean, x, factor, grad):
    """Σ (mean − x)² of one row, and its gradient, factor · (mean − x), unless grad has length 0: a loop each, for what
    _bernoulli_sum says."""
    total = mean.dtype.type(0)
    for i in range(mean.size):
        difference = mean[i] - x[i]
        total = add_in_any_order(total, difference * difference)
    for i in range(grad.size):
        grad[i] = factor * (mean[i] - x[i])
    return total


@jit
def _gaussian(mean, x, row_scale, sigma, nll, grad_mean, first, last):
    R, P = mean.shape
    k, real = R // x.shape[0], mean.dtype.type
    constant = P * (math.log(sigma) + 0.5 * LOG_2PI)
    for r in range(first, last):
        factor = real(row_scale[r] / sigma**2)
        squares = _gaussian_row(mean[r], x[r // k], factor, grad_mean[r])
        nll[r] = real(squares * (0.5 / sigma**2) + constant)


@parallel
def _gaussian_parts(mean, x, row_scale, sigma, nll, grad_mean):
    for r in prange(mean.shape[0]):
        _gaussian(mean, x, row_scale, sigma, nll, grad_mean, r, r + 1)


def gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean):
    """reference.gaussian_nll, value and gradient of a row in one pass over its pixels."""
    grad = grad_mean if grad_mean.size else mean[:, :0]
    if mean.size >= LIGHT:
        _gaussian_parts(mean, x, row_scale, float(sigma), nll, grad)
    else:
        _gaussian(mean, x, row_scale, float(sigma), nll, grad, 0, mean.shape[0])


@jit
def _scalar(mean, x, row_scale, log_sigma, nll, grad, grad_log_sigma, first, last):
    R, P = mean.shape
    k, real = R // x.shape[0], mean.dtype.type
    rho = float(log_sigma[0])
    precision, constant = math.exp(-2 * rho), P * (rho + 0.5 * LOG_2PI)
    for r in range(first, last):
        squares = float(_gaussian_row(mean[r], x[r // k], real(row_scale[r] * precision), grad[r])) * precision
        nll[r] = real(0.5 * squares + constant)
        if grad_log_sigma.shape[1]:
            grad_log_sigma[r, 0] = real(row_scale[r] * (P - squares))


@parallel
def _scalar_parts(mean, x, row_scale, log_sigma, nll, grad, grad_log_sigma):
    for r in prange(mean.shape[0]):
        _scalar(mean, x, row_scale, log_sigma, nll, grad, grad_log_sigma, np.int64(r), np.int64(r) + 1)


def gaussian_scalar_nll(mean, x, row_scale, log_sigma, nll, grad_mean, grad_log_sigma):
    """reference_objective.gaussian_scalar_nll."""
    grad, grad_sigma = _or_none(grad_mean, mean), _or_none(grad_log_sigma, mean)
    if mean.size >= LIGHT:
        _scalar_parts(mean, x, row_scale, log_sigma, nll, grad, grad_sigma)
    else:
        _scalar(mean, x, row_scale, log_sigma, nll, grad, grad_sigma, 0, mean.shape[0])


@jit
def _pixel_terms(outputs, x, terms):
    real = terms.dtype.type
    least, half, two, constant = real(LEAST_LOG_SIGMA), real(0.5), real(2), real(0.5 * LOG_2PI)
    for i in range(terms.size):
        difference = outputs[2 * i] - x[i]
        log_sigma = softplus(outputs[2 * i + 1] - least) + least
        terms[i] = muladd(half * difference * difference, exp(-two * log_sigma), log_sigma + constant)


@jit
def _pixel_grad(outputs, x, scale, grad):
    real = outputs.dtype.type
    least, one, two = real(LEAST_LOG_SIGMA), real(1), real(2)
    for i in range(x.size):
        difference, raw = outputs[2 * i] - x[i], outputs[2 * i + 1] - least
        slope = difference * exp(-two * (softplus(raw) + least))
        grad[2 * i] = scale * slope
        grad[2 * i + 1] = scale * (sigmoid(raw) * (one - difference * slope))


@jit
def _pixel(outputs, x, row_scale, nll, grad, first, last):
    k, zero = outputs.shape[0] // x.shape[0], outputs.dtype.type(0)
    room = carray(stack_array(zero, STRETCH), STRETCH)
    for r in range(first, last):
        total, target = zero, x[r // k]
        for start in range(0, target.size, STRETCH):
            end = min(start + STRETCH, target.size)
            terms = room[: end - start]
            _pixel_terms(outputs[r, 2 * start : 2 * end], target[start:end], terms)
            total += _total(terms)
        nll[r] = total
        if grad.shape[1]:
            _pixel_grad(outputs[r], target, row_scale[r], grad[r])


@parallel
def _pixel_parts(outputs, x, row_scale, nll, grad):
    for r in prange(outputs.shape[0]):
        _pixel(outputs, x, row_scale, nll, grad, np.int64(r), np.int64(r) + 1)


def gaussian_pixel_nll(outputs, x, row_scale, nll, grad_outputs):
    """reference_objective.gaussian_pixel_nll."""
    grad = _or_none(grad_outputs, outputs)
    if outputs.size >= HEAVY:
        _pixel_parts(outputs, x, row_scale, nll, grad)
    else:
        _pixel(outputs, x, row_scale, nll, grad, 0, outputs.shape[0])


@jit
def _optimal(mean, x, row_scale, nll, grad, first, last):
    R, P = mean.shape
    k, real, least = R // x.shape[0], mean.dtype.type, math.exp(2 * LEAST_LOG_SIGMA)
    for r in range(first, last):
        squares = float(_gaussian_row(mean[r], x[r // k], real(0), grad[r, :0]))
        variance = squares / P
        variance = least if variance < least else variance
        nll[r] = real(0.5 * squares / variance + 0.5 * P * (math.log(variance) + LOG_2PI))
        if grad.shape[1]:
            _gaussian_row(mean[r], x[r // k], real(row_scale[r] / variance), grad[r])


@parallel
def _optimal_parts(mean, x, row_scale, nll, grad):
    for r in prange(mean.shape[0]):
        _optimal(mean, x, row_scale, nll, grad, np.int64(r), np.int64(r) + 1)


def gaussian_optimal_nll(mean, x, row_scale, nll, grad_mean):
    """reference_objective.gaussian_optimal_nll: the squares of a row, and then its gradient."""
    grad = _or_none(grad_mean, mean)
    if mean.size >= LIGHT:
        _optimal_parts(mean, x, row_scale, nll, grad)
    else:
        _optimal(mean, x, row_scale, nll, grad, 0, mean.shape[0])


# ---------------------------------------------------------------------------------------------- grey levels


@typed
def level_of(real, F):
    """The grey level nearest to a pixel, as a float."""
    top, half, zero = real(LEVELS - 1), real(0.5), real(0)

    def level_of(x):
        level = np.floor(muladd(x, top, half))
        level = zero if level < zero else level
        return top if level > top else level

    return level_of


@jit
def _logistic_terms(outputs, x, terms):
    real = terms.dtype.type
    least, bin, top, zero = real(LEAST_LOG_SCALE), real(1 / (LEVELS - 1)), real(LEVELS - 1), real(0)
    half, log_bin = real(0.5 / (LEVELS - 1)), real(-math.log(LEVELS - 1))
    for i in range(terms.size):
        level, log_scale = level_of(x[i]), softplus(outputs[2 * i + 1] - least) + least
        rate = exp(-log_scale)
        centre = muladd(level, bin, -outputs[2 * i])
        share = log_share(bin * rate) + (log_bin - log_scale)
        upper, lower = softplus(-((centre + half) * rate)), softplus((centre - half) * rate)
        inner = upper + lower - share
        term = upper if level == zero else inner
        terms[i] = lower if level == top else term


@jit
def _logistic_grad(outputs, x, scale, grad):
    real = outputs.dtype.type
    least, bin, top, zero = real(LEAST_LOG_SCALE), real(1 / (LEVELS - 1)), real(LEVELS - 1), real(0)
    half, tiny = real(0.5 / (LEVELS - 1)), real(TINY)
    for i in range(x.size):
        level, raw = level_of(x[i]), outputs[2 * i + 1] - least
        rate = exp(-(softplus(raw) + least))
        centre = muladd(level, bin, -outputs[2 * i])
        a, b, d = (centre + half) * rate, (centre - half) * rate, bin * rate
        d = tiny if d < tiny else d
        up, down, middle = sigmoid(-a), sigmoid(b), d / expm1(d)
        up = zero if level == top else up
        down = zero if level == zero else down
        middle = zero if level == top else middle
        middle = zero if level == zero else middle
        grad[2 * i] = scale * ((up - down) * rate)
        grad[2 * i + 1] = scale * ((a * up - b * down + middle) * sigmoid(raw))


@jit
def _logistic(outputs, x, row_scale, nll, grad, first, last):
    k, zero = outputs.shape[0] // x.shape[0], outputs.dtype.type(0)
    room = carray(stack_array(zero, STRETCH), STRETCH)
    for r in range(first, last):
        total, target = zero, x[r // k]
        for start in range(0, target.size, STRETCH):
            end = min(start + STRETCH, target.size)
            terms = room[: end - start]
            _logistic_terms(outputs[r, 2 * start : 2 * end], target[start:end], terms)
            total += _total(terms)
        nll[r] = total
        if grad.shape[1]:
            _logistic_grad(outputs[r], target, row_scale[r], grad[r])


@parallel
def _logistic_parts(outputs, x, row_scale, nll, grad):
    for r in prange(outputs.shape[0]):
        _logistic(outputs, x, row_scale, nll, grad, np.int64(r), np.int64(r) + 1)


def discretized_logistic_nll(outputs, x, row_scale, nll, grad_outputs):
    """reference_objective.discretized_logistic_nll."""
    grad = _or_none(grad_outputs, outputs)
    if outputs.size >= HEAVY:
        _logistic_parts(outputs, x, row_scale, nll, grad)
    else:
        _logistic(outputs, x, row_scale, nll, grad, 0, outputs.shape[0])


@jit
def _largest(numbers, lanes):
    """The largest of 256 numbers: one for each lane, then the largest of these."""
    for j in range(LANES):
        lanes[j] = numbers[j]
    for start in range(LANES, LEVELS, LANES):
        for j in range(LANES):
            lanes[j] = numbers[start + j] if numbers[start + j] > lanes[j] else lanes[j]
    largest = lanes[0]
    for j in range(1, LANES):
        largest = lanes[j] if lanes[j] > largest else largest
    return largest


@jit
def _exponentials(logits, largest, terms):
    for i in range(terms.size):
        terms[i] = exp(logits[i] - largest)


@jit
def _scaled(terms, factor, grad):
    for i in range(grad.size):
        grad[i] = factor * terms[i]


@jit
def _categorical(logits, x, row_scale, nll, grad, first, last):
    k, zero = logits.shape[0] // x.shape[0], logits.dtype.type(0)
    terms, lanes = carray(stack_array(zero, LEVELS), LEVELS), carray(stack_array(zero, LANES), LANES)
    for r in range(first, last):
        total, target = zero, x[r // k]
        for p in range(target.size):
            here = slice(p * LEVELS, (p + 1) * LEVELS)
            largest, level = _largest(logits[r, here], lanes), int(level_of(target[p]))
            _exponentials(logits[r, here], largest, terms)
            sum_ = _total(terms)
            total += log(sum_) - (logits[r, p * LEVELS + level] - largest)
            if grad.shape[1]:
                _scaled(terms, row_scale[r] / sum_, grad[r, here])
                grad[r, p * LEVELS + level] -= row_scale[r]
        nll[r] = total


@parallel
def _categorical_parts(logits, x, row_scale, nll, grad):
    for r in prange(logits.shape[0]):
        _categorical(logits, x, row_scale, nll, grad, np.int64(r), np.int64(r) + 1)


def categorical_nll(logits, x, row_scale, nll, grad_logits):
    """reference_objective.categorical_nll, a pixel at a time."""
    grad = _or_none(grad_logits, logits)
    if logits.size >= HEAVY:
        _categorical_parts(logits, x, row_scale, nll, grad)
    else:
        _categorical(logits, x, row_scale, nll, grad, 0, logits.shape[0])


# ---------------------------------------------------------------------------------------------- rows


@jit
def _scale_row(weight, row):
    for i in range(row.size):
        row[i] *= weight


@jit
def _scale_rows(row_weight, grad):
    for r in range(grad.shape[0]):
        _scale_row(row_weight[r], grad[r])


@parallel
def _scale_rows_parts(row_weight, grad):
    for r in prange(grad.shape[0]):
        _scale_row(row_weight[r], grad[r])


def scale_rows(row_weight, grad):
    """reference.scale_rows, row by row."""
    (_scale_rows_parts if grad.size >= LIGHT else _scale_rows)(row_weight, grad)
