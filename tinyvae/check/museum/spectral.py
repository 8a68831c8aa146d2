"""Exhibits: spectral normalisation with a part left out, or with another norm."""

from __future__ import annotations

import numpy as np

from ...kernels import load
from .exhibit import Array, op_exhibit
from .gradients import write

right = load("numpy", unchecked=True)  # what the ops give that are not wrong


def sigma_held_constant(
    grad_normalised: Array, normalised: Array, u: Array, v: Array, sigma: Array, add: int, grad_weight: Array
) -> None:
    """The gradient divides by sigma and forgets that sigma moves with the weight: steps go on to
    make the weight longer, which the next forward pass takes back."""
    write(grad_weight, grad_normalised / sigma, add)


def frobenius_for_spectral(weight: Array, iterations: int, u: Array, v: Array, sigma: Array, normalised: Array) -> None:
    """np.linalg.norm of a matrix is its Frobenius norm, larger than the largest singular value by
    up to √n: the gradient is right, and every layer flatter than meant."""
    right.spectral_norm(weight, iterations, u, v, sigma, normalised)
    sigma[...] = np.linalg.norm(weight)
    normalised[...] = weight / sigma


def frobenius_norm_grad(
    grad_normalised: Array, normalised: Array, u: Array, v: Array, sigma: Array, add: int, grad_weight: Array
) -> None:
    write(grad_weight, (grad_normalised - (grad_normalised * normalised).sum() * normalised) / sigma, add)


SPECTRAL = (
    op_exhibit(spectral_norm_grad=sigma_held_constant),
    op_exhibit(hidden=True, spectral_norm=frobenius_for_spectral, spectral_norm_grad=frobenius_norm_grad),
)
