"""Activations: functions of one number, alone or behind a product, and their derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..op import In, InOut, Op, Option, Out, flat_examples, per

LEAKY_SLOPE = 0.2
Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Activation:
    """An activation that is computed with the product before it: its definition, without the fast loops.

    formula: act(v) of one number as a textbook has it, which the checker compares `value` with.
    value: y = act(x), elementwise; x may be a temporary, but it is never changed.
    slope_from_y: act'(x) written in terms of y = act(x). slope_terms: Σ|terms| of it, for its rounding error.
    kinked: whether a derivative jumps at 0, the second one included: central differences notice it there.
    javascript: the function as the explorer's page computes it.
    """

    name: str
    formula: Callable[[float], float]
    value: Function
    slope_from_y: Function
    javascript: str
    kinked: bool = False
    slope_terms: Function = lambda y: 1 + np.abs(y)


def _sigmoid(x):
    """1 / (1 + exp(-x)) without overflow: exp is only taken of -|x|."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def _softplus(x):
    """log(1 + exp(x)) without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


BY_CODE = (
    Activation("identity", lambda v: v, lambda x: x, np.ones_like, "(x) => x"),
    Activation(
        "relu", lambda v: max(v, 0.0),
        lambda x: np.maximum(x, 0), lambda y: y > 0,
        "(x) => Math.max(x, 0)", kinked=True,
    ),
    Activation(
        "leaky_relu", lambda v: v if v > 0 else LEAKY_SLOPE * v,
        lambda x: np.where(x > 0, x, x * x.dtype.type(LEAKY_SLOPE)),
        lambda y: np.where(y > 0, y.dtype.type(1), y.dtype.type(LEAKY_SLOPE)),
        f"(x) => (x > 0 ? x : {LEAKY_SLOPE} * x)", kinked=True,
    ),
    Activation(
        "elu", lambda v: v if v > 0 else math.expm1(v),
        lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        lambda y: np.where(y > 0, 1, y + 1),
        "(x) => (x > 0 ? x : Math.expm1(x))", kinked=True,
    ),
    Activation(
        "tanh", math.tanh, np.tanh, lambda y: 1 - y * y,
        "Math.tanh", slope_terms=lambda y: 1 + y * y,
    ),
    Activation(
        "sigmoid", lambda v: 1 / (1 + math.exp(-v)), _sigmoid, lambda y: y * (1 - y),
        "(x) => 1 / (1 + Math.exp(-x))", slope_terms=lambda y: np.abs(y) + y * y,
    ),
    Activation(
        "softplus", lambda v: math.log1p(math.exp(v)), _softplus, lambda y: -np.expm1(-y),
        "(x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))",
        slope_terms=lambda y: np.abs(np.expm1(-y)),
    ),
)  # fmt: skip
# the codes that ops, kernels and checkpoints have for them; a new activation goes to the end
IDENTITY, RELU, LEAKY_RELU, ELU, TANH, SIGMOID, SOFTPLUS = range(len(BY_CODE))
ACTIVATIONS = {activation.name: code for code, activation in enumerate(BY_CODE)}

ACT = Option("act", "choice", choices=tuple(name.upper() for name in ACTIVATIONS))
ACTS = tuple({"act": act} for act in range(len(BY_CODE)))  # the variants of an op with an activation


def activate(x, act, y):
    """y = act(x).

    x, y: (n,). act: IDENTITY, RELU, LEAKY_RELU (slope 0.2), ELU, TANH, SIGMOID or SOFTPLUS.
    """
    y[...] = BY_CODE[act].value(x)


def act_grad(y, act, grad):
    """grad ← grad · act'(x), with act'(x) written in terms of y = act(x).

    y, grad: (n,). RELU: [y > 0]. LEAKY_RELU: 1 or 0.2. ELU: 1 or y + 1. TANH: 1 − y². SIGMOID: y (1 − y).
    SOFTPLUS: 1 − exp(−y).
    """
    grad *= BY_CODE[act].slope_from_y(y)


def silu(x, y):
    """y = x · sigmoid(x). x, y: (n,). Elfwing et al. 2018, equation 2. Its derivative does not follow from y."""
    y[...] = x * _sigmoid(x)


def silu_grad(x, grad):
    """grad ← grad · s (1 + x (1 − s)) with s = sigmoid(x). x, grad: (n,)."""
    s = _sigmoid(x)
    grad *= s * (1 + x * (1 - s))


def _act_grad_terms(a):
    return {"grad": np.abs(a["grad"]) * BY_CODE[a["act"]].slope_terms(a["y"])}


def _silu_grad_terms(a):
    x = a["x"]
    return {"grad": np.abs(a["grad"]) * _sigmoid(x) * (1 + np.abs(x) * (1 - _sigmoid(x)))}


OPS = (
    Op(
        "activate", (In("x", "n"), ACT, Out("y", "n")),
        flat_examples(act=ELU), per("n", cost=4), ulp=8, variants=ACTS,
    ),
    Op(
        "act_grad", (In("y", "n"), ACT, InOut("grad", "n")),
        flat_examples(act=TANH), per("n", cost=3), ulp=8, variants=ACTS, terms=_act_grad_terms,
    ),
    Op("silu", (In("x", "n"), Out("y", "n")), flat_examples(), per("n", cost=5), ulp=8),
    Op(
        "silu_grad", (In("x", "n"), InOut("grad", "n")),
        flat_examples(), per("n", cost=9), ulp=12, terms=_silu_grad_terms,
    ),
)  # fmt: skip
