"""Epochs: shuffle, step, evaluate, log, save; stop early, stop on ctrl-C, go on bit for bit.
It knows a model, images and a folder; not how a step works or what the command line looks like."""

from __future__ import annotations

import inspect
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from ..config import TrainConfig
from ..datasets import Dataset, as_dataset
from ..errors import ConfigError, DataError, TrainingError
from ..kernels.clock import COUNTERS, KL_BETA, SEED, STEP, Stream
from ..kernels.ops.noise import philox_bits
from ..models import Batch, Model
from . import checkpoint
from .signs import warning
from .step import Feed, Step, evaluate_pass

CHECKPOINT, BEST, METRICS = "checkpoint.safetensors", "best.safetensors", "metrics.jsonl"
VALIDATION_STEP = 0xFFFFFFFF  # the counter word, beyond any epoch, that shuffles before validation images are taken


class Interrupted(TrainingError):
    """Training was stopped by a signal; what was reached is saved where there is a folder to save in."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signum


def train(
    model: Model,
    images: Dataset | np.ndarray,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Trains `model` in place and returns the metrics rows, one per epoch, as `metrics.jsonl` holds them.

    images: a Dataset, or an array (N, H, W, C), uint8 or float in [0, 1], whose last 10 % of a shuffle are held out.
    out: a folder for `metrics.jsonl` and checkpoints; with `resume` the run in it goes on as if never interrupted.
    progress: a line per epoch on stderr, and a bar where that is a terminal; None does so only there.
    options: the fields of `TrainConfig`; a beta of None, the default, is the model's own, which is 1 but for the β-VAE.
    A row: {"epoch", "train": {figures}, "test": {figures}, "seconds"}, and "validation" where there is such a part;
    "train" is the mean over the epoch's images while training, "test" a pass at its end.
    """
    if options.get("beta") is None:
        options["beta"] = model.beta
    config = TrainConfig.from_options(options, "train")
    return Trainer(model, as_dataset(images), config, None if out is None else Path(out), resume, progress).run()


def _describe_options() -> None:
    """Gives `train` the signature and the docstring that its options have in TrainConfig."""
    here = inspect.signature(train)
    own = [p for p in here.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for f in fields(TrainConfig):
        default, kind = (None, "float | None") if f.name == "beta" else (f.default, f.type)
        own.append(inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind))
    train.__signature__ = here.replace(parameters=own)  # type: ignore[attr-defined]
    if train.__doc__:  # there is none under python -OO
        lines = "".join(f"    {f.name}: {f.metadata['help']}\n" for f in fields(TrainConfig))
        train.__doc__ = f"{train.__doc__.rstrip()}\n\n{lines}    "


_describe_options()


