"""`tinyvae bench --device cuda`: the GPU's kernels and steps, verified, then timed beside PyTorch's."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tinyvae.bench import host
from tinyvae.bench.cases import Case
from tinyvae.bench.job import OURS_ON_GPU, BenchError, Variant, installed
from tinyvae.bench.measure import measure_case
from tinyvae.bench.pool import Contestant, Effort, Worker, in_turn
from tinyvae.bench.startup import EPOCHS, figures, train, watch
from tinyvae.config import require_choice, require_int

from . import cuda_cases

TURN = 0.05  # seconds of one contestant's turn
DTYPE = "float32"

Say = Callable[[str], None]
Results = dict[str, Any]


def measure(only: Sequence[str], rounds: int, say: Say, json_file: Path | None = None, epochs: int = EPOCHS) -> Results:
    """Measures the groups asked for, all where none is. After each row the file holds all that was found so far."""
    for group in only:
        require_choice("--only", group, cuda_cases.GROUPS)
    require_int("--rounds", rounds, 1)
    results: Results = {"machine": {**host.describe(), "gpu": gpu()}, "rows": [], "notes": []}
    if not installed("torch"):
        results["notes"].append("torch: not installed: pip install torch")
    for group in only or cuda_cases.GROUPS:
        if group == "training":
            results["training"] = measure_training(epochs, say)
            write(results, json_file)
            continue
        with workers(group, host.cores()) as team:
            warm_up(team, group, say)
            results["copy"] = max(copy_rate(team[OURS_ON_GPU], Effort(rounds, TURN)), results.get("copy", 0.0))
            for case in cuda_cases.CASES[group]():
                say(f"{group}: {case}")
                there = [team[name] for name in cuda_cases.contestants(case) if name in team]
                results["rows"].append(measure_case(case, there, DTYPE, Effort(rounds, TURN), results["notes"]))
                write(results, json_file)
    return results


def write(results: Results, json_file: Path | None) -> None:
    """The figures so far, for whoever must stop the run before its end."""
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def gpu() -> str:
    """The card and its driver, as `tinyvae info` gives them."""
    from tinyvae.device.machine import look

    return dict(look().lines())["GPU"]


@contextmanager
def workers(group: str, cores: int) -> Iterator[dict[str, Contestant]]:
    """A process for each contestant of a group whose package is there."""
    team = {name: Worker(name, cores) for name in cuda_cases.CONTESTANTS[group] if installed(name)}
    try:
        yield dict(team)
    finally:
        for worker in team.values():
            worker.close()


def warm_up(team: dict[str, Contestant], group: str, say: Say) -> None:
    """Libraries imported and compilers' caches filled, all at a time; what goes wrong will be seen when it counts.

    The cases themselves are loaded one after the other, as libraries choose their kernels by trying them.
    """
    cases = cuda_cases.CASES[group]()
    say(f"{group}: warming up")
    with ThreadPoolExecutor(32) as pool:
        for worker in team.values():
            pool.submit(_load, worker, cases[-1])
        for case in cases:
            for name in (n for n in cuda_cases.contestants(case) if Variant.of(n).compiled and n in team):
                pool.submit(_compile, name, case)


def _load(worker: Contestant, case: Case) -> None:
    with suppress(BenchError):
        worker.load(case, DTYPE)
        worker.drop()


def _compile(name: str, case: Case) -> None:
    worker = Worker(name, 1)
    try:
        _load(worker, case)
    finally:
        worker.close()


def copy_rate(worker: Contestant, effort: Effort) -> float:
    """Bytes that a copy on the GPU reads and writes in a second."""
    amount = float(worker.load(cuda_cases.COPY, DTYPE)["amount"][0])
    rate = amount / (in_turn([worker], effort)[worker.name]["us"] * 1e-6)
    worker.drop()
    return rate


def measure_training(epochs: int, say: Say) -> Results:
    """The default run from the command to its last test −ELBO: ours, compiling and compiled, and PyTorch's."""
    found: Results = {"epochs": epochs}
    with tempfile.TemporaryDirectory(prefix="tinyvae-bench-") as name:
        cache = {"TINYVAE_CACHE": str(Path(name, "cache"))}
        runs = [(label, train(Path(name, label), epochs, "cuda"), cache) for label in ("cold", OURS_ON_GPU)]
        peers = [peer for peer in cuda_cases.CONTESTANTS["training"][1:] if installed(peer)]
        runs += [(peer, ["peers.torch_train", str(epochs), peer], {}) for peer in peers]
        for label, command, variables in runs:
            say(f"training: {label}, {epochs} epochs")
            found[label] = figures(watch(command, 1, variables))
    return found
