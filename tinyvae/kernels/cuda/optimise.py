"""The clock's tick, the gradient's norm and the two optimisers: one pass over the flat buffers of a player."""

from __future__ import annotations

import math

import numpy as np

from ...device import address, cuda
from .. import clock
from ..ops.optimise import LEAST_M, LEAST_V
from ..scratch import norm_sums
from .engine.compile import aligned, blocks_for, device_function, kernel, launch
from .engine.intrinsics import cos_pi, load4, store4
from .engine.reduce import block_sum

THREADS = 128
ONE_WARP = 32


@device_function
def first_of_four():
    """Where this thread's four neighbours begin."""
    return np.uint32(4) * np.uint32(np.uint32(cuda.blockIdx.x) * np.uint32(THREADS) + np.uint32(cuda.threadIdx.x))


# ---------------------------------------------------------------------------------------------- gradient norm


@device_function
def square(x):
    return np.float64(x) * np.float64(x)


@kernel(expect=("LDG.128", "DFMA"), doubles=True)
def squares_kernel(grads, n, whole, work):
    """A sum in float64 for each block, into `work` read as float64; the threads of all blocks take turns."""
    sums, shared = work.view(np.float64), cuda.shared.array(THREADS, np.float64)
    total = 0.0
    stride = np.uint32(4 * THREADS) * np.uint32(cuda.gridDim.x)
    first = first_of_four()
    while first < n:
        if whole and first + np.uint32(4) <= n:
            g0, g1, g2, g3 = load4(grads, first)
            total += square(g0)
            total += square(g1)
            total += square(g2)
            total += square(g3)
        else:
            for i in range(4):
                if first + np.uint32(i) < n:
                    total += square(grads[first + np.uint32(i)])
        first = np.uint32(first + stride)
    total = block_sum(total, shared)
    if cuda.threadIdx.x == 0:
        sums[cuda.blockIdx.x] = total


@kernel(doubles=True)
def norm_kernel(work, count, max_norm, rates):
    """One block: the sums of all blocks, their root, and the factor that clips."""
    sums, shared = work.view(np.float64), cuda.shared.array(THREADS, np.float64)
    total = 0.0
    i = np.uint32(cuda.threadIdx.x)
    while i < count:
        total += sums[i]
        i = np.uint32(i + np.uint32(THREADS))
    total = block_sum(total, shared)
    if cuda.threadIdx.x == 0:
        norm = math.sqrt(total)
        rates[clock.NORM] = norm
        rates[clock.CLIP] = max_norm / norm if 0 < max_norm < norm else 1.0


def grad_norm(grads, max_norm, work, rates):
    """ops.optimise.grad_norm: a sum for each block, then the sum of those."""
    count, skip = norm_sums(grads.size), address(work) % 8 // work.dtype.itemsize  # float64 is aligned to 8 bytes
    sums = work[skip : skip + 2 * count]
    launch(squares_kernel, count, THREADS, grads, grads.size, int(aligned(grads)), sums)
    launch(norm_kernel, 1, THREADS, sums, count, float(max_norm), rates)


# ---------------------------------------------------------------------------------------------- optimisers


@device_function
def kept(moment, least):
    """The moment, or 0 where it is smaller than `least`, a number of the same dtype. NaN stays."""
    return least - least if abs(moment) < least else moment


@device_function
def adam_one(g, value, m, v, numbers):
    """(value, m, v) after one update; `numbers` are what `adam_kernel` makes of the rates and options."""
    clip, lr, correction, keep_m, take_m, keep_v, take_v, eps, least_m, least_v = numbers
    g = g * clip
    m = keep_m * m + take_m * g
    v = keep_v * v + take_v * (g * g)
    return value - lr * (m / (math.sqrt(v * correction) + eps)), kept(m, least_m), kept(v, least_v)


@kernel(expect=("LDG.128", "STG.128"))
def adam_kernel(grads, rates, keep_m, take_m, keep_v, take_v, eps, n, whole, values, m, v):
    real, first = grads.dtype.type, first_of_four()
    clip, correction = real(rates[clock.CLIP]), real(rates[clock.CORRECTION2])
    lr = real(rates[clock.LR]) * real(rates[clock.CORRECTION1])
    numbers = clip, lr, correction, keep_m, take_m, keep_v, take_v, eps, real(LEAST_M), real(LEAST_V)
    if whole and first + np.uint32(4) <= n:
        g0, g1, g2, g3 = load4(grads, first)
        x0, x1, x2, x3 = load4(values, first)
        m0, m1, m2, m3 = load4(m, first)
        v0, v1, v2, v3 = load4(v, first)
        x0, m0, v0 = adam_one(g0, x0, m0, v0, numbers)
        x1, m1, v1 = adam_one(g1, x1, m1, v1, numbers)
        x2, m2, v2 = adam_one(g2, x2, m2, v2, numbers)
        x3, m3, v3 = adam_one(g3, x3, m3, v3, numbers)
        store4(values, first, x0, x1, x2, x3)
        store4(m, first, m0, m1, m2, m3)
        store4(v, first, v0, v1, v2, v3)
    else:
        for j in range(4):
            i = first + np.uint32(j)
            if i < n:
                values[i], m[i], v[i] = adam_one(grads[i], values[i], m[i], v[i], numbers)


