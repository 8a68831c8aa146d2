"""A group of cases, measured: workers started, results verified, times taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from ..kernels.check import WrongResult
from . import cases, peers
from .cases import Case
from .job import OURS, OURS_ON_GPU, BenchError, Variant, installed
from .pool import Contestant, Effort, Worker, in_turn

PEERS = {
    "products": ("numpy", "torch"),
    "convs": ("torch", "torch-channels-last"),
    "steps": ("torch", "torch-channels-last", "torch-compiled", "torch-channels-last-compiled", "jax"),
    "players": ("torch", "torch-channels-last", "torch-compiled", "torch-channels-last-compiled"),
    "ops": ("numpy",),
}
STEP_TURN = 0.2  # seconds: a step has more to vary than a product
Say = Callable[[str], None]
Row = dict[str, Any]


def missing(groups: Sequence[str]) -> list[str]:
    """One line for each package that a peer of these groups needs and that is not there, or one for all programs."""
    absent = [peer for group in groups for peer in PEERS.get(group, ()) if not installed(peer)]
    if absent and peers.folder() is None:
        return ["PyTorch and JAX are compared from a clone of the repository; measured here: tinyvae and NumPy"]
    packages = dict.fromkeys(Variant.of(peer).package for peer in absent)
    return [f"{package}: not installed: pip install {package}" for package in packages]


def measure_case(case: Case, contestants: Sequence[Contestant], dtype: str, effort: Effort, notes: list[str]) -> Row:
    """Loads the case everywhere, verifies every result, then times those that are right.

    Our own wrong result raises; a peer that fails or is wrong is left out and said so in `notes`.
    """
    kind = np.dtype(dtype).type
    ready: list[Contestant] = []
    for contestant in contestants:
        try:
            case.check(contestant.load(case, dtype), kind, Variant.of(contestant.name).tf32)
            ready.append(contestant)
        except (BenchError, WrongResult) as error:
            if Variant.of(contestant.name).library in (OURS, OURS_ON_GPU):
                raise
            wrong = "gives a wrong result" if isinstance(error, WrongResult) else "left out"
            notes.append(f"{case}: {contestant.name} {wrong}: {error}")
    times = in_turn(ready, effort)
    for contestant in ready:
        contestant.drop()
    return {
        "group": case.group, "name": case.name, "use": case.use, "dtype": dtype, "flops": case.flops(),
        "bytes": case.bytes(np.dtype(dtype).itemsize), "times": times,
    }  # fmt: skip


def measure_rates(worker: Contestant, dtype: str, effort: Effort) -> dict[str, float]:
    """The machine's rates at this moment: {"fma": operations per second, "copy": bytes per second}.

    They are measured by the peers' programs; {} where those are not there.
    """
    rates: dict[str, float] = {}
    if peers.folder() is None:
        return rates
    for case in peers.program("rates").cases():
        amount = float(worker.load(case, dtype)["amount"][0])
        rates[case.name] = amount / (in_turn([worker], effort)[worker.name]["us"] * 1e-6)
    worker.drop()
    return rates


def peers_of(case: Case, workers: dict[str, Worker]) -> list[Contestant]:
    """Ourselves and the peers that take part in a case: a dense network has no layout of images."""
    dense = case.model in ("vae", "aae")
    return [w for name, w in workers.items() if not (dense and "channels-last" in name)]


def measure_group(
    group: str, threads: int, dtype: str, effort: Effort, notes: list[str], say: Say
) -> tuple[list[Row], dict[str, float]]:
    """The rows of a group at a number of threads, and the machine's rates measured beside them."""
    names = [OURS, *(peer for peer in PEERS[group] if installed(peer))]
    rows = []
    with ExitStack() as stack:
        workers = {}
        for name in names:
            workers[name] = Worker(name, threads)
            stack.callback(workers[name].close)
        rates = measure_rates(workers[OURS], dtype, Effort(min(3, effort.rounds), effort.turn))
        for case in cases.CASES[group]():
            say(f"{group}, {threads} thread{'s' if threads > 1 else ''}: {case}")
            turn = Effort(effort.rounds, max(effort.turn, STEP_TURN)) if case.use == "step" else effort
            rows.append({**measure_case(case, peers_of(case, workers), dtype, turn, notes), "threads": threads})
    return rows, rates