class Trainer:
    """One run: the feeds, the step, the rows so far, and the folder they are saved in."""

    def __init__(
        self,
        model: Model,
        data: Dataset,
        config: TrainConfig,
        out: Path | None = None,
        resume: bool = False,
        progress: bool | None = None,
    ) -> None:
        if data.image_shape != model.image_shape:
            raise DataError(f"images are {data.image_shape}, the model takes {model.image_shape}; build it for them")
        if config.early_stop and "loss" not in model.figure_names:
            name = type(model).__name__
            raise ConfigError(f"early_stop={config.early_stop}: {name} has no loss that falls to the end; leave it out")
        require_kl(model, config)
        self.model, self.config, self.out = model, config, out
        self.progress = sys.stderr.isatty() if progress is None else progress
        training, held = split_validation(data.train_images, config.validation, model.seed)
        known, held_known = data.train_labels, None
        if known is not None:
            known, held_known = split_validation(known, config.validation, model.seed)
        self.feed = Feed(model, training, config.binarize, labels=known)
        self.parts = {"test": Feed(model, data.test_images, config.binarize, True, data.test_labels)}
        if held is not None:
            self.parts["validation"] = Feed(model, held, config.binarize, True, held_known)
        model.clock.set(step=0)  # a model that was trained before starts a run of its own, from its weights
        self.step = Step(model, self.feed, config)
        self.told = 0.0  # when compiling was last shown
        if self.progress:
            model.kernels.first_calls.report = self._compiling
        self.rows: list[dict[str, Any]] = []
        self.warned = False
        self.best, self.since, self.spent = float("inf"), 0, 0.0
        if out is not None:
            make_folder(out)
            if resume:
                self._resume(out)
            elif (out / CHECKPOINT).exists() or (out / METRICS).exists():
                raise ConfigError(f"out={str(out)!r} holds a run already; resume it, or choose another folder")

    def run(self) -> list[dict[str, Any]]:
        """All epochs that are left."""
        with stop_flag() as stop:
            while self.step.epoch < self.config.epochs and not self._stopped_early():
                self._epoch(stop)
        return self.rows

    def _compiling(self, name: str, number: int, count: int) -> None:
        """Shows how far compiling is: in one place of a terminal, a line now and then in a log file."""
        text = f"compiling {number} of {count} kernels ({name}), first run only"
        if sys.stderr.isatty():
            print(f"\r{text:<80}\r", end="", file=sys.stderr, flush=True)
        elif time.perf_counter() - self.told > 2:
            self.told = time.perf_counter()
            print(text, file=sys.stderr, flush=True)

    # ------------------------------------------------------------------------------------------ an epoch

    def _epoch(self, stop: list[int]) -> None:
        epoch, first = self.step.epoch, self.step.done % self.step.per_epoch
        start = time.perf_counter()
        self.feed.shuffle(self.model.seed, epoch)
        if first == 0:
            self.model.device.fill(self.model.sums["train"], 0)
            self.spent = 0.0
        for _ in self._bar(range(first, self.step.per_epoch), epoch, first):
            if stop:  # asked before a step: after an epoch's last step its row is made first
                self.spent += time.perf_counter() - start
                self._interrupt(stop[0])
            batch = self.step.run()
            if self.config.check_finite:
                self._check_finite(batch)
        row: dict[str, Any] = {"epoch": epoch + 1, "train": self._figures("train")}
        for part, feed in self.parts.items():
            row[part] = evaluate_pass(self.model, feed)
        row["seconds"] = round(self.spent + time.perf_counter() - start, 3)
        self._close(row)

    def _close(self, row: dict[str, Any]) -> None:
        """The end of an epoch: judge the row, log it, save."""
        epoch = row["epoch"]
        if not all(np.isfinite(v) for part in ("train", *self.parts) for v in row[part].values()):
            raise TrainingError(
                f"the loss of epoch {epoch} is not a number; {self._kept()}try a smaller lr, or --clip 1"
            )
        self.rows.append(row)
        self.spent = 0.0
        if self.progress:
            print(describe(row, self.config.epochs), file=sys.stderr, flush=True)
            self._watch()
        better = False
        if "loss" in row.get("validation", ()) and epoch > self.config.warmup and self._at_full_weight():
            # before the KL weight has reached beta the losses of two epochs are not of one objective
            better = row["validation"]["loss"] < self.best
            self.best, self.since = (row["validation"]["loss"], 0) if better else (self.best, self.since + 1)
        if self.out is None:
            return
        append_row(self.out / METRICS, row)
        if better:  # first: the checkpoint says that it is there, and after a kill in between the epoch is made again
            self._save(BEST)
        if epoch % self.config.save_every == 0 or epoch == self.config.epochs or self._stopped_early():
            self._save(CHECKPOINT)

    def _watch(self) -> None:
        """Says once in a run that the game of two players goes wrong, where the log alone shows it."""
        if not self.warned and (sign := warning(self.rows)):
            self.warned = True
            print(f"warning: {sign}; see tinyvae doctor {self.out or 'RUN'}", file=sys.stderr, flush=True)

    def _at_full_weight(self) -> bool:
        """Whether the KL weight stands at beta; with cycles it does not in the first part of each."""
        rates = self.model.device.get(self.model.clock.player_rates(0))
        return float(rates[KL_BETA]) == self.config.beta

    def _stopped_early(self) -> bool:
        return bool(self.config.early_stop) and self.since >= self.config.early_stop

    def _figures(self, role: str) -> dict[str, float]:
        return self.model.figures(self.model.device.get(self.model.sums[role]))

    def _bar(self, steps: range, epoch: int, first: int) -> Any:
        if not (self.progress and sys.stderr.isatty()):
            return steps  # a log file gets a line per epoch and no bar
        from tqdm import tqdm

        name = f"epoch {epoch + 1}/{self.config.epochs}"
        return tqdm(steps, name, self.step.per_epoch, False, initial=first, unit="step", mininterval=0.2, ncols=80)

    def _check_finite(self, batch: Batch) -> None:
        """After each step where asked for: which tensor stopped being finite first."""
        device, table = self.model.device, self.model.table
        if np.isfinite(device.get(batch.metrics)).all() and np.isfinite(device.get(table.values)).all():
            return
        grads = [f"the gradient of {n}" for n in table.names() if not np.isfinite(device.get(table.grad(n))).all()]
        values = [n for n in table.names() if not np.isfinite(device.get(table.view(n))).all()]
        culprits = ", ".join((grads or values or ["the loss"])[:3])
        raise TrainingError(
            f"step {self.step.done}: {culprits} not finite; {self._kept()}try a smaller lr, or --clip 1"
        )

    def _kept(self) -> str:
        saved = self.out is not None and (self.out / CHECKPOINT).exists()
        return f"{self.out / CHECKPOINT} is intact; " if saved and self.out is not None else ""

    # ------------------------------------------------------------------------------------------ saving, going on

    def _save(self, name: str) -> None:
        assert self.out is not None
        extra = {"best": self.best, "since": self.since, "spent": self.spent}
        checkpoint.save(self.model, self.out / name, self.step, extra)

    def _interrupt(self, signum: int) -> None:
        """A signal came: save in the middle of the epoch, running sums included, and say how to go on."""
        where = f"stopped at step {self.step.done} (epoch {self.step.epoch + 1})"
        if self.out is None:
            raise Interrupted(f"{where}; nothing is saved as no folder was given", signum)
        self._save(CHECKPOINT)
        raise Interrupted(f"{where} and saved; go on with: tinyvae train --resume --out {self.out}", signum)

    def _resume(self, out: Path) -> None:
        extra = checkpoint.restore(out / CHECKPOINT, self.model, self.step)
        self.best, self.since, self.spent = extra["best"], extra["since"], extra["spent"]
        self.rows = read_rows(out / METRICS)[: self.step.epoch]
        if len(self.rows) != self.step.epoch:
            raise TrainingError(f"{out / METRICS} holds {len(self.rows)} epochs, the checkpoint {self.step.epoch}")
        write_rows(out / METRICS, self.rows)


