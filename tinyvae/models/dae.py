"""The denoising autoencoder: its input is a corrupted image, its target the clean one."""

from __future__ import annotations

from typing import Any, Unpack

from ..config import DAEConfig, ModelConfig
from ..device import Array
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Likelihood
from ..layers.noise import Corrupt
from .ae import AutoEncoder
from .model import Batch, Scored


class DenoisingAutoEncoder(AutoEncoder):
    """loss = −E_noise[log p(x | decoder(encoder(corrupt(x))))]: the image that counts is the one without noise.

    noise "masking": each pixel is 0 with probability noise_amount. "gaussian": plus noise_amount · eps, eps ~ N(0, I).
    To undo it the encoder must know what images look like, so a code may be longer than an image without becoming a
    copy. The figures on test images are with noise too, always the same; `encode` and `reconstruct` add none.
    Vincent et al. 2008, section 2.3; Vincent et al. 2010, section 3.3.
    """

    Config = DAEConfig

    def __init__(
        self, encoder: Layer, decoder: Layer, latent_dim: int, image_shape: Shape, *,
        noise: str = "masking", noise_amount: float = 0.25, **scored: Unpack[Scored],
    ) -> None:  # fmt: skip
        self.corrupt = Corrupt(noise, noise_amount)
        super().__init__(encoder, decoder, latent_dim, image_shape, **scored)

    @classmethod
    def options(cls, config: ModelConfig) -> dict[str, Any]:
        assert isinstance(config, DAEConfig)
        return super().options(config) | {"noise": config.noise, "noise_amount": config.noise_amount}

    def make_parts(self, encoder: Layer, decoder: Layer, likelihood: Likelihood) -> dict[str, Layer]:
        """The autoencoder's parts behind the noise."""
        return {"noise": self.corrupt} | super().make_parts(encoder, decoder, likelihood)

    def encoded(self, batch: Batch) -> Array:
        """The encoder's output for the batch's images, damaged."""
        return batch.twins["encoder"].forward(batch.twins["noise"].forward(batch.x))
