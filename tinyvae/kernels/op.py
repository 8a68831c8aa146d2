"""What an op is: its arguments, their shapes and dtypes, examples, cost and rounding error.

Checks a call before it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import KernelError
from . import clock

NO_OPTIONS: Mapping[str, Any] = {}
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class Arg:
    """One argument of an op.

    role: "in", "inout" (updated in place), "out" (overwritten), "work" (scratch) or "option" (no array).
    dims: one symbol per axis ("B", "K", or "2*L"); equal symbols have equal lengths in one call.
    dtype: "float" (the one floating dtype of the call), or a NumPy name; "image" is uint8 or the floating dtype.
    optional: length 0 stands for "none". draw: how an example is filled.
    choices: of an option of dtype "choice", the names of its values 0, 1, …
    """

    name: str
    role: str
    dims: tuple[str, ...] = ()
    dtype: str = "float"
    optional: bool = False
    draw: str = "normal"
    choices: tuple[str, ...] = ()


def In(name: str, *dims: str, dtype: str = "float", optional: bool = False, draw: str = "normal") -> Arg:
    """An array that is read."""
    return Arg(name, "in", dims, dtype, optional, draw)


def InOut(name: str, *dims: str, dtype: str = "float", draw: str = "normal") -> Arg:
    """An array that is updated in place."""
    return Arg(name, "inout", dims, dtype, draw=draw)


def Out(name: str, *dims: str, dtype: str = "float", optional: bool = False) -> Arg:
    """An array that is overwritten."""
    return Arg(name, "out", dims, dtype, optional)


def Option(name: str, kind: str = "number", choices: tuple[str, ...] = ()) -> Arg:
    """An argument that is no array."""
    return Arg(name, "option", (), kind, choices=choices)


WORK = Arg("work", "work", ("work",))
ADD = Option("add", "flag")  # 1: gradients are added to what is there
COUNTERS_IN = In("counters", str(clock.COUNTERS), dtype="uint64", draw="counters")
RATES_IN = In("rates", str(clock.RATES), dtype="float64", draw="positive")

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DRAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "unit": lambda rng, shape: rng.random(shape),
    "positive": lambda rng, shape: rng.random(shape) + 0.1,
    "bytes": lambda rng, shape: rng.integers(0, 256, shape),
    "order": lambda rng, shape: rng.integers(0, 3, shape),
    "counters": lambda rng, shape: np.array([3, 0, 1, 0, 0xC0FFEE1234567890], np.uint64),
    "plan": lambda rng, shape: np.array(
        [5, 32, 0.5, 10, 3, 25, 0.1, 2, 1e-3, 2, 100, 10, 0.5, 0.9, 0.999, 2], np.float64
    ),
}


@dataclass(frozen=True)
class Op:
    """A row of the table of contents. `run` of a column is a function of these arguments.

    flops: of one call, from its lengths. ulp: the elementwise error beyond rounding of sums, in units in the last
    place. reduction: the lengths whose product is the depth of the longest sum. linear: outputs are linear in each
    array input, so |terms| are summed by calling the op on absolute values. terms: Σ|terms| of each output, from the
    arguments by name; an output that it leaves out has |output|.
    examples: label → lengths and options; "tiny", "ragged" and "model". variants: further options and lengths with
    which the ragged example is tried; no_NAME leaves out the optional array NAME.
    """

    name: str
    args: tuple[Arg, ...]
    examples: Mapping[str, Mapping[str, Any]]
    flops: Callable[[Mapping[str, Any]], float]
    ulp: float = 1.0
    reduction: tuple[str, ...] = ()
    linear: bool = False
    rule: Callable[[Mapping[str, Any], Mapping[str, Any]], str | None] = lambda dims, options: None
    work: Callable[[Mapping[str, Any]], int] = field(default=lambda dims: 0)
    variants: tuple[Mapping[str, Any], ...] = ()
    terms: Callable[[dict[str, Any]], dict[str, np.ndarray]] = lambda arguments: {}

    def bytes(self, dims: Mapping[str, Any], itemsize: int) -> int:
        """Memory that one call must touch: every input read once, every output written once."""
        total = 0
        for arg in self.args:
            if arg.role in ("in", "inout", "out"):
                size = {"float": itemsize, "image": 1}.get(arg.dtype) or np.dtype(arg.dtype).itemsize
                total += size * int(np.prod(_lengths(arg.dims, dims))) * (2 if arg.role == "inout" else 1)
        return total

    def depth(self, dims: Mapping[str, Any]) -> int:
        """The number of terms of the longest sum."""
        return int(np.prod([dims[d] for d in self.reduction])) if self.reduction else 1

    def work_size(self, *shapes: tuple[int, ...], options: Mapping[str, Any] = NO_OPTIONS) -> int:
        """Elements that `work` must have for arrays of these shapes, in the order of the arguments, () where one is
        left out, and these options (a convolution's stride and padding)."""
        dims: dict[str, int] = {}
        arrays = [a for a in self.args if a.role not in ("option", "work")]
        for arg, shape in zip(arrays, shapes, strict=False):
            if shape:
                _match(self.name, arg, shape, dims)
        return self.work({**dims, **options})

    def example(self, label: str, dtype: Any, seed: int = 0) -> list[Any]:
        """Arguments for one call: arrays drawn by NumPy, outputs poisoned with NaN (or all ones for integers)."""
        rng = np.random.default_rng(seed)
        lengths = self.examples[label]
        arrays = self.arrays(lengths, dtype)
        drawn: list[Any] = []
        for arg in self.args:
            if arg.role == "option":
                drawn.append(lengths[arg.name])
                continue
            shape, kind = arrays[arg.name]
            if arg.role in ("out", "work"):
                array = np.empty(shape, kind)
                array.fill(np.nan if np.dtype(kind).kind == "f" else np.iinfo(kind).max)
            else:
                array = np.ascontiguousarray(DRAWS[arg.draw](rng, shape), dtype=kind)
            drawn.append(array)
        return drawn

    def arrays(self, lengths: Mapping[str, Any], dtype: Any) -> dict[str, tuple[tuple[int, ...], Any]]:
        """{argument: (shape, dtype)} of every array of a call; optional arrays are left out where `no_NAME` is set."""
        found: dict[str, tuple[tuple[int, ...], Any]] = {}
        for arg in (a for a in self.args if a.role != "option"):
            kind = dtype if arg.dtype == "float" else np.uint8 if arg.dtype == "image" else arg.dtype
            shape = (self.work(lengths),) if arg.role == "work" else _lengths(arg.dims, lengths)
            found[arg.name] = ((0,) if arg.optional and lengths.get(f"no_{arg.name}") else shape), kind
        return found

    def check(self, arguments: tuple[Any, ...], on_gpu: bool = False) -> None:
        """Raises a KernelError unless `arguments` fit this op, on the host or on a GPU."""
        if len(arguments) != len(self.args):
            raise KernelError(f"{self.signature()}: expected {len(self.args)} arguments, got {len(arguments)}")
        dims: dict[str, int] = {}
        options: dict[str, Any] = {}
        arrays: list[tuple[Arg, Any]] = []
        dtype: np.dtype | None = None
        for arg, value in zip(self.args, arguments, strict=True):
            if arg.role == "option":
                options[arg.name] = value
                _check_option(self.name, arg, value)
                continue
            _check_array(self.name, arg, value, on_gpu)
            kind = np.dtype(value.dtype)
            if arg.dtype == "float" or arg.role == "work" or (arg.dtype == "image" and kind != np.uint8):
                if kind not in FLOATS or (dtype is not None and kind != dtype):
                    wanted = dtype or "float32 or float64"
                    raise KernelError(f"{self.name}: argument {arg.name} must be {wanted}, got {kind}; use .astype")
                dtype = kind
            elif arg.dtype != "image" and kind != np.dtype(arg.dtype):
                raise KernelError(f"{self.name}: argument {arg.name} must be {arg.dtype}, got {kind}; use .astype")
            if arg.role != "work" and not (arg.optional and 0 in value.shape):
                _match(self.name, arg, value.shape, dims)
            arrays.append((arg, value))
        complaint = self.rule(dims, options)
        if complaint:
            raise KernelError(f"{self.name}: {complaint}")
        self._check_work_and_overlap(arrays, {**dims, **options})

    def _check_work_and_overlap(self, arrays: list[tuple[Arg, Any]], lengths: Mapping[str, Any]) -> None:
        for arg, value in arrays:
            if arg.role == "work" and value.size < self.work(lengths):
                raise KernelError(f"{self.name}: work has {value.size} elements, needs {self.work(lengths)}")
            if arg.role == "in":
                continue
            for other, second in arrays:
                if other is not arg and _overlap(value, second):
                    raise KernelError(
                        f"{self.name}: {arg.name} overlaps {other.name} in memory; pass an array of its own"
                    )

    def signature(self) -> str:
        """name(argument, argument, …), as it is called."""
        return f"{self.name}({', '.join(a.name for a in self.args)})"

    def checked(self, run: Callable[..., None], on_gpu: bool = False) -> Callable[..., None]:
        """`run` behind the check, with the docstring of `run`."""

        def call(*arguments: Any) -> None:
            self.check(arguments, on_gpu)
            run(*arguments)

        call.__name__, call.__doc__ = self.name, run.__doc__
        return call


def per(*symbols: str, cost: float = 1.0) -> Callable[[Mapping[str, Any]], float]:
    """Operations of a call, so many for each element of these lengths."""
    return lambda dims: cost * float(np.prod([dims[s] for s in symbols]))


def three_examples(tiny: dict, ragged: dict, model: dict, **options: Any) -> dict[str, dict[str, Any]]:
    """The examples of an op, by label, each with the same options."""
    return {"tiny": tiny | options, "ragged": ragged | options, "model": model | options}


def flat_examples(**options: Any) -> dict[str, dict[str, Any]]:
    """The examples of an elementwise op on n numbers."""
    return three_examples({"n": 1}, {"n": 1037}, {"n": 51_200}, **options)


def results(meaning: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments by name, arrays copied, after a call of `meaning`."""
    copies = {k: np.array(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    meaning(**copies)
    return copies


def rows_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    """Row r belongs to image r // k, so there are whole images of rows."""
    if dims["B"] < 1 or dims["R"] % dims["B"]:
        return f"the number of rows R = {dims['R']} must be a multiple of the number of images B = {dims['B']}"
    return None


def _lengths(symbols: tuple[str, ...], dims: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(_length(s, dims) for s in symbols)


def _length(symbol: str, dims: Mapping[str, Any]) -> int:
    if symbol.isdigit():
        return int(symbol)
    factor, _, name = symbol.rpartition("*")
    return int(factor or 1) * int(dims[name])


def _match(op: str, arg: Arg, shape: tuple[int, ...], dims: dict[str, int]) -> None:
    """Binds the symbols of `arg` to the lengths of `shape`, or says which axis contradicts an earlier one."""
    if len(shape) != len(arg.dims):
        raise KernelError(f"{op}: {arg.name} must be ({', '.join(arg.dims)}), got shape {tuple(shape)}")
    for symbol, length in zip(arg.dims, shape, strict=True):
        if symbol.isdigit():
            if length != int(symbol):
                raise KernelError(f"{op}: {arg.name} must have shape ({', '.join(arg.dims)}), got {tuple(shape)}")
            continue
        factor, _, name = symbol.rpartition("*")
        count, rest = divmod(int(length), int(factor or 1))
        if rest or dims.setdefault(name, count) != count:
            known = f" with {name} = {dims[name]}" if name in dims else ""
            raise KernelError(f"{op}: {arg.name} must be ({', '.join(arg.dims)}){known}, got shape {tuple(shape)}")


def _check_array(op: str, arg: Arg, value: Any, on_gpu: bool) -> None:
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        raise KernelError(f"{op}: argument {arg.name} must be an array, got {type(value).__name__}")
    there = hasattr(value, "__cuda_ndarray__")  # Numba's mark on its arrays, simulated ones too
    if on_gpu and not there:  # Numba would copy it there and back at every call
        raise KernelError(f"{op}: argument {arg.name} is not an array of the GPU; upload it once, with device.put")
    if there and not on_gpu:
        raise KernelError(f"{op}: argument {arg.name} is an array of the GPU; copy it to the host with device.get")
    host = isinstance(value, np.ndarray)
    if (there and not value.is_c_contiguous()) or (host and not value.flags.c_contiguous):
        raise KernelError(f"{op}: argument {arg.name} is not contiguous; use np.ascontiguousarray")
    if arg.role != "in" and host and not value.flags.writeable:
        raise KernelError(f"{op}: argument {arg.name} is written but read-only; pass a copy")


def _overlap(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return np.may_share_memory(first, second)
    from ..device import address  # not above: it loads Numba

    start, other = address(first), address(second)
    return start < other + second.nbytes and other < start + first.nbytes


def _check_option(op: str, arg: Arg, value: Any) -> None:
    number = (int, float, np.integer, np.floating)
    good: bool
    if arg.dtype == "pair":
        good = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int | np.integer) for v in value)
        wanted = "a pair of integers (h, w)"
    elif arg.dtype == "choice":
        good = isinstance(value, int | np.integer) and bool(0 <= value < len(arg.choices))
        wanted = f"one of the constants {arg.choices[0]} … {arg.choices[-1]}"
    elif arg.dtype == "flag":
        good, wanted = isinstance(value, int | np.integer) and value in (0, 1), "0 or 1"
    elif arg.dtype == "positive":
        good, wanted = isinstance(value, number) and bool(0 < value < np.inf), "a positive number"
    else:
        good, wanted = isinstance(value, number) and bool(0 <= value < np.inf), "a number, 0 or more"
    if not good:
        raise KernelError(f"{op}: argument {arg.name} must be {wanted}, got {value!r}")
