"""Layers: differentiable maps with forward and backward side by side.
They know ops and each other's shapes; not models, losses or training."""

from .conv import Conv2d, ConvTranspose2d
from .dense import Activation, Dense, SiLU
from .importance import ImportanceLatent
from .latent import Latent
from .layer import Layer, Sequential, Shape, Site, Twin
from .likelihood import Bernoulli, Gaussian, Likelihood, make_likelihood
from .reshape import Flatten, Reshape

__all__ = [
    "Activation", "Bernoulli", "Conv2d", "ConvTranspose2d", "Dense", "Flatten", "Gaussian", "ImportanceLatent", "Latent",
    "Layer", "Likelihood", "Reshape", "Sequential", "Shape", "SiLU", "Site", "Twin", "make_likelihood",
]  # fmt: skip
