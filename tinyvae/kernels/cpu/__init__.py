"""The Numba column for the CPU: every op of the table, compiled. Loaded when the device is asked for, not before.
It knows which file holds which op; what an op means is said in reference.py."""

from __future__ import annotations

from collections.abc import Callable

from . import conv, dense, elementwise, noise, optimise

_FILES = {
    dense: ("dense", "dense_grad_x", "dense_grad_w", "bias_grad"),
    conv: ("conv2d", "conv2d_grad_x", "conv2d_grad_w"),
    elementwise: (
        "activate", "act_grad", "silu", "silu_grad", "latent", "latent_grad", "bernoulli_nll", "gaussian_nll",
        "scale_rows", "objective",
    ),
    noise: ("philox_bits", "philox_uniform", "philox_normal", "philox_bernoulli", "gather", "gather_binary"),
    optimise: ("grad_norm", "adam", "sgd", "tick"),
}  # fmt: skip

COLUMN: dict[str, Callable[..., None]] = {name: getattr(file, name) for file, names in _FILES.items() for name in names}
