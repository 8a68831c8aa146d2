"""The real command line with a probe: reports when the first training step is done, and the peak of memory.

The clock is its parent's, which reads these lines as they come.

    python -m tinyvae.bench.probe train --device numba …
"""

from __future__ import annotations

import runpy
import sys
from typing import Any, TextIO, cast

FIRST_STEP, PEAK = "@first step", "@peak bytes"


def mark(text: str) -> None:
    """A line for the parent."""
    print(text, file=sys.stderr, flush=True)


def peak_bytes() -> int:
    """The most memory that this process has held. Linux keeps it with the program, not with what was forked before."""
    try:
        with open("/proc/self/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        from resource import RUSAGE_SELF, getrusage

        return getrusage(RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def watch_first_step() -> None:
    """Marks the end of the first step that any Step makes."""
    from ..training.step import Step

    run = Step.run

    def first(self: Step) -> Any:
        batch = run(self)
        Step.run = run  # type: ignore[method-assign]
        mark(FIRST_STEP)
        return batch

    Step.run = first  # type: ignore[method-assign]


class UntilFirstLine:
    """stderr until a line is out. Then the step is watched: importing it takes time that the line does not wait for."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        count = self.stream.write(text)
        if "\n" in text:
            self.stream.flush()
            sys.stderr = self.stream
            watch_first_step()
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def main() -> None:
    """Runs `python -m tinyvae` with this process's arguments."""
    sys.stderr = cast(TextIO, UntilFirstLine(sys.stderr))
    try:
        runpy.run_module("tinyvae", run_name="__main__")
    finally:
        mark(f"{PEAK} {peak_bytes()}")


if __name__ == "__main__":
    main()
