"""The Numba column for CUDA: ops as kernels for the GPU. Loaded when the device is asked for, not before.
It knows which file holds which op; what an op means is said in reference.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

_FILES = {
    "activation": ("activate", "act_grad", "silu", "silu_grad"),
    "dense": ("dense", "dense_grad_x", "dense_grad_w", "bias_grad"),
    "conv": ("conv2d", "conv2d_grad_x", "conv2d_grad_w"),
    "latent": ("latent", "latent_grad"),
    "likelihood": ("bernoulli_nll", "gaussian_nll", "scale_rows"),
    "objective": ("objective",),
    "optimise": ("grad_norm", "adam", "sgd", "tick"),
    "noise": ("philox_bits", "philox_uniform", "philox_normal", "philox_bernoulli"),
    "batches": ("gather", "gather_binary"),
}

_MODULES = {file: import_module(f".{file}", __name__) for file in _FILES}

COLUMN: dict[str, Callable[..., None]] = {
    name: getattr(_MODULES[file], name) for file, names in _FILES.items() for name in names
}
# the same with products on tensor cores, where a file has such functions: its TF32, {op: function}
TF32_COLUMN = COLUMN | {name: op for module in _MODULES.values() for name, op in getattr(module, "TF32", {}).items()}
