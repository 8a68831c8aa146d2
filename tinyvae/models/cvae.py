"""The conditional variational autoencoder: a VAE whose encoder and decoder see the image's label."""

from __future__ import annotations

from typing import Any, Unpack

from ..config import CVAEConfig, ModelConfig, require_int
from ..layers.join import WithLabel
from ..layers.layer import Shape, size_of
from ..layers.likelihood import make_likelihood
from .methods import Abilities
from .model import Batch, Part, Player, Scored
from .networks import Networks
from .vae import VAE


class CVAE(VAE):
    """loss = −E_q(z|x,y)[log p(x|z,y)] + beta · KL(q(z|x,y) ‖ N(0, I)), y the label of image x, one-hot

    encoder: [image | y] → (2·latent,). decoder: [z | y] → the likelihood's outputs; both are `WithLabel` layers.
    As the label is given, z need not encode it and is left with the rest: style. The bound is one on log p(x|y).
    Sohn, Lee & Yan 2015, section 4, with a prior that does not depend on y; Kingma et al. 2014, model M2.
    Public methods take `labels`, whole numbers (N,) from 0 to classes − 1.
    """

    Config = CVAEConfig
    can = Abilities(posterior=True, bound=True, analytic_kl=True, labels=True)

    def __init__(
        self, encoder: WithLabel, decoder: WithLabel, latent_dim: int, image_shape: Shape, *,
        classes: int = 10, **scored: Unpack[Scored],
    ) -> None:  # fmt: skip
        require_int("classes", classes, 1, ", the number of labels")
        self.classes = classes
        super().__init__(encoder, decoder, latent_dim, image_shape, **scored)

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        """The VAE's, `WithLabel`: their first layers see the label beside an image's pixels, or beside a code."""
        assert isinstance(config, CVAEConfig)
        image, latent, classes = config.image_shape, config.latent_dim, config.classes
        hidden = config.hidden or networks.hidden
        outputs = make_likelihood(config.likelihood, config.sigma).outputs_per_channel
        encoder = networks.encoder((size_of(image) + classes,), hidden, 2 * latent)
        decoder = networks.decoder(image, hidden, latent + classes, outputs)
        label = (classes,)
        return [(WithLabel(encoder), (image, label)), (WithLabel(decoder), ((latent,), label))]

    @classmethod
    def options(cls, config: ModelConfig) -> dict[str, Any]:
        assert isinstance(config, CVAEConfig)
        return super().options(config) | {"classes": config.classes}

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
