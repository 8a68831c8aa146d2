"""Layers: differentiable maps with forward and backward side by side.
They know ops and each other's shapes; not models, losses or training."""

from .conv import Conv2d, ConvTranspose2d
from .dense import Activation, Dense, SiLU
from .importance import ImportanceLatent
from .join import Residual, Upsample, WithLabel
from .latent import Latent, Prior
from .layer import Gate, Layer, Sequential, Shape, Site, Twin
from .likelihood import Bernoulli, Gaussian, Likelihood
from .likelihood_kinds import (
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    GaussianOptimal,
    GaussianPixel,
    GaussianScalar,
    make_likelihood,
)
from .noise import Corrupt, Dropout
from .normalise import BatchNorm, LayerNorm
from .reshape import Flatten, Reshape
from .spectral import SpectralNorm

__all__ = [
    "Activation", "BatchNorm", "Bernoulli", "Categorical", "ContinuousBernoulli", "Conv2d", "ConvTranspose2d",
    "Corrupt", "Dense", "DiscretizedLogistic", "Dropout", "Flatten", "Gate", "Gaussian", "GaussianOptimal",
    "GaussianPixel", "GaussianScalar", "ImportanceLatent", "Latent", "Layer", "LayerNorm", "Likelihood", "Prior",
    "Reshape", "Residual", "Sequential", "Shape", "SiLU", "Site", "SpectralNorm", "Twin", "Upsample", "WithLabel",
    "make_likelihood",
]  # fmt: skip
