"""The clock: the few numbers that change from step to step, in small arrays on the device.

A recorded step reads them anew each time it runs. The op `tick` advances the clock.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

# counters, uint64. STEP counts from 1; 0 is the fixed step of evaluation noise. ROW is the place, in the whole set, of
# the first row of the batch: 0 while training, so that evaluation noise does not depend on the batch size.
STEP, EPOCH, CURSOR, ROW, SEED = range(5)
COUNTERS = 5

# rates, float64: one block of RATES per player, then the KL weights, one per latent dimension. The last three of a
# block are the KL's part of the objective at this step: weight, capacity (0 for none), free bits.
LR, CORRECTION1, CORRECTION2, CLIP, NORM, KL_BETA, KL_CAPACITY, KL_FREE = range(8)
RATES = 8

# plan, float64, written once before training: a head, then one block of PLAN per player.
STEPS_PER_EPOCH, BATCH_SIZE, BETA, BETA_WARMUP, BETA_CYCLE, CAPACITY, FREE_BITS = range(7)
PLAN_HEAD = 7
KIND, BASE_LR, LR_WARMUP, TOTAL, PERIOD, GAMMA, BETA1, BETA2, EVERY = range(9)
PLAN = 9

CONSTANT, STEPWISE, COSINE = range(3)
SCHEDULES = {"constant": CONSTANT, "step": STEPWISE, "cosine": COSINE}


class Stream(IntEnum):
    """The fourth counter word of Philox: who draws. A layer that draws noise takes LAYER + its ordinal."""

    INIT = 0
    SHUFFLE = 1
    BINARISE = 2
    EVALUATE = 3
    SAMPLE = 4
    LAYER = 16


class Clock:
    """`counters (5,)` uint64, `rates (8·players + latent,)` and `plan (7 + 9·players,)` float64.

    Float64 whatever the model's dtype: like the counters they steer, they are not data.
    """

    targeted = False  # whether the plan has a capacity or free bits: then the KL weights are computed for each batch

    def __init__(self, device: Any, players: int, latent_dim: int, seed: int) -> None:
        self.device, self.players = device, players
        self.counters = device.put(np.zeros(COUNTERS, np.uint64))
        self.rates = device.put(np.zeros(players * RATES + latent_dim, np.float64))
        self.plan = device.put(np.zeros(PLAN_HEAD + players * PLAN, np.float64))
        self.kl_weight = self.rates[players * RATES :]  # (latent,)
        device.fill(self.kl_weight, 1.0)
        self.set(seed=seed)

    def fork(self, step: int = 0) -> Clock:
        """A clock with separate counters (at `step`) and shared rates and plan: one for evaluation."""
        other = object.__new__(Clock)
        other.__dict__.update(self.__dict__)
        other.counters = self.device.put(np.zeros(COUNTERS, np.uint64))
        other.set(seed=int(self.get()[SEED]), step=step)
        return other

    def player_rates(self, player: int) -> Any:
        """The view `(8,)` of one player's block: LR, CORRECTION1, CORRECTION2, CLIP, NORM."""
        return self.rates[player * RATES : (player + 1) * RATES]

    def get(self) -> np.ndarray:
        """The counters as a NumPy copy."""
        return self.device.get(self.counters)

    def set(
        self,
        *,
        step: int | None = None,
        epoch: int | None = None,
        cursor: int | None = None,
        row: int | None = None,
        seed: int | None = None,
    ) -> None:
        """Overwrites the counters that are named; from the host, so never inside a recorded step."""
        host = self.get()
        for slot, value in ((STEP, step), (EPOCH, epoch), (CURSOR, cursor), (ROW, row), (SEED, seed)):
            if value is not None:
                host[slot] = np.uint64(value)
        self.device.put(host, self.counters)

    def set_plan(self, plan: np.ndarray) -> None:
        """Writes the whole plan; see `tick` for the meaning of each number."""
        self.device.put(plan.astype(np.float64), self.plan)
        self.targeted = bool(plan[CAPACITY] > 0 or plan[FREE_BITS] > 0)
