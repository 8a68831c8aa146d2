"""How an op is checked on any device: its examples and variants, guard bands around every array, bounds of float32.

Examples, variants and error terms of an op are fields of its row of the table; see `Op`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import kernels
from ..device import NumpyDevice, open_device
from ..errors import TinyvaeError
from .ops import OPS
from .ops.activation import BY_CODE, IDENTITY

Arrays = dict[str, np.ndarray]


class WrongResult(TinyvaeError, AssertionError):
    """An op returned a wrong result, or wrote outside its arrays."""


def require(holds: bool, sentence: str) -> None:
    """A WrongResult unless it holds."""
    if not holds:
        raise WrongResult(sentence)


# ---------------------------------------------------------------------------------------------- examples


def cases() -> Iterator[tuple[str, str]]:
    """(op, label) for every row of the table: its three examples, and the variants of the ragged one."""
    for name, op in OPS.items():
        for label in op.examples:
            yield name, label
        for i in range(len(op.variants)):
            yield name, f"ragged {i}"


def example(name: str, label: str, dtype: Any, seed: int = 0) -> list[Any]:
    """Host arguments of a case of the table; see `example_at`."""
    label, _, variant = label.partition(" ")
    options = OPS[name].variants[int(variant)] if variant else {}
    return example_at(name, {**OPS[name].examples[label], **options}, dtype, seed)


def example_at(name: str, lengths: Mapping[str, Any], dtype: Any, seed: int = 0) -> list[Any]:
    """Host arguments at these lengths and options. Inputs hold float32 numbers whatever the dtype; outputs hold NaN."""
    op = replace(OPS[name], examples={"case": lengths})
    arguments = op.example("case", dtype, seed)
    for arg, value in zip(op.args, arguments, strict=True):
        if arg.role in ("in", "inout") and value.dtype == np.float64:
            value[...] = value.astype(np.float32)
        if arg.role == "out" and lengths.get("add"):  # added to: as much an input
            value[...] = np.random.default_rng(seed + 1).standard_normal(value.shape).astype(np.float32)
    return arguments


def widened(arguments: Sequence[Any]) -> list[Any]:
    """The same arguments with every float32 array in float64."""
    return [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in arguments]


def depth_of(name: str, label: str) -> int:
    """The reduction depth of a case, as the table states it."""
    return OPS[name].depth(OPS[name].examples[label.split(" ")[0]])


# ---------------------------------------------------------------------------------------------- calls


GUARD = 64  # elements on either side of an array: as many as keep any dtype on a 64-byte boundary


def blank(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
    """A host array of NaN, or of the largest number for integers: nothing has been written."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).max, dtype)


class Guarded:
    """An array on the device in the middle of a larger buffer whose other elements are blank."""

    def __init__(self, device: NumpyDevice, host: np.ndarray, guard: int = GUARD) -> None:
        self.device, self.shape = device, host.shape
        whole = blank(host.size + 2 * guard, host.dtype)
        self.inside = slice(guard, guard + host.size)
        whole[self.inside] = host.reshape(-1)
        self.before, self.buffer = whole, device.put(whole)
        self.array = self.buffer[self.inside].reshape(host.shape)

    def get(self) -> np.ndarray:
        """A NumPy copy of the array."""
        return self.device.get(self.buffer)[self.inside].reshape(self.shape)

    def bands_intact(self) -> bool:
        """Whether every byte around the array is as it was."""
        after, before = self.device.get(self.buffer).copy(), self.before.copy()
        after[self.inside] = before[self.inside] = 0
        return after.tobytes() == before.tobytes()

    def unchanged(self) -> bool:
        """Whether every byte of the array is as it was."""
        return self.device.get(self.buffer).tobytes() == self.before.tobytes()


