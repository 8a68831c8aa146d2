"""The adversarial autoencoder: a discriminator on codes makes their distribution N(0, I)."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from ..config import ModelConfig, WeightedConfig, require_int, require_number
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Bernoulli, Likelihood, make_likelihood
from ..layers.priors import StandardNormal
from .adversarial import FAKE, PLAYER_ADAM, REAL, Verdict, declare_verdict, geometric_mean
from .ae import autoencoder
from .methods import Abilities
from .model import Batch, Model, Part, Player, Setup
from .networks import Networks, dense_discriminator

GAMMA = 1.0  # of the adversarial loss: with 10 it dominates, and codes leave N(0, I) again (benchmarks/NOTES.md)


class AdversarialAutoEncoder(Model):
    """loss = −log p(x|z) − gamma · log D(z), z = encoder(x);  loss_d = −log D(z_p) − log(1 − D(z)), z_p ~ N(0, I)

    means over the batch, D = sigmoid(discriminator). The autoencoder's loss has a game where a VAE's has the KL
    divergence: D learns to tell codes from draws of the prior, the encoder to make codes that it cannot tell. The best
    D has the logit log p(z) − log q(z), q the codes' density, so what the encoder is pushed by is a divergence of the
    codes of all images together, not of each image's, from N(0, I): no noise, and any prior that can be drawn from.
    Makhzani et al. 2015, sections 2 and 2.1, with a deterministic encoder. There the two terms of `loss` are two phases
    of each step with an optimiser each; here they are one loss, weighted by gamma as a VAE's by beta.
    encoder: image → (latent,). decoder: (latent,) → the likelihood's outputs. discriminator: (latent,) → (1,), a logit.
    """

    figure_names = ("loss", "recon", "loss_g", "loss_d", "d_real", "d_fake")
    losses = 2
    Config = WeightedConfig
    can = Abilities(game="codes")

    def __init__(
        self, encoder: Layer, decoder: Layer, discriminator: Layer, latent_dim: int,
        image_shape: Shape, *, likelihood: str | Likelihood = "bernoulli", sigma: float = 1.0,
        gamma: float | None = None, **setup: Unpack[Setup],
    ) -> None:  # fmt: skip
        require_int("latent_dim", latent_dim, 1, ", the length of a code")
        self.gamma = GAMMA if gamma is None else float(gamma)
        require_number("gamma", self.gamma, 0, why=", the weight of the adversarial loss beside the reconstruction's")
        prior = StandardNormal(latent_dim)
        parts = {
            "encoder": encoder, "decoder": decoder, "likelihood": make_likelihood(likelihood, sigma),
            "prior": prior, "discriminator": discriminator, "verdict": Bernoulli(),
        }  # fmt: skip
        players = (
            Player("autoencoder", ("encoder", "decoder", "likelihood")),
            Player("discriminator", ("discriminator",), PLAYER_ADAM),
        )
        super().__init__(parts, image_shape, latent_dim, players, prior=prior, **setup)
        self.one, self.weight = (self.device.put(np.full(1, value)) for value in (1.0, self.gamma))

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        """The autoencoder's, and a discriminator of codes: two layers of the last hidden width."""
        codes, hidden = (config.latent_dim,), config.hidden or networks.hidden
        judge = dense_discriminator(codes, 2 * hidden[-1:], 1)
        return [*autoencoder(config, networks, config.latent_dim), (judge, (codes,))]

    @classmethod
    def options(cls, config: ModelConfig) -> dict[str, Any]:
        assert isinstance(config, WeightedConfig)
        return super().options(config) | {"gamma": config.gamma}

    def _declare(self) -> None:
        super()._declare()
        declare_verdict(self, "discriminator", self.declared("prior"))

    def corridor(self) -> tuple[str, ...]:
        return ("encoder", "decoder", "likelihood")

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """As in Model, with the discriminator on codes and on draws from the prior."""
        batch = super().batch(role, rows, samples)
        twins = batch.twins
        if "prior" not in twins:
            twins["prior"] = self.parts["prior"].bind(self.site("prior", rows, role))
            twins["real"] = Verdict(self, ("discriminator",), rows, role, (REAL,))
            twins["codes"] = Verdict(self, ("discriminator",), rows, role, (FAKE, REAL), "add", True)
            self.device.fill(twins["codes"].costs[REAL].row_scale, self.gamma / rows)
            batch.buffers["grad_z"] = self.device.empty((rows, self.latent_dim), self.dtype)
        return batch

    def loss(self, batch: Batch) -> None:
        """Forward of both: `batch.metrics` = [loss, recon, −log D(z), loss_d, on draws of the prior, on codes]."""
        twins, (autoencoder, discriminator) = batch.twins, batch.losses
        z = self.encoded(batch)
        recon = twins["likelihood"].forward(self.decoded(batch, z), batch.x)
        twins["codes"].forward(z)
        twins["real"].forward(twins["prior"].forward())
        codes, real = twins["codes"].nll, twins["real"].nll
        self.kernels.objective(recon, codes[REAL].reshape(-1, 1), self.weight, *autoencoder)
        self.kernels.objective(real[REAL], codes[FAKE].reshape(-1, 1), self.one, *discriminator)

    def loss_of(self, player: Player, batch: Batch) -> float:
        return float(self.device.get(batch.metrics)[3 if player.name == "discriminator" else 0])

    def grad(self, player: Player, batch: Batch) -> None:
        """Back for one player. The autoencoder stands first: it goes back through the discriminator as it was."""
        twins = batch.twins
        if player.name == "discriminator":
            twins["real"].back(REAL)  # writes the gradients,
            twins["codes"].back(FAKE)  # adds to them
            return
        recon = twins["decoder"].backward(twins["likelihood"].backward(None))
        fooling, grad_z = twins["codes"].back(REAL, judging=True), batch.buffers["grad_z"]
        self.kernels.add(recon.reshape(-1), fooling.reshape(-1), grad_z.reshape(-1))
        twins["encoder"].backward(grad_z)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Means over the images: both losses and their parts, and D on draws of the prior and on codes, geometric."""
        (loss, recon, fooling, n), (loss_d, real, _, _) = sums.reshape(-1, 4)
        figures = {"loss": loss / n, "recon": recon / n, "loss_g": fooling / n, "loss_d": loss_d / n}
        figures |= {"d_real": geometric_mean(real / n), "d_fake": geometric_mean(fooling / n)}
        return {k: float(v) for k, v in figures.items()} | self.likelihood.figures(
            recon / n, int(np.prod(self.image_shape))
        )
