"""Normalisation: of each column over a batch, and of each row."""

from __future__ import annotations

import numpy as np

from ..op import ADD, In, InOut, Op, Option, Out, per, three_examples


def batch_norm(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y):
    """y = gamma · (x − mean) · rstd + beta with mean and rstd = 1 / √(variance + epsilon) of each column of the batch.

    Ioffe & Szegedy 2015, algorithm 1. The variance divides by R; the running one by R − 1, as it estimates that of all
    images: running ← (1 − momentum) · running + momentum · that of the batch. At R = 1 there is nothing to estimate
    from and the variance is 0. x, y: (R, C). gamma, beta, running_mean, running_var, mean, rstd: (C,).
    """
    R = len(x)
    mean[...] = x.mean(axis=0, dtype=np.float64)
    squares = np.square(x - x.mean(axis=0, dtype=np.float64)).sum(axis=0)
    rstd[...] = 1 / np.sqrt(squares / R + epsilon)
    y[...] = gamma * ((x - mean) * rstd) + beta
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_var[...] = (1 - momentum) * running_var + momentum * squares / max(1, R - 1)


def batch_norm_frozen(x, mean, var, gamma, beta, epsilon, y):
    """y = gamma · (x − mean) / √(var + epsilon) + beta, with statistics that are given: batch_norm in evaluation.

    x, y: (R, C). mean, var, gamma, beta: (C,).
    """
    y[...] = gamma * ((x - mean) / np.sqrt(var + epsilon)) + beta


def batch_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """With n = (x − mean) · rstd and g = grad_y, every mean and sum over the R rows of the batch:

    grad_x     = gamma · rstd · (g − mean(g) − n · mean(g · n)), since mean and rstd depend on x as well
    grad_gamma = Σ g · n,  grad_beta = Σ g; with add = 1 both are added to what is there.
    x, grad_y, grad_x: (R, C), the last (0, C) where it is not wanted. mean, rstd, gamma: (C,).
    grad_gamma, grad_beta: (C,), or length 0 where they are not wanted.
    """
    n = (x - mean) * rstd
    total, along = grad_y.sum(axis=0), (grad_y * n).sum(axis=0)
    if grad_x.size:
        grad_x[...] = gamma * rstd * (grad_y - total / len(x) - n * (along / len(x)))
    if grad_gamma.size:
        grad_gamma[...] = grad_gamma + along if add else along
        grad_beta[...] = grad_beta + total if add else total


def layer_norm(x, gamma, beta, epsilon, mean, rstd, y):
    """y = gamma · (x − mean) · rstd + beta with mean and rstd = 1 / √(variance + epsilon) of each row.

    Ba, Kiros & Hinton 2016, equation 3. x, y: (R, C). gamma, beta: (C,). mean, rstd: (R,).
    """
    mean[...] = x.mean(axis=1, dtype=np.float64)
    squares = np.square(x - x.mean(axis=1, dtype=np.float64, keepdims=True)).mean(axis=1)
    rstd[...] = 1 / np.sqrt(squares + epsilon)
    y[...] = gamma * ((x - mean[:, None]) * rstd[:, None]) + beta


def layer_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """With n = (x − mean) · rstd and g = gamma · grad_y, means over the C numbers of a row, sums over the R rows:

    grad_x     = rstd · (g − mean(g) − n · mean(g · n))
    grad_gamma = Σ grad_y · n,  grad_beta = Σ grad_y; with add = 1 both are added to what is there.
    x, grad_y, grad_x: (R, C), the last (0, C) where it is not wanted. gamma: (C,). mean, rstd: (R,).
    grad_gamma, grad_beta: (C,), or length 0 where they are not wanted.
    """
    n = (x - mean[:, None]) * rstd[:, None]
    if grad_x.size:
        g = gamma * grad_y
        along = (g * n).mean(axis=1, keepdims=True)
        grad_x[...] = rstd[:, None] * (g - g.mean(axis=1, keepdims=True) - n * along)
    if grad_gamma.size:
        along, total = (grad_y * n).sum(axis=0), grad_y.sum(axis=0)
        grad_gamma[...] = grad_gamma + along if add else along
        grad_beta[...] = grad_beta + total if add else total


