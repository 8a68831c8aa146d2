"""Ops: OPS is the table of contents, load(device) the functions of one device.

Arithmetic on raw arrays, independent of layers and models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from ..config import require_precision
from ..errors import KernelError
from .first_calls import FirstCalls
from .op import Arg, Op
from .ops import OPS, PAGES
from .ops.activation import ACTIVATIONS, BY_CODE, ELU, IDENTITY, LEAKY_RELU, RELU, SIGMOID, SOFTPLUS, TANH
from .scratch import output_size

MEANING: dict[str, Callable[..., None]] = {
    op.name: getattr(page, op.name) for page in PAGES.values() for op in page.OPS
}


def meaning(name: str) -> Callable[..., None]:
    """The op `name` in NumPy."""
    return MEANING[name]


class Kernels:
    """The functions of one device, as attributes. An op that the device lacks fails when it is looked up.

    first_calls: reports ops that compile when they first run, on a device whose ops are compiled.
    """

    def __init__(self, device: str, column: Mapping[str, Callable[..., None]], unchecked: bool) -> None:
        self._device, self._column, self._unchecked = device, column, unchecked
        self.first_calls = FirstCalls()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):  # copying looks such names up before there is a column
            raise AttributeError(name)
        if name in self._column:
            run = self._column[name]
            if isinstance(self._column, _Later):
                run = self.first_calls.watch(name, run, self._column.compiler())
            found = run if self._unchecked else OPS[name].checked(run, on_gpu=self._device == "cuda")
            setattr(self, name, found)  # the next access does not come here
            return found
        if name in OPS:
            raise KernelError(f"op {name!r} has no version for device {self._device!r}; use device='numpy'")
        raise KernelError(f"there is no op {name!r}; tinyvae.kernels.OPS lists them all")


class _Later(Mapping[str, Callable[..., None]]):
    """A column that is imported at first use: compilers are slow to load."""

    def __init__(self, module: str, name: str = "COLUMN") -> None:
        self._module, self._name = module, name

    def package(self) -> ModuleType:
        """The package that has the column's files."""
        return import_module(self._module, __name__)

    def _column(self) -> Mapping[str, Callable[..., None]]:
        return getattr(self.package(), self._name)

    def compiler(self) -> Any:
        """The module that compiles this column."""
        return import_module(f"{self._module}.engine.compile", __name__)

    def __getitem__(self, name: str) -> Callable[..., None]:
        return self._column()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._column())

    def __len__(self) -> int:
        return len(self._column())


COLUMNS: dict[str, Mapping[str, Callable[..., None]]] = {
    "numpy": MEANING,
    "numba": _Later(".cpu"),
    "cuda": _Later(".cuda"),
}
TF32 = _Later(".cuda", "TF32_COLUMN")


def ops_of(device: str) -> list[str]:
    """The ops that a device has, in the order of the table. Loads the device's column."""
    return [name for name in OPS if name in COLUMNS[device]]


def lacking(device: str) -> frozenset[str]:
    """The ops that a device has no version of, so that a layer that needs one is refused."""
    return frozenset(OPS).difference(COLUMNS[device])


def load(device: str = "numpy", unchecked: bool = False, precision: str = "fp32") -> Kernels:
    """The ops of one device. They check dtype, shape, contiguity and overlap first, unless `unchecked`.

    precision: "tf32" for products of float32 numbers on a GPU's tensor cores, which round the factors to 11 bits.
    """
    if device not in COLUMNS:
        raise KernelError(f"device={device!r} has no kernels; use one of {', '.join(map(repr, COLUMNS))}")
    require_precision(precision, device)
    return Kernels(device, TF32 if precision == "tf32" else COLUMNS[device], unchecked)


__all__ = [
    "ACTIVATIONS", "BY_CODE", "COLUMNS", "ELU", "IDENTITY", "LEAKY_RELU", "OPS", "PAGES", "RELU",
    "SIGMOID", "SOFTPLUS", "TANH", "Arg", "Kernels", "Op", "lacking", "load", "meaning", "ops_of",
    "output_size",
]  # fmt: skip
