"""Random numbers: a block of Philox, four of them, to a thread."""

from __future__ import annotations

import math

import numpy as np

from ...device import cuda
from .engine.compile import aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import cos_pi, sin_pi
from .engine.philox import THREADS, first_of_four, get_four, put_four, unit, words_at


@device_function
def normals(a, b, real):
    """Box & Muller's pair of normals. Angles in half turns, which leave nothing to reduce by π."""
    radius = real(math.sqrt(real(-2) * real(math.log(unit(a, real) + real(2.0**-24)))))
    angle = real(2) * unit(b, real)
    return radius * cos_pi(angle), radius * sin_pi(angle)


@kernel(expect=("STG.128",))
def bits_kernel(counters, stream, width, n, whole, out):
    first = first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    put_four(out, np.uint32(0), n, first, lane, whole, w0, w1, w2, w3)


@kernel(expect=("STG.128",))
def uniform_kernel(counters, stream, width, n, whole, out):
    real, first = out.dtype.type, first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    u0, u1, u2, u3 = unit(w0, real), unit(w1, real), unit(w2, real), unit(w3, real)
    put_four(out, np.uint32(0), n, first, lane, whole, u0, u1, u2, u3)


@kernel(expect=("STG.128",))
def normal_kernel(counters, stream, width, n, whole, out):
    real, first = out.dtype.type, first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    x0, x1 = normals(w0, w1, real)
    x2, x3 = normals(w2, w3, real)
    put_four(out, np.uint32(0), n, first, lane, whole, x0, x1, x2, x3)


@kernel(expect=("LDG.128", "STG.128"))
def bernoulli_kernel(p, counters, stream, width, n, whole, out):
    real, first = out.dtype.type, first_of_four(cuda.blockIdx.x, cuda.threadIdx.x)
    w0, w1, w2, w3, lane = words_at(counters, stream, width, first)
    p0, p1, p2, p3 = get_four(p, np.uint32(0), n, first, lane, whole)
    x0, x1 = real(unit(w0, real) < p0), real(unit(w1, real) < p1)
    x2, x3 = real(unit(w2, real) < p2), real(unit(w3, real) < p3)
    put_four(out, np.uint32(0), n, first, lane, whole, x0, x1, x2, x3)


def _draw(kernel, counters, stream, out, *chances):
    """A thread for each block that `out` may touch: one more than it fills, where it begins within one."""
    if out.size:
        whole = int(aligned(out, *chances))
        blocks = blocks_for(out.size + 3, 4 * THREADS)
        launch(kernel, blocks, THREADS, *chances, counters, int(stream), out.shape[1], out.size, whole, out)


def philox_bits(counters, stream, out):
    """ops.noise.philox_bits."""
    _draw(bits_kernel, counters, stream, out)


def philox_uniform(counters, stream, out):
    """ops.noise.philox_uniform."""
    _draw(uniform_kernel, counters, stream, out)


def philox_normal(counters, stream, out):
    """ops.noise.philox_normal."""
    _draw(normal_kernel, counters, stream, out)


def philox_bernoulli(p, counters, stream, out):
    """ops.noise.philox_bernoulli."""
    _draw(bernoulli_kernel, counters, stream, out, p)
