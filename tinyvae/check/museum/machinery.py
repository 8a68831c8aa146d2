"""Exhibits of the third room: optimisers, clock, random numbers, batches, and arrays that are handed out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...kernels import load
from ...kernels.clock import (
    BATCH_SIZE,
    BETA,
    BETA1,
    BETA2,
    BETA_WARMUP,
    CLIP,
    CORRECTION1,
    CORRECTION2,
    CURSOR,
    LR,
    NORM,
    PLAN,
    PLAN_HEAD,
    RATES,
    SEED,
    STEP,
)
from ...models import VAE
from .exhibit import Array, Exhibit

right = load("numpy", unchecked=True)  # what the ops give that are not wrong

# ---------------------------------------------------------------------------------------------- optimisers


def uncorrected(
    grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array
) -> None:
    plain = rates.copy()
    plain[[CORRECTION1, CORRECTION2]] = 1
    right.adam(grads, plain, beta1, beta2, eps, values, m, v)


def eps_under_the_root(
    grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array
) -> None:
    still = values.copy()
    right.adam(grads, rates, beta1, beta2, eps, still, m, v)
    values -= rates[LR] * rates[CORRECTION1] * m / np.sqrt(v * rates[CORRECTION2] + eps)


def unclipped_variance(
    grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array
) -> None:
    g = grads * rates[CLIP]
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * grads**2
    values -= rates[LR] * rates[CORRECTION1] * m / (np.sqrt(v * rates[CORRECTION2]) + eps)


def frozen_rate() -> Callable[..., None]:
    """An Adam that reads the learning rate at its first call only."""
    first: list[float] = []

    def adam(
        grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array
    ) -> None:
        first.append(float(rates[LR]))
        frozen = rates.copy()
        frozen[LR] = first[0]
        right.adam(grads, frozen, beta1, beta2, eps, values, m, v)

    return adam


def always_rescaled(grads: Array, max_norm: float, work: Array, rates: Array) -> None:
    right.grad_norm(grads, max_norm, work, rates)
    if max_norm > 0:
        rates[CLIP] = max_norm / rates[NORM]


def largest_element(grads: Array, max_norm: float, work: Array, rates: Array) -> None:
    rates[NORM] = np.abs(grads).max()
    rates[CLIP] = min(1.0, max_norm / rates[NORM]) if max_norm > 0 else 1.0


def steps_of_the_epoch(plan: Array, counters: Array, rates: Array) -> None:
    right.tick(plan, counters, rates)
    t = int(counters[CURSOR]) // int(plan[BATCH_SIZE]) + 1
    for p in range((plan.size - PLAN_HEAD) // PLAN):
        row, rate = plan[PLAN_HEAD + p * PLAN :][:PLAN], rates[p * RATES :][:RATES]
        rate[CORRECTION1], rate[CORRECTION2] = 1 / (1 - row[BETA1] ** t), 1 / (1 - row[BETA2] ** t)


def endless_warmup(plan: Array, counters: Array, rates: Array) -> None:
    right.tick(plan, counters, rates)
    players = (plan.size - PLAN_HEAD) // PLAN
    if plan[BETA_WARMUP] > 0:
        rates[players * RATES :] = plan[BETA] * int(counters[STEP]) / plan[BETA_WARMUP]


OPTIMISER = (
    Exhibit(
        "no-bias-correction",
        "Adam without 1 / (1 − βᵗ): the first steps are three times too long, later all is well.",
        {"adam": uncorrected},
    ),
    Exhibit(
        "eps-under-the-root",
        "√(v + eps) for √v + eps: with eps = 1e-8 small gradients hardly move anything.",
        {"adam": eps_under_the_root},
    ),
    Exhibit(
        "clip-for-one-moment",
        "The first moment takes the clipped gradient, the second the unclipped one.",
        {"adam": unclipped_variance},
    ),
    Exhibit(
        "learning-rate-frozen",
        "The learning rate is a number of the host, fixed when the step was recorded: the schedule does nothing.",
        {"adam": frozen_rate()},
    ),
    Exhibit(
        "always-rescaled",
        "max_norm / norm without min(1, ·): small gradients are blown up to the norm that was meant as a limit.",
        {"grad_norm": always_rescaled},
    ),
    Exhibit(
        "largest-element-for-norm",
        "Clipping by the largest element, or per tensor: another direction, another algorithm.",
        {"grad_norm": largest_element},
    ),
    Exhibit(
        "count-restarts",
        "Adam's step count starts anew at each epoch: the moments are corrected as if they were young.",
        {"tick": steps_of_the_epoch},
    ),
    Exhibit(
        "warmup-never-ends",
        "beta · step / warmup without min(1, ·): the KL weight grows through the whole run.",
        {"tick": endless_warmup},
    ),
)

# ---------------------------------------------------------------------------------------------- noise and batches


def one_stream(counters: Array, stream: int, out: Array) -> None:
    right.philox_normal(counters, 0, out)


def one_stream_of_bits(counters: Array, stream: int, out: Array) -> None:
    right.philox_bits(counters, 0, out)


def cosine_twice(counters: Array, stream: int, out: Array) -> None:
    right.philox_normal(counters, stream, out)
    pairs = out.shape[1] // 2 * 2
    out[:, 1:pairs:2] = out[:, 0:pairs:2]


def seed_cut(counters: Array, stream: int, out: Array) -> None:
    half = counters.copy()
    half[SEED] = counters[SEED] & np.uint64(0xFFFFFFFF)
    right.philox_bits(half, stream, out)


def biased_draw(p: Array, counters: Array, stream: int, out: Array) -> None:
    right.philox_bernoulli(p, counters, stream, out)
    out[...] = 1 - out


def order_ignored(images: Array, order: Array, counters: Array, scale: float, x: Array) -> None:
    right.gather(images, np.arange(len(order)), counters, scale, x)


def thresholded(
    images: Array, order: Array, counters: Array, scale: float, stream: int, dynamic: int, x: Array
) -> None:
    right.gather(images, order, counters, scale, x)
    x[...] = x > 0.5


def redrawn_each_visit(
    images: Array, order: Array, counters: Array, scale: float, stream: int, dynamic: int, x: Array
) -> None:
    right.gather_binary(images, order, counters, scale, stream, 1, x)


right_encode = VAE.encode


def shared_buffer(self: VAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    z_mean, z_log_sigma = right_encode(self, x)
    assert z_log_sigma is not None
    both = self.__dict__.setdefault(f"_codes{len(z_mean)}", np.empty((2, *z_mean.shape), z_mean.dtype))
    both[0], both[1] = z_mean, z_log_sigma
    return both[0], both[1]


SUPPLY = (
    Exhibit(
        "one-stream-for-all",
        "Every noisy layer draws from the same stream: two latent layers move together.",
        {"philox_normal": one_stream, "philox_bits": one_stream_of_bits},
    ),
    Exhibit(
        "cosine-twice",
        "Box–Muller with the cosine in both lanes: each normal comes twice, neighbouring latents are equal.",
        {"philox_normal": cosine_twice},
    ),
    Exhibit(
        "seed-cut-to-32-bits",
        "The key's upper half is dropped: seeds that differ only there give the same run.",
        {"philox_bits": seed_cut},
    ),
    Exhibit(
        "draw-turned-round",
        "1 where uniform ≥ p: the negative of the picture, and at p = ½ nobody sees it.",
        {"philox_bernoulli": biased_draw},
    ),
    Exhibit(
        "order-ignored",
        "The shuffled order is made and never used: every epoch sees the same batches.",
        {"gather": order_ignored},
    ),
    Exhibit(
        "thresholded",
        "x > ½ for a draw with probability x: another data set, with a far better likelihood.",
        {"gather_binary": thresholded},
    ),
    Exhibit(
        "static-redrawn",
        "Static binarisation that draws at each visit: figures cannot be compared with those of the fixed set.",
        {"gather_binary": redrawn_each_visit},
    ),
    Exhibit(
        "buffer-handed-out",
        "encode returns the layer's own buffer: the user's first result changes at the second call.",
        methods=((VAE, "encode", shared_buffer),),
        place="Model",
    ),
)

MACHINERY = (*OPTIMISER, *SUPPLY)
