"""The Numba column for the CPU: every op of the table, compiled. Loaded when the device is asked for, not before.
It knows which file holds which op; what an op means is said in reference.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config

from ...errors import KernelError
from . import (
    activation,
    batches,
    conv,
    dense,
    importance,
    join,
    latent,
    likelihood,
    noise,
    normalise,
    objective,
    optimise,
    spectral,
)

_FILES = {
    activation: ("activate", "act_grad", "silu", "silu_grad"),
    dense: ("dense", "dense_grad_x", "dense_grad_w", "bias_grad"),
    conv: ("conv2d", "conv2d_grad_x", "conv2d_grad_w"),
    latent: ("latent", "latent_grad"),
    likelihood: (
        "bernoulli_nll", "gaussian_nll", "continuous_bernoulli_nll", "gaussian_scalar_nll", "gaussian_pixel_nll",
        "gaussian_optimal_nll", "discretized_logistic_nll", "categorical_nll", "scale_rows",
    ),
    objective: ("objective", "aimed_objective"),
    importance: ("importance_weights", "importance_grad", "importance_objective"),
    normalise: ("batch_norm", "batch_norm_frozen", "batch_norm_grad", "layer_norm", "layer_norm_grad"),
    spectral: ("spectral_norm", "spectral_norm_grad"),
    noise: ("philox_bits", "philox_uniform", "philox_normal", "philox_bernoulli", "dropout", "add_noise"),
    batches: ("gather", "gather_binary", "gather_labels"),
    join: ("add", "concat_label", "concat_label_grad", "upsample", "upsample_grad"),
    optimise: ("grad_norm", "adam", "sgd", "tick"),
}  # fmt: skip

INTERPRETED = ("bias_grad", "scale_rows", "tick", "gather")  # what Python can run when Numba is told not to compile


def _refuse(name: str) -> Callable[..., None]:
    def refuse(*arguments: Any) -> None:
        raise KernelError(
            f"op {name!r} is vector code and cannot run with NUMBA_DISABLE_JIT=1; unset it, or use device='numpy'"
        )

    return refuse


COLUMN: dict[str, Callable[..., None]] = {
    name: _refuse(name) if config.DISABLE_JIT and name not in INTERPRETED else getattr(file, name)
    for file, names in _FILES.items()
    for name in names
}
