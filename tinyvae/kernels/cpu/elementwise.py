"""Activations, the latent, likelihoods and the objective: each number, or each row, by itself, in one pass over memory.
It knows arrays and rows; which layer asks is not its affair.

Every op is a loop over a part of its arrays, and a small Python function that runs it on the whole, or on parts side by
side where there is enough work to pay for entering a parallel region. Parts do not depend on the number of threads, nor
does any number on the part it is in.
"""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from ..reference import ELU, LEAKY_RELU, LEAKY_SLOPE, LOG_2PI, RELU, SIGMOID, SOFTPLUS, TANH
from .engine.compile import jit, parallel
from .engine.vector_math import (
    add_in_any_order,
    apply_activation,
    decay,
    exp,
    expm1,
    log1p,
    muladd,
    sigmoid,
    stack_array,
)

CHUNK = 8192  # numbers per part of a flat array: its parts of all arguments stay in the first- and second-level cache
HEAVY = 1 << 16  # numbers from which threads pay, where each costs an exp
LIGHT = 1 << 18  # and where each costs a few products
IMAGES = 8  # images per part of the latent ops
STRETCH = 1024  # pixels of a row whose terms are held, then summed
COLUMNS, VECTOR = 64, 16  # latent dimensions taken at a time, and numbers in the widest vector


@jit
def chunks(n):
    """The number of parts of a flat array of n numbers."""
    return (n + CHUNK - 1) // CHUNK


@jit
def part(array, chunk):
    """One part of a flat array, as a view."""
    return array[chunk * CHUNK : min(array.size, (chunk + 1) * CHUNK)]


# ---------------------------------------------------------------------------------------------- activations


@jit
def _copy(x, y):
    for i in range(y.size):
        y[i] = x[i]


@jit
def _activate(x, act, y):
    _copy(x, y)
    apply_activation(y, act)


@parallel
def _activate_parts(x, act, y):
    for c in prange(chunks(y.size)):
        _activate(part(x, c), act, part(y, c))


def activate(x, act, y):
    """reference.activate: a copy, activated while it is in the cache."""
    (_activate_parts if y.size >= HEAVY else _activate)(x, act, y)


def finish(y, act):
    """y ← act(y), any shape, where the tile has not done it: it knows the identity and ReLU."""
    if act > RELU:
        activate(y.reshape(-1), act, y.reshape(-1))


@jit
def _act_grad(y, act, grad):
    real = y.dtype.type
    zero, one, slope = real(0), real(1), real(LEAKY_SLOPE)
    if act == RELU:
        for i in range(y.size):
            grad[i] *= one if y[i] > 0 else zero  # a product, so that NaN in grad stays NaN
    elif act == LEAKY_RELU:
        for i in range(y.size):
            grad[i] *= one if y[i] > 0 else slope
    elif act == ELU:
        for i in range(y.size):
            grad[i] *= one if y[i] > 0 else y[i] + one
    elif act == TANH:
        for i in range(y.size):
            grad[i] *= muladd(-y[i], y[i], one)
    elif act == SIGMOID:
        for i in range(y.size):
            grad[i] *= y[i] * (one - y[i])
    elif act == SOFTPLUS:
        for i in range(y.size):
            grad[i] *= -expm1(-y[i])


@parallel
def _act_grad_parts(y, act, grad):
    for c in prange(chunks(y.size)):
        _act_grad(part(y, c), act, part(grad, c))


def act_grad(y, act, grad):
    """reference.act_grad in one pass, a loop for each activation."""
    (_act_grad_parts if y.size >= LIGHT else _act_grad)(y, act, grad)


@jit
def _silu(x, y):
    for i in range(y.size):
        y[i] = x[i] * sigmoid(x[i])


@parallel
def _silu_parts(x, y):
    for c in prange(chunks(y.size)):
        _silu(part(x, c), part(y, c))


def silu(x, y):
    """reference.silu in one pass."""
    (_silu_parts if y.size >= HEAVY else _silu)(x, y)


@jit
def _silu_grad(x, grad):
    one = x.dtype.type(1)
    for i in range(x.size):
        s = sigmoid(x[i])
        grad[i] *= s * muladd(x[i], one - s, one)


@parallel
def _silu_grad_parts(x, grad):
    for c in prange(chunks(x.size)):
        _silu_grad(part(x, c), part(grad, c))


def silu_grad(x, grad):
    """reference.silu_grad in one pass, the sigmoid computed anew."""
    (_silu_grad_parts if x.size >= HEAVY else _silu_grad)(x, grad)


# ---------------------------------------------------------------------------------------------- latent


@jit
def _scaled(sigma, mean, eps, z):
    """z = mean + sigma · eps for one row."""
    for i in range(z.size):
        z[i] = muladd(sigma[i], eps[i], mean[i])


@jit
def _kl(sigma, mean, log_sigma):
    """sigma ← KL divergence of one image, in the place of its sigma."""
    real = mean.dtype.type
    half, one, two = real(0.5), real(1), real(2)
    for i in range(mean.size):
        squares = muladd(mean[i], mean[i], sigma[i] * sigma[i])
        sigma[i] = half * (squares - muladd(two, log_sigma[i], one))


