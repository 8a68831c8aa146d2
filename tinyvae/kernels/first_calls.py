"""The first calls of a compiled column's ops, and a report of those that compile."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

Report = Callable[[str, int, int], None]


class FirstCalls:
    """Counts the ops that were requested and those that have run.

    report: called as report(name, number, count) when op `name`, the number-th of `count` requested
    ops, begins to compile; None for no report. An op whose machine code is found on the disk is
    counted and not reported.
    """

    def __init__(self) -> None:
        self.report: Report | None = None
        self.requested, self.begun = 0, 0

    def watch(self, name: str, run: Callable[..., None], compiler: Any) -> Callable[..., None]:
        """`run`, whose first call is counted.

        compiler: the module whose `on_compile` is called before it compiles.
        """
        self.requested += 1
        waiting = True

        def call(*arguments: Any) -> None:
            nonlocal waiting
            if not waiting:
                run(*arguments)
                return
            waiting = False
            self.begun += 1
            compiler.on_compile = self._announcement(name, self.begun)
            try:
                run(*arguments)
            finally:
                compiler.on_compile = None

        return wraps(run)(call)

    def _announcement(self, name: str, number: int) -> Callable[[], None]:
        reported = False

        def announce() -> None:
            nonlocal reported
            if self.report is not None and not reported:
                reported = True
                self.report(name, number, self.requested)

        return announce
