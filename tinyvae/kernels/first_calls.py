"""The first calls of a compiled column's ops: which of them compile, told to whoever wants to show it.
It knows that compiling may happen, and when; not how, nor where machine code is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

Tell = Callable[[str, int, int], None]


class FirstCalls:
    """Counts the ops that were asked for and those that have run.

    tell: called as tell(name, number, count) when op `name`, the number-th of the count asked for, begins to compile;
    None for silence. An op whose machine code is found on the disk is counted and not told of.
    """

    def __init__(self) -> None:
        self.tell: Tell | None = None
        self.asked, self.begun = 0, 0

    def watch(self, name: str, run: Callable[..., None], compiler: Any) -> Callable[..., None]:
        """`run`, whose first call is watched. compiler: the module whose `on_compile` is called before it compiles."""
        self.asked += 1
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
        told = False

        def announce() -> None:
            nonlocal told
            if self.tell is not None and not told:
                told = True
                self.tell(name, number, self.asked)

        return announce
