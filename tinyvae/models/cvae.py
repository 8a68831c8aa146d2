"""The conditional variational autoencoder: a VAE in which encoder and decoder are told the image's label.
It knows where the label enters; the corridor is the VAE's."""

from __future__ import annotations

from typing import Any

from ..config import DEFAULT_DEVICE, ModelConfig, require_int
from ..layers import Likelihood, Shape, WithLabel
from .model import Batch, Player
from .vae import VAE


class CVAE(VAE):
    """loss = −E_q(z|x,y)[log p(x|z,y)] + beta · KL(q(z|x,y) ‖ N(0, I)), y the label of image x, one-hot

    encoder: [image | y] → (2·latent,). decoder: [z | y] → the likelihood's outputs; both are `WithLabel` layers.
    As the label comes for free, z need not say it and is left with the rest: style. The bound is one on log p(x|y).
    Sohn, Lee & Yan 2015, section 4, with a prior that does not depend on y; Kingma et al. 2014, model M2.
    Public methods take `labels`, whole numbers (N,) from 0 to classes − 1.
    """

    def __init__(
        self,
        encoder: WithLabel,
        decoder: WithLabel,
        latent_dim: int,
        image_shape: Shape,
        likelihood: str | Likelihood = "bernoulli",
        sigma: float = 1.0,
        device: str = DEFAULT_DEVICE,
        dtype: str = "float32",
        seed: int = 0,
        config: ModelConfig | None = None,
        precision: str = "fp32",
        classes: int = 10,
    ) -> None:
        require_int("classes", classes, 1, ", the number of labels")
        self.classes = classes
        super().__init__(
            encoder, decoder, latent_dim, image_shape, likelihood, sigma, device, dtype, seed, config, precision
        )

    def beside(self, part: str) -> tuple[Shape, ...]:
        """Encoder and decoder take the label beside their input."""
        return ((self.classes,),) if part in ("encoder", "decoder") else super().beside(part)

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """As in Model, with room for the labels, one-hot."""
        batch = super().batch(role, rows, samples)
        if batch.labels is None:
            batch.labels = self.device.empty((rows, self.classes), self.dtype)
        return batch

    def encoded(self, batch: Batch) -> Any:
        """The encoder's output for the batch's images and labels."""
        return batch.twins["encoder"].forward(batch.x, batch.labels)

    def decoded(self, batch: Batch, z: Any) -> Any:
        """The decoder's output for codes and the labels of their images."""
        return batch.twins["decoder"].forward(z, batch.labels)

    def grad(self, player: Player, batch: Batch) -> None:
        """Back; the labels have no gradient."""
        twins = batch.twins
        grad_z, _ = twins["decoder"].backward(twins["likelihood"].backward(None))
        twins["encoder"].backward(twins["latent"].backward(grad_z))
