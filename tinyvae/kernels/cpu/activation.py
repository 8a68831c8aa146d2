"""Activations: each number by itself, in one pass over memory.

Every op is a loop over a part of its arrays, and a small Python function that runs it on the whole, or on parts side by
side where there is enough work to pay for entering a parallel region. Parts do not depend on the number of threads, nor
does any number on the part it is in.
"""

from __future__ import annotations

from numba import prange

from ..ops.activation import ELU, LEAKY_RELU, LEAKY_SLOPE, RELU, SIGMOID, SOFTPLUS, TANH
from .engine.compile import jit, parallel
from .engine.parts import HEAVY, LIGHT, chunks, part
from .engine.sums import _copy
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


@jit
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


@jit
def _activate(x, act, y):
    _copy(x, y)
    apply_activation(y, act)


@parallel
def _activate_parts(x, act, y):
    for c in prange(chunks(y.size)):
        _activate(part(x, c), act, part(y, c))


def activate(x, act, y):
    """reference.activate: a copy, activated while it is in the cache."""
    (_activate_parts if y.size >= HEAVY else _activate)(x, act, y)


def finish(y, act):
    """y ← act(y), any shape, where the tile has not done it: it knows the identity and ReLU."""
    if act > RELU:
        activate(y.reshape(-1), act, y.reshape(-1))


@jit
def _act_grad(y, act, grad):
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


@parallel
def _act_grad_parts(y, act, grad):
    for c in prange(chunks(y.size)):
        _act_grad(part(y, c), act, part(grad, c))


def act_grad(y, act, grad):
    """reference.act_grad in one pass, a loop for each activation."""
    (_act_grad_parts if y.size >= LIGHT else _act_grad)(y, act, grad)


@jit
def _silu(x, y):
    for i in range(y.size):
        y[i] = x[i] * sigmoid(x[i])


@parallel
def _silu_parts(x, y):
    for c in prange(chunks(y.size)):
        _silu(part(x, c), part(y, c))


def silu(x, y):
    """reference.silu in one pass."""
    (_silu_parts if y.size >= HEAVY else _silu)(x, y)


@jit
def _silu_grad(x, grad):
    one = x.dtype.type(1)
    for i in range(x.size):
        s = sigmoid(x[i])
        grad[i] *= s * muladd(x[i], one - s, one)


@parallel
def _silu_grad_parts(x, grad):
    for c in prange(chunks(x.size)):
        _silu_grad(part(x, c), part(grad, c))


def silu_grad(x, grad):
    """reference.silu_grad in one pass, the sigmoid computed anew."""
    (_silu_grad_parts if x.size >= HEAVY else _silu_grad)(x, grad)
