"""Chapter 03, the dense layer: with its ReLU, forward and backward, and a leaky ReLU whose slope follows from y.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SIZES = ((3, 4, 2), (1, 2, 5), (6, 3, 4))  # B, K, N


def dense(x, w, b):
    """y = relu(x w + b). x: (B, K). w: (K, N). b: (N,). Returns y (B, N)."""
    return np.maximum(x @ w + b, 0)


def dense_backward(grad_y, x, w, b):
    """The gradients of Σ grad_y · relu(x w + b).

    grad_y: (B, N). x: (B, K). w: (K, N). b: (N,). Returns (grad_x (B, K), grad_w (K, N), grad_b (N,)).
    """
    g = grad_y * (x @ w + b > 0)
    return g @ w.T, x.T @ g, g.sum(axis=0)


def leaky_backward(grad_y, y):
    """The gradient at the input of a leaky ReLU, from its output: act(x) = x for x > 0, else 0.2 x.

    grad_y, y: (B, N), y = act(x). Returns (B, N).
    """
    return grad_y * np.where(y > 0, 1, 0.2)


def _arrays(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    B, K, N = SIZES[case]
    return rng.standard_normal((B, K)), rng.standard_normal((K, N)), rng.standard_normal(N)


def _backward_arrays(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    B, _, N = SIZES[case]
    return rng.standard_normal((B, N)), *_arrays(rng, case)


def _gated(g, x, w, b):
    return g * (x @ w + b > 0)


def _with(g, x, w):
    return g @ w.T, x.T @ g, g.sum(axis=0)


CHAPTER = Chapter(
    "03",
    "The dense layer",
    "03_the_dense_layer.md",
    (
        Exercise(
            dense,
            _arrays,
            (
                Mistake("x w + b: the ReLU is missing", lambda x, w, b: x @ w + b),
                Mistake("relu(x w): the bias is missing", lambda x, w, b: np.maximum(x @ w, 0)),
                Mistake("relu(x w) + b: the bias comes before the ReLU", lambda x, w, b: np.maximum(x @ w, 0) + b),
                Mistake("relu(x w − b): the bias is added, not taken away", lambda x, w, b: np.maximum(x @ w - b, 0)),
                Mistake("|x w + b|: negative numbers become 0, not positive", lambda x, w, b: np.abs(x @ w + b)),
                Mistake("min(x w + b, 0): the other half", lambda x, w, b: np.minimum(x @ w + b, 0)),
            ),
            (
                "The sum over k of x[b, k] w[k, n] is a matrix product.",
                "b has N numbers; added to a (B, N) array it is added to every row.",
                "np.maximum compares two arrays, or an array and 0, number by number (np.max does something else).",
            ),
        ),
        Exercise(
            dense_backward,
            _backward_arrays,
            (
                Mistake("the gradients without the ReLU's slope: they go where y is 0 too",
                        lambda g, x, w, b: _with(g, x, w)),
                Mistake("the right ones but for grad_b, which is the mean over the batch where the sum belongs",
                        lambda g, x, w, b: (*_with(_gated(g, x, w, b), x, w)[:2], _gated(g, x, w, b).mean(axis=0))),
                Mistake("all gradients divided by the batch, which the loss has done already",
                        lambda g, x, w, b: tuple(a / len(x) for a in _with(_gated(g, x, w, b), x, w))),
                Mistake("the ReLU's slope where x w > 0: the bias belongs to it",
                        lambda g, x, w, b: _with(g * (x @ w > 0), x, w)),
                Mistake("grad_y times y where grad_y times [y > 0] belongs",
                        lambda g, x, w, b: _with(g * dense(x, w, b), x, w)),
                Mistake("the right ones but for grad_b, which lacks the ReLU's slope",
                        lambda g, x, w, b: (*_with(_gated(g, x, w, b), x, w)[:2], g.sum(axis=0))),
                Mistake("the right ones but for grad_b, which is 0: the bias does not learn",
                        lambda g, x, w, b: (*_with(_gated(g, x, w, b), x, w)[:2], np.zeros(len(b)))),
            ),
            (
                "Backwards the ReLU comes first: where its output is 0, nothing of grad_y goes further.",
                "g = grad_y · [x w + b > 0]. Then the two products of chapter 2, with g for grad_y.",
                "b is in every row with the factor 1: grad_b is the sum of g over the rows.",
            ),
            forward=dense,
            kinks=lambda x, w, b: x @ w + b,
        ),
        Exercise(
            leaky_backward,
            lambda rng, case: (rng.standard_normal(SIZES[case][:2]), rng.standard_normal(SIZES[case][:2])),
            (
                Mistake("the ReLU's rule: 0 where y is negative", lambda g, y: g * (y > 0)),
                Mistake("grad_y · 0.2 everywhere", lambda g, y: 0.2 * g),
                Mistake("0.2 and 1 changed round", lambda g, y: g * np.where(y > 0, 0.2, 1)),
                Mistake("the slope without grad_y", lambda g, y: np.where(y > 0, 1, 0.2)),
                Mistake("−0.2 where y is negative", lambda g, y: g * np.where(y > 0, 1, -0.2)),
                Mistake("the slope by the sign of grad_y instead of that of y",
                        lambda g, y: g * np.where(g > 0, 1, 0.2)),
            ),
            (
                "The sign of y is the sign of x, since 0.2 x has it too. So y is enough.",
                "The slope is 1 for y > 0, else 0.2.",
                "np.where(condition, a, b) picks number by number.",
            ),
        ),
    ),
)  # fmt: skip
