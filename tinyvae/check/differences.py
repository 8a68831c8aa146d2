"""Numeric derivatives in float64, and their comparison with the gradients that a subject gives itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .causes import Evidence, likely_cause
from .report import Failure, Row

RTOL = 1e-6  # largest relative error that passes
STEP = 1e-5  # of one element, times its size where that is above 1: about the cube root of float64's precision
DIRECTION_STEP = 1e-4  # along a direction of length 1
SHRINK = (1.0, 1 / 16, 1 / 256, 1 / 4096)  # steps tried until no kink lies between +h and −h
ROUNDING = 16.0  # outputs are taken to be right to so many units of their largest value
MANY = 5  # failures of one tensor after which no more are looked at twice, nor reported


@dataclass(frozen=True)
class Plan:
    """How much is looked at: every element of tensors up to `elements`; of larger ones `sampled` elements and
    `directions` random directions."""

    elements: int = 2000
    sampled: int = 200
    directions: int = 20


class Subject:
    """What is checked: named arrays (float64, on the host) go in, a vector of outputs comes out.

    J = Σ cotangent · outputs is differenced: a random cotangent makes one scalar cover the whole Jacobian.
    """

    name = ""
    where = ""
    batch = 1
    arrays: dict[str, np.ndarray]

    def put(self, name: str, value: np.ndarray) -> None:
        """Gives the array `name` another value."""
        raise NotImplementedError

    def outputs(self) -> np.ndarray:
        """The outputs (n,), computed anew with the noise as before; a copy."""
        raise NotImplementedError

    def pattern(self) -> bytes:
        """On which side of each kink the last outputs stood."""
        return b""

    def cotangents(self) -> np.ndarray:
        """(c, n): the cotangents to check with, the first of scale 1, the second of scale 100."""
        raise NotImplementedError

    def gradients(self, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        """dJ / d array for every array, as the backward pass under test gives it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Slope:
    """dJ/dt for each cotangent (c,), and how far rounding can have moved it (c,)."""

    value: np.ndarray
    noise: np.ndarray


class Line:
    """The outputs of a subject along a line through one of its arrays: t ↦ outputs(array + t · direction)."""

    def __init__(self, subject: Subject, name: str, cotangents: np.ndarray, direction: int | np.ndarray) -> None:
        self.subject, self.name, self.cotangents, self.direction = subject, name, cotangents, direction
        self.base = subject.arrays[name]
        single = isinstance(direction, int | np.integer)
        self.step = STEP * max(1.0, abs(float(self.base.flat[direction]))) if single else DIRECTION_STEP

    def at(self, t: float) -> tuple[np.ndarray, bytes]:
        """Outputs and kink pattern at t."""
        if isinstance(self.direction, np.ndarray):
            moved = self.base + t * self.direction
        else:
            moved = self.base.copy()
            moved.flat[self.direction] += t
        self.subject.put(self.name, moved)
        return self.subject.outputs(), self.subject.pattern()

    def width(self, h: float) -> float:
        """The distance between +h and −h after rounding."""
        if isinstance(self.direction, np.ndarray):
            return 2 * h
        x = float(self.base.flat[self.direction])
        return (x + h) - (x - h)

    def central(self, h: float) -> Slope | None:
        """(J(+h) − J(−h)) / 2h, the difference taken of each output before they are summed; None across a kink."""
        plus, side_plus = self.at(h)
        minus, side_minus = self.at(-h)
        if side_plus != side_minus:
            return None
        difference = plus - minus
        width = self.width(h)
        size = max(float(np.abs(plus).max(initial=0)), float(np.abs(minus).max(initial=0)))
        moved = difference != 0
        rounded = np.abs(self.cotangents) @ (ROUNDING * size * moved)
        rounded += np.abs(self.cotangents) @ (np.abs(plus) * ~moved)  # or it moved by less than its last place
        noise = np.finfo(np.float64).eps * rounded / width
        return Slope(self.cotangents @ difference / width, noise)

    def slope(self) -> Slope | None:
        """The central difference at the usual step, or at a smaller one where a kink is in the way."""
        for shrink in SHRINK:
            found = self.central(self.step * shrink)
            if found is not None:
                return found
        return None

    def ridders(self, row: int) -> Slope | None:
        """Ridders 1982: central differences at shrinking steps, extrapolated to h = 0, for one cotangent.

        noise is the smallest change between neighbours in the triangle, as far as it could be trusted.
        """
        factor, h = 1.6, self.step * 1e3
        previous: list[float] = []
        best, error = math.nan, math.inf
        for _ in range(14):
            found = self.central(h)
            h /= factor
            if found is None or not math.isfinite(found.value[row]):
                previous = []
                continue
            line, power = [float(found.value[row])], factor**2
            for j, above in enumerate(previous):
                line.append((line[j] * power - above) / (power - 1))
                power *= factor**2
                change = max(abs(line[j + 1] - line[j]), abs(line[j + 1] - above), float(found.noise[row]))
                if change < error:
                    best, error = line[j + 1], change
            previous = line
        return Slope(np.array([best]), np.array([error])) if math.isfinite(best) else None


def relative_error(analytic: float, numeric: float, noise: float) -> float:
    """|a − n| / (max(|a|, |n|) + noise / RTOL): up to RTOL exactly where |a − n| ≤ RTOL · max(|a|, |n|) + noise.

    Infinite where either is not finite: a NaN never passes.
    """
    if not (math.isfinite(analytic) and math.isfinite(numeric)):
        return math.inf
    apart = abs(analytic - numeric)
    return 0.0 if apart == 0 else apart / (max(abs(analytic), abs(numeric)) + noise / RTOL)