def require_kl(model: Model, config: TrainConfig) -> None:
    """A ConfigError where an option is for a KL divergence and the model has none, or none in a bound to reshape."""
    weights, shapes = ("beta", "warmup", "cycles", "cycle_share"), ("capacity", "free_bits")
    asked = shapes if model.can.posterior else weights + shapes
    usual = {name: getattr(TrainConfig, name) for name in asked} | {"beta": model.beta}
    for name in () if model.can.bound else asked:
        if getattr(config, name) != usual[name]:
            why = "no KL divergence" if len(asked) > 2 else "no bound with a KL divergence"
            fix = "weigh its game by gamma" if name == "beta" and model.can.game == "codes" else "leave it out"
            raise ConfigError(f"{name}={getattr(config, name)!r}: {type(model).__name__} has {why}; {fix}")


def split_validation(images: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The training images without the last `count` of a seeded shuffle, and those; never images of the test part.

    Their labels, given in the images' place, are split alike.
    """
    if count == 0:
        return images, None
    if count >= len(images):
        raise ConfigError(f"validation={count} leaves no image of {len(images)} to train on; choose fewer")
    counters = np.zeros(COUNTERS, np.uint64)
    counters[SEED], counters[STEP] = np.uint64(seed), VALIDATION_STEP
    words = np.empty((1, len(images)), np.uint32)
    philox_bits(counters, Stream.SHUFFLE, words)
    order = np.argsort(words[0], kind="stable")
    return images[np.sort(order[:-count])], images[np.sort(order[-count:])]


def describe(row: dict[str, Any], epochs: int) -> str:
    """One line about an epoch: the objective while training and on the test part, and its two parts.

    Of two players, who have no common objective, each figure of the training part.
    """
    if "loss" not in row["test"]:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in row["train"].items())
        return f"epoch {row['epoch']}/{epochs}: train {figures}, {row['seconds']:.1f} s"
    key, name = ("neg_elbo", "−ELBO") if "neg_elbo" in row["test"] else ("loss", "loss")
    parts = f" (recon {row['test']['recon']:.2f} + KL {row['test']['kl']:.2f})" if key == "neg_elbo" else ""
    held = f", validation {row['validation'][key]:.2f}" if "validation" in row else ""
    figures = f"train {name} {row['train'][key]:.2f}, test {name} {row['test'][key]:.2f}{parts}{held}"
    return f"epoch {row['epoch']}/{epochs}: {figures}, {row['seconds']:.1f} s"


# ---------------------------------------------------------------------------------------------- files and signals


def make_folder(path: Path) -> None:
    """Creates a folder that can be written to, or a ConfigError that says why not."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"out={str(path)!r} cannot be written to ({error.strerror}); choose another folder") from None


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends one line of JSON and makes sure that it is on the disk before a checkpoint claims its epoch."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}); the last checkpoint is intact") from None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log. A line cut off by a crash ends it: its epoch is made again."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text("utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replaces the log, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    os.replace(temporary, path)


@contextmanager
def stop_flag() -> Iterator[list[int]]:
    """A list that ctrl-C (or SIGTERM) appends to, so that a step is never cut in two; the second ctrl-C is at once."""
    caught: list[int] = []

    def handler(signum: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(signum)

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, handler)
    except ValueError:
        pass  # not in the main thread: Python delivers signals elsewhere
    try:
        yield caught
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
