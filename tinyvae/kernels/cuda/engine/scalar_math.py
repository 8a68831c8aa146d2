"""Functions of one number, cheaper than the library's because x is confined.
In the simulator they are the exact functions in plain Python.

Why: at 4 TB/s an H200 has some 50 instructions for each float32 that is read and written. The library's log1p takes 30,
a rounded quotient 10 and a branch.
"""

from __future__ import annotations

import math

from numba import config

from ...ops.activation import ELU, LEAKY_RELU, LEAKY_SLOPE, RELU, SIGMOID, SOFTPLUS, TANH
from .compile import device_function

if config.ENABLE_CUDASIM:
    log1p_unit = math.log1p

    def reciprocal(x):
        return type(x)(1) / x

else:
    from llvmlite import ir
    from numba.core import types
    from numba.extending import intrinsic

    from ...cpu.engine.vector_math import FORMATS

    @intrinsic
    def log1p_unit(typing, x):
        """log(1 + x) for 0 ≤ x ≤ 1: the polynomial of the CPU column, 1.6 ulp. NaN stays NaN."""
        form = FORMATS[x]

        def generate(context, builder, signature, arguments):
            (value,) = arguments
            *rest, total = (ir.Constant(value.type, float(form.real(c))) for c in form.LOG1P)
            for coefficient in reversed(rest):
                total = builder.fma(total, value, coefficient)
            return builder.fmul(value, total)

        return x(x), generate

    @intrinsic
    def reciprocal(typing, x):
        """1 / x for a normal x that is not huge: in float32 one instruction, 1 ulp. NaN stays NaN."""

        def generate(context, builder, signature, arguments):
            (value,) = arguments
            if x == types.float32:
                kind = ir.FunctionType(value.type, [value.type])
                return builder.asm(kind, "rcp.approx.ftz.f32 $0, $1;", "=f,f", [value], side_effect=False)
            return builder.fdiv(ir.Constant(value.type, 1.0), value)

        return x(x), generate


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
