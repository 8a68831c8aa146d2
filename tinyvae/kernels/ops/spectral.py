"""Spectral normalisation: a weight divided by its largest singular value, found by power iteration."""

from __future__ import annotations

import numpy as np

from ..op import ADD, In, InOut, Op, Option, Out, per, three_examples

LEAST_LENGTH = 1e-12  # of W u: a weight under it is as good as zero, and stays as it is


def spectral_norm(weight, iterations, u, v, sigma, normalised):
    """normalised = W / sigma, sigma = vᵀ W u the largest singular value of W as power iteration finds it:

    v ← W u / |W u|,  u ← Wᵀ v / |Wᵀ v|, `iterations` times, then sigma = |Wᵀ v| = vᵀ W u.
    sigma is never above the largest singular value, nor below |W u| / |u| of the u that came in. Where that is 0 there
    is nothing to divide by: u stays, v = 0, sigma = 1. Miyato et al. 2018, algorithm 1, whose W is the transpose of
    this one. weight, normalised: (K, N). u: (N,), of any length when it comes in, 1 afterwards. v: (K,). sigma: (1,).
    """
    v[...], sigma[...] = 0, 1
    for _ in range(iterations):
        product = weight @ u
        length = np.linalg.norm(product)
        if not length > LEAST_LENGTH * np.linalg.norm(u):
            break
        v[...] = product / length
        product = v @ weight
        sigma[...] = np.linalg.norm(product)
        u[...] = product / sigma
    normalised[...] = weight / sigma


def spectral_norm_grad(grad_normalised, normalised, u, v, sigma, add, grad_weight):
    """grad_weight = (grad_normalised − <grad_normalised, normalised> v uᵀ) / sigma, <a, b> = Σ a · b.

    With u and v held constant sigma = vᵀ W u has the derivative v uᵀ, and d(W / sigma) = (dW − W/sigma · d sigma) /
    sigma. Where u and v are the singular vectors that is exact: sigma has its maximum over u and v there.
    Miyato et al. 2018, section 2.3. grad_normalised, normalised, grad_weight: (K, N), the last added to with add = 1.
    u: (N,). v: (K,). sigma: (1,).
    """
    along = (grad_normalised * normalised).sum()
    grad = (grad_normalised - along * np.outer(v, u)) / sigma
    grad_weight[...] = grad_weight + grad if add else grad


def _spectral_norm_terms(a):
    """An iteration goes on with the errors of the one before; sigma and what it divides are as good as u is."""
    size, u, terms_u = np.abs(a["weight"]), a["u"], np.abs(a["u"])
    for _ in range(a["iterations"]):
        product = a["weight"] @ u
        terms_v = size @ terms_u / np.linalg.norm(product)
        product = product / np.linalg.norm(product) @ a["weight"]
        sigma = np.linalg.norm(product)
        u, terms_u = product / sigma, terms_v @ size / sigma
    along = np.abs(u) @ terms_u
    return {"v": terms_v, "u": terms_u, "sigma": np.array([sigma * along]), "normalised": size / sigma * along}


def _spectral_norm_grad_terms(a):
    g = np.abs(a["grad_normalised"])
    terms = (g + (g * np.abs(a["normalised"])).sum() * np.abs(np.outer(a["v"], a["u"]))) / a["sigma"]
    return {"grad_weight": terms + np.abs(a["grad_weight"]) if a["add"] else terms}


def _examples(**options):
    return three_examples({"K": 2, "N": 1}, {"K": 37, "N": 67}, {"K": 1024, "N": 128}, **options)


def _rule(dims, options):
    if options["iterations"] < 1 or options["iterations"] % 1:
        return f"iterations={options['iterations']!r} must be a whole number of at least 1"
    return None


OPS = (
    Op(
        "spectral_norm",
        (In("weight", "K", "N"), Option("iterations"), InOut("u", "N"), Out("v", "K"),
         Out("sigma", "1"), Out("normalised", "K", "N")),
        _examples(iterations=1), lambda d: (4.0 * d["iterations"] + 1) * d["K"] * d["N"],
        ulp=8, reduction=("K", "N"), rule=_rule,
        variants=({"iterations": 3},), terms=_spectral_norm_terms,
    ),
    Op(
        "spectral_norm_grad",
        (In("grad_normalised", "K", "N"), In("normalised", "K", "N"), In("u", "N"), In("v", "K"),
         In("sigma", "1", draw="positive"), ADD, Out("grad_weight", "K", "N")),
        _examples(add=0), per("K", "N", cost=6), ulp=8, reduction=("K", "N"),
        variants=({"add": 1},), terms=_spectral_norm_grad_terms,
    ),
)  # fmt: skip
