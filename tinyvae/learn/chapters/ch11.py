"""Chapter 11, how good is the bound: the log of a mean, the draws that count, the doubly reparameterised gradient.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SHAPES = ((3, 5), (4, 2), (2, 7))  # images, draws
LATENT = (2, 3, 1)


def log_mean_exp(log_w):
    """log(1/k Σ_k exp(log_w)) for each image, also where exp of every number is 0 or infinite.

    log_w: (B, k), of any size. Returns (B,).
    """
    largest = log_w.max(axis=1, keepdims=True)
    return np.log(np.exp(log_w - largest).mean(axis=1)) + largest[:, 0]


def effective_samples(log_w):
    """(Σ_k w)² / Σ_k w² for each image, w = exp(log_w): how many draws of equal weight would be as good.

    log_w: (B, k), of any size. Returns (B,), from 1 to k.
    """
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    return w.sum(axis=1) ** 2 / (w**2).sum(axis=1)


def doubly_grad(log_w, grad_z, z_log_sigma, eps):
    """The doubly reparameterised gradient of log 1/k Σ_k w_k for each image, v_k = w_k / Σ w:

    Σ_k v_k² · grad_z_k · ∂z_k/∂h, h = z_mean and then h = z_log_sigma, z_k = z_mean + exp(z_log_sigma) · eps_k.
    log_w: (B, k). grad_z: ∂log w/∂z, (B, k, latent). z_log_sigma: (B, latent). eps: (B, k, latent).
    Returns (grad_mean, grad_log_sigma), both (B, latent).
    """
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    v = w / w.sum(axis=1, keepdims=True)
    path = (v**2)[:, :, None] * grad_z
    return path.sum(axis=1), (path * eps).sum(axis=1) * np.exp(z_log_sigma)


def _log_w(rng: np.random.Generator, case: int) -> np.ndarray:
    """About −1000 for every other image, whose exp is 0 in every digit, and about 0 for the rest."""
    B = SHAPES[case][0]
    return rng.standard_normal(SHAPES[case]) - np.where(np.arange(B) % 2 == case % 2, 0.0, 1000.0)[:, None]


def _doubly_cases(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    (B, k), L = SHAPES[case], LATENT[case]
    log_w, grad_z, eps = _log_w(rng, case), rng.standard_normal((B, k, L)), rng.standard_normal((B, k, L))
    return log_w, grad_z, 0.5 * rng.standard_normal((B, L)), eps


def _weights(log_w):
    w = np.exp(log_w - log_w.max(axis=1, keepdims=True))
    return w / w.sum(axis=1, keepdims=True)


def _plainly(log_w):
    """The logarithm of the mean with nothing taken out: −∞ where exp gives 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log_w).mean(axis=1))


def _counted_plainly(log_w):
    with np.errstate(invalid="ignore"):
        return np.exp(log_w).sum(axis=1) ** 2 / np.exp(2 * log_w).sum(axis=1)


def _by(factor, grad_z, log_sigma, eps):
    """The gradient with another factor (B, k) in place of v²."""
    path = factor[:, :, None] * grad_z
    return path.sum(axis=1), (path * eps).sum(axis=1) * np.exp(log_sigma)


