"""The denoising autoencoder: an autoencoder that is shown damaged images and asked for the whole ones.
It knows where the noise stands in the corridor; the rest is the autoencoder's."""

from __future__ import annotations

from typing import Any

from ..config import DEFAULT_DEVICE, ModelConfig
from ..layers import Corrupt, Layer, Likelihood, Shape
from .ae import AutoEncoder
from .model import Batch


class DenoisingAutoEncoder(AutoEncoder):
    """loss = −E_noise[log p(x | decoder(encoder(corrupt(x))))]: the image that counts is the one without noise.

    noise "masking": each pixel is 0 with probability noise_amount. "gaussian": plus noise_amount · eps, eps ~ N(0, I).
    To undo it the encoder must know what images look like, so a code may be longer than an image without becoming a
    copy. The figures on test images are with noise too, always the same; `encode` and `reconstruct` add none.
    Vincent et al. 2008, section 2.3; Vincent et al. 2010, section 3.3.
    """

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
        noise: str = "masking",
        noise_amount: float = 0.25,
    ) -> None:
        self.corrupt = Corrupt(noise, noise_amount)
        super().__init__(
            encoder, decoder, latent_dim, image_shape, likelihood, sigma, device, dtype, seed, config, precision
        )

    def make_parts(self, encoder: Layer, decoder: Layer, likelihood: Likelihood) -> dict[str, Layer]:
        """The autoencoder's parts behind the noise."""
        return {"noise": self.corrupt} | super().make_parts(encoder, decoder, likelihood)

    def encoded(self, batch: Batch) -> Any:
        """The encoder's output for the batch's images, damaged."""
        return batch.twins["encoder"].forward(batch.twins["noise"].forward(batch.x))
