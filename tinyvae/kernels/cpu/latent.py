"""The latent: draws, their KL divergence and their gradient, image by image."""

from __future__ import annotations

from numba import carray

from .engine.compile import inner
from .engine.parts import LIGHT, in_parts
from .engine.sums import copy
from .engine.vector_math import exp, expm1, muladd, stack_array

IMAGES = 8  # images per part of the latent ops
COLUMNS, VECTOR = 64, 16  # latent dimensions taken at a time, and numbers in the widest vector


@inner
def _scaled(sigma, mean, eps, z):
    """z = mean + sigma · eps for one row."""
    for i in range(z.size):
        z[i] = muladd(sigma[i], eps[i], mean[i])


@inner
def _kl(sigma, mean, log_sigma):
    """sigma ← KL divergence of one image, in the place of its sigma."""
    real = mean.dtype.type
    half, one, two = real(0.5), real(1), real(2)
    for i in range(mean.size):
        squares = muladd(mean[i], mean[i], sigma[i] * sigma[i])
        sigma[i] = half * (squares - muladd(two, log_sigma[i], one))


@in_parts(IMAGES, pays=LIGHT)
def _latent(first, last, h, eps, z, kl):
    L, k = kl.shape[1], z.shape[0] // kl.shape[0]
    for b in range(first, last):
        copy(h[b, L:], kl[b])
    sigma = kl.reshape(-1)[first * L : last * L]
    for i in range(sigma.size):  # the images together: rows may be shorter than a vector
        sigma[i] = exp(sigma[i])
    for b in range(first, last):
        for r in range(b * k, (b + 1) * k):
            _scaled(kl[b], h[b, :L], eps[r], z[r])
        _kl(kl[b], h[b, :L], h[b, L:])


def latent(h, eps, z, kl):
    """ops.latent.latent; exp(z_log_sigma) once for the rows of an image and for its KL divergence, kept in kl."""
    _latent(kl.shape[0], z.size, h, eps, z, kl)


@inner
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


@inner
def _joined(mean, log_sigma, weight, per_image, grad_mean, grad_log_sigma):
    """The sums over rows, times dz/dh, and the KL gradient, for a few columns."""
    real = mean.dtype.type
    L, two = mean.size, real(2)
    sigma, excess = carray(stack_array(real(0), COLUMNS), COLUMNS), carray(stack_array(real(0), COLUMNS), COLUMNS)
    whole = (L + VECTOR - 1) // VECTOR * VECTOR
    for i in range(L):
        sigma[i] = log_sigma[i]
    for i in range(L, whole):
        sigma[i] = real(0)
    for i in range(whole):  # whole vectors: a number left over costs as much as a vector
        excess[i] = expm1(two * sigma[i])
        sigma[i] = exp(sigma[i])
    for i in range(L):
        kl_weight = real(weight[i] * per_image)
        grad_mean[i] = muladd(kl_weight, mean[i], grad_mean[i])
        grad_log_sigma[i] = muladd(grad_log_sigma[i], sigma[i], kl_weight * excess[i])


@in_parts(IMAGES, pays=LIGHT)
def _latent_grad(first, last, h, eps, grad_z, kl_weight, grad_h):
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


def latent_grad(h, eps, grad_z, kl_weight, grad_h):
    """ops.latent.latent_grad, image by image; the sums over its rows are accumulated in grad_h."""
    _latent_grad(h.shape[0], grad_z.size, h, eps, grad_z, kl_weight, grad_h)