def adam(grads, rates, beta1, beta2, eps, values, m, v):
    """ops.optimise.adam in one pass: seven streams of memory and nothing in between."""
    real, whole = grads.dtype.type, int(aligned(grads, values, m, v))
    options = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2), real(eps)
    blocks = blocks_for(grads.size, 4 * THREADS)
    launch(adam_kernel, blocks, THREADS, grads, rates, *options, grads.size, whole, values, m, v)


@kernel(expect=("LDG.128", "STG.128"))
def sgd_kernel(grads, rates, keep, n, whole, values, m):
    real, first = grads.dtype.type, first_of_four()
    clip, lr, least = real(rates[clock.CLIP]), real(rates[clock.LR]), real(LEAST_M)
    if whole and first + np.uint32(4) <= n:
        g0, g1, g2, g3 = load4(grads, first)
        x0, x1, x2, x3 = load4(values, first)
        m0, m1, m2, m3 = load4(m, first)
        m0, m1, m2, m3 = keep * m0 + g0 * clip, keep * m1 + g1 * clip, keep * m2 + g2 * clip, keep * m3 + g3 * clip
        store4(values, first, x0 - lr * m0, x1 - lr * m1, x2 - lr * m2, x3 - lr * m3)
        store4(m, first, kept(m0, least), kept(m1, least), kept(m2, least), kept(m3, least))
    else:
        for j in range(4):
            i = first + np.uint32(j)
            if i < n:
                m_new = keep * m[i] + grads[i] * clip
                values[i] -= lr * m_new
                m[i] = kept(m_new, least)


def sgd(grads, rates, momentum, values, m):
    """ops.optimise.sgd in one pass."""
    blocks, whole = blocks_for(grads.size, 4 * THREADS), int(aligned(grads, values, m))
    launch(sgd_kernel, blocks, THREADS, grads, rates, grads.dtype.type(momentum), grads.size, whole, values, m)


# ---------------------------------------------------------------------------------------------- the clock


@device_function
def player_tick(plan, row, step, rates, rate):
    """Learning rate and corrections of one player, whose numbers begin at plan[row] and rates[rate]."""
    t = np.float64((step - 1) // np.int64(plan[row + clock.EVERY]) + 1)
    warm, kind = plan[row + clock.LR_WARMUP], plan[row + clock.KIND]
    scale = t / warm if t < warm else 1.0
    if kind == clock.STEPWISE:
        scale *= plan[row + clock.GAMMA] ** np.float64(math.floor((t - 1) / plan[row + clock.PERIOD]))
    elif kind == clock.COSINE and t > warm:
        last = plan[row + clock.TOTAL] - warm
        done = (t - 1 - warm) / (last if last > 1 else 1.0)
        scale *= 0.5 * (1 + cos_pi(done if done < 1 else 1.0))
    rates[rate + clock.LR] = plan[row + clock.BASE_LR] * scale
    rates[rate + clock.CORRECTION1] = 1 / (1 - plan[row + clock.BETA1] ** t)
    rates[rate + clock.CORRECTION2] = 1 / (1 - plan[row + clock.BETA2] ** t)


@kernel(doubles=True)
def tick_kernel(plan, players, n, counters, rates):
    """One warp: a player or a KL weight to a thread."""
    thread = np.uint32(cuda.threadIdx.x)
    step = np.int64(counters[clock.STEP]) + 1
    cuda.syncthreads()  # all have read it
    if thread == 0:
        per_epoch = np.int64(plan[clock.STEPS_PER_EPOCH])
        counters[clock.STEP], counters[clock.EPOCH] = step, (step - 1) // per_epoch
        counters[clock.CURSOR] = (step - 1) % per_epoch * np.int64(plan[clock.BATCH_SIZE])
    warm, cycle, place = plan[clock.BETA_WARMUP], np.int64(plan[clock.BETA_CYCLE]), step
    capacity, beta = plan[clock.CAPACITY], plan[clock.BETA]
    if cycle > 0:
        place = (step - 1) % cycle + 1
    ramp = place / warm if place < warm else 1.0
    if capacity <= 0:
        beta *= ramp
    p = thread
    while p < players:
        player_tick(plan, clock.PLAN_HEAD + p * clock.PLAN, step, rates, p * clock.RATES)
        rate = p * clock.RATES
        rates[rate + clock.KL_BETA], rates[rate + clock.KL_CAPACITY] = beta, capacity * ramp
        rates[rate + clock.KL_FREE] = plan[clock.FREE_BITS]
        p = np.uint32(p + np.uint32(ONE_WARP))
    i = np.uint32(players * clock.RATES + thread)
    while i < n:
        rates[i] = beta
        i = np.uint32(i + np.uint32(ONE_WARP))


def tick(plan, counters, rates):
    """ops.optimise.tick."""
    players = (plan.size - clock.PLAN_HEAD) // clock.PLAN
    launch(tick_kernel, 1, ONE_WARP, plan, players, rates.size, counters, rates)
