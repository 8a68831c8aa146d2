"""The latent and its gradient."""

from __future__ import annotations

import math

import numpy as np

from ...device import cuda
from .engine.compile import THREADS, WIDE, aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import load4, store4


@device_function
def divergence(mean, log_sigma):
    """KL of one dimension to a standard normal."""
    half, one = type(mean)(0.5), type(mean)(1)
    twice = log_sigma + log_sigma
    return -half * (one + twice - mean * mean - math.exp(twice))


@kernel(expect=WIDE)
def latent_kernel(h, eps, L, k, width, n, z, kl):
    i = np.uint32(width * cuda.grid(1))
    if i >= n:
        return
    row = np.uint32(i // L)
    image = np.uint32(row // k)
    column = np.uint32(i - row * L)
    first = row == image * k  # the first row of an image writes its KL
    at, out = np.uint32(2 * image * L + column), np.uint32(image * L + column)
    if width == 4:
        m0, m1, m2, m3 = load4(h, at)
        s0, s1, s2, s3 = load4(h, np.uint32(at + L))
        e0, e1, e2, e3 = load4(eps, i)
        z0, z1 = m0 + math.exp(s0) * e0, m1 + math.exp(s1) * e1
        z2, z3 = m2 + math.exp(s2) * e2, m3 + math.exp(s3) * e3
        store4(z, i, z0, z1, z2, z3)
        if first:
            store4(kl, out, divergence(m0, s0), divergence(m1, s1), divergence(m2, s2), divergence(m3, s3))
    else:
        mean, log_sigma = h[at], h[at + L]
        z[i] = mean + math.exp(log_sigma) * eps[i]
        if first:
            kl[out] = divergence(mean, log_sigma)


def latent(h, eps, z, kl):
    """ops.latent.latent."""
    (B, L), n = kl.shape, z.size
    width = 4 if L % 4 == 0 and aligned(h, eps, z, kl) else 1
    launch(latent_kernel, blocks_for(n, width * THREADS), THREADS, h, eps, L, z.shape[0] // B, width, n, z, kl)


@device_function
def down(mean, log_sigma, grad, grad_eps, kl_weight, share):
    """Gradients of z_mean and z_log_sigma from Σ grad_z and Σ grad_z · eps; the KL's weight is float64 up to here."""
    weight = type(mean)(kl_weight * share)
    pull = weight * math.expm1(log_sigma + log_sigma)
    return grad + weight * mean, grad_eps * math.exp(log_sigma) + pull


@kernel(expect=WIDE, doubles=True)
def latent_grad_kernel(h, eps, grad_z, kl_weight, share, L, k, width, n, grad_h):
    i = np.uint32(width * cuda.grid(1))
    if i >= n:
        return
    image = np.uint32(i // L)
    column = np.uint32(i - image * L)
    row, at = np.uint32(image * k * L + column), np.uint32(image * L + i)
    zero = type(h[0])(0)
    if width == 4:
        g0, g1, g2, g3 = zero, zero, zero, zero
        t0, t1, t2, t3 = zero, zero, zero, zero
        for _ in range(k):
            a0, a1, a2, a3 = load4(grad_z, row)
            e0, e1, e2, e3 = load4(eps, row)
            g0, g1, g2, g3 = g0 + a0, g1 + a1, g2 + a2, g3 + a3
            t0, t1, t2, t3 = t0 + a0 * e0, t1 + a1 * e1, t2 + a2 * e2, t3 + a3 * e3
            row = np.uint32(row + L)
        m0, m1, m2, m3 = load4(h, at)
        s0, s1, s2, s3 = load4(h, np.uint32(at + L))
        w0, w1, w2, w3 = load4(kl_weight, column)
        g0, t0 = down(m0, s0, g0, t0, w0, share)
        g1, t1 = down(m1, s1, g1, t1, w1, share)
        g2, t2 = down(m2, s2, g2, t2, w2, share)
        g3, t3 = down(m3, s3, g3, t3, w3, share)
        store4(grad_h, at, g0, g1, g2, g3)
        store4(grad_h, np.uint32(at + L), t0, t1, t2, t3)
    else:
        g, t = zero, zero
        for _ in range(k):
            g, t = g + grad_z[row], t + grad_z[row] * eps[row]
            row = np.uint32(row + L)
        grad_h[at], grad_h[at + L] = down(h[at], h[at + L], g, t, kl_weight[column], share)


def latent_grad(h, eps, grad_z, kl_weight, grad_h):
    """ops.latent.latent_grad, the rows of an image added in their order."""
    B, L = h.shape[0], kl_weight.size
    width = 4 if L % 4 == 0 and aligned(h, eps, grad_z, kl_weight, grad_h) else 1
    launch(latent_grad_kernel, blocks_for(B * L, width * THREADS), THREADS,
           h, eps, grad_z, kl_weight, 1 / B, L, eps.shape[0] // B, width, B * L, grad_h)  # fmt: skip