CHAPTER = Chapter(
    "11",
    "How good is the bound? Importance sampling, IWAE, a paper's table",
    "11_how_good_is_the_bound.md",
    (
        Exercise(
            log_mean_exp,
            lambda rng, case: (_log_w(rng, case),),
            (
                Mistake("the logarithm of a mean of zeros: exp(−1000) is 0, so take the largest out first", _plainly),
                Mistake("the logarithm of the sum, without the division by k",
                        lambda a: log_mean_exp(a) + np.log(a.shape[1])),
                Mistake("the mean of the logarithms, which is the ELBO", lambda a: a.mean(axis=1)),
                Mistake("the largest of log_w alone", lambda a: a.max(axis=1)),
                Mistake("the logarithm of the mean without adding the largest again",
                        lambda a: log_mean_exp(a) - a.max(axis=1)),
                Mistake("the logarithm of the mean with the largest taken away twice",
                        lambda a: log_mean_exp(a) - 2 * a.max(axis=1)),
                Mistake("minus the logarithm of the mean: the bound of −log p, not the estimate of log p",
                        lambda a: -log_mean_exp(a)),
                Mistake("the mean over the images, not over the draws of an image",
                        lambda a: log_mean_exp(np.ascontiguousarray(a.T))),
            ),
            (
                "exp(a) = exp(a − c) · exp(c) for every c, so the factor exp(c) can be taken out of the mean.",
                "Take c = the largest number of the row: then no exponential exceeds 1, and one of them is 1.",
                "Outside the logarithm the factor is a summand: add c. keepdims=True gives c the shape (B, 1).",
            ),
        ),
        Exercise(
            effective_samples,
            lambda rng, case: (_log_w(rng, case),),
            (
                Mistake("0 / 0 where all weights are 0: divide the largest out of each row first", _counted_plainly),
                Mistake("the share of the draws that count, not their number",
                        lambda a: effective_samples(a) / a.shape[1]),
                Mistake("1 / Σ w², which needs weights whose sum is 1",
                        lambda a: 1 / (np.exp(a - a.max(axis=1, keepdims=True)) ** 2).sum(axis=1)),
                Mistake("Σ w² of the normalised weights: one over the number of draws",
                        lambda a: 1 / effective_samples(a)),
                Mistake("Σ w / Σ w², without the square of the sum",
                        lambda a: 1 / ((w := np.exp(a - a.max(axis=1, keepdims=True))) ** 2).sum(axis=1)
                        * w.sum(axis=1)),
                Mistake("one over the largest normalised weight, another measure",
                        lambda a: 1 / _weights(a).max(axis=1)),
                Mistake("exp of the weights' entropy, another measure",
                        lambda a: np.exp(-(_weights(a) * np.log(_weights(a))).sum(axis=1))),
                Mistake("the count of log_w itself, without the exponential",
                        lambda a: a.sum(axis=1) ** 2 / (a**2).sum(axis=1)),
            ),
            (
                "A factor common to all weights of an image changes nothing: it is squared above and below.",
                "So take the largest log_w of each row away before the exponential, then no row is all zeros.",
                "Two sums along axis 1: that of w, squared, over that of the squares.",
            ),
        ),
        Exercise(
            doubly_grad,
            _doubly_cases,
            (
                Mistake("the path weighted by v, not by v²", lambda a, g, s, e: _by(_weights(a), g, s, e)),
                Mistake("the square of the weighted sum, not the sum with squared weights: (Σ v · …)²",
                        lambda a, g, s, e: tuple(r**2 for r in _by(_weights(a), g, s, e))),
                Mistake("the path weighted by v (1 − v), the part that is taken away",
                        lambda a, g, s, e: _by(_weights(a) * (1 - _weights(a)), g, s, e)),
                Mistake("all draws with the same weight 1/k, as in a VAE",
                        lambda a, g, s, e: _by(np.full(a.shape, 1 / a.shape[1]), g, s, e)),
                Mistake("the path weighted by w² with weights whose largest is 1: divide by their sum",
                        lambda a, g, s, e: _by(np.exp(a - a.max(axis=1, keepdims=True)) ** 2, g, s, e)),
                Mistake("the true gradient but for z_log_sigma: exp(z_log_sigma) is missing in ∂z/∂z_log_sigma",
                        lambda a, g, s, e: _by(_weights(a) ** 2, g, 0 * s, e)),
                Mistake("the true gradient but for z_log_sigma: eps is missing in ∂z/∂z_log_sigma",
                        lambda a, g, s, e: _by(_weights(a) ** 2, g, s, np.ones_like(e))),
                Mistake("the gradient of minus the bound: its sign is turned",
                        lambda a, g, s, e: _by(-_weights(a) ** 2, g, s, e)),
            ),
            (
                "First the normalised weights: exp of log_w, the largest taken away, over its sum along axis 1.",
                "∂z/∂z_mean is 1, ∂z/∂z_log_sigma is exp(z_log_sigma) · eps: chapter 4.",
                "v has the shape (B, k), grad_z (B, k, latent): v[:, :, None]. Square v, multiply, add up the draws.",
            ),
        ),
    ),
)  # fmt: skip
