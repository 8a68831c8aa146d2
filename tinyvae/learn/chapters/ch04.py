"""Chapter 04, from AE to VAE: the reparameterisation, the KL divergence, and their gradients.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SHAPES = ((2, 3), (5, 1), (4, 7))


def sample(z_mean, z_log_sigma, eps):
    """z = z_mean + exp(z_log_sigma) · eps: a draw from N(z_mean, sigma²), given eps from N(0, 1).

    z_mean, z_log_sigma, eps: (B, latent). Returns z (B, latent).
    """
    return z_mean + np.exp(z_log_sigma) * eps


def kl(z_mean, z_log_sigma):
    """The KL divergence of N(z_mean, sigma²) to N(0, 1), for each image: −½ Σ (1 + 2 z_log_sigma − z_mean² − sigma²).

    z_mean, z_log_sigma: (B, latent), sigma = exp(z_log_sigma). Returns kl (B,), in nats.
    """
    return -0.5 * np.sum(1 + 2 * z_log_sigma - z_mean**2 - np.exp(2 * z_log_sigma), axis=1)


def kl_grad(grad_y, z_mean, z_log_sigma):
    """The gradient of Σ_b grad_y[b] · kl[b].

    grad_y: (B,). z_mean, z_log_sigma: (B, latent). Returns (grad_mean, grad_log_sigma), both (B, latent).
    """
    g = grad_y[:, None]
    return g * z_mean, g * (np.exp(2 * z_log_sigma) - 1)


def _pair(rng: np.random.Generator, case: int) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal(SHAPES[case]), 0.5 * rng.standard_normal(SHAPES[case])


def _kl_grad_cases(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    return rng.standard_normal(SHAPES[case][0]), *_pair(rng, case)


CHAPTER = Chapter(
    "04",
    "From AE to VAE: mean, log-sigma, reparameterisation, KL",
    "04_from_ae_to_vae.md",
    (
        Exercise(
            sample,
            lambda rng, case: (*_pair(rng, case), rng.standard_normal(SHAPES[case])),
            (
                Mistake(
                    "z_mean + exp(z_log_sigma / 2) · eps, which takes z_log_sigma for the logarithm of the variance",
                    lambda m, s, e: m + np.exp(s / 2) * e,
                ),
                Mistake("z_mean + exp(2 z_log_sigma) · eps: the variance where the standard deviation belongs",
                        lambda m, s, e: m + np.exp(2 * s) * e),
                Mistake("z_mean + z_log_sigma · eps, without the exponential", lambda m, s, e: m + s * e),
                Mistake("exp(z_log_sigma) · eps, without the mean", lambda m, s, e: np.exp(s) * e),
                Mistake("exp(z_log_sigma) · (z_mean + eps): the mean is scaled too",
                        lambda m, s, e: np.exp(s) * (m + e)),
            ),
            (
                "Draw from N(0, 1) first, stretch it, then shift it.",
                "sigma = exp(z_log_sigma) is the stretch: it is the standard deviation, not the variance.",
                "One line: the mean plus sigma times eps.",
            ),
        ),
        Exercise(
            kl_grad,
            _kl_grad_cases,
            (
                Mistake("the true gradient with exp(z_log_sigma) where exp(2 z_log_sigma) belongs",
                        lambda g, m, s: (g[:, None] * m, g[:, None] * (np.exp(s) - 1))),
                Mistake("the gradient of minus the KL divergence: its sign is turned",
                        lambda g, m, s: (-g[:, None] * m, -g[:, None] * (np.exp(2 * s) - 1))),
                Mistake("the gradient for the logarithm of the variance, ½ (exp(z_log_sigma) − 1)",
                        lambda g, m, s: (g[:, None] * m, 0.5 * g[:, None] * (np.exp(s) - 1))),
                Mistake("the gradient without grad_y: what comes from above is left out",
                        lambda g, m, s: (m, np.exp(2 * s) - 1)),
                Mistake("2 z_mean for the mean: the ½ in front of the sum is lost",
                        lambda g, m, s: (2 * g[:, None] * m, g[:, None] * (np.exp(2 * s) - 1))),
                Mistake("exp(2 z_log_sigma) without the − 1, which the term 2 z_log_sigma gives",
                        lambda g, m, s: (g[:, None] * m, g[:, None] * np.exp(2 * s))),
            ),
            (
                "Differentiate −½ (1 + 2 z_log_sigma − z_mean² − exp(2 z_log_sigma)) by each of the two in turn.",
                "By z_mean only −½ · (−z_mean²) counts; by z_log_sigma two terms do, and the chain rule gives a 2.",
                "grad_y[b] multiplies the whole row b: grad_y[:, None].",
            ),
            forward=lambda m, s: kl(m, s),
        ),
    ),
)  # fmt: skip
