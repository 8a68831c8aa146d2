"""The Numba column for CUDA: ops as kernels for the GPU. Loaded when the device is asked for, not before.
It knows which file holds which op; what an op means is said in reference.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

_FILES = {
    "elementwise": ("activate", "act_grad", "silu", "silu_grad", "scale_rows"),
    "dense": ("dense", "dense_grad_x", "dense_grad_w"),
    "sums": ("bias_grad",),
    "conv": ("conv2d", "conv2d_grad_x", "conv2d_grad_w"),
}

COLUMN: dict[str, Callable[..., None]] = {
    name: getattr(import_module(f".{file}", __name__), name) for file, names in _FILES.items() for name in names
}
