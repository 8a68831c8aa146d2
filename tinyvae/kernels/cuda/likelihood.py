"""Likelihoods: value and gradient in one pass over the pixels.

A row is summed by a group of neighbouring threads, one of several groups of a block where rows are short. Which thread
takes which pixel follows from the shapes and not from addresses, so that the sum's bits do too.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ...device import cuda
from ..ops.likelihood import LOG_2PI
from .engine.compile import THREADS, WIDE, aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import load4, store4
from .engine.reduce import group_sum, power_of_two
from .engine.scalar_math import log1p_unit, positive, reciprocal

WIDEST = 1024  # threads for a row of float32, at most: a whole block; half as many for float64, by its registers
BLOCK = 128  # threads of a block, at least
WARP = 32
FULL = 1 << 18  # threads that are enough for a whole GPU

BERNOULLI, GAUSSIAN = range(2)

# ---------------------------------------------------------------------------------------------- one pixel


@device_function
def pixel(y, x, kind):
    """Value and derivative by y. Bernoulli: softplus(y) − x y. Gaussian: (y − x)², and half its derivative."""
    if kind == GAUSSIAN:
        difference = y - x
        return difference * difference, difference
    zero, one = type(y)(0), type(y)(1)
    e = math.exp(-abs(y))
    return log1p_unit(e) + positive(y) - x * y, (one if y >= zero else e) * reciprocal(one + e) - x


# ---------------------------------------------------------------------------------------------- rows


@device_function
def read4(array, i, wide):
    """Four neighbours, at any address."""
    if wide:
        return load4(array, i)
    return array[i], array[i + 1], array[i + 2], array[i + 3]


@device_function
def write4(array, i, wide, a, b, c, d):
    if wide:
        store4(array, i, a, b, c, d)
    else:
        array[i], array[i + 1], array[i + 2], array[i + 3] = a, b, c, d


@cache
def rows(kind):
    """nll = weight · Σ value + constant, grad = row_scale · slope · derivative, of what `pixel` returns."""

    @kernel(expect=WIDE)
    def nll_kernel(y, x, row_scale, R, P, k, lanes, wide, weight, constant, slope, nll, grad):
        shared = cuda.shared.array(WIDEST, y.dtype)
        thread = np.uint32(cuda.grid(1))
        row = np.uint32(thread // lanes)
        lane = np.uint32(thread - row * lanes)
        total = type(weight)(0)
        if row < R:
            start, image = np.uint32(row * P), np.uint32(row // k * P)
            scale = row_scale[row] * slope
            quads = np.uint32(0 if P & 3 else P)  # the pixels that are taken four at a time: all, or none
            i = np.uint32(4 * lane)
            while i < quads:
                y0, y1, y2, y3 = read4(y, np.uint32(start + i), wide)
                x0, x1, x2, x3 = read4(x, np.uint32(image + i), wide)
                v0, d0 = pixel(y0, x0, kind)
                v1, d1 = pixel(y1, x1, kind)
                v2, d2 = pixel(y2, x2, kind)
                v3, d3 = pixel(y3, x3, kind)
                total += (v0 + v1) + (v2 + v3)
                if grad.size:
                    write4(grad, np.uint32(start + i), wide, scale * d0, scale * d1, scale * d2, scale * d3)
                i = np.uint32(i + 4 * lanes)
            i = np.uint32(quads + lane)
            while i < P:
                value, derivative = pixel(y[start + i], x[image + i], kind)
                total += value
                if grad.size:
                    grad[start + i] = scale * derivative
                i = np.uint32(i + lanes)
        total = group_sum(total, shared, lanes)
        if lane == 0 and row < R:
            nll[row] = total * weight + constant

    return nll_kernel


def lanes_for(R, P, most):
    """Threads for a row, a power of two: for two quads each, but where there are many rows rather for more."""
    lanes = power_of_two(blocks_for(P, 8), most)
    while R * lanes > FULL and lanes > WARP:
        lanes //= 2
    return lanes


def _launch(kernel, y, x, row_scale, weight, constant, slope, nll, grad):
    (R, P), real = y.shape, y.dtype.type
    lanes = lanes_for(R, P, WIDEST * 4 // y.dtype.itemsize)
    threads, wide = max(lanes, BLOCK), aligned(y, x) and (not grad.size or aligned(grad))
    launch(kernel, blocks_for(R * lanes, threads), threads, y, x, row_scale, R, P, R // x.shape[0], lanes,
           wide, real(weight), real(constant), real(slope), nll, grad)  # fmt: skip


def bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """ops.likelihood.bernoulli_nll."""
    _launch(rows(BERNOULLI), logits, x, row_scale, 1, 0, 1, nll, grad_logits)


def gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean):
    """ops.likelihood.gaussian_nll."""
    constant = mean.shape[1] * (math.log(sigma) + 0.5 * LOG_2PI)
    _launch(rows(GAUSSIAN), mean, x, row_scale, 0.5 / sigma**2, constant, 1 / sigma**2, nll, grad_mean)


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
    """ops.likelihood.scale_rows."""
    P = grad.shape[1]
    wide = P % 4 == 0 and aligned(grad)
    launch(scale_rows_kernel, blocks_for(grad.size, 4 * THREADS if wide else THREADS), THREADS,
           row_weight, P, wide, grad.size, grad)  # fmt: skip
