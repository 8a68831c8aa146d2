"""Chapter 02, gradients by hand: central differences, and three backward passes.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SHAPES = ((2, 3), (5, 1), (4, 7))


def numerical_gradient(f, x, h):
    """The gradient of f at x by central differences: (f(x + h) − f(x − h)) / (2 h) for each number of x in turn.

    f: takes an array of x's shape, returns a number. x: an array of any shape, unchanged afterwards. Returns an array
    of x's shape.
    """
    grad = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[i] = h
        grad[i] = (f(x + step) - f(x - step)) / (2 * h)
    return grad


def tanh_backward(grad_y, x):
    """The gradient of Σ grad_y · tanh(x) with respect to x. grad_y, x: (B, N). Returns (B, N)."""
    return grad_y * (1 - np.tanh(x) ** 2)


def row_mean_backward(grad_y, x):
    """The gradient of Σ_b grad_y[b] · mean(x[b]) with respect to x: y = x.mean(axis=1).

    grad_y: (B,). x: (B, N). Returns (B, N).
    """
    return np.repeat(grad_y[:, None] / x.shape[1], x.shape[1], axis=1)


def product_backward(grad_y, x, w):
    """The gradients of Σ grad_y · (x w) with respect to x and w.

    grad_y: (B, N). x: (B, K). w: (K, N). Returns (grad_x (B, K), grad_w (K, N)).
    """
    return grad_y @ w.T, x.T @ grad_y


def _cubes(x):
    return float(np.sum(x**3 + np.exp(0.3 * x) * x.flat[0]))


def _one_sided(f, x, h):
    return np.array([(f(_moved(x, i, h)) - f(x)) / h for i in range(x.size)]).reshape(x.shape)


def _moved(x, i, h):
    moved = x.copy()
    moved.flat[i] += h
    return moved


def _product_cases(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    B, K, N = ((3, 4, 2), (1, 2, 5), (6, 3, 4))[case]
    return rng.standard_normal((B, N)), rng.standard_normal((B, K)), rng.standard_normal((K, N))


def _same_shape(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    return rng.standard_normal(SHAPES[case]), rng.standard_normal(SHAPES[case])


def _row_cases(rng: np.random.Generator, case: int) -> tuple[np.ndarray, ...]:
    return rng.standard_normal(SHAPES[case][0]), rng.standard_normal(SHAPES[case])


CHAPTER = Chapter(
    "02",
    "Gradients by hand, and how to check one",
    "02_gradients_by_hand.md",
    (
        Exercise(
            numerical_gradient,
            lambda rng, case: (_cubes, rng.standard_normal(SHAPES[case]), 1e-2),
            (
                Mistake("one-sided differences, (f(x + h) − f(x)) / h", _one_sided),
                Mistake("the one-sided difference backwards, (f(x) − f(x − h)) / h",
                        lambda f, x, h: _one_sided(f, x, -h)),
                Mistake("differences divided by h where 2 h belongs",
                        lambda f, x, h: 2 * numerical_gradient(f, x, h)),
                Mistake("the gradient with its sign turned: f(x − h) − f(x + h)",
                        lambda f, x, h: -numerical_gradient(f, x, h)),
                Mistake("differences where all numbers of x move at once",
                        lambda f, x, h: np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))),
                Mistake("differences that are not divided by 2 h",
                        lambda f, x, h: 2 * h * numerical_gradient(f, x, h)),
            ),
            (
                "Only one number of x may move at a time: np.ndindex(x.shape) gives every place once.",
                "An array of zeros with h at that place, added and subtracted, moves it and leaves x as it was.",
                "grad[place] = (f(x + step) − f(x − step)) / (2 h).",
            ),
        ),
        Exercise(
            tanh_backward,
            _same_shape,
            (
                Mistake("1 − tanh(x), without the square", lambda g, x: g * (1 - np.tanh(x))),
                Mistake("the gradient without grad_y", lambda g, x: 1 - np.tanh(x) ** 2),
                Mistake("grad_y · tanh(x): the function where its derivative belongs", lambda g, x: g * np.tanh(x)),
                Mistake("grad_y · tanh(x) (1 − tanh(x)), the rule for the sigmoid",
                        lambda g, x: g * np.tanh(x) * (1 - np.tanh(x))),
                Mistake("1 + tanh², with the sign of 1 / cos² turned", lambda g, x: g * (1 + np.tanh(x) ** 2)),
                Mistake("1 − x²: the rule wants y = tanh(x) there, not x", lambda g, x: g * (1 - x**2)),
            ),
            (
                "Each output depends on one input only, so the sum of the chain rule has one term.",
                "The derivative of tanh can be written with tanh itself.",
                "It is 1 − y² with y = tanh(x), times grad_y.",
            ),
            forward=np.tanh,
        ),
        Exercise(
            row_mean_backward,
            _row_cases,
            (
                Mistake("grad_y for every number, without 1 / N",
                        lambda g, x: np.repeat(g[:, None], x.shape[1], axis=1)),
                Mistake("grad_y / B, where the mean is over the N numbers of a row",
                        lambda g, x: np.repeat(g[:, None] / len(x), x.shape[1], axis=1)),
                Mistake("1 / N for every number, without grad_y", lambda g, x: np.full(x.shape, 1 / x.shape[1])),
                Mistake("grad_y · x / N: x itself does not occur in the derivative",
                        lambda g, x: g[:, None] * x / x.shape[1]),
                Mistake("one gradient for all rows: the mean of grad_y",
                        lambda g, x: np.full(x.shape, g.mean() / x.shape[1])),
                Mistake("grad_y / (B N), as if the mean went over the whole array",
                        lambda g, x: np.repeat(g[:, None] / x.size, x.shape[1], axis=1)),
            ),
            (
                "x[b, n] occurs in one output only, y[b]. With which factor?",
                "With 1 / N, N numbers in a row. So every number of row b gets the same.",
                "grad_y[:, None] / N, spread over the N columns: np.repeat, np.broadcast_to, or times np.ones.",
            ),
            forward=lambda x: x.mean(axis=1),
        ),
        Exercise(
            product_backward,
            _product_cases,
            (
                Mistake("grad_w divided by the batch: the mean belongs to the loss, and is in grad_y already",
                        lambda g, x, w: (g @ w.T, x.T @ g / len(x))),
                Mistake("both gradients with the sign turned", lambda g, x, w: (-g @ w.T, -x.T @ g)),
                Mistake("grad_x from ones: Σ w, without grad_y",
                        lambda g, x, w: (np.ones_like(g) @ w.T, x.T @ g)),
                Mistake("grad_w from ones: Σ x, without grad_y",
                        lambda g, x, w: (g @ w.T, x.T @ np.ones_like(g))),
                Mistake("grad_w of the first image only: the sum over the batch is missing",
                        lambda g, x, w: (g @ w.T, x[:1].T @ g[:1])),
                Mistake("twice the right gradients", lambda g, x, w: (2 * g @ w.T, 2 * x.T @ g)),
            ),
            (
                "Write y[b, n] = Σ_k x[b, k] w[k, n] and ask in which outputs x[b, k] occurs, and w[k, n].",
                "x[b, k] occurs for every n, so the sum goes over n; w[k, n] occurs for every b.",
                "grad_x = grad_y times w transposed. Now the other one: which factor is transposed there?",
            ),
            forward=lambda x, w: x @ w,
        ),
    ),
)  # fmt: skip
