"""Chapter 05, the loss is a weighted sum: the Gaussian likelihood, its gradient, and the weight behind a convention.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SHAPES = ((2, 3), (5, 1), (4, 7))
HALF_LOG_2PI = 0.5 * np.log(2 * np.pi)


def gaussian_nll(mean, x, sigma):
    """−ln of the density that N(mean, sigma²) gives to each image: Σ (x − mean)² / (2 sigma²) + ln sigma + ½ ln 2π.

    mean, x: (B, P). sigma: a number. Returns nll (B,), in nats: the sum over the P pixels.
    """
    pixels = x.shape[1]
    squares = np.sum((x - mean) ** 2, axis=1)
    return squares / (2 * sigma**2) + pixels * (np.log(sigma) + 0.5 * np.log(2 * np.pi))


def gaussian_nll_grad(grad_y, mean, x, sigma):
    """The gradient of Σ_b grad_y[b] · gaussian_nll(mean, x, sigma)[b] with respect to mean.

    grad_y: (B,). mean, x: (B, P). sigma: a number. Returns (B, P).
    """
    return grad_y[:, None] * (mean - x) / sigma**2


def effective_beta(weight, height, width, channels):
    """β of the loss "mean squared error over all pixels and channels + weight · KL", at unit variance.

    All four are numbers. Returns a number.
    """
    return weight * height * width * channels / 2


def best_sigma(x, mean):
    """The one sigma that makes Σ_b gaussian_nll(mean, x, sigma)[b] smallest. x, mean: (B, P). Returns a number."""
    return np.sqrt(np.mean((x - mean) ** 2))


def _nll_cases(rng: np.random.Generator, case: int) -> tuple:
    return rng.standard_normal(SHAPES[case]), rng.random(SHAPES[case]), (0.7, 1.3, 0.2)[case]


def _grad_cases(rng: np.random.Generator, case: int) -> tuple:
    return rng.standard_normal(SHAPES[case][0]), *_nll_cases(rng, case)


def _terms(mean, x, sigma):
    return np.sum((x - mean) ** 2, axis=1), x.shape[1], sigma


def _beta_cases(rng: np.random.Generator, case: int) -> tuple:
    return ((0.00025, 64, 64, 3), (1.0, 28, 28, 1), (0.1, 32, 48, 3))[case]


CHAPTER = Chapter(
    "05",
    "The loss is a weighted sum: likelihoods, MSE, RMSE, BCE, β",
    "05_the_loss_is_a_weighted_sum.md",
    (
        Exercise(
            gaussian_nll,
            _nll_cases,
            (
                Mistake("the squared error over 2 sigma² alone, without ln sigma + ½ ln 2π",
                        lambda m, x, s: _terms(m, x, s)[0] / (2 * s**2)),
                Mistake("the constants once for each image instead of once for each pixel",
                        lambda m, x, s: _terms(m, x, s)[0] / (2 * s**2) + np.log(s) + HALF_LOG_2PI),
                Mistake("the mean over pixels where the sum belongs",
                        lambda m, x, s: gaussian_nll(m, x, s) / x.shape[1]),
                Mistake("the squares over 2 sigma instead of 2 sigma²",
                        lambda m, x, s: _terms(m, x, s)[0] / (2 * s) + x.shape[1] * (np.log(s) + HALF_LOG_2PI)),
                Mistake("the squares over sigma², without the ½",
                        lambda m, x, s: _terms(m, x, s)[0] / s**2 + x.shape[1] * (np.log(s) + HALF_LOG_2PI)),
                Mistake("the log-likelihood, with its sign turned", lambda m, x, s: -gaussian_nll(m, x, s)),
                Mistake("ln sigma² where ln sigma belongs",
                        lambda m, x, s: _terms(m, x, s)[0] / (2 * s**2) + x.shape[1] * (2 * np.log(s) + HALF_LOG_2PI)),
            ),
            (
                "Write down −ln of the normal density of one pixel, then add up the pixels.",
                "Each pixel brings a square and the two constants; the constants come P times.",
                "np.sum((x − mean)², axis=1) / (2 sigma²), plus P times (ln sigma + ½ ln 2π).",
            ),
        ),
        Exercise(
            gaussian_nll_grad,
            _grad_cases,
            (
                Mistake("x − mean: the sign is turned", lambda g, m, x, s: g[:, None] * (x - m) / s**2),
                Mistake("the gradient without 1 / sigma²", lambda g, m, x, s: g[:, None] * (m - x)),
                Mistake("the gradient over 2 sigma²: the ½ cancels against the square's 2",
                        lambda g, m, x, s: g[:, None] * (m - x) / (2 * s**2)),
                Mistake("the gradient over sigma instead of sigma²", lambda g, m, x, s: g[:, None] * (m - x) / s),
                Mistake("the gradient without grad_y", lambda g, m, x, s: (m - x) / s**2),
                Mistake("the gradient of the mean over pixels",
                        lambda g, m, x, s: g[:, None] * (m - x) / s**2 / x.shape[1]),
            ),
            (
                "Only the squares depend on mean.",
                "The derivative of (x − mean)² by mean is 2 (mean − x).",
                "So (mean − x) / sigma² for each pixel, and row b times grad_y[b].",
            ),
            forward=gaussian_nll,
            wrt=("mean",),
        ),
        Exercise(
            effective_beta,
            _beta_cases,
            (
                Mistake("weight · pixels, without the ½ of the likelihood", lambda w, H, W, C: w * H * W * C),
                Mistake("weight · pixels / 2 without the channels", lambda w, H, W, C: w * H * W / 2),
                Mistake("the weight itself, as if the error were half the sum", lambda w, H, W, C: w),
                Mistake("half the weight: right for a sum over pixels, not for a mean", lambda w, H, W, C: w / 2),
                Mistake("2 weight / pixels: the other way round", lambda w, H, W, C: 2 * w / (H * W * C)),
                Mistake("weight / pixels", lambda w, H, W, C: w / (H * W * C)),
            ),
            (
                "The Gaussian likelihood at unit variance is half the sum of squares. How often is that the mean?",
                "With P numbers in an image, ½ Σ = P / 2 · mean. Multiply the whole loss by P / 2.",
                "The KL divergence's weight is multiplied too. P = height · width · channels.",
            ),
        ),
        Exercise(
            best_sigma,
            lambda rng, case: (rng.random(SHAPES[case]), rng.random(SHAPES[case])),
            (
                Mistake("the mean squared error, which is sigma²", lambda x, m: np.mean((x - m) ** 2)),
                Mistake("the mean absolute error", lambda x, m: np.mean(np.abs(x - m))),
                Mistake("the root of half the mean squared error", lambda x, m: np.sqrt(np.mean((x - m) ** 2) / 2)),
                Mistake("the spread of x about its own mean", lambda x, m: np.std(x)),
                Mistake("the root of the sum of squares: the division by all pixels is missing",
                        lambda x, m: np.sqrt(np.sum((x - m) ** 2))),
                Mistake("the root of the squares' sum over the images alone",
                        lambda x, m: np.sqrt(np.sum((x - m) ** 2) / len(x))),
            ),
            (
                "Call the sum of all squares S, the number of all pixels n: minimise S / (2 sigma²) + n ln sigma.",
                "Its derivative is −S / sigma³ + n / sigma. When is it 0?",
                "At sigma² = S / n, the mean squared error.",
            ),
        ),
    ),
)  # fmt: skip
