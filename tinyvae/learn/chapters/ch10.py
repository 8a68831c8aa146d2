"""Chapter 10, your own layer: a row brought to mean 0 and variance 1, its gradient, and an op that keeps the contract.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SHAPES = ((3, 4), (5, 2), (2, 7))  # B, N
EPSILON = 1e-3


def standardise(x, epsilon):
    """y = (x − mean) / √(variance + epsilon), mean and variance of each row. Ba, Kiros & Hinton 2016.

    x: (B, N). The variance is the mean of (x − mean)². Returns y (B, N).
    """
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)


def standardise_grad(grad_y, x, epsilon):
    """The gradient of Σ grad_y · y with respect to x, where y = (x − mean) / √(variance + epsilon) of each row.

    grad_y, x: (B, N). Returns grad_x (B, N).
    """
    centred = x - x.mean(axis=1, keepdims=True)
    s = np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    y = centred / s
    return (grad_y - grad_y.mean(axis=1, keepdims=True) - y * (grad_y * y).mean(axis=1, keepdims=True)) / s


def affine_grad(grad_y, u, add, grad_gain, grad_shift):
    """The gradients of the two parameters of y = gain · u + shift, as an op: it returns nothing.

    grad_y, u: (B, N). gain, shift: (N,), the same for every row. add: 0 or 1.
    grad_gain, grad_shift: (N,), filled: where add is 0 they are overwritten, whatever stood there (it may be NaN);
    where it is 1 the gradients are added to what is there.
    """
    if not add:
        grad_gain[...] = 0
        grad_shift[...] = 0
    grad_gain += (grad_y * u).sum(axis=0)
    grad_shift += grad_y.sum(axis=0)


def _rows(rng: np.random.Generator, case: int) -> np.ndarray:
    return 2 + 3 * rng.standard_normal(SHAPES[case])


def _op_arguments(rng: np.random.Generator, case: int) -> tuple:
    B, N = SHAPES[case]
    before = np.full((2, N), np.nan) if case == 0 else rng.standard_normal((2, N))
    return rng.standard_normal((B, N)), rng.standard_normal((B, N)), int(case == 1), before[0], before[1]


def _parts(x, epsilon):
    """Of each row: x − mean, √(variance + epsilon)."""
    centred = x - x.mean(axis=1, keepdims=True)
    return centred, np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)


def _without(g, x, e, mean, spread):
    """The gradient without what comes by way of the mean, or of the spread."""
    centred, s = _parts(x, e)
    by_mean = 0 if mean else g.mean(axis=1, keepdims=True)
    by_spread = 0 if spread else centred / s * (g * centred / s).mean(axis=1, keepdims=True)
    return (g - by_mean - by_spread) / s


def _filled(gain, shift):
    """An op that computes these two, and keeps the contract."""

    def op(g, u, add, grad_gain, grad_shift):
        for out, new in ((grad_gain, gain(g, u)), (grad_shift, shift(g, u))):
            out[...] = out + new if add else new

    return op


def _always_adds(g, u, add, grad_gain, grad_shift):
    grad_gain += (g * u).sum(axis=0)
    grad_shift += g.sum(axis=0)


def _clears_with_zero(g, u, add, grad_gain, grad_shift):
    grad_gain *= add
    grad_shift *= add
    _always_adds(g, u, add, grad_gain, grad_shift)


CHAPTER = Chapter(
    "10",
    "Write your own layer, kernel and model",
    "10_your_own_layer_kernel_and_model.md",
    (
        Exercise(
            standardise,
            lambda rng, case: (_rows(rng, case), EPSILON),
            (
                Mistake("columns of mean 0 and variance 1, over the batch: each row should be",
                        lambda x, e: standardise(x.T, e).T),
                Mistake("(x − mean) / variance, without the root",
                        lambda x, e: _parts(x, e)[0] / ((_parts(x, 0)[1]) ** 2 + e)),
                Mistake("rows divided by their spread that still have their mean", lambda x, e: x / _parts(x, e)[1]),
                Mistake("rows divided by their root mean square, as RMSNorm does: the mean is not taken away",
                        lambda x, e: x / np.sqrt((x**2).mean(axis=1, keepdims=True) + e)),
                Mistake("rows of mean 0, and no more", lambda x, e: _parts(x, e)[0]),
                Mistake("the right one but for epsilon, which is added behind the root",
                        lambda x, e: _parts(x, 0)[0] / (_parts(x, 0)[1] + e)),
                Mistake("the right one but for the variance, which is divided by N − 1 where N belongs",
                        lambda x, e: _parts(x, e)[0] / np.sqrt(x.var(axis=1, ddof=1, keepdims=True) + e)),
            ),
            (
                "Two figures of each row, its mean and its variance. axis=1 goes along a row.",
                "keepdims=True keeps the shape (B, 1), which meets every number of its row.",
                "First x minus its mean; the variance is the mean of its square; epsilon goes under the root.",
            ),
        ),
        Exercise(
            standardise_grad,
            lambda rng, case: (rng.standard_normal(SHAPES[case]), _rows(rng, case), EPSILON),
            (
                Mistake("grad_y / √(variance + epsilon), as if mean and variance were constants",
                        lambda g, x, e: _without(g, x, e, mean=True, spread=True)),
                Mistake("the gradient without the mean's own: every x of the row is in the mean",
                        lambda g, x, e: _without(g, x, e, mean=True, spread=False)),
                Mistake("the gradient without the variance's own: every x of the row is in the variance",
                        lambda g, x, e: _without(g, x, e, mean=False, spread=True)),
                Mistake("the gradient with sums over the row where means belong: 1/N comes from mean and variance",
                        lambda g, x, e: (g - g.sum(axis=1, keepdims=True) - _parts(x, e)[0] / _parts(x, e)[1]
                                         * (g * _parts(x, e)[0] / _parts(x, e)[1]).sum(axis=1, keepdims=True))
                        / _parts(x, e)[1]),
                Mistake("the gradient with x where y belongs, in the variance's part",
                        lambda g, x, e: (g - g.mean(axis=1, keepdims=True)
                                         - x * (g * x).mean(axis=1, keepdims=True)) / _parts(x, e)[1]),
                Mistake("the gradient without the division by √(variance + epsilon)",
                        lambda g, x, e: standardise_grad(g, x, e) * _parts(x, e)[1]),
                Mistake("the gradient of Σ y: grad_y is left out",
                        lambda g, x, e: standardise_grad(np.ones_like(g), x, e)),
            ),
            (
                "Three ways lead from x to y: by itself, by the mean, and by the variance. RMSNorm had two.",
                "The way by the mean takes the mean of grad_y off each row; the way by the variance is RMSNorm's.",
                "With s = √(variance + epsilon) and y = (x − mean) / s: the bracket is "
                "grad_y − mean(grad_y) − y · mean(grad_y · y), all means along the row.",
            ),
            forward=standardise,
            wrt=("x",),
        ),
        Exercise(
            affine_grad,
            _op_arguments,
            (
                Mistake("gradients that are always added: where add is 0 they must overwrite what is there",
                        _always_adds),
                Mistake("gradients added to 0 · what was there, which is NaN where NaN was: overwrite it",
                        _clears_with_zero),
                Mistake("gradients that always overwrite: where add is 1 they belong to what is there",
                        lambda g, u, add, a, b: affine_grad(g, u, 0, a, b)),
                Mistake("means over the batch where sums belong",
                        _filled(lambda g, u: (g * u).mean(axis=0), lambda g, u: g.mean(axis=0))),
                Mistake("the two gradients changed round",
                        lambda g, u, add, a, b: affine_grad(g, u, add, b, a)),
                Mistake("the gradient of the gain without u",
                        _filled(lambda g, u: g.sum(axis=0), lambda g, u: g.sum(axis=0))),
                Mistake("the right one for the gain, and nothing for the shift where add is 1",
                        lambda g, u, add, a, b: affine_grad(g, u, add, a, b.copy() if add else b)),
            ),
            (
                "gain and shift are in every row: both gradients are sums over the batch. What is the factor of each?",
                "grad_y · u for the gain, grad_y for the shift. Write into the arrays: out[...] = …, not out = ….",
                "Where add is 0 fill both with zeros first; then += is right in both cases.",
            ),
            writes=("grad_gain", "grad_shift"),
        ),
    ),
)  # fmt: skip