class GuardedDevice:
    """A device whose buffers start blank, between guard bands that nothing may write."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name = inner, inner.name
        self.guarded: list[Guarded] = []

    def __getattr__(self, name: str) -> Any:  # get, fill, sync, record are the inner device's
        return getattr(self.inner, name)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """A blank buffer between two bands."""
        self.guarded.append(Guarded(self.inner, blank(shape, dtype)))
        return self.guarded[-1].array

    def put(self, host: np.ndarray, out: Any = None) -> Any:
        """A host array on the device, in a guarded buffer unless `out` is given."""
        host = np.asarray(host)
        return self.inner.put(host, self.empty(host.shape, host.dtype) if out is None else out)

    def damaged(self) -> bool:
        """Whether a band of any buffer was written."""
        return not all(guarded.bands_intact() for guarded in self.guarded)


def call(name: str, arguments: Sequence[Any], device: str = "numpy", guard: int = GUARD, ops: Any = None) -> Arrays:
    """Calls the op through its checked function on guarded copies. Returns {argument: array} of what it wrote.

    Fails where a guard band or an input changed. ops: other functions than those of the device.
    """
    op, dev = OPS[name], open_device(device)
    guarded = [a if arg.role == "option" else Guarded(dev, a, guard) for arg, a in zip(op.args, arguments, strict=True)]
    returned = getattr(ops or kernels.load(device), name)(*(g.array if isinstance(g, Guarded) else g for g in guarded))
    dev.sync()
    require(returned is None, f"{name} returns {returned!r}")
    written = {}
    for arg, g in zip(op.args, guarded, strict=True):
        if not isinstance(g, Guarded):
            continue
        require(g.bands_intact(), f"{name} on {device} writes beside {arg.name}")
        if arg.role == "in":
            require(g.unchanged(), f"{name} on {device} changes its input {arg.name}")
        elif arg.role != "work":
            written[arg.name] = g.get()
    return written


class Runner:
    """Calls ops on NumPy arrays: run("dense", x, w, b, act, y=(B, N)) → y. In float64 unless `dtype` says otherwise.

    Inputs, options and arrays updated in place are in the op's order; outputs are named with their shapes; `work` is
    supplied. Returns what the op updated or wrote, one array or a tuple. A WrongResult says what the op harmed.
    """

    def __init__(self, device: str = "numpy", dtype: Any = np.float64, ops: Any = None) -> None:
        self.device, self.dtype = device, np.dtype(dtype)
        self.ops = ops or kernels.load(device)

    def __call__(self, name: str, *given: Any, **shapes: tuple[int, ...]) -> Any:
        op, feed = OPS[name], iter(given)
        arguments: dict[str, Any] = {}
        for arg in op.args:
            if arg.role == "out":
                arguments[arg.name] = blank(shapes[arg.name], self.dtype if arg.dtype == "float" else arg.dtype)
            elif arg.role == "work":
                arguments[arg.name] = None
            else:
                value = next(feed)
                arguments[arg.name] = value if arg.role == "option" else self._host(arg.dtype, value)
        if "work" in arguments:
            options = {arg.name: arguments[arg.name] for arg in op.args if arg.role == "option"}
            arrays = [a for a in arguments.values() if isinstance(a, np.ndarray)]
            size = op.work_size(*(a.shape if a.size else () for a in arrays), options=options)
            arguments["work"] = blank(size, self.dtype)
        results = tuple(call(name, list(arguments.values()), self.device, ops=self.ops).values())
        return results[0] if len(results) == 1 else results

    def _host(self, kind: str, value: Any) -> np.ndarray:
        value = np.asarray(value)
        if kind == "float" or (kind == "image" and value.dtype != np.uint8):
            return np.ascontiguousarray(value, self.dtype)
        return np.ascontiguousarray(value, None if kind == "image" else kind)


def call_reference(name: str, arguments: Sequence[Any]) -> Arrays:
    """The numpy column on copies; {argument: array} of what it wrote."""
    copies = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
    kernels.meaning(name)(*copies)
    return {arg.name: a for arg, a in zip(OPS[name].args, copies, strict=True) if arg.role in ("inout", "out")}


def assert_close(name: str, got: Arrays, want: Arrays, magnitudes: Arrays, depth: int, dtype: Any) -> None:
    """|got − want| ≤ (4·√depth + ulp) · ε · Σ|terms|, ε = 2⁻²⁴ or 2⁻⁵³; equal where the table states an ulp of 0.

    NaN anywhere is a failure: the comparison is true within the bound, and false for NaN.
    """
    ulp = OPS[name].ulp
    for argument, array in got.items():
        given, expected = array.shape, want[argument].shape
        require(given == expected, f"{name}: {argument} has shape {given}, expected {expected}")
        if not array.size:
            continue
        require(bool(np.isfinite(array).all()), f"{name}: {argument} is not finite, or not fully written")
        if ulp == 0 or array.dtype.kind != "f":
            require(np.array_equal(array, want[argument]), f"{name}: {argument} is not equal to the reference's")
            continue
        unit = 2.0**-24 if dtype == np.float32 else 2.0**-52  # float64 is compared with float64: both round
        bound = (4 * math.sqrt(depth) + ulp) * unit * magnitudes[argument]
        difference = np.abs(array.astype(np.float64) - want[argument])
        within = difference <= bound
        where = np.unravel_index(np.argmin(within), array.shape)
        place = [int(i) for i in where]
        off = f"{name}: {argument}{place} is off by {difference[where]:.3g} > {bound[where]:.3g}"
        require(bool(within.all()), off)


def assert_near(name: str, got: Arrays, want: Arrays, magnitudes: Arrays) -> None:
    """The same for products of factors rounded to 11 bits: ‖difference‖ ≤ 10⁻³·‖want‖, each one ≤ 2⁻⁹·Σ|terms|."""
    for argument, array in ((k, a) for k, a in got.items() if a.size):
        require(bool(np.isfinite(array).all()), f"{name}: {argument} is not finite, or not fully written")
        difference = np.abs(array.astype(np.float64) - want[argument])
        off = float(np.linalg.norm(difference) / np.linalg.norm(want[argument]))
        require(off <= 1e-3, f"{name}: {argument} is off by {off:.2g} of its norm")
        require(bool((difference <= magnitudes[argument] / 512).all()), f"{name}: an element of {argument} is off")


def verify_op(name: str, device: str, dtype: Any) -> None:
    """A WrongResult unless the op, on every case of the table, is within the bound of the float64 reference."""
    for label in (label for op, label in cases() if op == name):
        arguments = example(name, label, dtype)
        want = call_reference(name, widened(arguments))
        got = call(name, arguments, device)
        assert_close(name, got, want, magnitudes(name, arguments), depth_of(name, label), dtype)


# ---------------------------------------------------------------------------------------------- Σ|terms|


def magnitudes(name: str, arguments: Sequence[Any]) -> Arrays:
    """Σ|terms| of each output, in float64: what the rounding of a sum is proportional to."""
    op, a = OPS[name], {arg.name: v for arg, v in zip(OPS[name].args, widened(arguments), strict=True)}
    if op.linear:
        absolute = {
            arg.name: IDENTITY if arg.name == "act" else np.abs(v) if isinstance(v, np.ndarray) else v
            for arg, v in zip(op.args, a.values(), strict=True)
        }
        sums = call_reference(name, list(absolute.values()))
        if "act" in a and BY_CODE[a["act"]].value(np.zeros(1))[0] != 0:  # its own error adds to the sum's
            sums = {k: v + 1 for k, v in sums.items()}
        return sums
    after = {k: np.abs(v) for k, v in call_reference(name, widened(arguments)).items()}
    return after | op.terms(a)
