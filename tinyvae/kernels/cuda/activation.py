"""Activations: each number by itself, four neighbours to a thread."""

from __future__ import annotations

from functools import cache

import numpy as np

from ...device import cuda
from ..ops.activation import IDENTITY
from .engine.compile import THREADS, WIDE, aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import load4, store4
from .engine.scalar_math import activated, derivative, silu_derivative, silu_of

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
    """ops.activation.activate."""
    _launch(mapping(act), x, y)


def act_grad(y, act, grad):
    """ops.activation.act_grad."""
    if act != IDENTITY:
        _launch(sloping(act), y, grad)


def silu(x, y):
    """ops.activation.silu."""
    _launch(mapping(SILU), x, y)


def silu_grad(x, grad):
    """ops.activation.silu_grad."""
    _launch(sloping(SILU), x, grad)
