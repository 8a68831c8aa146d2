"""The meaning of the ops of importance weighting, in NumPy, as reference.py has it for the others.
It knows arrays only: no layer, no model, no device."""

from __future__ import annotations

import numpy as np

# ---------------------------------------------------------------------------------------------- importance weights


def importance_weights(h, eps, z, nll, kl_weight, weight, bound):
    """The normalised importance weights of an image's k draws, and log 1/k Σ_k w_k, the bound they give together.

    log w = −nll + Σ_latent kl_weight · (log p(z) − log q(z|x)), and log p(z) − log q(z|x) = z_log_sigma + ½ eps² − ½ z²
    in each dimension, as z = z_mean + exp(z_log_sigma) · eps. weight = w / Σ_k w. Burda et al. 2015, equations 8 and 14,
    with kl_weight = 1. In float64 whatever the arrays are: a weight is the exponential of a difference of large numbers.
    h: (B, 2·latent). eps, z: (R, latent), R = B·k, row r of image r // k. nll, weight: (R,). kl_weight: (latent,)
    float64. bound: (B,), nats.
    """
    B, L = h.shape[0], h.shape[1] // 2
    eps, z = (a.astype(np.float64).reshape(B, -1, L) for a in (eps, z))
    ratio = h[:, None, L:] + 0.5 * (eps * eps - z * z)  # (B, k, latent): log p(z) − log q(z|x)
    log_w = ratio @ kl_weight - nll.reshape(B, -1)
    largest = log_w.max(axis=1, keepdims=True)
    w = np.exp(log_w - largest)  # at most 1: no overflow
    total = w.sum(axis=1, keepdims=True)
    weight[...] = (w / total).reshape(-1)
    bound[...] = (largest + np.log(total / w.shape[1]))[:, 0]


def importance_grad(h, eps, z, grad_z, weight, kl_weight, doubly, grad_h):
    """The gradient of −(mean over images of log 1/k Σ_k w_k) with respect to h: every row counts by its weight.

    grad_z carries weight / B · ∂nll/∂z already. With c = weight / B · kl_weight and path = grad_z + c · z
    grad_mean      = Σ_k path
    grad_log_sigma = Σ_k path · eps · exp(z_log_sigma) − c
    doubly = 1 leaves out the terms whose mean is zero, which is the doubly reparameterised gradient of Tucker et al.
    2018, equation 8 (k = 1: the path derivative of Roeder et al. 2017). q's own density counts along the path then:
    path = (1 − kl_weight · (1 − weight)) · (grad_z + c · (z − eps · exp(−z_log_sigma))), and
    grad_log_sigma = Σ_k path · eps · exp(z_log_sigma). The factor in front is `weight` where kl_weight is 1.
    h, grad_h: (B, 2·latent). eps, z, grad_z: (R, latent). weight: (R,). kl_weight: (latent,) float64.
    """
    B, L = h.shape[0], h.shape[1] // 2
    sigma = np.exp(h[:, None, L:])
    eps, z, grad_z = (a.reshape(B, -1, L) for a in (eps, z, grad_z))
    weight = weight.reshape(B, -1, 1)
    beta = kl_weight.astype(h.dtype)
    share = weight / B * beta  # (B, k, latent)
    if doubly:
        path = (1 - beta * (1 - weight)) * (grad_z + share * (z - eps / sigma))
        direct = 0
    else:
        path, direct = grad_z + share * z, share.sum(axis=1)
    grad_h[:, :L] = path.sum(axis=1)
    grad_h[:, L:] = (path * eps * sigma).sum(axis=1) - direct


def importance_objective(bound, nll, kl, sums, metrics):
    """The loss of one batch under importance weighting, in nats per image, and the running sums over an epoch.

    metrics = [loss, recon, kl]: loss = −(mean of bound), recon = mean of nll over rows, kl = Σ_latent of its mean over
    images: recon + kl is the negative ELBO of the same model, which is never below the loss in the mean.
    sums += B · [loss, recon, kl, 1]. bound: (B,). nll: (R,). kl: (B, latent). sums: (4,), metrics: (3,), float64.
    """
    metrics[:] = -bound.mean(dtype=np.float64), nll.mean(dtype=np.float64), kl.sum(dtype=np.float64) / kl.shape[0]
    sums[:3] += kl.shape[0] * metrics
    sums[3] += kl.shape[0]
