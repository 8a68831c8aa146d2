"""The latent layer: a draw from the posterior by reparameterisation, its KL divergence, and both gradients."""

from __future__ import annotations

import numpy as np

from ..op import In, Op, Out, per, rows_rule, three_examples


def latent(h, eps, z, kl):
    """z = z_mean + exp(z_log_sigma) · eps, and the KL divergence of each dimension to a standard normal.

    kl = −½ (1 + 2 z_log_sigma − z_mean² − exp(2 z_log_sigma)): Kingma & Welling 2013, equation 10 and appendix B,
    with sigma = exp(z_log_sigma), the standard deviation and not the variance.
    h: (B, 2·latent), z_mean in the first half, z_log_sigma in the second. eps, z: (R, latent), R = B·k, row r of image
    r // k. kl: (B, latent), nats.
    """
    B, L = kl.shape
    z_mean, z_log_sigma = h[:, :L], h[:, L:]
    k = z.shape[0] // B
    np.multiply(np.exp(z_log_sigma)[:, None], eps.reshape(B, k, L), out=z.reshape(B, k, L))
    z.reshape(B, k, L)[...] += z_mean[:, None]
    kl[...] = -0.5 * (1 + 2 * z_log_sigma - z_mean * z_mean - np.exp(2 * z_log_sigma))


def latent_grad(h, eps, grad_z, kl_weight, grad_h):
    """The pathwise gradient plus the KL gradient.

    grad_z_mean      = Σ_k grad_z                              + kl_weight / B · z_mean
    grad_z_log_sigma = Σ_k grad_z · eps · exp(z_log_sigma)     + kl_weight / B · (exp(2 z_log_sigma) − 1)
    The loss is averaged over the batch, hence 1/B; grad_z already includes its 1/R.
    h, grad_h: (B, 2·latent), halves as in `latent`. eps, grad_z: (R, latent). kl_weight: (latent,) float64.
    """
    B, L = h.shape[0], h.shape[1] // 2
    z_mean, z_log_sigma = h[:, :L], h[:, L:]
    weight = (kl_weight / B).astype(h.dtype)
    grad_z, eps = grad_z.reshape(B, -1, L), eps.reshape(B, -1, L)
    grad_h[:, :L] = grad_z.sum(axis=1) + weight * z_mean
    grad_h[:, L:] = (grad_z * eps).sum(axis=1) * np.exp(z_log_sigma) + weight * np.expm1(2 * z_log_sigma)


def _latent_terms(a):
    L = a["kl"].shape[1]
    z_mean, z_log_sigma = np.abs(a["h"][:, :L]), a["h"][:, L:]
    k = len(a["eps"]) // len(z_mean)
    z = np.repeat(z_mean, k, axis=0) + np.repeat(np.exp(z_log_sigma), k, axis=0) * np.abs(a["eps"])
    return {"z": z, "kl": 0.5 * (1 + 2 * np.abs(z_log_sigma) + z_mean**2 + np.exp(2 * z_log_sigma))}


def _latent_grad_terms(a):
    B, L = len(a["h"]), a["h"].shape[1] // 2
    z_mean, z_log_sigma, weight = np.abs(a["h"][:, :L]), a["h"][:, L:], a["kl_weight"] / B
    grad_z, eps = np.abs(a["grad_z"]).reshape(B, -1, L), np.abs(a["eps"]).reshape(B, -1, L)
    down = weight * np.abs(np.expm1(2 * z_log_sigma))
    return {"grad_h": np.hstack([grad_z.sum(1) + weight * z_mean, (grad_z * eps).sum(1) * np.exp(z_log_sigma) + down])}


_EXAMPLES = three_examples({"B": 1, "R": 1, "L": 1}, {"B": 3, "R": 9, "L": 7}, {"B": 128, "R": 128, "L": 20})

OPS = (
    Op(
        "latent", (In("h", "B", "2*L"), In("eps", "R", "L"), Out("z", "R", "L"), Out("kl", "B", "L")),
        _EXAMPLES, per("R", "L", cost=10), ulp=12, rule=rows_rule, terms=_latent_terms,
    ),
    Op(
        "latent_grad",
        (In("h", "B", "2*L"), In("eps", "R", "L"), In("grad_z", "R", "L"),
         In("kl_weight", "L", dtype="float64", draw="unit"), Out("grad_h", "B", "2*L")),
        _EXAMPLES, per("R", "L", cost=12), ulp=12, rule=rows_rule, terms=_latent_grad_terms,
    ),
)  # fmt: skip
