"""The Numba column for CUDA: ops as kernels for the GPU. Loaded at the device's first use."""

from __future__ import annotations

from collections.abc import Callable

from ..ops import collect

_FOUND = list(collect(__name__))

COLUMN: dict[str, Callable[..., None]] = {name: run for name, run, _ in _FOUND}
# the same with products on tensor cores, where a file has such functions: its TF32, {op: function}
TF32_COLUMN = COLUMN | {name: run for *_, file in _FOUND for name, run in getattr(file, "TF32", {}).items()}
