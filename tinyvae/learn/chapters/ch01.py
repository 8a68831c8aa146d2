"""Chapter 01, an autoencoder in 60 lines: the sigmoid, the cross-entropy from logits, and its gradient.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SHAPES = ((2, 3), (5, 1), (4, 7))


def sigmoid(a):
    """1 / (1 + exp(−a)), elementwise, without overflow at any a: not at −1000 either.

    a: an array of any shape. Returns an array of that shape.
    """
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1, e) / (1 + e)


def cross_entropy(logits, x):
    """−Σ x ln p + (1 − x) ln(1 − p) with p = sigmoid(logits), summed over pixels and averaged over images, finite for
    any logits.

    logits, x: (B, P), x in [0, 1]. Returns a number, in nats per image.
    """
    softplus = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits)))
    return np.sum(softplus - x * logits) / len(x)


def cross_entropy_grad(grad_y, logits, x):
    """The gradient of grad_y · cross_entropy(logits, x) with respect to the logits.

    grad_y: a number. logits, x: (B, P). Returns (B, P).
    """
    e = np.exp(-np.abs(logits))
    return grad_y * (np.where(logits >= 0, 1, e) / (1 + e) - x) / len(x)


def plain(a):
    """The sigmoid, for logits of moderate size."""
    return 1 / (1 + np.exp(-a))


def _logits(rng: np.random.Generator, case: int) -> np.ndarray:
    return 3 * rng.standard_normal(SHAPES[case])


def _wide(rng: np.random.Generator, case: int) -> tuple[np.ndarray]:
    a = _logits(rng, case)
    a.flat[0], a.flat[-1] = -1000, 1000
    return (a,)


def _images(rng: np.random.Generator, case: int) -> tuple[np.ndarray, np.ndarray]:
    return _logits(rng, case), rng.random(SHAPES[case])


def _wide_images(rng: np.random.Generator, case: int) -> tuple[np.ndarray, np.ndarray]:
    (logits,), x = _wide(rng, case), rng.random(SHAPES[case])
    return logits, x


def _with_grad(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    return np.asarray(rng.standard_normal()), *_images(rng, case)


CHAPTER = Chapter(
    "01",
    "An autoencoder in 60 lines, and the holes in its latent space",
    "01_an_autoencoder_in_60_lines.md",
    (
        Exercise(
            sigmoid,
            _wide,
            (
                Mistake("exp(−a) / (1 + exp(−a)), which falls where the sigmoid rises", lambda a: sigmoid(-a)),
                Mistake("(tanh(a) + 1) / 2, which is the sigmoid of 2 a", lambda a: 0.5 * (np.tanh(a) + 1)),
                Mistake("tanh(a / 2), which runs from −1 to 1", lambda a: np.tanh(a / 2)),
                Mistake("1 / (1 + exp(−|a|)): right for positive a only", lambda a: 1 / (1 + np.exp(-np.abs(a)))),
                Mistake(
                    "the sigmoid of a clipped to ±1, so that large numbers are lost",
                    lambda a: sigmoid(np.clip(a, -1, 1)),
                ),
                Mistake("the slope of the sigmoid, s (1 − s)", lambda a: sigmoid(a) * (1 - sigmoid(a))),
            ),
            (
                "exp overflows for large positive arguments only: take it of nothing positive.",
                "With e = exp(−|a|): for a ≥ 0 the sigmoid is 1 / (1 + e). Find the form for a < 0.",
                "np.where(a >= 0, 1, e) gives the right numerator for either sign.",
            ),
        ),
        Exercise(
            cross_entropy,
            _wide_images,
            (
                Mistake("the mean over pixels where the sum belongs",
                        lambda a, x: cross_entropy(a, x) / x.shape[1]),
                Mistake("the sum over the images, not their mean", lambda a, x: cross_entropy(a, x) * len(x)),
                Mistake("the cross-entropy with its sign turned", lambda a, x: -cross_entropy(a, x)),
                Mistake("only x ln p: the pixels' dark half, (1 − x) ln(1 − p), is missing",
                        lambda a, x: np.sum(x * (np.maximum(-a, 0) + np.log1p(np.exp(-np.abs(a))))) / len(x)),
                Mistake("the cross-entropy of 1 − x: the two terms are swapped",
                        lambda a, x: cross_entropy(a, 1 - x)),
                Mistake("half the squared error of sigmoid(logits)",
                        lambda a, x: 0.5 * np.sum((sigmoid(a) - x) ** 2) / len(x)),
            ),
            (
                "Put p = sigmoid(a) into the formula and simplify: ln p = a − softplus(a), ln(1 − p) = −softplus(a).",
                "So each pixel costs softplus(a) − x a, with softplus(a) = ln(1 + exp(a)).",
                "softplus without overflow: max(a, 0) + log1p(exp(−|a|)). Sum pixels, divide by images.",
            ),
        ),
        Exercise(
            cross_entropy_grad,
            _with_grad,
            (
                Mistake("the gradient of the sum over images: the division by B is missing",
                        lambda g, a, x: g * (plain(a) - x)),
                Mistake("the gradient with its sign turned, x − p", lambda g, a, x: g * (x - plain(a)) / len(x)),
                Mistake("the gradient times s (1 − s): the sigmoid's slope has already cancelled",
                        lambda g, a, x: g * (plain(a) - x) * plain(a) * (1 - plain(a)) / len(x)),
                Mistake("the gradient by p, (p − x) / (p (1 − p)), not by the logits",
                        lambda g, a, x: g * (plain(a) - x) / (plain(a) * (1 - plain(a))) / len(x)),
                Mistake("logits − x: the sigmoid is missing", lambda g, a, x: g * (a - x) / len(x)),
                Mistake("the gradient divided by all pixels of the batch instead of its images",
                        lambda g, a, x: g * (plain(a) - x) / x.size),
                Mistake("the gradient without grad_y", lambda g, a, x: (plain(a) - x) / len(x)),
            ),
            (
                "Each pixel costs softplus(a) − x a. Differentiate by a: what is the derivative of softplus?",
                "It is the sigmoid. So each pixel gives sigmoid(a) − x.",
                "The mean over the images gives 1 / B, and grad_y multiplies everything.",
            ),
            forward=cross_entropy,
            wrt=("logits",),
        ),
    ),
)  # fmt: skip
