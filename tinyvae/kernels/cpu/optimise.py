"""The clock's tick, the gradient's norm and the two optimisers: one pass over the flat buffers of a player."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from .. import clock
from ..ops.optimise import LEAST_M, LEAST_V
from .engine.compile import inner, jit, parallel
from .engine.parts import CHUNK, HEAVY, LIGHT, in_parts
from .engine.vector_math import add_in_any_order, muladd, stack_array

INTERPRETED = ("tick",)
PARTIALS = 64  # sums of grad_norm, added in order: the same number on every machine

# ---------------------------------------------------------------------------------------------- gradient norm


@inner
def _squares(grads):
    """Σ grads² in float64."""
    total = 0.0
    for i in range(grads.size):
        g = np.float64(grads[i])
        total = add_in_any_order(total, g * g)
    return total


@inner
def _write_norm(squares, max_norm, rates):
    norm = math.sqrt(squares)
    rates[clock.NORM] = norm
    rates[clock.CLIP] = max_norm / norm if 0 < max_norm < norm else 1.0


@jit
def _grad_norm(grads, max_norm, rates):
    _write_norm(_squares(grads), max_norm, rates)


@parallel
def _grad_norm_parts(grads, max_norm, rates):
    partials = carray(stack_array(0.0, PARTIALS), PARTIALS)
    length = (grads.size + PARTIALS - 1) // PARTIALS
    for p in prange(PARTIALS):
        partials[p] = _squares(grads[p * length : min(grads.size, (p + 1) * length)])
    squares = 0.0
    for p in range(PARTIALS):
        squares += partials[p]
    _write_norm(squares, max_norm, rates)


def grad_norm(grads, max_norm, work, rates):
    """ops.optimise.grad_norm, in float64; of many gradients 64 partial sums, added in order."""
    (_grad_norm_parts if grads.size >= LIGHT else _grad_norm)(grads, float(max_norm), rates)


# ---------------------------------------------------------------------------------------------- optimisers


@in_parts(CHUNK, pays=HEAVY)
def _adam(first, last, grads, rates, beta1, beta2, eps, values, m, v):
    grads, values = grads[first:last], values[first:last]
    m, v = m[first:last], v[first:last]
    real = grads.dtype.type
    clip, correction = real(rates[clock.CLIP]), real(rates[clock.CORRECTION2])
    lr = real(rates[clock.LR] * rates[clock.CORRECTION1])
    keep_m, take_m, keep_v, take_v, floor = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2), real(eps)
    zero, least_m, least_v = real(0), real(LEAST_M), real(LEAST_V)
    for i in range(grads.size):
        g = grads[i] * clip
        m_new = muladd(keep_m, m[i], take_m * g)
        v_new = muladd(keep_v, v[i], take_v * (g * g))
        values[i] -= lr * (m_new / (math.sqrt(v_new * correction) + floor))
        m[i] = zero if abs(m_new) < least_m else m_new
        v[i] = zero if v_new < least_v else v_new


def adam(grads, rates, beta1, beta2, eps, values, m, v):
    """ops.optimise.adam in one pass: seven streams of memory and nothing in between."""
    _adam(grads.size, grads.size, grads, rates, beta1, beta2, eps, values, m, v)


@in_parts(CHUNK, pays=LIGHT)
def _sgd(first, last, grads, rates, momentum, values, m):
    grads, values, m = grads[first:last], values[first:last], m[first:last]
    real = grads.dtype.type
    clip, lr, keep = real(rates[clock.CLIP]), real(rates[clock.LR]), real(momentum)
    zero, least_m = real(0), real(LEAST_M)
    for i in range(grads.size):
        m_new = muladd(keep, m[i], grads[i] * clip)
        values[i] = muladd(-lr, m_new, values[i])
        m[i] = zero if abs(m_new) < least_m else m_new


def sgd(grads, rates, momentum, values, m):
    """ops.optimise.sgd in one pass."""
    _sgd(grads.size, grads.size, grads, rates, momentum, values, m)


# ---------------------------------------------------------------------------------------------- the clock


@inner
def _player_tick(row, step, rate):
    """Learning rate and corrections of one player: its row of the plan, its block of the rates."""
    t, warm = (step - 1) // int(row[clock.EVERY]) + 1, row[clock.LR_WARMUP]
    scale = min(1.0, t / warm) if warm > 0 else 1.0
    if row[clock.KIND] == clock.STEPWISE:
        scale *= row[clock.GAMMA] ** math.floor((t - 1) / row[clock.PERIOD])
    elif row[clock.KIND] == clock.COSINE and t > warm:
        scale *= 0.5 * (1 + math.cos(math.pi * min(1.0, (t - 1 - warm) / max(1.0, row[clock.TOTAL] - warm))))
    rate[clock.LR] = row[clock.BASE_LR] * scale
    rate[clock.CORRECTION1] = 1 / (1 - row[clock.BETA1] ** t)
    rate[clock.CORRECTION2] = 1 / (1 - row[clock.BETA2] ** t)


@jit
def tick(plan, counters, rates):
    """ops.optimise.tick."""
    step, per_epoch = int(counters[clock.STEP]) + 1, int(plan[clock.STEPS_PER_EPOCH])
    counters[clock.STEP], counters[clock.EPOCH] = step, (step - 1) // per_epoch
    counters[clock.CURSOR] = (step - 1) % per_epoch * int(plan[clock.BATCH_SIZE])
    place = (step - 1) % int(plan[clock.BETA_CYCLE]) + 1 if plan[clock.BETA_CYCLE] > 0 else step
    ramp = min(1.0, place / plan[clock.BETA_WARMUP]) if plan[clock.BETA_WARMUP] > 0 else 1.0
    beta = plan[clock.BETA] * (1.0 if plan[clock.CAPACITY] > 0 else ramp)
    players = (plan.size - clock.PLAN_HEAD) // clock.PLAN
    for p in range(players):
        start = clock.PLAN_HEAD + p * clock.PLAN
        rate = rates[p * clock.RATES : (p + 1) * clock.RATES]
        _player_tick(plan[start : start + clock.PLAN], step, rate)
        rate[clock.KL_BETA] = beta
        rate[clock.KL_CAPACITY] = plan[clock.CAPACITY] * ramp
        rate[clock.KL_FREE] = plan[clock.FREE_BITS]
    for i in range(players * clock.RATES, rates.size):
        rates[i] = beta
