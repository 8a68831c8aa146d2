"""The plain autoencoder: the same corridor without a latent layer.
It knows which parts stand in it; the walk is Model's."""

from __future__ import annotations

from ..config import DEFAULT_DEVICE, ModelConfig, require_int
from ..layers import Layer, Likelihood, Shape, make_likelihood
from .model import Model, Player


class AutoEncoder(Model):
    """loss = −log p(x | decoder(encoder(x))): the code is z itself, without noise and without a prior.

    encoder: image → (latent,). decoder: (latent,) → the likelihood's outputs. Hinton & Salakhutdinov 2006.
    It has no prior: `sample` draws z ~ N(0, I), which its codes need not follow; a Gaussian fitted to the codes
    (`tinyvae.measure.evaluate.fit_prior`) can be given instead.
    """

    figure_names = ("loss", "recon")

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
        require_int("latent_dim", latent_dim, 1, ", the length of a code")
        parts = self.make_parts(encoder, decoder, make_likelihood(likelihood, sigma))
        players = (Player("ae", tuple(parts)),)
        super().__init__(parts, image_shape, latent_dim, players, device, dtype, seed, config, precision)

    def make_parts(self, encoder: Layer, decoder: Layer, likelihood: Likelihood) -> dict[str, Layer]:
        """The parts of the corridor, in its order."""
        return {"encoder": encoder, "decoder": decoder, "likelihood": likelihood}