def _norm_terms(a, axis):
    """Forward: y's terms are x and the mean, times rstd, which is as good as the variance it comes from."""
    mean = np.abs(a["x"]).mean(axis, keepdims=True)
    spread = np.abs(a["x"]) + mean
    rstd = 1 / np.sqrt(a["x"].var(axis, keepdims=True) + a["epsilon"])
    rstd = rstd * (1 + rstd**2 * np.square(spread).mean(axis, keepdims=True))
    found = {"mean": mean.ravel(), "rstd": rstd.ravel()}
    if axis == 0:
        old, R = 1 - a["momentum"], max(1, len(a["x"]) - 1)
        found["running_mean"] = old * np.abs(a["running_mean"]) + a["momentum"] * mean[0]
        found["running_var"] = old * np.abs(a["running_var"]) + a["momentum"] * np.square(spread).sum(0) / R
    return found | {"y": np.abs(a["gamma"]) * spread * rstd + np.abs(a["beta"])}


def _frozen_terms(a):
    spread = (np.abs(a["x"]) + np.abs(a["mean"])) / np.sqrt(a["var"] + a["epsilon"])
    return {"y": np.abs(a["gamma"]) * spread + np.abs(a["beta"])}


def _norm_grad_terms(a, axis):
    mean, rstd = (np.expand_dims(a[name], axis) for name in ("mean", "rstd"))
    n, g, gamma = rstd * (np.abs(a["x"]) + np.abs(mean)), np.abs(a["grad_y"]), np.abs(a["gamma"])
    along = {"grad_gamma": (g * n).sum(0), "grad_beta": g.sum(0)}
    if a["add"]:
        along = {name: terms + np.abs(a[name]) for name, terms in along.items()}
    g = gamma * g
    means = [part.mean(axis, keepdims=True) for part in (g, g * n)]
    return along | {"grad_x": rstd * (g + means[0] + n * means[1])}


def _examples(**options):
    return three_examples({"R": 1, "C": 1}, {"R": 9, "C": 67}, {"R": 6272, "C": 64}, **options)


_X, _GRAD_Y, _Y = In("x", "R", "C"), In("grad_y", "R", "C"), Out("y", "R", "C")
_MEAN, _GAMMA, _BETA = In("mean", "C"), In("gamma", "C"), In("beta", "C")
_EPSILON = Option("epsilon", "positive")
_GRADS = (
    ADD, Out("grad_gamma", "C", optional=True), Out("grad_beta", "C", optional=True),
    Out("grad_x", "R", "C", optional=True),
)  # fmt: skip
_GRAD_VARIANTS = ({"add": 1}, {"no_grad_gamma": True, "no_grad_beta": True}, {"no_grad_x": True})

OPS = (
    Op(
        "batch_norm",
        (_X, _GAMMA, _BETA, _EPSILON, Option("momentum"), InOut("running_mean", "C"),
         InOut("running_var", "C", draw="positive"), Out("mean", "C"), Out("rstd", "C"), _Y),
        _examples(epsilon=1e-5, momentum=0.1), per("R", "C", cost=7), ulp=8, reduction=("R",),
        terms=lambda a: _norm_terms(a, 0),
    ),
    Op(
        "batch_norm_frozen",
        (_X, _MEAN, In("var", "C", draw="positive"), _GAMMA, _BETA, _EPSILON, _Y),
        _examples(epsilon=1e-5), per("R", "C", cost=3), ulp=8, terms=_frozen_terms,
    ),
    Op(
        "batch_norm_grad",
        (_X, _MEAN, In("rstd", "C", draw="positive"), _GAMMA, _GRAD_Y, *_GRADS),
        _examples(add=0), per("R", "C", cost=9), ulp=8, reduction=("R",),
        variants=_GRAD_VARIANTS, terms=lambda a: _norm_grad_terms(a, 0),
    ),
    Op(
        "layer_norm", (_X, _GAMMA, _BETA, _EPSILON, Out("mean", "R"), Out("rstd", "R"), _Y),
        _examples(epsilon=1e-5), per("R", "C", cost=7), ulp=8, reduction=("C",),
        terms=lambda a: _norm_terms(a, 1),
    ),
    Op(
        "layer_norm_grad",
        (_X, In("mean", "R"), In("rstd", "R", draw="positive"), _GAMMA, _GRAD_Y, *_GRADS),
        _examples(add=0), per("R", "C", cost=11), ulp=8, reduction=("R", "C"),
        variants=_GRAD_VARIANTS, terms=lambda a: _norm_grad_terms(a, 1),
    ),
)  # fmt: skip
