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
from .engine.compile import aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import load4, store4
from .engine.scalar_math import log1p_unit, reciprocal

THREADS = 256
WIDE = ("LDG.128", "STG.128")

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
def silu_of(x):
    return x * sigmoid(x)


@device_function
def silu_derivative(x):
    """s (1 + x (1 − s)); of s and 1 − s neither is taken from the other, which would cancel."""
    zero, one = type(x)(0), type(x)(1)
    e = math.exp(-abs(x))
    large = reciprocal(one + e)
    small = e * large
    s, rest = (large, small) if x >= zero else (small, large)
    return s * (one + x * rest)


# ---------------------------------------------------------------------------------------------- flat arrays

SILU = -1  # beside the activations: its derivative is taken at x


@device_function
def mapped(x, act):
    return silu_of(x) if act == SILU else activated(x, act)


@device_function
def slope(x, act):
    return silu_derivative(x) if act == SILU else derivative(x, act)


@cache
def mapping(act):
    """y = act(x). A kernel for each activation: a constant costs no branch for every number."""

    @kernel(expect=WIDE)
    def map_kernel(x, quads, n, y):
        i = np.uint32(cuda.grid(1))
        if i < quads:
            q = np.uint32(4 * i)
            a, b, c, d = load4(x, q)
            store4(y, q, mapped(a, act), mapped(b, act), mapped(c, act), mapped(d, act))
        j = np.uint32(4 * quads + i)  # what is left over, or all where the arrays are not aligned
        if j < n:
            y[j] = mapped(x[j], act)

    return map_kernel


@cache
def sloping(act):
    """grad ← grad · act'."""

    @kernel(expect=WIDE)
    def slope_kernel(x, quads, n, grad):
        i = np.uint32(cuda.grid(1))
        if i < quads:
            q = np.uint32(4 * i)
            a, b, c, d = load4(x, q)
            e, f, g, h = load4(grad, q)
            store4(grad, q, e * slope(a, act), f * slope(b, act), g * slope(c, act), h * slope(d, act))
        j = np.uint32(4 * quads + i)
        if j < n:
            grad[j] *= slope(x[j], act)

    return slope_kernel


def _launch(kernel, x, y):
    """Four numbers to a thread as far as there are four, and one to a thread for the rest."""
    quads = x.size // 4 if aligned(x, y) else 0
    launch(kernel, blocks_for(max(quads, x.size - 4 * quads), THREADS), THREADS, x, quads, x.size, y)


def activate(x, act, y):
    """reference.activate."""
    _launch(mapping(act), x, y)


def act_grad(y, act, grad):
    """reference.act_grad."""
    if act != IDENTITY:
        _launch(sloping(act), y, grad)


def silu(x, y):
    """reference.silu."""
    _launch(mapping(SILU), x, y)


def silu_grad(x, grad):
    """reference.silu_grad."""
    _launch(sloping(SILU), x, grad)


# ---------------------------------------------------------------------------------------------- rows


@kernel(expect=WIDE)
def scale_rows_kernel(row_weight, P, wide, n, grad):
    i = np.uint32(cuda.grid(1))
    if wide:  # P is a multiple of 4: four neighbours are of one row
        q = np.uint32(4 * i)
        if q < n:
            a, b, c, d = load4(grad, q)
            weight = row_weight[q // P]
            store4(grad, q, weight * a, weight * b, weight * c, weight * d)
    elif i < n:
        grad[i] *= row_weight[i // P]


def scale_rows(row_weight, grad):
    """reference.scale_rows."""
    P = grad.shape[1]
    wide = P % 4 == 0 and aligned(grad)
    launch(scale_rows_kernel, blocks_for(grad.size, 4 * THREADS if wide else THREADS), THREADS,
           row_weight, P, wide, grad.size, grad)  # fmt: skip
