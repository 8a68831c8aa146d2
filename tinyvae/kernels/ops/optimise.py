"""Optimisers: the norm of a gradient, Adam, gradient descent, and the clock that they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import clock
from ..op import RATES_IN, WORK, In, InOut, Op, Option, flat_examples, per, results
from ..scratch import norm_workspace

LEAST_M, LEAST_V = 1e-30, 1e-36  # an optimiser's moments below are 0; both are far above float32's subnormal numbers


def grad_norm(grads, max_norm, work, rates):
    """rates[NORM] = ‖grads‖₂ and rates[CLIP] = min(1, max_norm / ‖grads‖₂); max_norm = 0 clips nothing.

    grads: (n,), all gradients of a player. rates: (8,) float64. Pascanu et al. 2013, algorithm 1.
    """
    norm = np.sqrt(np.sum(np.square(grads, dtype=np.float64)))
    rates[clock.NORM] = norm
    rates[clock.CLIP] = max_norm / norm if 0 < max_norm < norm else 1.0


def adam(grads, rates, beta1, beta2, eps, values, m, v):
    """Adam, Kingma & Ba 2014, algorithm 1: with g = rates[CLIP] · grads,

    m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,
    values ← values − rates[LR] · (m · rates[CORRECTION1]) / (√(v · rates[CORRECTION2]) + eps).
    The corrections 1 / (1 − βᵗ) come from the clock. At last m is set to 0 where |m| < LEAST_M and v where v < LEAST_V:
    where gradients stay 0 they would decay into subnormal numbers, with which many processors calculate slowly.
    grads, values, m, v: (n,). rates: (8,) float64.
    """
    dtype = grads.dtype.type
    g = grads * dtype(rates[clock.CLIP])
    m *= dtype(beta1)
    m += dtype(1 - beta1) * g
    v *= dtype(beta2)
    g *= g
    g *= dtype(1 - beta2)
    v += g
    np.multiply(v, dtype(rates[clock.CORRECTION2]), out=g)
    np.sqrt(g, out=g)
    g += dtype(eps)
    np.divide(m, g, out=g)
    g *= dtype(rates[clock.LR] * rates[clock.CORRECTION1])
    values -= g
    m[np.abs(m) < LEAST_M] = 0
    v[v < LEAST_V] = 0


def sgd(grads, rates, momentum, values, m):
    """Gradient descent with momentum: m ← momentum · m + rates[CLIP] · grads, values ← values − rates[LR] · m.

    At last m is set to 0 where |m| < LEAST_M, as in `adam`. grads, values, m: (n,). rates: (8,) float64.
    Sutskever et al. 2013, equation 1, in PyTorch's form.
    """
    dtype = grads.dtype.type
    m *= dtype(momentum)
    m += grads * dtype(rates[clock.CLIP])
    values -= m * dtype(rates[clock.LR])
    m[np.abs(m) < LEAST_M] = 0


def tick(plan, counters, rates):
    """One step forward: counters, learning rates, Adam's corrections and KL weights of the step that follows.

    STEP ← STEP + 1, counted from 1; EPOCH = (STEP − 1) // steps_per_epoch; CURSOR = (STEP − 1) % steps_per_epoch · B.
    KL weight: BETA · ramp, ramp = min(1, STEP / BETA_WARMUP), begun anew every BETA_CYCLE steps (0: never). A CAPACITY
    takes the ramp instead, and the weight is BETA throughout. A player that moves every n steps is at its update
    t = (STEP − 1) // n + 1; its corrections are 1 / (1 − βᵗ), its learning rate BASE_LR · min(1, t / LR_WARMUP) times
    1 (CONSTANT), GAMMA^((t − 1) // PERIOD) (STEPWISE) or ½ (1 + cos(π · done)) (COSINE), done = the share of the
    updates done since warm-up.
    plan: (7 + 9·players,), rates: (8·players + latent,), float64. counters: (5,) uint64.
    """
    step = int(counters[clock.STEP]) + 1
    per_epoch = int(plan[clock.STEPS_PER_EPOCH])
    counters[clock.STEP] = step
    counters[clock.EPOCH] = (step - 1) // per_epoch
    counters[clock.CURSOR] = (step - 1) % per_epoch * int(plan[clock.BATCH_SIZE])
    place = (step - 1) % int(plan[clock.BETA_CYCLE]) + 1 if plan[clock.BETA_CYCLE] > 0 else step
    ramp = min(1.0, place / plan[clock.BETA_WARMUP]) if plan[clock.BETA_WARMUP] > 0 else 1.0
    beta = plan[clock.BETA] * (1.0 if plan[clock.CAPACITY] > 0 else ramp)
    players = (plan.size - clock.PLAN_HEAD) // clock.PLAN
    for p in range(players):
        row, rate = plan[clock.PLAN_HEAD + p * clock.PLAN :][: clock.PLAN], rates[p * clock.RATES :][: clock.RATES]
        t = (step - 1) // int(row[clock.EVERY]) + 1
        warm = row[clock.LR_WARMUP]
        scale = min(1.0, t / warm) if warm > 0 else 1.0
        if row[clock.KIND] == clock.STEPWISE:
            scale *= row[clock.GAMMA] ** ((t - 1) // row[clock.PERIOD])
        elif row[clock.KIND] == clock.COSINE and t > warm:
            scale *= 0.5 * (1 + np.cos(np.pi * min(1.0, (t - 1 - warm) / max(1.0, row[clock.TOTAL] - warm))))
        rate[clock.LR] = row[clock.BASE_LR] * scale
        rate[clock.CORRECTION1] = 1 / (1 - row[clock.BETA1] ** t)
        rate[clock.CORRECTION2] = 1 / (1 - row[clock.BETA2] ** t)
        rate[clock.KL_BETA] = beta
        rate[clock.KL_CAPACITY], rate[clock.KL_FREE] = plan[clock.CAPACITY] * ramp, plan[clock.FREE_BITS]
    rates[players * clock.RATES :] = beta


def _adam_terms(a):
    rates = a["rates"]
    g = np.abs(a["grads"]) * rates[clock.CLIP]
    m = np.abs(a["beta1"] * a["m"]) + (1 - a["beta1"]) * g
    v = a["beta2"] * a["v"] + (1 - a["beta2"]) * g * g
    update = rates[clock.LR] * rates[clock.CORRECTION1] * m / (np.sqrt(v * rates[clock.CORRECTION2]) + a["eps"])
    return {"m": m, "v": v, "values": np.abs(a["values"]) + update}


def _sgd_terms(a):
    m = np.abs(a["momentum"] * a["m"]) + np.abs(a["grads"]) * a["rates"][clock.CLIP]
    return {"m": m, "values": np.abs(a["values"]) + a["rates"][clock.LR] * m}


def _tick_terms(a):
    """A correction c = 1 / (1 − βᵗ) is only as good as the difference, whose terms are c (1 + βᵗ) times as large."""
    rates = np.abs(results(tick, a)["rates"])
    count = (a["plan"].size - clock.PLAN_HEAD) // clock.PLAN * clock.RATES
    players = rates[:count].reshape(-1, clock.RATES)
    corrections = [clock.CORRECTION1, clock.CORRECTION2]
    players[:, corrections] *= 2 * players[:, corrections] - 1
    return {"rates": rates}


def _tick_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    head, plan, rates = clock.PLAN_HEAD, clock.PLAN, clock.RATES
    players, rest = divmod(dims["plan"] - head, plan)
    if players < 0 or rest:
        return f"plan must have {head} + {plan}·players elements, got {dims['plan']}"
    if dims["rates"] < players * rates:
        least = players * rates
        return f"rates must have {rates}·players + latent elements, at least {least}, got {dims['rates']}"
    return None


OPS = (
    Op(
        "grad_norm",
        (In("grads", "n"), Option("max_norm"), WORK,
         InOut("rates", str(clock.RATES), dtype="float64", draw="positive")),
        flat_examples(max_norm=1.0), per("n", cost=2), ulp=4, reduction=("n",), work=norm_workspace,
        variants=({"max_norm": 0.0}, {"max_norm": 1e9}),
    ),
    Op(
        "adam",
        (In("grads", "n"), RATES_IN, Option("beta1"), Option("beta2"), Option("eps"),
         InOut("values", "n"), InOut("m", "n"), InOut("v", "n", draw="positive")),
        flat_examples(beta1=0.9, beta2=0.999, eps=1e-8), per("n", cost=12), ulp=12, terms=_adam_terms,
    ),
    Op(
        "sgd",
        (In("grads", "n"), RATES_IN, Option("momentum"), InOut("values", "n"), InOut("m", "n")),
        flat_examples(momentum=0.9), per("n", cost=5), ulp=8, terms=_sgd_terms,
    ),
    Op(
        "tick",
        (In("plan", "plan", dtype="float64", draw="plan"),
         InOut("counters", str(clock.COUNTERS), dtype="uint64", draw="counters"),
         InOut("rates", "rates", dtype="float64", draw="positive")),
        {"tiny": {"plan": 16, "rates": 8}, "ragged": {"plan": 16, "rates": 11},
         "model": {"plan": 16, "rates": 28}},
        lambda dims: 20.0, ulp=4, rule=_tick_rule, terms=_tick_terms,
    ),
)  # fmt: skip
