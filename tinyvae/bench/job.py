"""A job: what a library makes of a case, a call to repeat and the result of it; and the names of the libraries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import TinyvaeError
from ..kernels.check import Arrays
from . import peers
from .cases import CHECK_STEPS

OURS, OURS_ON_GPU = "numba", "cuda"
IN_PACKAGE = (OURS, "numpy")  # what the package itself can run; everything else is a program of `peers`


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
    """Whether the contestant's package is there, and its program where it is a peer; nothing is imported."""
    variant = Variant.of(name)
    return find_spec(variant.package) is not None and (variant.library in IN_PACKAGE or peers.folder() is not None)


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
