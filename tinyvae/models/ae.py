"""The plain autoencoder: the corridor without a latent layer."""

from __future__ import annotations

from typing import Unpack

from ..config import ModelConfig, require_int
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Likelihood, make_likelihood
from .model import Model, Part, Player, Setup
from .networks import Networks


class AutoEncoder(Model):
    """loss = −log p(x | decoder(encoder(x))): the code is z itself, without noise and without a prior.

    encoder: image → (latent,). decoder: (latent,) → the likelihood's outputs. Hinton & Salakhutdinov 2006.
    It has no prior: `sample` draws z ~ N(0, I), which its codes need not follow; a Gaussian fitted to the codes
    (`tinyvae.measure.evaluate.fit_prior`) can be given instead.
    """

    figure_names = ("loss", "recon")

    def __init__(
        self, encoder: Layer, decoder: Layer, latent_dim: int, image_shape: Shape, *,
        likelihood: str | Likelihood = "bernoulli", sigma: float = 1.0, **setup: Unpack[Setup],
    ) -> None:  # fmt: skip
        require_int("latent_dim", latent_dim, 1, ", the length of a code")
        parts = self.make_parts(encoder, decoder, make_likelihood(likelihood, sigma))
        super().__init__(parts, image_shape, latent_dim, (Player("ae", tuple(parts)),), **setup)

    def make_parts(self, encoder: Layer, decoder: Layer, likelihood: Likelihood) -> dict[str, Layer]:
        """The parts of the corridor, in its order."""
        return {"encoder": encoder, "decoder": decoder, "likelihood": likelihood}

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        return autoencoder(config, networks, config.latent_dim)


def autoencoder(config: ModelConfig, networks: Networks, n_out: int) -> list[Part]:
    """Encoder with n_out outputs, and decoder with the outputs that the likelihood needs."""
    image, latent, hidden = config.image_shape, config.latent_dim, config.hidden or networks.hidden
    outputs = make_likelihood(config.likelihood, config.sigma).outputs_per_channel
    return [
        (networks.encoder(image, hidden, n_out), (image,)),
        (networks.decoder(image, hidden, latent, outputs), ((latent,),)),
    ]
