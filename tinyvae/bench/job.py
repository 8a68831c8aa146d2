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

OURS = "numba"
# contestant → the Python package that it needs
PACKAGES = {
    OURS: "numba",
    "numpy": "numpy",
    "torch": "torch",
    "torch-channels-last": "torch",
    "torch-compiled": "torch",
    "torch-channels-last-compiled": "torch",
    "jax": "jax",
}


class BenchError(TinyvaeError, RuntimeError):
    """A benchmark cannot be made; the sentence says what stopped it."""


@dataclass(frozen=True)
class Job:
    """run: one call, timed. result: what it wrote, by names of the op. before: before each call, untimed."""

    run: Callable[[], Any]
    result: Callable[[], Arrays]
    before: Callable[[], None] | None = None


def installed(library: str) -> bool:
    """Whether the contestant's package is there; it is not imported."""
    return find_spec(PACKAGES[library]) is not None


def step_job(run: Callable[[], Any], loss: Callable[[], float]) -> Job:
    """A training step. Its result is the losses of the run's first steps: the one made before it is asked, and more."""

    def losses() -> Arrays:
        found = [loss()]
        for _ in range(CHECK_STEPS):
            run()
            found.append(loss())
        return {"losses": np.array(found)}

    return Job(run, losses)


def build(library: str, case: Case, dtype: str, threads: int) -> Job:
    """The job of a contestant; libraries are imported here and no earlier."""
    if case.group == "machine":
        from .machine import rate_job

        return rate_job(case.name, dtype)
    compiled, channels_last = "compiled" in library, "channels-last" in library
    if library == "jax":
        from .jax_steps import jax_step

        return jax_step(case.model, dtype)
    if PACKAGES[library] == "torch":
        from . import torch_ops, torch_steps

        if case.model:
            return torch_steps.torch_step(case.model, dtype, threads, compiled, channels_last)
        return torch_ops.torch_job(case, dtype, threads, channels_last)
    from . import ours

    if case.model:
        return ours.model_step(case.model, dtype, library)
    if library == "numpy" and case.group == "products":
        return ours.numpy_product(case, dtype)
    return ours.op_job(case, dtype, library)
