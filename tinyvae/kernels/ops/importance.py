"""Importance weighting: the weights of several draws per image, their bound, and its gradient."""

from __future__ import annotations

import numpy as np

from ..op import In, InOut, Op, Option, Out, per, results, rows_rule, three_examples


def importance_weights(h, eps, z, nll, kl_weight, weight, bound):
    """The normalised importance weights of an image's k draws, and log 1/k Σ_k w_k, the bound they give together.

    log w = −nll + Σ_latent kl_weight · (log p(z) − log q(z|x)), and log p(z) − log q(z|x) = z_log_sigma + ½ eps² − ½ z²
    in each dimension, as z = z_mean + exp(z_log_sigma) · eps. weight = w / Σ_k w. Burda et al. 2015, equation 8,
    where kl_weight is 1. In float64 whatever the arrays are: a weight is the exp of a difference of large numbers.
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
    2018, section 3 (k = 1: the path derivative of Roeder et al. 2017). q's density then counts along the path:
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


def _weights_terms(a):
    """A weight is as good as its logarithm is, whose terms are those of the bound."""
    R, L, B = len(a["z"]), a["z"].shape[1], len(a["h"])
    ratio = np.repeat(np.abs(a["h"][:, L:]), R // B, axis=0) + 0.5 * (a["eps"] ** 2 + a["z"] ** 2)
    terms = np.abs(a["nll"]) + ratio @ a["kl_weight"]
    largest = terms.reshape(B, -1).max(axis=1)
    weight = results(importance_weights, a)["weight"]
    return {"weight": weight * (1 + 2 * np.repeat(largest, R // B)), "bound": 1 + largest}


def _grad_terms(a):
    B, L = len(a["h"]), a["h"].shape[1] // 2
    eps, z, grad_z = (np.abs(a[name]).reshape(B, -1, L) for name in ("eps", "z", "grad_z"))
    weight, sigma = a["weight"].reshape(B, -1, 1), np.exp(a["h"][:, None, L:])
    share = weight / B * a["kl_weight"]
    path, direct = grad_z + share * z, share.sum(1)
    if a["doubly"]:
        path, direct = (1 + a["kl_weight"] * (1 + weight)) * (path + share * eps / sigma), 0 * direct
    return {"grad_h": np.hstack([path.sum(1), (path * eps * sigma).sum(1) + direct])}


def _objective_terms(a):
    metrics = np.array([np.abs(a["bound"]).mean(), np.abs(a["nll"]).mean(), np.abs(a["kl"]).mean(0).sum()])
    return {"metrics": metrics, "sums": np.abs(a["sums"]) + len(a["kl"]) * np.array([*metrics, 1])}


def _examples(**options):
    return three_examples({"B": 1, "R": 1, "L": 1}, {"B": 3, "R": 9, "L": 7}, {"B": 20, "R": 100, "L": 50}, **options)


_H, _EPS, _Z, _NLL = In("h", "B", "2*L"), In("eps", "R", "L"), In("z", "R", "L"), In("nll", "R")
_KL_WEIGHT = In("kl_weight", "L", dtype="float64", draw="unit")

OPS = (
    Op(
        "importance_weights",
        (_H, _EPS, _Z, _NLL, _KL_WEIGHT, Out("weight", "R"), Out("bound", "B")),
        _examples(), per("R", "L", cost=7), ulp=4, reduction=("L",), rule=rows_rule,
        terms=_weights_terms,
    ),
    Op(
        "importance_grad",
        (_H, _EPS, _Z, In("grad_z", "R", "L"), In("weight", "R", draw="unit"), _KL_WEIGHT,
         Option("doubly", "flag"), Out("grad_h", "B", "2*L")),
        _examples(doubly=0), per("R", "L", cost=9), ulp=16, rule=rows_rule,
        variants=({"doubly": 1},), terms=_grad_terms,
    ),
    Op(
        "importance_objective",
        (In("bound", "B"), _NLL, In("kl", "B", "L"), InOut("sums", "4", dtype="float64"),
         Out("metrics", "3", dtype="float64")),
        _examples(), per("B", "L"), ulp=4, reduction=("B", "L"), rule=rows_rule,
        terms=_objective_terms,
    ),
)  # fmt: skip
