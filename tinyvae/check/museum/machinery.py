"""Exhibits: optimisers, clock, random numbers, batches, and arrays that are handed out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...kernels import clock, load
from ...models import VAE
from .exhibit import Array, Exhibit, method_exhibit, op_exhibit, op_exhibits

right = load("numpy", unchecked=True)  # what the ops give that are not wrong

# ---------------------------------------------------------------------------------------------- optimisers


def no_bias_correction(
    grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array,
) -> None:  # fmt: skip
    """Adam without 1 / (1 − βᵗ): the first steps are three times too long, later all is well."""
    plain = rates.copy()
    plain[[clock.CORRECTION1, clock.CORRECTION2]] = 1
    right.adam(grads, plain, beta1, beta2, eps, values, m, v)


def eps_under_the_root(
    grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array
) -> None:
    """√(v + eps) for √v + eps: with eps = 1e-8 small gradients hardly move anything."""
    still = values.copy()
    right.adam(grads, rates, beta1, beta2, eps, still, m, v)
    values -= rates[clock.LR] * rates[clock.CORRECTION1] * m / np.sqrt(v * rates[clock.CORRECTION2] + eps)


def clip_for_one_moment(
    grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array
) -> None:
    """The first moment takes the clipped gradient, the second the unclipped one."""
    g = grads * rates[clock.CLIP]
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * grads**2
    values -= rates[clock.LR] * rates[clock.CORRECTION1] * m / (np.sqrt(v * rates[clock.CORRECTION2]) + eps)


def frozen_rate() -> Callable[..., None]:
    """An Adam that reads the learning rate at its first call only."""
    first: list[float] = []

    def adam(
        grads: Array, rates: Array, beta1: float, beta2: float, eps: float, values: Array, m: Array, v: Array,
    ) -> None:  # fmt: skip
        first.append(float(rates[clock.LR]))
        frozen = rates.copy()
        frozen[clock.LR] = first[0]
        right.adam(grads, frozen, beta1, beta2, eps, values, m, v)

    return adam


def always_rescaled(grads: Array, max_norm: float, work: Array, rates: Array) -> None:
    """max_norm / norm without min(1, ·): small gradients are blown up to the norm that was meant as
    a limit."""
    right.grad_norm(grads, max_norm, work, rates)
    if max_norm > 0:
        rates[clock.CLIP] = max_norm / rates[clock.NORM]


def largest_element_for_norm(grads: Array, max_norm: float, work: Array, rates: Array) -> None:
    """Clipping by the largest element, or per tensor: another direction, another algorithm."""
    rates[clock.NORM] = np.abs(grads).max()
    rates[clock.CLIP] = min(1.0, max_norm / rates[clock.NORM]) if max_norm > 0 else 1.0


def count_restarts(plan: Array, counters: Array, rates: Array) -> None:
    """Adam's step count starts anew at each epoch: the moments are corrected as if they were young."""
    right.tick(plan, counters, rates)
    t = int(counters[clock.CURSOR]) // int(plan[clock.BATCH_SIZE]) + 1
    for p in range((plan.size - clock.PLAN_HEAD) // clock.PLAN):
        row, rate = plan[clock.PLAN_HEAD + p * clock.PLAN :][: clock.PLAN], rates[p * clock.RATES :][: clock.RATES]
        rate[clock.CORRECTION1] = 1 / (1 - row[clock.BETA1] ** t)
        rate[clock.CORRECTION2] = 1 / (1 - row[clock.BETA2] ** t)


def warmup_never_ends(plan: Array, counters: Array, rates: Array) -> None:
    """beta · step / warmup without min(1, ·): the KL weight grows through the whole run."""
    right.tick(plan, counters, rates)
    players = (plan.size - clock.PLAN_HEAD) // clock.PLAN
    if plan[clock.BETA_WARMUP] > 0:
        rates[players * clock.RATES :] = plan[clock.BETA] * int(counters[clock.STEP]) / plan[clock.BETA_WARMUP]


OPTIMISER = (
    *op_exhibits("adam", no_bias_correction, eps_under_the_root, clip_for_one_moment),
    Exhibit(
        "learning-rate-frozen",
        "The learning rate is a number of the host, fixed when the step was recorded: the schedule does nothing.",
        {"adam": frozen_rate()},
    ),
    *op_exhibits("grad_norm", always_rescaled, largest_element_for_norm),
    *op_exhibits("tick", count_restarts, warmup_never_ends),
)

# ---------------------------------------------------------------------------------------------- noise and batches


def one_stream_for_all(counters: Array, stream: int, out: Array) -> None:
    """Every noisy layer draws from the same stream: two latent layers move together."""
    right.philox_normal(counters, 0, out)


def one_stream_of_bits(counters: Array, stream: int, out: Array) -> None:
    right.philox_bits(counters, 0, out)


def cosine_twice(counters: Array, stream: int, out: Array) -> None:
    """Box–Muller with the cosine in both lanes: each normal comes twice, neighbouring latents are
    equal."""
    right.philox_normal(counters, stream, out)
    pairs = out.shape[1] // 2 * 2
    out[:, 1:pairs:2] = out[:, 0:pairs:2]


def seed_cut_to_32_bits(counters: Array, stream: int, out: Array) -> None:
    """The key's upper half is dropped: seeds that differ only there give the same run."""
    half = counters.copy()
    half[clock.SEED] = counters[clock.SEED] & np.uint64(0xFFFFFFFF)
    right.philox_bits(half, stream, out)


def draw_turned_round(p: Array, counters: Array, stream: int, out: Array) -> None:
    """1 where uniform ≥ p: the negative of the picture, and at p = ½ nobody sees it."""
    right.philox_bernoulli(p, counters, stream, out)
    out[...] = 1 - out


def order_ignored(images: Array, order: Array, counters: Array, scale: float, x: Array) -> None:
    """The shuffled order is made and never used: every epoch sees the same batches."""
    right.gather(images, np.arange(len(order)), counters, scale, x)


def thresholded(
    images: Array, order: Array, counters: Array, scale: float, stream: int, dynamic: int, x: Array
) -> None:
    """x > ½ for a draw with probability x: another data set, with a far better likelihood."""
    right.gather(images, order, counters, scale, x)
    x[...] = x > 0.5


def static_redrawn(
    images: Array, order: Array, counters: Array, scale: float, stream: int, dynamic: int, x: Array
) -> None:
    """Static binarisation that draws at each visit: figures cannot be compared with those of the
    fixed set."""
    right.gather_binary(images, order, counters, scale, stream, 1, x)


right_encode = VAE.encode


def buffer_handed_out(self: VAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """encode returns the layer's own buffer: the user's first result changes at the second call."""
    z_mean, z_log_sigma = right_encode(self, x)
    assert z_log_sigma is not None
    both = self.__dict__.setdefault(f"_codes{len(z_mean)}", np.empty((2, *z_mean.shape), z_mean.dtype))
    both[0], both[1] = z_mean, z_log_sigma
    return both[0], both[1]


SUPPLY = (
    op_exhibit(philox_normal=one_stream_for_all, philox_bits=one_stream_of_bits),
    op_exhibit(philox_normal=cosine_twice),
    op_exhibit(philox_bits=seed_cut_to_32_bits),
    op_exhibit(philox_bernoulli=draw_turned_round),
    op_exhibit(gather=order_ignored),
    *op_exhibits("gather_binary", thresholded, static_redrawn),
    method_exhibit("Model", VAE, encode=buffer_handed_out),
)

MACHINERY = (*OPTIMISER, *SUPPLY)
