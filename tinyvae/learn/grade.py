"""The grader: runs a learner's function on arguments of several shapes, and says what is wrong with what it gives.
It knows one exercise at a time, and no files."""

from __future__ import annotations

import copy
import inspect
import traceback
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..gradient_check import gradcheck_fn
from .exercise import CASES, Arguments, Exercise, Function


@dataclass(frozen=True)
class Verdict:
    """ok, and one or more sentences. mistake: the planted wrong answer that the function equals, if any."""

    ok: bool
    text: str
    mistake: str | None = None


class _Complaint(Exception):
    """What is wrong with a result, in words."""


def grade(exercise: Exercise, function: Function, seed: int = 0) -> Verdict:
    """Judges a learner's function. A right one passes however it is written; a wrong one is told what is wrong."""
    try:
        for case in range(CASES):
            _judge(exercise, function, exercise.cases(np.random.default_rng((seed, case)), case))
    except NotImplementedError as error:
        return Verdict(False, str(error) or f"{exercise.name} is not written yet")
    except _Complaint as complaint:
        known = _known_mistake(exercise, function, seed)
        if known is not None:
            return Verdict(False, f"your function computes {known}", known)
        return Verdict(False, str(complaint))
    return Verdict(True, "right")


def _judge(exercise: Exercise, function: Function, arguments: Arguments) -> None:
    wanted = _called(exercise, exercise.solution, arguments)
    given = _called(exercise, function, arguments, wanted)
    if exercise.forward is not None:
        _same_form(given, wanted)
        arrays, forward = arguments[1:], exercise.forward
        report = gradcheck_fn(
            forward, lambda g, *xs: _results(function(g, *xs), wanted), *arrays, wrt=exercise.wrt, kinks=exercise.kinks
        )
        if not report.ok:
            raise _Complaint(_difference(given, wanted, exercise.tolerance) or str(report))
    _same_form(given, wanted)
    if complaint := _difference(given, wanted, exercise.tolerance):
        raise _Complaint(complaint)


def _called(
    exercise: Exercise, function: Function, arguments: Arguments, wanted: tuple[np.ndarray, ...] = ()
) -> tuple[np.ndarray, ...]:
    """What the function gives on a copy of the arguments; a complaint where it fails or changes its inputs."""
    names = list(inspect.signature(getattr(exercise.solution, "py_func", exercise.solution)).parameters)
    own = copy.deepcopy(arguments)
    try:
        result = function(*own)
    except NotImplementedError:
        raise
    except Exception as error:
        code = getattr(getattr(function, "py_func", function), "__code__", None)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if code and f.filename == code.co_filename]
        where = f" (line {frames[-1].lineno}: {frames[-1].line})" if frames else ""
        raise _Complaint(f"it stops with {type(error).__name__}: {error}{where}") from None
    for name, before, after in zip(names, arguments, own, strict=True):
        if name in exercise.writes or not isinstance(before, np.ndarray):
            continue
        if not np.array_equal(before, after, equal_nan=True):
            raise _Complaint(f"it changes its input {name}; work on a new array instead")
    if exercise.writes:
        return tuple(np.asarray(a) for n, a in zip(names, own, strict=True) if n in exercise.writes)
    if result is None:
        raise _Complaint("it returns None; is there a return at its end?")
    arrays = _results(result, wanted)
    for array in arrays:
        if not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
            raise _Complaint(f"it returns something that is no array of numbers, of type {array.dtype}")
    return arrays


def _results(result: Any, wanted: tuple[np.ndarray, ...] = ()) -> tuple[np.ndarray, ...]:
    """The results as arrays. Several come as a tuple or list, or as one array that holds them; one comes as an array,
    as a list of numbers, or row by row. wanted: the right ones, whose form settles what is meant."""
    if not isinstance(result, tuple | list):
        array = np.asarray(result)
        together = len(wanted) > 1 and array.shape == (len(wanted), *wanted[0].shape)
        return tuple(array) if together else (array,)
    arrays = tuple(map(np.asarray, result))
    if len({array.shape for array in arrays}) == 1:
        rows = np.stack(arrays)
        numbers = isinstance(result, list) and rows.ndim == 1 and len(wanted) < 2
        if numbers or (len(wanted) == 1 and rows.shape == wanted[0].shape):
            return (rows,)
    return arrays


def _same_form(given: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...]) -> None:
    if len(given) != len(wanted):
        raise _Complaint(f"it returns {len(given)} results where {len(wanted)} are asked for")
    for number, (a, b) in enumerate(zip(given, wanted, strict=True), 1):
        which = "the result" if len(wanted) == 1 else f"result {number}"
        if a.shape != b.shape:
            raise _Complaint(f"{which} has shape {a.shape} where {b.shape} is asked for")


def _close(given: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...], tolerance: float) -> bool:
    return _difference(given, wanted, tolerance) is None


def _difference(given: tuple[np.ndarray, ...], wanted: tuple[np.ndarray, ...], tolerance: float) -> str | None:
    """The largest difference in words, or None where there is none worth telling."""
    if len(given) != len(wanted):
        return f"it returns {len(given)} results where {len(wanted)} are asked for"
    for number, (a, b) in enumerate(zip(given, wanted, strict=True), 1):
        which = "the result" if len(wanted) == 1 else f"result {number}"
        if a.shape != b.shape:
            return f"{which} has shape {a.shape} where {b.shape} is asked for"
        if not a.size:
            continue
        here = np.isfinite(b)  # what is not finite in both is equal enough
        if (np.isfinite(a) != here).any():
            place = tuple(int(i) for i in np.argwhere(np.isfinite(a) != here)[0])
            return f"{which} is {a[place]} at {place}: an overflow, a division by zero, or a place never written"
        if not here.any():
            continue
        scale = np.abs(b[here]).max() or 1.0
        off = np.abs(np.where(here, a, 0) - np.where(here, b, 0))
        place = tuple(int(i) for i in np.unravel_index(off.argmax(), off.shape))
        if off[place] > tolerance * scale:
            return f"{which} is {_told(a, b, place)}{_hint(a, b, off[place] / scale)}"
    return None


def _told(a: np.ndarray, b: np.ndarray, place: tuple[int, ...]) -> str:
    """Both numbers, with as many digits as it takes to see the difference."""
    for digits in (6, 9, 12, 17):
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
    """The first planted mistake that the function equals on every case where that mistake differs from the truth."""
    for mistake in exercise.mistakes:
        seen = False
        for case in range(CASES):
            arguments = exercise.cases(np.random.default_rng((seed, case)), case)
            right = _called(exercise, exercise.solution, arguments)
            try:
                wrong, mine = (_called(exercise, f, arguments, right) for f in (mistake.wrong, function))
            except (_Complaint, NotImplementedError):
                break
            if not _close(mine, wrong, 1e-7):
                break
            seen = seen or not _close(wrong, right, exercise.tolerance)
        else:
            if seen:
                return mistake.says
    return None
