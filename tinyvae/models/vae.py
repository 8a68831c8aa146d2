"""The variational autoencoder.
It knows which parts stand in the corridor; the walk is Model's."""

from __future__ import annotations

import numpy as np

from ..config import DEFAULT_DEVICE, ModelConfig, require_int
from ..layers import Latent, Layer, Likelihood, Shape, make_likelihood
from .model import Model, Player


class VAE(Model):
    """loss = −E_q(z|x)[log p(x|z)] + beta · KL(q(z|x) ‖ N(0, I)), q(z|x) = N(z_mean, exp(z_log_sigma)²)

    encoder: image → (2·latent,), z_mean and z_log_sigma side by side. z = z_mean + exp(z_log_sigma) · eps.
    decoder: (latent,) → the likelihood's outputs, (H, W, C·outputs_per_channel).
    With beta = 1 the loss is the negative evidence lower bound: Kingma & Welling 2013, equation 10.
    Another beta gives the β-VAE: Higgins et al. 2017, equation 4.
    """

    figure_names = ("loss", "neg_elbo", "recon", "kl")

    def __init__(
        self,
        encoder: Layer,
        decoder: Layer,
        latent_dim: int,
        image_shape: Shape,
        likelihood: str | Likelihood = "bernoulli",
        sigma: float = 1.0,
        device: str = DEFAULT_DEVICE,
        dtype: str = "float32",
        seed: int = 0,
        config: ModelConfig | None = None,
        precision: str = "fp32",
    ) -> None:
        require_int("latent_dim", latent_dim, 1, ", the number of latent variables")
        parts = {
            "encoder": encoder,
            "latent": self.make_latent(latent_dim),
            "decoder": decoder,
            "likelihood": make_likelihood(likelihood, sigma),
        }
        players = (Player("vae", tuple(parts)),)
        super().__init__(parts, image_shape, latent_dim, players, device, dtype, seed, config, precision)

    def make_latent(self, latent_dim: int) -> Latent:
        """The layer that draws z."""
        return Latent(latent_dim)

    def encode(self, x: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """z_mean and z_log_sigma, (N, latent) each. x: (N, H, W, C) or (N, H, W), uint8 or float in [0, 1]."""
        h, _ = super().encode(x, labels)
        return h[:, : self.latent_dim].copy(), h[:, self.latent_dim :].copy()
