"""The latent: draws, their KL divergence and their gradient, image by image."""

from __future__ import annotations

from numba import carray, prange

from .engine.compile import jit, parallel
from .engine.parts import LIGHT
from .engine.sums import _copy
from .engine.vector_math import exp, expm1, muladd, stack_array

IMAGES = 8  # images per part of the latent ops
COLUMNS, VECTOR = 64, 16  # latent dimensions taken at a time, and numbers in the widest vector


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
