"""One training step on fixed buffers: tick, gather, loss and gradient, norm, optimiser.
It knows the order of a step; epochs, logs and files are training's."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import Adam, Optimizer, TrainConfig, make_optimizer
from ..errors import DataError
from ..kernels import OPS
from ..kernels.clock import CLIP, COSINE, COUNTERS, EPOCH, PLAN, PLAN_HEAD, SCHEDULES, SEED, STEP, Clock, Stream
from ..kernels.ops.noise import philox_bits
from ..models import Batch, Model, Player

COSINE_WARMUP = 0.05  # share of the run
STEP_GAMMA = 0.1
STEP_STAGES = 3


class Feed:
    """Images on the device, and how a batch is cut from them: in `order`, scaled, binarised or not.

    images: (N, H, W, C), uint8 or float in [0, 1]; they are uploaded once. binarize: "none", "static" or "dynamic".
    evaluation: draws from a stream of its own and once per image, whatever `binarize` says, unless that is "none".
    labels: (N,) for a conditional model; others leave them aside.
    """

    def __init__(
        self,
        model: Model,
        images: np.ndarray,
        binarize: str = "none",
        evaluation: bool = False,
        labels: np.ndarray | None = None,
    ) -> None:
        self.count, self.pixels = len(images), int(np.prod(images.shape[1:]))
        flat = np.ascontiguousarray(images).reshape(self.count, self.pixels)
        self.scale = 1 / 255 if flat.dtype == np.uint8 else 1.0
        self.images = model.device.put(flat if flat.dtype == np.uint8 else flat.astype(model.dtype))
        self.device, self.kernels = model.device, model.kernels
        self.order = model.device.put(np.arange(self.count, dtype=np.int64))
        self.gather = self.kernels.gather if binarize == "none" else self.kernels.gather_binary
        self.binarize, self.dynamic = binarize, int(binarize == "dynamic" and not evaluation)
        self.stream = int(Stream.EVALUATE if evaluation else Stream.BINARISE)
        self.labels = None
        if model.can.labels:
            if labels is None:
                raise DataError(f"{type(model).__name__} needs the label of every image, and there are none here")
            model.one_hot(labels, self.count)  # only its checks are wanted
            self.labels = model.device.put(np.asarray(labels, np.int64))
            self.gather_labels = self.kernels.gather_labels

    def shuffle(self, seed: int, epoch: int) -> None:
        """The order of an epoch: images sorted by their Philox word of stream `shuffle`, the epoch as the step."""
        counters = np.zeros(COUNTERS, np.uint64)
        counters[SEED], counters[STEP] = np.uint64(seed), epoch
        words = np.empty((1, self.count), np.uint32)
        philox_bits(counters, Stream.SHUFFLE, words)
        self.device.put(np.argsort(words[0], kind="stable"), self.order)

    def fill(self, batch: Batch) -> None:
        """batch.x ← the images at the clock's cursor."""
        x = batch.x.reshape(batch.rows, self.pixels)
        counters = batch.clock.counters
        if self.labels is not None:
            self.gather_labels(self.labels, self.order, counters, batch.labels)
        if self.binarize == "none":
            self.gather(self.images, self.order, counters, self.scale, x)
        else:
            self.gather(self.images, self.order, counters, self.scale, self.stream, self.dynamic, x)


class OptimizerState:
    """A player's optimiser on its range of the flat buffers: moments, and the update that reads the clock's rates."""

    def __init__(self, model: Model, player: Player, rates: Any, optimizer: Optimizer, clip: float) -> None:
        span = model.table.range_of(player.parts)
        self.grads, self.values, self.rates = model.table.grads[span], model.table.values[span], rates
        self.options, self.clip, self.grad_norm = optimizer, clip, model.kernels.grad_norm
        self.move = model.kernels.adam if isinstance(optimizer, Adam) else model.kernels.sgd
        self.m = model.device.empty(self.grads.shape, model.dtype)
        self.v = model.device.empty(self.grads.shape if isinstance(optimizer, Adam) else (0,), model.dtype)
        for moment in (self.m, self.v):
            model.device.fill(moment, 0)
        self.work = model.device.empty(OPS["grad_norm"].work_size(self.grads.shape) if clip else 0, model.dtype)
        if not clip:  # nobody asks for the norm then: the factor stays 1
            model.device.fill(rates[CLIP : CLIP + 1], 1)

    def update(self) -> None:
        """values ← values − step, with the gradients clipped by their global norm where that is asked for."""
        if self.clip:
            self.grad_norm(self.grads, self.clip, self.work, self.rates)
        o = self.options
        if isinstance(o, Adam):
            self.move(self.grads, self.rates, o.beta1, o.beta2, o.eps, self.values, self.m, self.v)
        else:
            self.move(self.grads, self.rates, o.momentum, self.values, self.m)


