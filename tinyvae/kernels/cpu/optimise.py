"""The clock's tick, the gradient's norm and the two optimisers: one pass over the flat buffers of a player.
It knows numbers side by side, not which parameter they belong to."""

from __future__ import annotations

import math

import numpy as np
from numba import carray, prange

from ..clock import (
    BASE_LR,
    BATCH_SIZE,
    BETA,
    BETA1,
    BETA2,
    BETA_CYCLE,
    BETA_WARMUP,
    CAPACITY,
    CLIP,
    CORRECTION1,
    CORRECTION2,
    COSINE,
    CURSOR,
    EPOCH,
    EVERY,
    FREE_BITS,
    GAMMA,
    KIND,
    KL_BETA,
    KL_CAPACITY,
    KL_FREE,
    LR,
    LR_WARMUP,
    NORM,
    PERIOD,
    PLAN,
    PLAN_HEAD,
    RATES,
    STEP,
    STEPS_PER_EPOCH,
    STEPWISE,
    TOTAL,
)
from ..ops.optimise import LEAST_M, LEAST_V
from .engine.compile import jit, parallel
from .engine.parts import HEAVY, LIGHT, chunks, part
from .engine.vector_math import add_in_any_order, muladd, stack_array

INTERPRETED = ("tick",)
PARTIALS = 64  # sums of grad_norm, added in order: the same number on every machine

# ---------------------------------------------------------------------------------------------- gradient norm


@jit
def _squares(grads):
    """Σ grads² in float64."""
    total = 0.0
    for i in range(grads.size):
        g = np.float64(grads[i])
        total = add_in_any_order(total, g * g)
    return total


@jit
def _write_norm(squares, max_norm, rates):
    norm = math.sqrt(squares)
    rates[NORM] = norm
    rates[CLIP] = max_norm / norm if 0 < max_norm < norm else 1.0


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
    """reference.grad_norm, in float64; of many gradients 64 partial sums, added in order."""
    (_grad_norm_parts if grads.size >= LIGHT else _grad_norm)(grads, float(max_norm), rates)


# ---------------------------------------------------------------------------------------------- optimisers


@jit
def _adam(grads, rates, beta1, beta2, eps, values, m, v):
    real = grads.dtype.type
    clip, lr, correction = real(rates[CLIP]), real(rates[LR] * rates[CORRECTION1]), real(rates[CORRECTION2])
    keep_m, take_m, keep_v, take_v, floor = real(beta1), real(1 - beta1), real(beta2), real(1 - beta2), real(eps)
    zero, least_m, least_v = real(0), real(LEAST_M), real(LEAST_V)
    for i in range(grads.size):
        g = grads[i] * clip
        m_new = muladd(keep_m, m[i], take_m * g)
        v_new = muladd(keep_v, v[i], take_v * (g * g))
        values[i] -= lr * (m_new / (math.sqrt(v_new * correction) + floor))
        m[i] = zero if abs(m_new) < least_m else m_new
        v[i] = zero if v_new < least_v else v_new


@parallel
def _adam_parts(grads, rates, beta1, beta2, eps, values, m, v):
    for c in prange(chunks(grads.size)):
        _adam(part(grads, c), rates, beta1, beta2, eps, part(values, c), part(m, c), part(v, c))


def adam(grads, rates, beta1, beta2, eps, values, m, v):
    """reference.adam in one pass: seven streams of memory and nothing in between."""
    (_adam_parts if grads.size >= HEAVY else _adam)(grads, rates, beta1, beta2, eps, values, m, v)


@jit
def _sgd(grads, rates, momentum, values, m):
    real = grads.dtype.type
    clip, lr, keep = real(rates[CLIP]), real(rates[LR]), real(momentum)
    zero, least_m = real(0), real(LEAST_M)
    for i in range(grads.size):
        m_new = muladd(keep, m[i], grads[i] * clip)
        values[i] = muladd(-lr, m_new, values[i])
        m[i] = zero if abs(m_new) < least_m else m_new


@parallel
def _sgd_parts(grads, rates, momentum, values, m):
    for c in prange(chunks(grads.size)):
        _sgd(part(grads, c), rates, momentum, part(values, c), part(m, c))


def sgd(grads, rates, momentum, values, m):
    """reference.sgd in one pass."""
    (_sgd_parts if grads.size >= LIGHT else _sgd)(grads, rates, momentum, values, m)


# ---------------------------------------------------------------------------------------------- the clock


@jit
def _player_tick(row, step, rate):
    """Learning rate and corrections of one player: its row of the plan, its block of the rates."""
    t, warm = (step - 1) // int(row[EVERY]) + 1, row[LR_WARMUP]
    scale = min(1.0, t / warm) if warm > 0 else 1.0
    if row[KIND] == STEPWISE:
        scale *= row[GAMMA] ** math.floor((t - 1) / row[PERIOD])
    elif row[KIND] == COSINE and t > warm:
        scale *= 0.5 * (1 + math.cos(math.pi * min(1.0, (t - 1 - warm) / max(1.0, row[TOTAL] - warm))))
    rate[LR] = row[BASE_LR] * scale
    rate[CORRECTION1] = 1 / (1 - row[BETA1] ** t)
    rate[CORRECTION2] = 1 / (1 - row[BETA2] ** t)


@jit
def tick(plan, counters, rates):
    """reference.tick."""
    step, per_epoch = int(counters[STEP]) + 1, int(plan[STEPS_PER_EPOCH])
    counters[STEP], counters[EPOCH] = step, (step - 1) // per_epoch
    counters[CURSOR] = (step - 1) % per_epoch * int(plan[BATCH_SIZE])
    place = (step - 1) % int(plan[BETA_CYCLE]) + 1 if plan[BETA_CYCLE] > 0 else step
    ramp = min(1.0, place / plan[BETA_WARMUP]) if plan[BETA_WARMUP] > 0 else 1.0
    beta = plan[BETA] * (1.0 if plan[CAPACITY] > 0 else ramp)
    players = (plan.size - PLAN_HEAD) // PLAN
    for p in range(players):
        start, rate = PLAN_HEAD + p * PLAN, rates[p * RATES : (p + 1) * RATES]
        _player_tick(plan[start : start + PLAN], step, rate)
        rate[KL_BETA], rate[KL_CAPACITY], rate[KL_FREE] = beta, plan[CAPACITY] * ramp, plan[FREE_BITS]
    for i in range(players * RATES, rates.size):
        rates[i] = beta
