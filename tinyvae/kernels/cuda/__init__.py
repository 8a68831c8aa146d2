"""The Numba column for CUDA: ops as kernels for the GPU. Loaded when the device is asked for, not before.
It knows which file holds which op; what an op means is said in reference.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

_FILES = {
    "elementwise": ("activate",),
    "optimise": ("grad_norm", "adam", "sgd", "tick"),
    "noise": ("philox_bits", "philox_uniform", "philox_normal", "philox_bernoulli", "gather", "gather_binary"),
}

COLUMN: dict[str, Callable[..., None]] = {
    name: getattr(import_module(f".{file}", __name__), name) for file, names in _FILES.items() for name in names
}
