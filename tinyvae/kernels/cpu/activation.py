"""Activations: each number by itself, in one pass over memory."""

from __future__ import annotations

from ..ops.activation import ELU, LEAKY_RELU, LEAKY_SLOPE, RELU, SIGMOID, SOFTPLUS, TANH
from .engine.compile import inner
from .engine.parts import CHUNK, HEAVY, LIGHT, in_parts
from .engine.sums import copy
from .engine.vector_math import expm1, muladd, sigmoid, softplus, tanh, typed


@typed
def _relu(real, F):
    """max(x, 0)."""
    zero = real(0)

    def relu(x):
        return zero if x < 0 else x

    return relu


@typed
def _leaky_relu(real, F):
    """x, or 0.2 x below 0."""
    slope = real(LEAKY_SLOPE)

    def leaky_relu(x):
        return x if x > 0 else x * slope

    return leaky_relu


@typed
def _elu(real, F):
    """x, or exp(x) − 1 below 0."""

    def elu(x):
        below = expm1(x)
        return x if x > 0 else below

    return elu


@inner
def apply_activation(y, act):
    """y ← act(y) in place. y: (n,), contiguous. One loop per activation, so that each becomes vector code."""
    if act == RELU:
        for i in range(y.size):
            y[i] = _relu(y[i])
    elif act == LEAKY_RELU:
        for i in range(y.size):
            y[i] = _leaky_relu(y[i])
    elif act == ELU:
        for i in range(y.size):
            y[i] = _elu(y[i])
    elif act == TANH:
        for i in range(y.size):
            y[i] = tanh(y[i])
    elif act == SIGMOID:
        for i in range(y.size):
            y[i] = sigmoid(y[i])
    elif act == SOFTPLUS:
        for i in range(y.size):
            y[i] = softplus(y[i])


@in_parts(CHUNK, pays=HEAVY)
def _activate(first, last, x, act, y):
    copy(x[first:last], y[first:last])
    apply_activation(y[first:last], act)


def activate(x, act, y):
    """ops.activation.activate: a copy, activated while it is in the cache."""
    _activate(y.size, y.size, x, act, y)


def finish(y, act):
    """y ← act(y), any shape, where the product has not done it: it applies the identity and ReLU itself."""
    if act > RELU:
        activate(y.reshape(-1), act, y.reshape(-1))


@in_parts(CHUNK, pays=LIGHT)
def _act_grad(first, last, y, act, grad):
    y, grad = y[first:last], grad[first:last]
    real = y.dtype.type
    zero, one, slope = real(0), real(1), real(LEAKY_SLOPE)
    if act == RELU:
        for i in range(y.size):
            grad[i] *= one if y[i] > 0 else zero  # a product, so that NaN in grad stays NaN
    elif act == LEAKY_RELU:
        for i in range(y.size):
            grad[i] *= one if y[i] > 0 else slope
    elif act == ELU:
        for i in range(y.size):
            grad[i] *= one if y[i] > 0 else y[i] + one
    elif act == TANH:
        for i in range(y.size):
            grad[i] *= muladd(-y[i], y[i], one)
    elif act == SIGMOID:
        for i in range(y.size):
            grad[i] *= y[i] * (one - y[i])
    elif act == SOFTPLUS:
        for i in range(y.size):
            grad[i] *= -expm1(-y[i])


def act_grad(y, act, grad):
    """ops.activation.act_grad in one pass, a loop for each activation."""
    _act_grad(y.size, y.size, y, act, grad)


@in_parts(CHUNK, pays=HEAVY)
def _silu(first, last, x, y):
    x, y = x[first:last], y[first:last]
    for i in range(y.size):
        y[i] = x[i] * sigmoid(x[i])


def silu(x, y):
    """ops.activation.silu in one pass."""
    _silu(y.size, y.size, x, y)


@in_parts(CHUNK, pays=HEAVY)
def _silu_grad(first, last, x, grad):
    x, grad = x[first:last], grad[first:last]
    one = x.dtype.type(1)
    for i in range(x.size):
        s = sigmoid(x[i])
        grad[i] *= s * muladd(x[i], one - s, one)


def silu_grad(x, grad):
    """ops.activation.silu_grad in one pass, the sigmoid computed anew."""
    _silu_grad(x.size, x.size, x, grad)
