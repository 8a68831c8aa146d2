"""Activations and the scaling of rows: each number by itself, four neighbours to a thread.
It knows flat arrays; what an op means is said in reference.py.

Constants are made of the arrays' own dtype: a bare 0 or 1 is an int64, and a float32 beside it becomes a float64.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...device import cuda
from ..reference import ELU, IDENTITY, LEAKY_RELU, LEAKY_SLOPE, RELU, SIGMOID, SOFTPLUS, TANH
from .compile import aligned, blocks_for, device_function, kernel, launch
from .intrinsics import load4, store4
from .scalar_math import log1p_unit, reciprocal

THREADS = 256
WIDE = ("LDG.E.128", "STG.E.128")

# ---------------------------------------------------------------------------------------------- one number


@device_function
def positive(x):
    """max(x, 0); NaN stays NaN."""
    zero = type(x)(0)
    return zero if x < zero else x


@device_function
def sigmoid(x):
    """1 / (1 + exp(-x)) without overflow: exp is only taken of -|x|."""
    zero, one = type(x)(0), type(x)(1)
    e = math.exp(-abs(x))
    return (one if x >= zero else e) * reciprocal(one + e)


@device_function
def activated(x, act):
    """act(x); act is a constant, or the same for every thread, so that no warp takes two ways."""
    zero = type(x)(0)
    if act == RELU:
        return positive(x)
    if act == LEAKY_RELU:
        return x if x > zero else x * type(x)(LEAKY_SLOPE)
    if act == ELU:
        return x if x > zero else math.expm1(x)
    if act == TANH:
        return math.tanh(x)
    if act == SIGMOID:
        return sigmoid(x)
    if act == SOFTPLUS:
        return positive(x) + log1p_unit(math.exp(-abs(x)))
    return x


@device_function
def derivative(y, act):
    """act'(x), from y = act(x)."""
    zero, one = type(y)(0), type(y)(1)
    if act == RELU:
        return one if y > zero else zero
    if act == LEAKY_RELU:
        return one if y > zero else type(y)(LEAKY_SLOPE)
    if act == ELU:
        return one if y > zero else y + one
    if act == TANH:
        return one - y * y
    if act == SIGMOID:
        return y * (one - y)
    if act == SOFTPLUS:
        return -math.expm1(-y)
    return one


@device_function
def swish(x):
    """x · sigmoid(x), that is SiLU."""
    return x * sigmoid(x)


@device_function
def swish_derivative(x):
    one, s = type(x)(1), sigmoid(x)
    return s * (one + x * (one - s))


# ---------------------------------------------------------------------------------------------- flat arrays


def mapped(function):
    """A kernel y = function(x)."""

    @kernel(expect=WIDE)
    def map_kernel(x, quads, n, y):
        i = np.uint32(cuda.grid(1))
        if i < quads:
            q = np.uint32(4 * i)
            a, b, c, d = load4(x, q)
            store4(y, q, function(a), function(b), function(c), function(d))
        j = np.uint32(4 * quads + i)  # what is left over, or all where the arrays are not aligned
        if j < n:
            y[j] = function(x[j])

    return map_kernel


def scaled(function):
    """A kernel grad ← grad · function(x)."""

    @kernel(expect=WIDE)
    def scale_kernel(x, quads, n, grad):
        i = np.uint32(cuda.grid(1))
        if i < quads:
            q = np.uint32(4 * i)
            a, b, c, d = load4(x, q)
            e, f, g, h = load4(grad, q)
            store4(grad, q, e * function(a), f * function(b), g * function(c), h * function(d))
        j = np.uint32(4 * quads + i)
        if j < n:
            grad[j] *= function(x[j])

    return scale_kernel


@cache
def activate_kernel(act):
    return mapped(device_function(lambda x: activated(x, act)))


@cache
def act_grad_kernel(act):
    return scaled(device_function(lambda y: derivative(y, act)))


silu_kernel, silu_grad_kernel = mapped(swish), scaled(swish_derivative)


def _launch(kernel, x, y):
    """Four numbers to a thread as far as there are four, and one to a thread for the rest."""
    quads = x.size // 4 if aligned(x, y) else 0
    launch(kernel, blocks_for(max(quads, x.size - 4 * quads), THREADS), THREADS, x, quads, x.size, y)


def activate(x, act, y):
    """reference.activate."""
    _launch(activate_kernel(act), x, y)


def act_grad(y, act, grad):
    """reference.act_grad."""
    if act != IDENTITY:
        _launch(act_grad_kernel(act), y, grad)


def silu(x, y):
    """reference.silu."""
    _launch(silu_kernel, x, y)


def silu_grad(x, grad):
    """reference.silu_grad."""
    _launch(silu_grad_kernel, x, grad)


# ---------------------------------------------------------------------------------------------- rows


@kernel(expect=WIDE)
def scale_rows_kernel(row_weight, P, wide, n, grad):
    i = np.uint32(cuda.grid(1))
    if wide:  # P is a multiple of 4: four neighbours are of one row
        q = np.uint32(4 * i)
        if q < n:
            weight = row_weight[q // P]
            a, b, c, d = load4(grad, q)
            store4(grad, q, weight * a, weight * b, weight * c, weight * d)
    elif i < n:
        grad[i] *= row_weight[i // P]


def scale_rows(row_weight, grad):
    """reference.scale_rows."""
    P = grad.shape[1]
    wide = P % 4 == 0 and aligned(grad)
    launch(scale_rows_kernel, blocks_for(grad.size, 4 * THREADS if wide else THREADS), THREADS,
           row_weight, P, wide, grad.size, grad)  # fmt: skip
