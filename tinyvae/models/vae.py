"""The variational autoencoder."""

from __future__ import annotations

from typing import Unpack

from ..config import ModelConfig, require_int
from ..layers.latent import Latent
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Likelihood, make_likelihood
from ..layers.priors import StandardNormal
from .ae import autoencoder
from .methods import Abilities
from .model import Model, Part, Player, Setup
from .networks import Networks


class VAE(Model):
    """loss = −E_q(z|x)[log p(x|z)] + beta · KL(q(z|x) ‖ N(0, I)), q(z|x) = N(z_mean, exp(z_log_sigma)²)

    encoder: image → (2·latent,), z_mean and z_log_sigma side by side. z = z_mean + exp(z_log_sigma) · eps.
    decoder: (latent,) → the likelihood's outputs, (H, W, C·outputs_per_channel).
    With beta = 1 the loss is the negative evidence lower bound: Kingma & Welling 2013, equation 10.
    Another beta gives the β-VAE: Higgins et al. 2017, equation 4.
    """

    can = Abilities(posterior=True, bound=True, analytic_kl=True)
    figure_names = ("loss", "neg_elbo", "recon", "kl")

    def __init__(
        self, encoder: Layer, decoder: Layer, latent_dim: int, image_shape: Shape, *,
        likelihood: str | Likelihood = "bernoulli", sigma: float = 1.0, **setup: Unpack[Setup],
    ) -> None:  # fmt: skip
        require_int("latent_dim", latent_dim, 1, ", the number of latent variables")
        parts = {
            "encoder": encoder,
            "latent": self.make_latent(latent_dim),
            "decoder": decoder,
            "likelihood": make_likelihood(likelihood, sigma),
        }
        players, prior = (Player("vae", tuple(parts)),), StandardNormal(latent_dim)
        super().__init__(parts, image_shape, latent_dim, players, prior=prior, **setup)

    def make_latent(self, latent_dim: int) -> Latent:
        """The layer that draws z."""
        return Latent(latent_dim)

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        return autoencoder(config, networks, 2 * config.latent_dim)