def _verdict(line: Line, found: Slope, analytic: np.ndarray, second_look: bool) -> tuple[np.ndarray, np.ndarray]:
    """Relative errors (c,) and numeric derivatives (c,); where one is suspicious, Ridders is asked."""
    errors, numeric = np.zeros(len(analytic)), found.value[: len(analytic)].copy()
    for row, a in enumerate(analytic):
        errors[row] = relative_error(a, numeric[row], found.noise[row])
        if errors[row] <= RTOL or not (second_look and math.isfinite(a)):
            continue
        better = line.ridders(row)
        near = line.central(line.step / 256)  # a kink that nobody told us of is seldom as close as this
        size = max(abs(a), abs(numeric[row]))
        for other, trust in ((better, 1e-5 * size), (near, 1e-5 * size)):
            if other is None:
                continue
            n, noise = (float(v[row if len(v) > 1 else 0]) for v in (other.value, other.noise))
            error = relative_error(a, n, min(noise, trust))
            if error < errors[row]:
                errors[row], numeric[row] = error, n
    return errors, numeric


@dataclass
class Compared:
    """What was found for one tensor under every cotangent: NaN where an element was not looked at."""

    numeric: np.ndarray  # (c, size)
    errors: np.ndarray  # (size,), the worst over cotangents
    failures: list[Failure]
    skipped: int = 0
    checked: int = 0
    worst: float = 0.0


def compare(
    subject: Subject, name: str, gradients: list[np.ndarray], cotangents: np.ndarray, plan: Plan,
    rng: np.random.Generator,
) -> tuple[Row, list[Failure]]:  # fmt: skip
    """One array: its gradients for each cotangent against differences, element by element or along directions."""
    base = subject.arrays[name]
    every = base.size <= plan.elements
    picks = range(base.size) if every else rng.choice(base.size, min(plan.sampled, base.size), replace=False)
    directions: list[np.ndarray] = []
    if not every:
        directions = [rng.standard_normal(base.shape) for _ in range(plan.directions)]
    flat = np.stack([g.reshape(-1) for g in gradients])  # (c, size)
    found = Compared(np.full((len(flat) + 1, base.size), np.nan), np.full(base.size, np.nan), [])
    with_ones = np.concatenate([cotangents, np.ones_like(cotangents[:1])])  # what they say helps to name the cause
    try:
        for d, direction in enumerate(directions):
            unit = direction / np.linalg.norm(direction)
            _one(found, Line(subject, name, with_ones, unit), flat @ unit.reshape(-1), f" along direction {d}")
        if found.failures and not len(picks):
            picks = rng.choice(base.size, min(40, base.size), replace=False)  # which elements are to blame?
        for i in picks:
            _one(found, Line(subject, name, with_ones, int(i)), flat[:, i], int(i))
    finally:
        subject.put(name, base)
    failures: list[Failure] = []
    if found.failures:
        cause = likely_cause(Evidence(flat, found.numeric, found.errors > RTOL, base.shape, subject.batch, cotangents))
        first = min(found.failures, key=lambda f: isinstance(f.index, str))  # an element says more than a direction
        index = _index(first.index, base.shape)
        failures = [Failure(subject.name, name, index, first.analytic, first.numeric, cause, subject.where)]
    ok = not failures and math.isfinite(found.worst)
    return Row(subject.where, name, base.shape, found.checked, found.skipped, found.worst, ok), failures


def _one(found: Compared, line: Line, analytic: np.ndarray, place: int | str) -> None:
    """Looks at one element or direction and notes it."""
    slope = line.slope()
    if slope is None and np.isfinite(analytic).all():
        found.skipped += 1
        return
    if slope is None:
        slope = Slope(np.full(len(line.cotangents), np.nan), np.zeros(len(line.cotangents)))
    errors, numeric = _verdict(line, slope, analytic, len(found.failures) < MANY)
    found.checked += 1
    row = int(np.argmax(errors))
    found.worst = max(found.worst, float(errors[row]))
    if isinstance(place, int):
        found.errors[place] = errors[row]
        found.numeric[:-1, place], found.numeric[-1, place] = numeric, slope.value[-1]
    if not errors[row] <= RTOL:
        index = (place,) if isinstance(place, int) else place
        found.failures.append(Failure("", "", index, float(analytic[row]), float(numeric[row])))


def _index(index: tuple[int, ...] | str, shape: tuple[int, ...]) -> tuple[int, ...] | str:
    return index if isinstance(index, str) else tuple(int(i) for i in np.unravel_index(index[0], shape))


def check_subject(subject: Subject, plan: Plan, rng: np.random.Generator) -> tuple[list[Row], list[Failure]]:
    """Every array of a subject: gradients for each cotangent, then differences; rows and failures."""
    cotangents = subject.cotangents()
    gradients: list[Mapping[str, np.ndarray]] = [subject.gradients(c) for c in cotangents]
    rows: list[Row] = []
    failures: list[Failure] = []
    for name in subject.arrays:
        if subject.arrays[name].size:
            given = [g[name] for g in gradients]
            row, wrong = compare(subject, name, given, cotangents, plan, rng)
            rows.append(row)
            failures += wrong
    return rows, failures
