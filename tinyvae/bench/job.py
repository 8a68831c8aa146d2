"""What a library makes of a case: a call to repeat, and how to look at its result.
It knows no library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import TinyvaeError
from .cases import CHECK_STEPS, Case
from .verify import Arrays

OURS, OURS_ON_GPU = "numba", "cuda"


class BenchError(TinyvaeError, RuntimeError):
    """A benchmark cannot be made; the sentence says what stopped it."""


@dataclass(frozen=True)
class Job:
    """run: timed; it makes `calls` calls. result: what the last one wrote, by names of the op. before: before each run,
    untimed. once: a single call, where `run` makes more."""

    run: Callable[[], Any]
    result: Callable[[], Arrays]
    before: Callable[[], None] | None = None
    calls: int = 1
    once: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Variant:
    """What a contestant's name asks for: torch-cuda-channels-last-compiled-captured-tf32 asks for everything."""

    library: str
    cuda: bool = False
    channels_last: bool = False
    compiled: bool = False
    captured: bool = False
    tf32: bool = False

    @staticmethod
    def of(name: str) -> Variant:
        """The variant of this name."""
        library = name.split("-")[0]
        words = ("cuda", "channels-last", "compiled", "captured", "tf32")
        return Variant(library, *(word in name for word in words))

    @property
    def package(self) -> str:
        """The Python package that it needs."""
        return {"cuda": "numba"}.get(self.library, self.library)


def installed(name: str) -> bool:
    """Whether the contestant's package is there; it is not imported."""
    return find_spec(Variant.of(name).package) is not None


Call = Callable[[], Any]


def burst(job: Job, calls: int, wait: Call, record: Callable[[Call], Call] | None = None) -> Job:
    """`calls` calls at a time, and then a wait for the GPU. record: makes one thing of them that is sooner launched."""

    def many() -> None:
        for _ in range(calls):
            job.run()

    repeat = record(many) if record else many

    def run() -> None:
        repeat()
        wait()

    return Job(run, job.result, calls=calls, once=job.run)


def step_job(run: Callable[[], Any], loss: Callable[[], float | list[float]]) -> Job:
    """A training step. Its result is the losses of the run's first steps, of a game one of each player: those of the
    step made before it is asked, and more."""

    def losses() -> Arrays:
        found = [loss()]
        for _ in range(CHECK_STEPS):
            run()
            found.append(loss())
        return {"losses": np.array(found)}

    return Job(run, losses)


def build(library: str, case: Case, dtype: str, threads: int) -> Job:
    """The job of a contestant; libraries are imported here and no earlier."""
    variant = Variant.of(library)
    if variant.library == "jax":
        from .jax_steps import jax_step

        return jax_step(case.model, dtype)
    if variant.library == "torch":
        from . import torch_ops, torch_players, torch_steps

        if case.group == "players":
            return torch_players.torch_players(case, dtype, threads, variant)
        if case.model:
            return torch_steps.torch_step(case, dtype, threads, variant)
        return torch_ops.torch_job(case, dtype, threads, variant)
    from . import ours

    if variant.cuda:
        return ours.cuda_job(case, dtype, "tf32" if variant.tf32 else "fp32")
    if case.group == "machine":
        from .machine import rate_job

        return rate_job(case.name, dtype)
    if case.model:
        return step_job(*ours.training_step(case, dtype, library))
    if library == "numpy" and case.group == "products":
        return ours.numpy_product(case, dtype)
    return ours.op_job(case, dtype, library)
