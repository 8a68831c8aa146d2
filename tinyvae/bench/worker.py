"""A process of its own for one library at one number of threads: it takes orders as lines of JSON and answers so.

    python -m tinyvae.bench.worker LIBRARY THREADS

Two libraries in one process would wait for each other actively: each keeps threads that spin after their work.
Orders: {"do": "load", "case", "dtype", "result"} makes one call and writes its result to the file named;
{"do": "time", "warm", "calls"} answers with the seconds of each call; {"do": "drop"} forgets the case.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from . import jobs, peers
from .cases import Case
from .job import IN_PACKAGE, Job, Variant

Answer = dict[str, object]


def pin(threads: int) -> None:
    """Ties the process to as many CPUs as it has threads, where the system can: the last ones, the same for all."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def build(library: str, case: Case, dtype: str, threads: int) -> Job:
    """The job of a contestant; a peer's library is imported here and no earlier."""
    if library in IN_PACKAGE and case.group != "machine":
        return jobs.build(library, case, dtype)
    made: Job = peers.program().build(Variant.of(library), case, dtype, threads)
    return made


class Server:
    """The side of the worker: holds one job at a time."""

    def __init__(self, library: str, threads: int) -> None:
        self.library, self.threads = library, threads
        self.job: Job | None = None

    def load(self, order: dict) -> Answer:
        """Builds the case's job, makes one call and writes its result."""
        self.job = build(self.library, Case.from_json(order["case"]), order["dtype"], self.threads)
        start = time.perf_counter()
        if self.job.before:
            self.job.before()
        (self.job.once or self.job.run)()
        first = time.perf_counter() - start
        results: dict[str, Any] = dict(self.job.result())
        np.savez(order["result"], **results)
        return {"first": first}

    def time(self, order: dict) -> Answer:
        """The seconds of each of `calls` calls, after `warm` that are not counted; a mean for each run of several."""
        assert self.job is not None
        run, before, each, times = self.job.run, self.job.before, self.job.calls, []
        warm, runs = (-(-order[key] // each) for key in ("warm", "calls"))
        gc.disable()
        for i in range(warm + runs):
            if before:
                before()
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            if i >= warm:
                times.append(seconds / each)
        gc.enable()
        return {"times": times}

    def drop(self, order: dict) -> Answer:
        """Forgets the job and its arrays."""
        self.job = None
        gc.collect()
        return {}

    def answer(self, line: str) -> Answer:
        """What one order comes to; an error is an answer too."""
        order = json.loads(line)
        orders: dict[str, Callable[[dict], Answer]] = {"load": self.load, "time": self.time, "drop": self.drop}
        try:
            return orders[order["do"]](order)
        except Exception as error:  # whatever a library throws is the parent's to judge
            first = (str(error).strip().splitlines() or [""])[0]
            return {"error": f"{type(error).__name__}: {first}"}


def serve(server: Server, orders: TextIO, answers: TextIO) -> None:
    """Answers one order after the other until there are no more."""
    for line in orders:
        print(json.dumps(server.answer(line)), file=answers, flush=True)


def main() -> None:
    """Keeps the real stdout for answers; whatever a library prints goes to stderr."""
    library, threads = sys.argv[1], int(sys.argv[2])
    pin(threads)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(Server(library, threads), sys.stdin, answers)


if __name__ == "__main__":
    main()
