"""Importance weights of an image's draws, their gradient and their objective, image by image."""

from __future__ import annotations

import math

from numba import carray

from .engine.compile import inner, jit
from .engine.parts import in_parts
from .engine.sums import sum64
from .engine.vector_math import add_in_any_order, exp, muladd, stack_array

IMAGES = 4  # images per part
PAYS = 1 << 16  # latent numbers from which threads pay
COLUMNS = 64  # latent dimensions taken at a time


@inner
def _log_weight(log_sigma, eps, z, kl_weight):
    """Σ_latent kl_weight · (z_log_sigma + ½ eps² − ½ z²) of one row, in float64."""
    total = 0.0
    for i in range(eps.size):
        e, c = float(eps[i]), float(z[i])
        total = add_in_any_order(total, kl_weight[i] * (float(log_sigma[i]) + 0.5 * (e * e - c * c)))
    return total


@in_parts(IMAGES, pays=PAYS)
def _weights(first, last, h, eps, z, nll, kl_weight, weight, bound):
    real, L, k = weight.dtype.type, eps.shape[1], eps.shape[0] // h.shape[0]
    for b in range(first, last):
        largest = -math.inf
        for r in range(b * k, (b + 1) * k):  # twice: there is no place for k numbers of float64
            largest = max(largest, _log_weight(h[b, L:], eps[r], z[r], kl_weight) - float(nll[r]))
        total = 0.0
        for r in range(b * k, (b + 1) * k):
            total += math.exp(_log_weight(h[b, L:], eps[r], z[r], kl_weight) - float(nll[r]) - largest)
        for r in range(b * k, (b + 1) * k):
            w = math.exp(_log_weight(h[b, L:], eps[r], z[r], kl_weight) - float(nll[r]) - largest)
            weight[r] = real(w / total)
        bound[b] = real(largest + math.log(total / k))


def importance_weights(h, eps, z, nll, kl_weight, weight, bound):
    """ops.importance.importance_weights, image by image."""
    _weights(h.shape[0], z.size, h, eps, z, nll, kl_weight, weight, bound)


@inner
def _path(eps, z, grad_z, weight, share, beta, sigma, grad_mean, grad_log_sigma):
    """Adds the gradient of one row."""
    for i in range(z.size):
        path = muladd(share * beta[i], z[i], grad_z[i])
        grad_mean[i] += path
        grad_log_sigma[i] += muladd(path * eps[i], sigma[i], -share * beta[i])


@inner
def _path_doubly(eps, z, grad_z, weight, share, beta, sigma, grad_mean, grad_log_sigma):
    """Adds the doubly reparameterised gradient of one row."""
    one = z.dtype.type(1)
    for i in range(z.size):
        along = muladd(share * beta[i], z[i] - eps[i] / sigma[i], grad_z[i])
        path = along * muladd(-beta[i], one - weight, one)
        grad_mean[i] += path
        grad_log_sigma[i] = muladd(path * eps[i], sigma[i], grad_log_sigma[i])


@in_parts(IMAGES, pays=PAYS)
def _grad(first, last, h, eps, z, grad_z, weight, kl_weight, doubly, grad_h):
    real, B, L = h.dtype.type, h.shape[0], eps.shape[1]
    k, per_image = eps.shape[0] // B, h.dtype.type(1 / B)
    sigma, beta = carray(stack_array(real(0), COLUMNS), COLUMNS), carray(stack_array(real(0), COLUMNS), COLUMNS)
    for b in range(first, last):
        grad_h[b, :] = real(0)
        for start in range(0, L, COLUMNS):
            stop = min(L, start + COLUMNS)
            mean, log_sigma = grad_h[b, start:stop], grad_h[b, L + start : L + stop]
            s, weights = sigma[: stop - start], beta[: stop - start]
            for i in range(stop - start):
                s[i] = h[b, L + start + i]
                weights[i] = real(kl_weight[start + i])
            for i in range(stop - start):
                s[i] = exp(s[i])
            for r in range(b * k, (b + 1) * k):
                share, e, c, g = weight[r] * per_image, eps[r, start:stop], z[r, start:stop], grad_z[r, start:stop]
                if doubly:
                    _path_doubly(e, c, g, weight[r], share, weights, s, mean, log_sigma)
                else:
                    _path(e, c, g, weight[r], share, weights, s, mean, log_sigma)


def importance_grad(h, eps, z, grad_z, weight, kl_weight, doubly, grad_h):
    """ops.importance.importance_grad, image by image; the sums over its rows are kept in grad_h itself."""
    _grad(h.shape[0], z.size, h, eps, z, grad_z, weight, kl_weight, doubly, grad_h)


@jit
def importance_objective(bound, nll, kl, sums, metrics):
    """ops.importance.importance_objective, all sums in float64."""
    B = bound.size
    metrics[0], metrics[1], metrics[2] = -sum64(bound) / B, sum64(nll) / nll.size, sum64(kl.reshape(-1)) / B
    for i in range(3):
        sums[i] += B * metrics[i]
    sums[3] += B
