"""The grader: runs a learner's function on arguments of several shapes, and says what is wrong with what it gives.
It knows one exercise at a time, and no files."""

from __future__ import annotations

import copy
import inspect
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..check import gradcheck_fn
from .exercise import CASES, Arguments, Exercise, Function

LAUNCHES = 4  # of a wrong kernel, to see whether its threads race


@dataclass(frozen=True)
class Verdict:
    """ok, and one or more sentences. mistake: the planted wrong answer that the function equals, if any."""

    ok: bool
    text: str
    mistake: str | None = None


class _Complaint(Exception):
    """What is wrong with a result, in words."""


class _Stopped(_Complaint):
    """The function ends with an error of this kind."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


def grade(exercise: Exercise, function: Function, seed: int = 0) -> Verdict:
    """Judges a learner's function. A right one passes however it is written; a wrong one is told what is wrong."""
    try:
        for case in range(CASES):
            _judge(exercise, function, exercise.cases(np.random.default_rng((seed, case)), case))
    except NotImplementedError:
        return Verdict(False, f"{exercise.name} is not written yet")
    except _Complaint as complaint:
        known = _known_mistake(exercise, function, seed)
        if known is not None:
            return Verdict(False, f"your function computes {known}", known)
        race = "; other numbers come in another run: is a barrier missing?" if _races(exercise, function, seed) else ""
        return Verdict(False, f"{complaint}{race}")
    return Verdict(True, "right")


def _judge(exercise: Exercise, function: Function, arguments: Arguments) -> None:
    given = _called(exercise, function, arguments)
    wanted = _called(exercise, exercise.solution, arguments)
    if form := _form(given, wanted):
        raise _Complaint(form)
    if exercise.forward is not None:
        arrays, forward = arguments[1:], exercise.forward
        report = gradcheck_fn(
            forward,
            lambda g, *xs: _results(exercise, function(g, *xs)),
            *arrays,
            wrt=exercise.wrt,
            kinks=exercise.kinks,
        )
        if not report.ok:
            raise _Complaint(_difference(given, wanted, exercise.tolerance) or str(report))
    if complaint := _difference(given, wanted, exercise.tolerance):
        raise _Complaint(complaint)


def _called(exercise: Exercise, function: Function, arguments: Arguments) -> tuple[np.ndarray, ...]:
    """What the function gives on a copy of the arguments; a complaint where it fails or changes its inputs."""
    names = list(inspect.signature(getattr(exercise.solution, "py_func", exercise.solution)).parameters)
    own = copy.deepcopy(arguments)
    try:
        result = function(*own) if exercise.run is None else exercise.run(function, *own)
    except NotImplementedError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise _Stopped(kind, f"it stops with {kind}: {error}{_where(function, error)}") from None
    for name, before, after in zip(names, arguments, own, strict=True):
        if name in exercise.writes or not isinstance(before, np.ndarray):
            continue
        if not np.array_equal(before, after, equal_nan=True):
            raise _Complaint(f"it changes its input {name}; work on a new array instead")
    if exercise.writes:
        return tuple(np.asarray(a) for n, a in zip(names, own, strict=True) if n in exercise.writes)
    if result is None:
        raise _Complaint("it returns None; is there a return at its end?")
    try:
        arrays = _results(exercise, result)
    except ValueError:
        raise _Complaint("it returns a list whose rows are not of one length") from None
    for array in arrays:
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            raise _Complaint(f"it returns something that is no array of numbers, of type {array.dtype}")
    return arrays


def _where(function: Function, error: Exception) -> str:
    """The last line of the learner's own file that the error passed by, in words."""
    frames = traceback.extract_tb(error.__traceback__)
    code = getattr(getattr(function, "py_func", function), "__code__", None)
    own = [frame for frame in frames if code is not None and frame.filename == code.co_filename]
    return f" (line {own[-1].lineno}: {own[-1].line})" if own else ""


def _results(exercise: Exercise, result: Any) -> tuple[np.ndarray, ...]:
    """Several results come as a tuple, or as a list where several are asked for; else a list is one array."""
    several = isinstance(result, tuple) or (exercise.several and isinstance(result, list))
    return tuple(map(np.asarray, result)) if several else (np.asarray(result),)


