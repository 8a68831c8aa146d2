"""The learner's files: a working file for each chapter, made from stubs, graded, and a record of what is done.
It knows files and wording; the grader knows functions."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import ConfigError
from .chapters import CHAPTERS, chapter_of
from .child_process import Result, answer, ask, is_here
from .exercise import Chapter
from .grade import grade

RECORD = ".progress.json"


def text_of(chapter: Chapter) -> Path | None:
    """Where the chapter's text lies: in the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parents[1]
    places = (package / "tutorials" / chapter.file, package.parent / "tutorials" / chapter.file)
    return next((p for p in places if p.exists()), None)


def working_file(chapter: Chapter, folder: Path) -> Path:
    """The file that the learner edits."""
    return folder / f"chapter_{chapter.number}.py"


def overview(folder: Path) -> str:
    """The chapters, each with how many of its exercises are done, and where its text is."""
    done = _record(folder)["done"]
    lines = []
    for chapter in CHAPTERS:
        right = sum(name in done.get(chapter.number, []) for name in (e.name for e in chapter.exercises))
        count = f"{right} of {len(chapter.exercises)} done" if chapter.exercises else "to read"
        lines.append(f"{chapter.number}  {chapter.title:<58} {count}")
    first = CHAPTERS[0]
    lines += ["", f"tinyvae learn {first.number} sets up {working_file(first, folder)}, and with --check grades it."]
    text = text_of(first)
    if text is not None:
        lines.append(f"The chapters' text: {text.parent}")
    return "\n".join(lines)


def set_up(chapter: Chapter, folder: Path) -> str:
    """Writes the working file, never over one that is there; returns what to do next."""
    path = working_file(chapter, folder)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        head = f"{chapter.title}.\nFill in each function, then: tinyvae learn {chapter.number} --check"
        parts = [f'"""{chapter.number}: {head}"""', chapter.preamble + "\n"]
        parts += [e.stub + "\n" for e in chapter.exercises]
        path.write_text("\n\n".join(parts), "utf-8")
        start = f"{path} is ready"
    else:
        start = f"{path} is there already and stays as it is"
    read = text_of(chapter)
    lines = [f"{start}: {', '.join(e.name for e in chapter.exercises)}."]
    if read is not None:
        lines.append(f"Read {read}")
    lines.append(f"Then tinyvae learn {chapter.number} --check; tinyvae learn {chapter.number} --hint NAME helps.")
    return "\n".join(lines)


def check(chapter: Chapter, folder: Path) -> Iterator[tuple[bool, str]]:
    """Grades every exercise of the working file: (right, what to print) for each; keeps a record of those done."""
    record = _record(folder)
    done = set(record["done"].get(chapter.number, []))
    for name, ok, text in grade_file(chapter, folder) if is_here(chapter) else ask(chapter, folder):
        (done.add if ok else done.discard)(name)
        yield ok, f"{name}: {text}"
    record["done"][chapter.number] = sorted(done)
    _keep(folder, record)


def grade_file(chapter: Chapter, folder: Path) -> Iterator[Result]:
    """Grades every exercise of the working file, in this process."""
    module = _load(chapter, folder)
    for exercise in chapter.exercises:
        function = getattr(module, exercise.name, None)
        if function is None:
            yield Result(exercise.name, False, "there is no such function in the file any more")
            continue
        verdict = grade(exercise, function)
        yield Result(exercise.name, verdict.ok, verdict.text)


def serve() -> None:
    """Grades chapter argv[1] in folder argv[2] for the process that started this one."""
    answer(grade_file, chapter_of(sys.argv[1]), Path(sys.argv[2]))


def hint(chapter: Chapter, name: str, folder: Path) -> str:
    """The next of three hints, and after them the solution."""
    exercise = chapter.exercise(name)
    if exercise is None:
        names = ", ".join(e.name for e in chapter.exercises)
        raise ConfigError(f"hint={name!r} is no exercise of chapter {chapter.number}; use one of {names}")
    record = _record(folder)
    key = f"{chapter.number}.{name}"
    given = record["hints"].get(key, 0)
    record["hints"][key] = given + 1
    _keep(folder, record)
    if given < len(exercise.hints):
        return f"hint {given + 1} of {len(exercise.hints)}: {exercise.hints[given]}"
    return f"the solution:\n\n{exercise.answer}"


def _load(chapter: Chapter, folder: Path) -> ModuleType:
    path = working_file(chapter, folder)
    if not path.exists():
        raise ConfigError(f"there is no {path}; tinyvae learn {chapter.number} sets it up")
    spec = importlib.util.spec_from_file_location(f"chapter_{chapter.number}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ConfigError(f"{path}, line {error.lineno}: {error.msg}") from None
    except Exception as error:
        raise ConfigError(f"{path} cannot be imported: {type(error).__name__}: {error}") from None
    return module


def _record(folder: Path) -> dict[str, Any]:
    try:
        read = json.loads((folder / RECORD).read_text("utf-8"))
        return {"done": dict(read["done"]), "hints": dict(read["hints"])}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or not ours: nothing is lost but the count
        return {"done": {}, "hints": {}}


def _keep(folder: Path, record: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).write_text(json.dumps(record, indent=1), "utf-8")
