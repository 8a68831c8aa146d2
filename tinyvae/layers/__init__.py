"""Layers: differentiable maps with forward and backward side by side.
They know ops and each other's shapes; not models, losses or training."""

from .conv import Conv2d, ConvTranspose2d
from .dense import Activation, Dense, SiLU
from .latent import Latent
from .layer import Layer, Sequential, Shape, Site, Twin
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
from .reshape import Flatten, Reshape

__all__ = [
    "Activation", "Bernoulli", "Categorical", "ContinuousBernoulli", "Conv2d", "ConvTranspose2d", "Dense",
    "DiscretizedLogistic", "Flatten", "Gaussian", "GaussianOptimal", "GaussianPixel", "GaussianScalar", "Latent",
    "Layer", "Likelihood", "Reshape", "Sequential", "Shape", "SiLU", "Site", "Twin", "make_likelihood",
]  # fmt: skip
