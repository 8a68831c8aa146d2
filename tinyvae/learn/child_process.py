"""Grading in a child process, for chapters that need something set before Numba is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigError, TinyvaeError
from .exercise import Chapter


class Result(NamedTuple):
    """One exercise's name, whether its function is right, and what to say."""

    name: str
    ok: bool
    text: str


Grader = Callable[[Chapter, Path], Iterable[Result]]
PROGRAM = "from tinyvae.learn.workbook import serve; serve()"


def is_here(chapter: Chapter) -> bool:
    """Whether this process has what the chapter needs."""
    return all(os.environ.get(name) == value for name, value in chapter.environment.items())


def ask(chapter: Chapter, folder: Path) -> Iterator[Result]:
    """The results of a chapter from a process that has its environment, as they come."""
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **chapter.environment, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-c", PROGRAM, chapter.number, str(folder)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, encoding="utf-8") as child:
        assert child.stdout is not None
        for line in child.stdout:
            said = json.loads(line)
            if isinstance(said, str):
                raise ConfigError(said)
            yield Result(*said)
    if child.returncode:
        raise TinyvaeError(f"the process that grades chapter {chapter.number} ended with status {child.returncode}")


def answer(grader: Grader, chapter: Chapter, folder: Path) -> None:
    """That process: one line of JSON for each result, or a sentence where there can be none.

    What the learner's code prints goes to stderr, which both processes share.
    """
    with open(os.dup(1), "w", encoding="utf-8") as results:
        os.dup2(2, 1)
        try:
            for result in grader(chapter, folder):
                print(json.dumps(result), file=results, flush=True)
        except ConfigError as error:
            print(json.dumps(str(error)), file=results)
