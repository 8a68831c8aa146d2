"""The generative adversarial network: a generator of images and a discriminator, two players."""

from __future__ import annotations

from typing import Unpack

import numpy as np

from ..config import ModelConfig, require_int
from ..errors import ConfigError
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Bernoulli
from ..layers.priors import StandardNormal
from .adversarial import FAKE, PLAYER_ADAM, REAL, JudgedConfig, Verdict, declare_verdict, geometric_mean, has_spectral
from .methods import Abilities
from .model import Batch, Model, Part, Player, Setup
from .networks import Networks, judging


class GAN(Model):
    """loss_d = −mean log D(x) − mean log(1 − D(G(z))),  loss_g = −mean log D(G(z)),  z ~ N(0, I), D = sigmoid(logit)

    generator: (latent,) → image with pixels in [0, 1]. discriminator: image → (1,), a logit. Each player has an Adam of
    its own, lr 1e-3, beta1 0.5, and a turn in each step, on the same drawn images; both gradients are taken before
    either has moved.
    grad logit = (D(x) − 1) / B for loss_d on images, D(G(z)) / B on drawn ones, and (D(G(z)) − 1) / B for loss_g, which
    goes back through the discriminator, whose gradients it leaves alone, to the generator.
    loss_g is not −loss_d, whose gradient vanishes where D(G(z)) is near 0, but has the same fixed point: there D = ½
    everywhere, loss_d = 2 ln 2 and loss_g = ln 2. The figures d_real and d_fake are the geometric means of D(x) and
    D(G(z)). Goodfellow et al. 2014, equation 1, algorithm 1 and section 3; Radford et al. 2015, section 4.
    """

    figure_names = ("loss_d", "loss_g", "d_real", "d_fake")
    losses = 2
    Config = JudgedConfig
    can = Abilities(codes=False, likelihood=False, game="images")

    def __init__(
        self, generator: Layer, discriminator: Layer, latent_dim: int, image_shape: Shape,
        **setup: Unpack[Setup],
    ) -> None:  # fmt: skip
        require_int("latent_dim", latent_dim, 1, ", the length of z")
        prior = StandardNormal(latent_dim)
        parts = {
            "prior": prior, "generator": generator, "discriminator": discriminator,
            "verdict": Bernoulli(),
        }  # fmt: skip
        players = tuple(Player(name, (name,), PLAYER_ADAM) for name in ("generator", "discriminator"))
        super().__init__(parts, image_shape, latent_dim, players, prior=prior, **setup)
        self.one = self.device.put(np.ones(1))

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        image, hidden = config.image_shape, config.hidden or networks.hidden
        discriminator = judging(networks.encoder(image, hidden, 1), has_spectral(config))
        generator = networks.decoder(image, hidden, config.latent_dim)
        return [(generator, ((config.latent_dim,),)), (discriminator, (image,))]

    def _declare(self) -> None:
        """The generator must end in images, the discriminator in one logit."""
        z = self.declared("prior")
        self.require_output("generator", self.declared("generator", z), self.image_shape)
        declare_verdict(self, "discriminator", self.image_shape)

    def corridor(self) -> tuple[str, ...]:
        return ("prior", "generator")

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """As in Model, with the discriminator on images and on drawn ones."""
        batch = super().batch(role, rows, samples)
        if "drawn" not in batch.twins:
            batch.twins["real"] = Verdict(self, ("discriminator",), rows, role, (REAL,))
            batch.twins["drawn"] = Verdict(self, ("discriminator",), rows, role, (FAKE, REAL), "add", True)
        return batch

    def loss(self, batch: Batch) -> None:
        """Forward of both: fills `batch.metrics` = [loss_d, on images, on drawn ones, loss_g, loss_g, 0]."""
        twins, (discriminator, generator) = batch.twins, batch.losses
        twins["real"].forward(batch.x)
        twins["drawn"].forward(twins["generator"].forward(twins["prior"].forward()))
        real, drawn = twins["real"].nll, twins["drawn"].nll
        # the cost of drawn images stands where a VAE has its KL, with the weight 1
        self.kernels.objective(real[REAL], drawn[FAKE].reshape(-1, 1), self.one, *discriminator)
        self.kernels.objective(drawn[REAL], batch.kl, self.clock.kl_weight, *generator)

    def loss_of(self, player: Player, batch: Batch) -> float:
        return float(self.device.get(batch.metrics)[0 if player.name == "discriminator" else 3])

    def grad(self, player: Player, batch: Batch) -> None:
        """Back for one player. The generator stands first: it goes back through the discriminator as it was."""
        twins = batch.twins
        if player.name == "discriminator":
            twins["real"].back(REAL)  # writes the gradients,
            twins["drawn"].back(FAKE)  # adds to them
        else:
            twins["generator"].backward(twins["drawn"].back(REAL, judging=True))

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Both losses, means over the images, and D(x) and D(G(z)) in the geometric mean."""
        (loss_d, real, _, n), (loss_g, *_) = sums.reshape(-1, 4)
        d_real, d_fake = geometric_mean(real / n), geometric_mean(loss_g / n)
        return {"loss_d": float(loss_d / n), "loss_g": float(loss_g / n), "d_real": d_real, "d_fake": d_fake}

    def encode(self, x: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """A ConfigError: there is no way from an image to a z here."""
        raise ConfigError("a GAN has no encoder, so it neither encodes nor reconstructs; use sample(n) or decode(z)")

    def decode(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The generator's images (N, H, W, C) for z (N, latent)."""
        z = self.as_codes(z)
        self.one_hot(labels, len(z))  # only its check is wanted
        return self._apply("generator", z)

    def judge(self, x: np.ndarray) -> np.ndarray:
        """The discriminator's logit (N,) of images (N, H, W, C): positive where it takes them for real."""
        return self._apply("discriminator", self.as_images(x))[:, 0]
