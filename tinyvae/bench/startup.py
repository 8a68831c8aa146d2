"""How long until the first line, until training begins, until the default network is trained; and the memory."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .job import BenchError, installed
from .pool import environment
from .probe import FIRST_STEP, PEAK

BAR = 106.0  # nats: the test −ELBO that the default run must reach
EPOCHS = 10
EPOCH_LINE = re.compile(r"epoch (\d+)/\d+:.*test −ELBO ([\d.]+)")

Lines = list[tuple[float, str]]
Say = Callable[[str], None]


def watch(command: Sequence[str], threads: int, variables: dict[str, str]) -> Lines:
    """Runs a command; its lines on stderr, each with the seconds since the command was given."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**environment(threads), **variables}, encoding="utf-8",
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr:
        lines = [(time.perf_counter() - start, line.rstrip()) for line in process.stderr]
    if process.wait():
        last = lines[-1][1] if lines else "no line printed"
        raise BenchError(f"{' '.join(command)} ended with status {process.returncode}: {last}")
    return lines


def figures(lines: Lines) -> dict[str, Any]:
    """What the lines of one run say: seconds to the first line, to the first step, to the bar, to the last epoch's
    figures; the peak of memory."""
    epochs = [(t, m) for t, line in lines if (m := EPOCH_LINE.match(line))]
    reached = next(((t, m) for t, m in epochs if float(m[2]) <= BAR), None)
    peak = next((int(line.split()[-1]) for _, line in lines if line.startswith(PEAK)), None)
    return {
        "first_line": lines[0][0] if lines else None,
        "first_step": next((t for t, line in lines if line == FIRST_STEP), None),
        "peak_bytes": peak,
        "to_bar": reached[0] if reached else None,
        "to_bar_epochs": int(reached[1][1]) if reached else None,
        "trained": epochs[-1][0] if epochs else None,
        "neg_elbo": float(epochs[-1][1][2]) if epochs else None,
    }


def train(folder: Path, epochs: int, device: str = "numba") -> list[str]:
    """The default run on a device."""
    return ["tinyvae.bench.probe", "train", "--device", device, "--epochs", str(epochs), "--out", str(folder)]


def measure_startup(threads: int, epochs: int, say: Say) -> dict[str, Any]:
    """One epoch with a cold cache, one with a warm one, then the run to the bar; the last two by PyTorch too."""
    found: dict[str, Any] = {"threads": threads, "epochs": epochs}
    with tempfile.TemporaryDirectory(prefix="tinyvae-bench-") as name:
        folder = Path(name)
        cache = {"TINYVAE_CACHE": str(folder / "cache")}
        for label, length in (("cold", 1), ("warm", 1), ("whole", epochs)):
            say(f"startup: {label}, {length} epoch{'s' if length > 1 else ''}")
            found[label] = figures(watch(train(folder / label, length), threads, cache))
    for label in ("torch", "torch-compiled"):
        if not installed(label):
            continue
        # the first run of a compiled program fills its cache, as ours was filled
        for part, length in (("warm", 1), ("whole", epochs)):
            say(f"startup: {label}, {length} epoch{'s' if length > 1 else ''}")
            command = ["peers.torch_train", str(length), label]
            found.setdefault(label, {})[part] = figures(watch(command, threads, {}))
    return found
