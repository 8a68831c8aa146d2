"""Workers as their parent uses them, and how several of them are timed in turn."""

from __future__ import annotations

import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import THREAD_VARIABLES
from ..kernels.check import Arrays
from . import peers
from .cases import Case
from .job import BenchError

PATIENCE = 600  # seconds that one answer may take: a compiler's first step is slow
PAUSE = 0.04  # seconds between turns: the threads of the one before fall asleep
LEAST_CALLS, MOST_CALLS = 3, 1000


class Contestant(Protocol):
    """What can be timed: a worker, or a test's stand-in."""

    name: str

    def load(self, case: Case, dtype: str) -> Arrays: ...
    def time(self, warm: int, calls: int) -> list[float]: ...
    def drop(self) -> None: ...


def environment(threads: int) -> dict[str, str]:
    """This process's environment with every library limited to `threads` threads; it imports this very package, and
    the same peers."""
    root, found = Path(__file__).resolve().parents[2], peers.folder()
    paths = [str(root), *([str(found)] if found else []), *filter(None, [os.environ.get("PYTHONPATH")])]
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**os.environ, **limits, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}


# Every library's OpenMP threads stay on cores of their own. Left alone, two of them that wait actively for each other
# may stand on one core, and then any call takes the 8 or 16 ms of the scheduler's turns.
BOUND = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}


class Worker:
    """A process that holds one library; `command` is replaced by tests."""

    def __init__(self, name: str, threads: int, command: Sequence[str] | None = None) -> None:
        self.name, self.threads = name, threads
        self.folder = tempfile.TemporaryDirectory(prefix="tinyvae-bench-")
        self.log = Path(self.folder.name) / "stderr"
        self.answers: queue.Queue[str | None] = queue.Queue()
        command = command or [sys.executable, "-m", "tinyvae.bench.worker", name, str(threads)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env={**environment(threads), **(BOUND if threads > 1 and "cuda" not in name else {})}, encoding="utf-8",
            )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Sends an order and waits for its answer; a BenchError where the worker reports one, dies or hangs."""
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self.answers.get(timeout=PATIENCE)
        except (BrokenPipeError, queue.Empty) as error:
            line = None if isinstance(error, BrokenPipeError) else ""
        if line == "":
            raise BenchError(f"{self.name} gave no answer for {PATIENCE} s; leave it out or look at {self.log}")
        if line is None:
            raise BenchError(f"{self.name}: its process ended with status {self.process.wait()}{self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text("utf-8", "replace").splitlines() if line.strip()]
        return f": {lines[-1].strip()}" if lines else ""

    def load(self, case: Case, dtype: str) -> Arrays:
        """Hands the case over; returns what its first call wrote."""
        path = Path(self.folder.name) / "result.npz"
        self.ask({"do": "load", "case": case.to_json(), "dtype": dtype, "result": str(path)})
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}

    def time(self, warm: int, calls: int) -> list[float]:
        """Seconds of each of `calls` calls, after `warm` uncounted ones."""
        times: list[float] = self.ask({"do": "time", "warm": warm, "calls": calls})["times"]
        return times

    def drop(self) -> None:
        """Lets the worker forget its case."""
        self.ask({"do": "drop"})

    def close(self) -> None:
        """Ends the process: it stops when its orders stop."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join(timeout=20)
        self.process.stdout.close()
        self.folder.cleanup()


# ---------------------------------------------------------------------------------------------- timing in turn


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and the seconds of one contestant's turn."""

    rounds: int = 5
    turn: float = 0.03


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median in µs, spread (interquartile range / median), and the number of calls."""
    median = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else (median,) * 3
    return {"us": median * 1e6, "spread": (high - low) / median, "calls": len(times)}


def in_turn(
    contestants: Sequence[Contestant], effort: Effort, rest: Callable[[float], None] = time.sleep
) -> dict[str, dict[str, float]]:
    """Times all contestants, which have loaded their case, in rounds whose order rotates; {name: summary}."""
    plans: dict[str, int] = {}
    for c in contestants:
        quick = min(c.time(1, 2))
        plans[c.name] = max(LEAST_CALLS, min(MOST_CALLS, round(effort.turn / max(quick, 1e-9))))
    times: dict[str, list[float]] = {c.name: [] for c in contestants}
    for i in range(effort.rounds):
        first = i % max(1, len(contestants))
        for c in [*contestants[first:], *contestants[:first]]:
            rest(PAUSE)
            calls = plans[c.name]
            times[c.name] += c.time(max(1, min(20, calls // 4)), calls)
    return {name: summary(found) for name, found in times.items()}
