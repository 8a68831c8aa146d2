"""Likelihoods: a row of pixels at a time.

A row is taken a block of pixels at a time: a loop that fills a small array with the pixels' terms,
one that sums these, and one that writes the gradient. Plain loops become vector code, and a sum that
reads what lies on the stack has one order of its terms, whatever the arrays' alignment.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray

from ..ops.likelihood import COTH, LEAST_LOG_SCALE, LEAST_LOG_SIGMA, LEVELS, LOG_2PI, TINY
from .engine.compile import inner
from .engine.parts import HEAVY, LIGHT, in_parts
from .engine.sums import sum_of
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
BLOCK = 1024  # pixels of a row whose terms are computed, then summed


def by_rows(terms, gradient, numbers):
    """The op of a likelihood with `numbers` outputs for each pixel, from two loops over pixels.

    terms(outputs, x, terms) writes a pixel's part of nll to each of `terms`; gradient(outputs, x,
    scale, grad) writes `scale` times its derivatives by the outputs.
    """
    terms, gradient = inner(terms), inner(gradient)

    @in_parts(1, pays=HEAVY)
    def rows(first, last, outputs, x, row_scale, nll, grad):
        k, zero = outputs.shape[0] // x.shape[0], outputs.dtype.type(0)
        buffer = carray(stack_array(zero, BLOCK), BLOCK)
        for r in range(first, last):
            total, target = zero, x[r // k]
            for start in range(0, target.size, BLOCK):
                end = min(start + BLOCK, target.size)
                some = buffer[: end - start]
                terms(outputs[r, numbers * start : numbers * end], target[start:end], some)
                total += sum_of(some)
            nll[r] = total
            if grad.shape[1]:
                gradient(outputs[r], target, row_scale[r], grad[r])

    def op(outputs, x, row_scale, nll, grad):
        grad = _or_none(grad, outputs)
        rows(outputs.shape[0], outputs.size, outputs, x, row_scale, nll, grad)

    return op


def _or_none(grad, outputs):
    """`grad`, or no columns of it where none is wanted: "none" may come in any shape."""
    return grad if grad.size else outputs[:, :0]


# ---------------------------------------------------------------------------------------------- Bernoulli


@inner
def _bernoulli_value(logits, x):
    """nll of one row."""
    total = zero = logits.dtype.type(0)
    for i in range(logits.size):
        a = logits[i]
        softplus = (a if a > 0 else zero) + log1p(decay(a))
        total = add_in_any_order(total, muladd(-x[i], a, softplus))
    return total


@inner
def _decays(logits, decays):
    """decays = exp(−|logits|)."""
    for i in range(logits.size):
        decays[i] = decay(logits[i])


@inner
def _bernoulli_sum(logits, x, decays):
    """nll of a block of pixels. A loop that only reads: one that also stores has a second body for
    arrays that are close together in memory, which adds in another order, and then the bits would
    depend on where the arrays are."""
    total = zero = logits.dtype.type(0)
    for i in range(logits.size):
        a = logits[i]
        total = add_in_any_order(total, muladd(-x[i], a, (a if a > 0 else zero) + log1p(decays[i])))
    return total


@inner
def _bernoulli_grad(logits, x, decays, scale, grad):
    """grad = scale · (sigmoid(logits) − x)."""
    one = logits.dtype.type(1)
    for i in range(logits.size):
        e = decays[i]
        grad[i] = scale * ((e if logits[i] < 0 else one) / (one + e) - x[i])


@inner
def _bernoulli_both(logits, x, scale, grad):
    """nll of one row, and its gradient: softplus and sigmoid from the same exp(−|logits|), a block at a time. Three
    plain loops become vector code; one that does it all did not, and took four times as long."""
    total = logits.dtype.type(0)
    decays = carray(stack_array(total, BLOCK), BLOCK)
    for start in range(0, logits.size, BLOCK):
        end = min(start + BLOCK, logits.size)
        a, target, e = logits[start:end], x[start:end], decays[: end - start]
        _decays(a, e)
        total += _bernoulli_sum(a, target, e)
        _bernoulli_grad(a, target, e, scale, grad[start:end])
    return total


@in_parts(1, pays=HEAVY)
def _bernoulli(first, last, logits, x, row_scale, nll, grad_logits):
    k = logits.shape[0] // x.shape[0]
    for r in range(first, last):
        if grad_logits.shape[1]:
            nll[r] = _bernoulli_both(logits[r], x[r // k], row_scale[r], grad_logits[r])
        else:
            nll[r] = _bernoulli_value(logits[r], x[r // k])


def bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """ops.likelihood.bernoulli_nll, value and gradient of a row in one pass over its pixels."""
    grad = _or_none(grad_logits, logits)
    _bernoulli(logits.shape[0], logits.size, logits, x, row_scale, nll, grad)


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


def _continuous_terms(logits, x, terms):
    zero = terms.dtype.type(0)
    for i in range(terms.size):
        a = logits[i]
        terms[i] = muladd(-x[i], a, (a if a > 0 else zero) + log_share(abs(a)))


def _continuous_grad(logits, x, scale, grad):
    for i in range(grad.size):
        grad[i] = scale * (continuous_mean(logits[i]) - x[i])


continuous_bernoulli_nll = by_rows(_continuous_terms, _continuous_grad, numbers=1)


# ---------------------------------------------------------------------------------------------- Gaussian


@inner
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


@in_parts(1, pays=LIGHT)
def _gaussian(first, last, mean, x, row_scale, sigma, nll, grad_mean):
    R, P = mean.shape
    k, real = R // x.shape[0], mean.dtype.type
    constant = P * (math.log(sigma) + 0.5 * LOG_2PI)
    for r in range(first, last):
        factor = real(row_scale[r] / sigma**2)
        squares = _gaussian_row(mean[r], x[r // k], factor, grad_mean[r])
        nll[r] = real(squares * (0.5 / sigma**2) + constant)


def gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean):
    """ops.likelihood.gaussian_nll, value and gradient of a row in one pass over its pixels."""
    grad = _or_none(grad_mean, mean)
    _gaussian(mean.shape[0], mean.size, mean, x, row_scale, float(sigma), nll, grad)


@in_parts(1, pays=LIGHT)
def _scalar(first, last, mean, x, row_scale, log_sigma, nll, grad, grad_log_sigma):
    R, P = mean.shape
    k, real = R // x.shape[0], mean.dtype.type
    rho = float(log_sigma[0])
    precision, constant = math.exp(-2 * rho), P * (rho + 0.5 * LOG_2PI)
    for r in range(first, last):
        squares = float(_gaussian_row(mean[r], x[r // k], real(row_scale[r] * precision), grad[r])) * precision
        nll[r] = real(0.5 * squares + constant)
        if grad_log_sigma.shape[1]:
            grad_log_sigma[r, 0] = real(row_scale[r] * (P - squares))


def gaussian_scalar_nll(mean, x, row_scale, log_sigma, nll, grad_mean, grad_log_sigma):
    """ops.likelihood.gaussian_scalar_nll."""
    grad, grad_sigma = _or_none(grad_mean, mean), _or_none(grad_log_sigma, mean)
    _scalar(mean.shape[0], mean.size, mean, x, row_scale, log_sigma, nll, grad, grad_sigma)


def _pixel_terms(outputs, x, terms):
    real = terms.dtype.type
    least, half, two, constant = real(LEAST_LOG_SIGMA), real(0.5), real(2), real(0.5 * LOG_2PI)
    for i in range(terms.size):
        difference = outputs[2 * i] - x[i]
        log_sigma = softplus(outputs[2 * i + 1] - least) + least
        terms[i] = muladd(half * difference * difference, exp(-two * log_sigma), log_sigma + constant)


def _pixel_grad(outputs, x, scale, grad):
    real = outputs.dtype.type
    least, one, two = real(LEAST_LOG_SIGMA), real(1), real(2)
    for i in range(x.size):
        difference, raw = outputs[2 * i] - x[i], outputs[2 * i + 1] - least
        slope = difference * exp(-two * (softplus(raw) + least))
        grad[2 * i] = scale * slope
        grad[2 * i + 1] = scale * (sigmoid(raw) * (one - difference * slope))


gaussian_pixel_nll = by_rows(_pixel_terms, _pixel_grad, numbers=2)


@in_parts(1, pays=LIGHT)
def _optimal(first, last, mean, x, row_scale, nll, grad):
    R, P = mean.shape
    k, real, least = R // x.shape[0], mean.dtype.type, math.exp(2 * LEAST_LOG_SIGMA)
    for r in range(first, last):
        squares = float(_gaussian_row(mean[r], x[r // k], real(0), grad[r, :0]))
        variance = squares / P
        variance = least if variance < least else variance
        nll[r] = real(0.5 * squares / variance + 0.5 * P * (math.log(variance) + LOG_2PI))
        if grad.shape[1]:
            _gaussian_row(mean[r], x[r // k], real(row_scale[r] / variance), grad[r])


def gaussian_optimal_nll(mean, x, row_scale, nll, grad_mean):
    """ops.likelihood.gaussian_optimal_nll: the squares of a row, and then its gradient."""
    grad = _or_none(grad_mean, mean)
    _optimal(mean.shape[0], mean.size, mean, x, row_scale, nll, grad)


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
        term = upper if level == zero else upper + lower - share
        terms[i] = lower if level == top else term


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
        above, below, middle = sigmoid(-a), sigmoid(b), d / expm1(d)
        above = zero if level == top else above
        below = zero if level == zero else below
        middle = zero if level == top else middle
        middle = zero if level == zero else middle
        grad[2 * i] = scale * ((above - below) * rate)
        grad[2 * i + 1] = scale * ((a * above - b * below + middle) * sigmoid(raw))


discretized_logistic_nll = by_rows(_logistic_terms, _logistic_grad, numbers=2)


@inner
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


@inner
def _exponentials(logits, largest, terms):
    for i in range(terms.size):
        terms[i] = exp(logits[i] - largest)


@inner
def _scaled(terms, factor, grad):
    for i in range(grad.size):
        grad[i] = factor * terms[i]


@in_parts(1, pays=HEAVY)
def _categorical(first, last, logits, x, row_scale, nll, grad):
    k, zero = logits.shape[0] // x.shape[0], logits.dtype.type(0)
    terms, lanes = carray(stack_array(zero, LEVELS), LEVELS), carray(stack_array(zero, LANES), LANES)
    for r in range(first, last):
        total, target = zero, x[r // k]
        for p in range(target.size):
            here = slice(p * LEVELS, (p + 1) * LEVELS)
            largest, level = _largest(logits[r, here], lanes), int(level_of(target[p]))
            _exponentials(logits[r, here], largest, terms)
            sum_ = sum_of(terms)
            total += log(sum_) - (logits[r, p * LEVELS + level] - largest)
            if grad.shape[1]:
                _scaled(terms, row_scale[r] / sum_, grad[r, here])
                grad[r, p * LEVELS + level] -= row_scale[r]
        nll[r] = total


def categorical_nll(logits, x, row_scale, nll, grad_logits):
    """ops.likelihood.categorical_nll, a pixel at a time."""
    grad = _or_none(grad_logits, logits)
    _categorical(logits.shape[0], logits.size, logits, x, row_scale, nll, grad)


# ---------------------------------------------------------------------------------------------- rows


@in_parts(1, pays=LIGHT)
def _scale_rows(first, last, row_weight, grad):
    for r in range(first, last):
        row = grad[r]
        for i in range(row.size):
            row[i] *= row_weight[r]


def scale_rows(row_weight, grad):
    """ops.likelihood.scale_rows, row by row."""
    _scale_rows(grad.shape[0], grad.size, row_weight, grad)
