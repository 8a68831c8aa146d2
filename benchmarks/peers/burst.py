"""Many calls of a GPU at a time and then a wait for it, since a launch returns before its work is done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyvae.bench.cases import Case
from tinyvae.bench.job import Job

Call = Callable[[], Any]


def burst(job: Job, calls: int, wait: Call, record: Callable[[Call], Call] | None = None) -> Job:
    """`calls` calls at a time, and then a wait for the GPU. record: makes one graph of them, which launches sooner."""

    def many() -> None:
        for _ in range(calls):
            job.run()

    repeat = record(many) if record else many

    def run() -> None:
        repeat()
        wait()

    return Job(run, job.result, calls=calls, once=job.run)


def burst_of(case: Case) -> int:
    """Calls that a GPU is given at a time: some 2 ms of them by the fastest card's datasheet, 50 at most."""
    return max(1, min(50, round(2e-3 / max(case.flops() / 5e13, case.bytes(4) / 4e12, 1e-6))))