def make_plan(config: TrainConfig, optimizers: list[tuple[Optimizer, int]], per_epoch: int) -> np.ndarray:
    """The clock's plan (7 + 9·players,): `tick` says what each number means. optimizers: (options, every_n_steps)."""
    plan = np.zeros(PLAN_HEAD + PLAN * len(optimizers))
    cycle = -(-per_epoch * config.epochs // config.cycles) if config.cycles else 0
    warm = config.cycle_share * cycle if cycle else config.warmup * per_epoch
    plan[:PLAN_HEAD] = (
        per_epoch, config.batch_size, config.beta, warm, cycle, config.capacity, config.free_bits
    )  # fmt: skip
    for p, (optimizer, every) in enumerate(optimizers):
        total = -(-per_epoch * config.epochs // every)
        kind = SCHEDULES[config.schedule]
        warm = round(COSINE_WARMUP * total) if kind == COSINE else 0
        period = max(1, -(-total // STEP_STAGES))
        betas = (optimizer.beta1, optimizer.beta2) if isinstance(optimizer, Adam) else (0.0, 0.0)
        plan[PLAN_HEAD + p * PLAN :][:PLAN] = kind, optimizer.lr, warm, total, period, STEP_GAMMA, *betas, every
    return plan


class Step:
    """One training step, bound once: `run` makes the next one. Nothing travels between host and device inside it."""

    def __init__(self, model: Model, feed: Feed, config: TrainConfig) -> None:
        self.model, self.feed, self.config = model, feed, config
        self.per_epoch = -(-feed.count // config.batch_size)
        optimizers = [make_optimizer(p.optimizer, config.optimizer, config.lr) for p in model.players]
        every = [p.every_n_steps for p in model.players]
        model.set_plan(make_plan(config, list(zip(optimizers, every, strict=True)), self.per_epoch))
        self.optimizers = [
            OptimizerState(model, player, model.clock.player_rates(i), optimizers[i], config.clip)
            for i, player in enumerate(model.players)
        ]
        full = min(config.batch_size, feed.count)
        ragged = feed.count - (self.per_epoch - 1) * full if self.per_epoch > 1 else full
        self.batches = model.batch("train", full), model.batch("train", ragged)
        self.done = int(model.clock.get()[STEP])  # the host's mirror of the device's counter
        self.tick = model.kernels.tick
        self.recorded: dict[tuple[int, tuple[int, ...]], Any] = {}

    def run(self) -> Batch:
        """The next step; returns its batch, whose `metrics` row is filled."""
        last = (self.done + 1) % self.per_epoch == 0
        batch = self.batches[1 if last else 0]
        moving = tuple(i for i, p in enumerate(self.model.players) if self.done % p.every_n_steps == 0)
        key = (batch.rows, moving)
        if key not in self.recorded:
            self.recorded[key] = self.model.device.record(lambda: self._walk(batch, moving))
        self.recorded[key]()
        self.done += 1
        return batch

    def _walk(self, batch: Batch, moving: tuple[int, ...]) -> None:
        clock: Clock = self.model.clock
        self.tick(clock.plan, clock.counters, clock.rates)
        self.feed.fill(batch)
        self.model.loss(batch)
        for i in moving:
            self.model.grad(self.model.players[i], batch)
            self.optimizers[i].update()

    def resume(self) -> None:
        """Takes up the clock's count after a checkpoint was loaded into the model."""
        self.done = int(self.model.clock.get()[STEP])

    @property
    def epoch(self) -> int:
        """Whole epochs behind."""
        return self.done // self.per_epoch


def evaluate_pass(model: Model, feed: Feed, batch_size: int = 256) -> dict[str, float]:
    """The figures over all images of a feed, at the fixed evaluation noise; the same function as in training.

    Each image has noise of its own, drawn at its place in the feed: the result does not depend on the batch size. Only
    the loss does where free bits or a capacity are compared with the mean KL of a batch: it is the mean over batches.
    """
    sums = model.sums["evaluate"]
    model.device.fill(sums, 0)
    for start in range(0, feed.count, batch_size):
        rows = min(batch_size, feed.count - start)
        batch = model.batch("evaluate", rows)
        model.eval_clock.set(cursor=start, row=start * batch.samples)
        feed.fill(batch)
        model.loss(batch)
    return model.figures(model.device.get(sums))


__all__ = ["EPOCH", "Feed", "OptimizerState", "Step", "evaluate_pass", "make_plan"]
