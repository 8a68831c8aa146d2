"""What an exercise is: one function that the learner writes, the solution it is generated from, and what goes wrong.
It knows neither files nor how a verdict is worded."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

Function = Callable[..., Any]
Arguments = tuple[Any, ...]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give. says: what it is, in words that fit behind "your function computes ".

    wrong: a function that makes the mistake, with the exercise's own arguments.
    """

    says: str
    wrong: Function


@dataclass(frozen=True)
class Exercise:
    """One function to write. Its name, arguments and docstring are those of `solution`, the only place they stand.

    cases: draws arguments; called with a random generator and the number of the case, 0 … CASES − 1, each of another
    shape. forward: where the function is a backward pass, f(*arrays) whose gradient it is: the learner's function is
    called as backward(grad_y, *arrays) and checked numerically, so that no solution is needed to judge it. kinks: an
    array of the same arrays whose signs change where the forward function has a kink. wrt: the arrays that get a
    gradient, all where none are named. Both as `gradcheck_fn` takes them.
    writes: names of arguments that the function fills instead of returning something.
    run: run(function, *arguments) calls it, where that is not function(*arguments): a kernel is launched.
    tolerance: largest difference relative to the largest number.
    hints: three, each saying more than the one before.
    """

    solution: Function
    cases: Callable[[np.random.Generator, int], Arguments]
    mistakes: tuple[Mistake, ...]
    hints: tuple[str, str, str]
    forward: Function | None = None
    kinks: Function | None = None
    wrt: tuple[str, ...] | None = None
    writes: tuple[str, ...] = ()
    run: Function | None = None
    tolerance: float = 1e-9

    @property
    def name(self) -> str:
        """The function's name."""
        return self.solution.__name__

    @cached_property
    def several(self) -> bool:
        """Whether it returns several results, not one."""
        return not self.writes and isinstance(self.solution(*self.cases(np.random.default_rng(0), 0)), tuple)

    @property
    def stub(self) -> str:
        """The solution's head and docstring, and no body."""
        return _source(self.solution, keep_body=False)

    @property
    def answer(self) -> str:
        """The solution's source."""
        return _source(self.solution, keep_body=True)


CASES = 3


@dataclass(frozen=True)
class Chapter:
    """The exercises of one chapter. preamble: the lines at the top of the working file, imports above all.

    environment: variables that must be set before Numba is imported; such a chapter is graded in a process of its own.
    """

    number: str
    title: str
    file: str
    exercises: tuple[Exercise, ...]
    preamble: str = "import numpy as np"
    environment: Mapping[str, str] = field(default_factory=dict)

    def exercise(self, name: str) -> Exercise | None:
        """The exercise of this name."""
        return next((e for e in self.exercises if e.name == name), None)


def _source(function: Function, keep_body: bool) -> str:
    text = textwrap.dedent(inspect.getsource(getattr(function, "py_func", function)))
    if keep_body:
        return text.rstrip("\n")
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    assert ast.get_docstring(node), f"{node.name} needs a docstring: it is the task"
    head = text.split("\n")[: node.body[0].end_lineno]
    return "\n".join([*head, f'    raise NotImplementedError("{node.name} is not written yet")'])