@jit
def _latent(h, eps, z, kl, first, last):
    L, k = kl.shape[1], z.shape[0] // kl.shape[0]
    for b in range(first, last):
        _copy(h[b, L:], kl[b])
    sigma = kl.reshape(-1)[first * L : last * L]
    for i in range(sigma.size):  # the images together: rows may be shorter than a vector
        sigma[i] = exp(sigma[i])
    for b in range(first, last):
        for r in range(b * k, (b + 1) * k):
            _scaled(kl[b], h[b, :L], eps[r], z[r])
        _kl(kl[b], h[b, :L], h[b, L:])


@parallel
def _latent_parts(h, eps, z, kl):
    B = kl.shape[0]
    for c in prange((B + IMAGES - 1) // IMAGES):
        _latent(h, eps, z, kl, c * IMAGES, min(B, (c + 1) * IMAGES))


def latent(h, eps, z, kl):
    """reference.latent; exp(z_log_sigma) once for the rows of an image and for its KL divergence, kept in kl."""
    if z.size >= LIGHT:
        _latent_parts(h, eps, z, kl)
    else:
        _latent(h, eps, z, kl, 0, kl.shape[0])


@jit
def _row_sums(eps, grad_z, start, columns, grad_mean, grad_log_sigma):
    """Σ_k grad_z and Σ_k grad_z · eps of one image; eps, grad_z: (k, latent)."""
    eps_row, grad_row = eps[0, start:], grad_z[0, start:]
    for i in range(columns):
        grad_mean[i] = grad_row[i]
        grad_log_sigma[i] = grad_row[i] * eps_row[i]
    for row in range(1, grad_z.shape[0]):
        eps_row, grad_row = eps[row, start:], grad_z[row, start:]
        for i in range(columns):
            grad_mean[i] += grad_row[i]
            grad_log_sigma[i] = muladd(grad_row[i], eps_row[i], grad_log_sigma[i])


@jit
def _joined(mean, log_sigma, weight, per_image, grad_mean, grad_log_sigma):
    """The sums over rows, times dz/dh, and the KL gradient, for one stretch of columns."""
    real = mean.dtype.type
    L, two = mean.size, real(2)
    sigma, down = carray(stack_array(real(0), COLUMNS), COLUMNS), carray(stack_array(real(0), COLUMNS), COLUMNS)
    whole = (L + VECTOR - 1) // VECTOR * VECTOR
    for i in range(L):
        sigma[i] = log_sigma[i]
    for i in range(L, whole):
        sigma[i] = real(0)
    for i in range(whole):  # whole vectors: a number left over costs as much as a vector
        down[i] = expm1(two * sigma[i])
        sigma[i] = exp(sigma[i])
    for i in range(L):
        kl_weight = real(weight[i] * per_image)
        grad_mean[i] = muladd(kl_weight, mean[i], grad_mean[i])
        grad_log_sigma[i] = muladd(grad_log_sigma[i], sigma[i], kl_weight * down[i])


@jit
def _latent_grad(h, eps, grad_z, kl_weight, grad_h, first, last):
    B, L = h.shape[0], h.shape[1] // 2
    k = eps.shape[0] // B
    for b in range(first, last):
        rows = slice(b * k, (b + 1) * k)
        for start in range(0, L, COLUMNS):
            stop = min(L, start + COLUMNS)
            grad_mean, grad_log_sigma = grad_h[b, start:stop], grad_h[b, L + start : L + stop]
            _row_sums(eps[rows], grad_z[rows], start, stop - start, grad_mean, grad_log_sigma)
            mean, log_sigma = h[b, start:stop], h[b, L + start : L + stop]
            _joined(mean, log_sigma, kl_weight[start:stop], 1 / B, grad_mean, grad_log_sigma)


@parallel
def _latent_grad_parts(h, eps, grad_z, kl_weight, grad_h):
    B = h.shape[0]
    for c in prange((B + IMAGES - 1) // IMAGES):
        _latent_grad(h, eps, grad_z, kl_weight, grad_h, c * IMAGES, min(B, (c + 1) * IMAGES))


def latent_grad(h, eps, grad_z, kl_weight, grad_h):
    """reference.latent_grad, image by image; the sums over its rows are kept in grad_h itself."""
    if grad_z.size >= LIGHT:
        _latent_grad_parts(h, eps, grad_z, kl_weight, grad_h)
    else:
        _latent_grad(h, eps, grad_z, kl_weight, grad_h, 0, h.shape[0])


# ---------------------------------------------------------------------------------------------- likelihood


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


@jit
def _sum(numbers):
    """Σ in float64."""
    total = 0.0
    for i in range(numbers.size):
        total = add_in_any_order(total, float(numbers[i]))
    return total


@jit
def _weighted_sum(numbers, weights):
    """Σ numbers · weights in float64."""
    total = 0.0
    for i in range(numbers.size):
        total = add_in_any_order(total, numbers[i] * weights[i])
    return total


@jit
def objective(nll, kl, kl_weight, sums, metrics):
    """reference.objective, all sums in float64."""
    B = kl.shape[0]
    recon, total, weighted = _sum(nll) / nll.size, 0.0, 0.0
    for b in range(B):
        total += _sum(kl[b])
        weighted += _weighted_sum(kl[b], kl_weight)
    metrics[0], metrics[1], metrics[2] = recon + weighted / B, recon, total / B
    for i in range(3):
        sums[i] += B * metrics[i]
    sums[3] += B