def _form(given: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> str | None:
    """Which result is missing or has another shape; None where none is."""
    if len(given) != len(wanted):
        return f"it returns {len(given)} results where {len(wanted)} are asked for"
    for number, (a, b) in enumerate(zip(given, wanted, strict=True), 1):
        if a.shape != b.shape:
            return f"{_which(number, wanted)} has shape {a.shape} where {b.shape} is asked for"
    return None


def _which(number: int, wanted: tuple[np.ndarray, ...]) -> str:
    return "the result" if len(wanted) == 1 else f"result {number}"


def _close(given: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...], tolerance: float) -> bool:
    return _difference(given, wanted, tolerance) is None


def _difference(given: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...], tolerance: float) -> str | None:
    """The largest difference in words, or None where there is none worth telling."""
    if form := _form(given, wanted):
        return form
    for number, (a, b) in enumerate(zip(given, wanted, strict=True), 1):
        which = _which(number, wanted)
        if not a.size:
            continue
        given, right = np.isfinite(a), np.isfinite(b)  # b is a wrong answer too, which may leave places unwritten
        if (given != right).any():
            place = tuple(int(i) for i in np.argwhere(given != right)[0])
            if right[place]:
                return f"{which} is {a[place]} at {place}: an overflow, a division by zero, or a place never written"
            return f"{which} is {a[place]} at {place} where {b[place]} is right"
        a, b = np.where(right, a, 0), np.where(right, b, 0)
        scale = np.abs(b).max() or 1.0
        off = np.abs(a - b)
        place = tuple(int(i) for i in np.unravel_index(off.argmax(), off.shape))
        if off[place] > tolerance * scale:
            return f"{which} is {_told(a, b, place)}{_hint(a, b, off[place] / scale)}"
    return None


def _told(a: np.ndarray, b: np.ndarray, place: tuple[int, ...]) -> str:
    """Both numbers, with as many digits as it takes to see the difference."""
    whole = a.dtype.kind in "iu" and b.dtype.kind in "iu"
    for digits in (20,) if whole else (6, 9, 12, 17):
        mine, right = f"{a[place]:.{digits}g}", f"{b[place]:.{digits}g}"
        if mine != right:
            break
    return f"{mine}{f' at {place}' if place else ''} where {right} is right"


def _hint(a: np.ndarray, b: np.ndarray, off: float) -> str:
    factor = _factor(a, b)
    if factor is not None and f"{factor:g}" != "1":
        return f"; everywhere {factor:g} times too large"
    if a.dtype in (np.float32, np.float16) and off < 1e-2:
        return f"; {a.dtype} has too few digits to judge it, compute in float64"
    return ""


def _factor(a: np.ndarray, b: np.ndarray) -> float | None:
    """The one number that all results are off by, if there is one."""
    here = np.abs(b) > 1e-6 * np.abs(b).max()
    ratios = a[here] / b[here]
    if ratios.size > 1 and ratios[0] and np.allclose(ratios, ratios[0], rtol=1e-6):
        return float(ratios[0])
    return None


def _known_mistake(exercise: Exercise, function: Function, seed: int) -> str | None:
    """The first planted mistake that the function equals on every case, where that mistake differs from the truth.

    Two that stop with errors of one kind are equal there; but on some case they must have given the same results.
    """
    for mistake in exercise.mistakes:
        differs = equal = False
        for case in range(CASES):
            arguments = exercise.cases(np.random.default_rng((seed, case)), case)
            wrong, mine = (_outcome(exercise, f, arguments) for f in (mistake.wrong, function))
            if isinstance(wrong, str) or isinstance(mine, str):
                if mine != wrong or mine == "":
                    break
                differs = True
                continue
            if not _close(mine, wrong, 1e-7):
                break
            equal = True
            differs = differs or not _close(wrong, _called(exercise, exercise.solution, arguments), exercise.tolerance)
        else:
            if differs and equal:
                return mistake.says
    return None


def _races(exercise: Exercise, function: Function, seed: int) -> bool:
    """Whether a kernel gives other numbers when it is launched again with the same arguments."""
    if exercise.run is None:
        return False
    arguments = exercise.cases(np.random.default_rng((seed, 0)), 0)
    outcomes = [_outcome(exercise, function, arguments) for _ in range(LAUNCHES)]
    given = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    return len(given) == LAUNCHES and not all(_close(other, given[0], 0) for other in given)


def _outcome(exercise: Exercise, function: Function, arguments: Arguments) -> tuple[np.ndarray, ...] | str:
    """What the function gives; the kind of error it stops with; "" where its results cannot be compared."""
    try:
        return _called(exercise, function, arguments)
    except _Stopped as stopped:
        return stopped.kind
    except (_Complaint, NotImplementedError):
        return ""
