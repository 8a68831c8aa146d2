"""A VAE joined with a GAN: its decoder is the generator, and likeness is measured in the discriminator's features."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from ..config import ModelConfig, VAEGANConfig, require_int, require_number
from ..kernels import IDENTITY
from ..layers.latent import Latent
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Bernoulli, Gaussian
from ..layers.priors import StandardNormal
from .adversarial import FAKE, PLAYER_ADAM, REAL, Verdict, declare_verdict, geometric_mean, has_spectral
from .methods import Abilities
from .model import Batch, Model, Part, Player, Setup
from .networks import Networks, conv_features, dense_discriminator, judging

GAMMA = 0.01  # of the likeness, a sum over all features, beside the decoder's adversarial loss


class VAEGAN(Model):
    """With f = features, D = sigmoid(head(f)), x_recon = decoder(z), z ~ q(z|x), x_drawn = decoder(z_p), z_p ~ prior:

    likeness = −log N(f(x); f(x_recon), I)   (Larsen et al. 2015, equations 7 and 8)
    encoder:       KL(q(z|x) ‖ N(0, I)) + likeness
    decoder:       gamma · likeness − log D(x_recon) − log D(x_drawn)
    discriminator: −log D(x) − log(1 − D(x_recon)) − log(1 − D(x_drawn)), over features and head

    each the mean over the batch: algorithm 1, with the non-saturating loss for the decoder. Each player has an Adam of
    its own, and all gradients of a step are taken before anybody has moved. Two things are kept apart on purpose: the
    encoder gets no gradient of the adversarial losses, and features none of the likeness, which they could please by
    ceasing to tell images apart (section 3.2).
    Pixels are never compared. So there is no p(x|z) of an image, no bound and no likelihood, but also no mean over all
    images that a code may stand for, which is what blurs a VAE's.
    encoder: image → (2·latent,). decoder: (latent,) → image with pixels in [0, 1]. features: image → any shape.
    head: that → (1,), a logit.
    """

    figure_names = ("recon", "kl", "loss_d", "d_real", "d_recon", "d_fake")
    losses = 4
    Config = VAEGANConfig
    can = Abilities(posterior=True, likelihood=False, game="images")

    def __init__(
        self, encoder: Layer, decoder: Layer, features: Layer, head: Layer, latent_dim: int,
        image_shape: Shape, *, gamma: float | None = None, **setup: Unpack[Setup],
    ) -> None:  # fmt: skip
        require_int("latent_dim", latent_dim, 1, ", the number of latent variables")
        self.gamma = GAMMA if gamma is None else float(gamma)
        require_number("gamma", self.gamma, 0, why=", the weight of the likeness in the decoder's loss")
        prior = StandardNormal(latent_dim)
        parts = {
            "encoder": encoder, "latent": Latent(latent_dim), "prior": prior, "decoder": decoder,
            "features": features, "head": head, "likeness": Gaussian(1.0), "verdict": Bernoulli(),
        }  # fmt: skip
        players = (
            Player("encoder", ("encoder", "latent"), PLAYER_ADAM), Player("decoder", ("decoder",), PLAYER_ADAM),
            Player("discriminator", ("features", "head"), PLAYER_ADAM),
        )  # fmt: skip
        super().__init__(parts, image_shape, latent_dim, players, prior=prior, **setup)
        self.one = self.device.put(np.ones(1))

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        """The discriminator is `conv_features`, where likeness is measured, and a dense head."""
        image, codes, hidden = config.image_shape, (config.latent_dim,), config.hidden or networks.hidden
        spectral = has_spectral(config)
        features = judging(conv_features(image), spectral)
        shape = features.declare(image)
        head = judging(dense_discriminator(shape, hidden, 1), spectral)
        encoder = networks.encoder(image, hidden, 2 * config.latent_dim)
        generator = networks.decoder(image, hidden, config.latent_dim)
        return [(encoder, (image,)), (generator, (codes,)), (features, (image,)), (head, (shape,))]

    @classmethod
    def options(cls, config: ModelConfig) -> dict[str, Any]:
        assert isinstance(config, VAEGANConfig)
        return super().options(config) | {"gamma": config.gamma}

    def _declare(self) -> None:
        """The decoder must end in images; features and head are one network, cut where likeness is measured."""
        super()._declare()
        self.declared("prior")
        self.require_output("decoder", self.parts["decoder"].out_shape, self.image_shape)
        shape = self.declared("features", self.image_shape)
        declare_verdict(self, "head", shape)
        self.declared("likeness", shape, shape)

    def corridor(self) -> tuple[str, ...]:
        return ("encoder", "latent", "decoder")

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """As in Model, with the decoder on drawn codes as well, and the discriminator on three kinds of images."""
        batch = super().batch(role, rows, samples)
        twins, site = batch.twins, self.site("decoder", rows, role)
        if "prior" in twins:
            return batch
        train, add = role == "train", "add" if role == "train" else "skip"
        batch.buffers["gamma"] = self.device.put(np.full(rows, self.gamma, self.dtype))
        twins["prior"] = self.parts["prior"].bind(self.site("prior", rows, role))
        twins["decoder on drawn"] = self.parts["decoder"].bind(replace(site, weight_grad=add, need_grad_x=False))
        both = ("features", "head")
        twins["real"] = Verdict(self, both, rows, role, (REAL,))
        twins["recon"], twins["drawn"] = (Verdict(self, both, rows, role, (FAKE, REAL), "add", True) for _ in range(2))
        twins["likeness"] = self.parts["likeness"].bind(self.site("likeness", rows, role))
        for name in ("likeness", "copy", "grad_x"):
            batch.buffers[name] = self.device.empty((rows if train else 0, *self.image_shape), self.dtype)
        return batch

    def loss(self, batch: Batch) -> None:
        """Forward of all: the rows of `batch.metrics` are [encoder's loss, likeness, KL], [decoder's −log D, on drawn
        images, on reconstructions], [discriminator's on images and drawn ones, each] and [on reconstructions, that, 0].
        """
        twins = batch.twins
        real, recon, drawn = (twins[kind] for kind in ("real", "recon", "drawn"))
        real.forward(batch.x)
        recon.forward(self.decoded(batch, twins["latent"].forward(self.encoded(batch))))
        drawn.forward(twins["decoder on drawn"].forward(twins["prior"].forward()))
        likeness = twins["likeness"].forward(recon.tap, real.tap)
        batch.buffers["likeness went back"] = False
        objective, (encoder, decoder, on_two, on_recon) = self.kernels.objective, batch.losses
        objective(likeness, batch.kl, batch.clock.kl_weight, *encoder)
        objective(drawn.nll[REAL], recon.nll[REAL].reshape(-1, 1), self.one, *decoder)
        objective(real.nll[REAL], drawn.nll[FAKE].reshape(-1, 1), self.one, *on_two)
        objective(recon.nll[FAKE], batch.kl[:, :0], self.one[:0], *on_recon)

    def loss_of(self, player: Player, batch: Batch) -> float:
        encoder, decoder, on_two, on_recon = self.device.get(batch.metrics).reshape(-1, 3)
        if player.name == "encoder":
            return float(encoder[0])
        return float(self.gamma * encoder[1] + decoder[0] if player.name == "decoder" else on_two[0] + on_recon[0])

    def grad(self, player: Player, batch: Batch) -> None:
        """Back for one player; the encoder gets the gradient of the likeness alone."""
        twins = batch.twins
        if player.name == "encoder":
            batch.gates["decoder"].open = False
            grad_z = twins["decoder"].backward(self._likeness_x(batch))
            batch.gates["decoder"].open = True
            twins["encoder"].backward(twins["latent"].backward(grad_z))
        elif player.name == "decoder":
            likeness, grad_x = self._likeness_x(batch), batch.buffers["grad_x"]
            self.kernels.scale_rows(batch.buffers["gamma"], likeness.reshape(batch.rows, -1))
            fooling = twins["recon"].back(REAL, judging=True)
            self.kernels.add(likeness.reshape(-1), fooling.reshape(-1), grad_x.reshape(-1))
            twins["decoder"].backward(grad_x)
            twins["decoder on drawn"].backward(twins["drawn"].back(REAL, judging=True))
        else:
            twins["real"].back(REAL)  # writes the gradients,
            twins["recon"].back(FAKE)  # the others add to them
            twins["drawn"].back(FAKE)

    def _likeness_x(self, batch: Batch) -> Any:
        """The likeness's gradient with respect to the reconstruction: taken back once in a step, a copy each time."""
        kept, copy = batch.buffers["likeness"], batch.buffers["copy"]
        if not batch.buffers["likeness went back"]:
            grad_x = batch.twins["recon"].back_from_tap(batch.twins["likeness"].backward(None))
            self.kernels.activate(grad_x.reshape(-1), IDENTITY, kept.reshape(-1))
            batch.buffers["likeness went back"] = True
        self.kernels.activate(kept.reshape(-1), IDENTITY, copy.reshape(-1))
        return copy

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Means over the images: likeness and KL in nats, the discriminator's loss, and D on the three, geometric."""
        (_, recon, kl, _), (_, drawn, made, _), (on_two, real, _, _), (on_recon, _, _, n) = sums.reshape(-1, 4)
        figures = {"recon": float(recon / n), "kl": float(kl / n), "loss_d": float((on_two + on_recon) / n)}
        costs = {"d_real": real, "d_recon": made, "d_fake": drawn}
        return figures | {name: geometric_mean(cost / n) for name, cost in costs.items()}

    def shown(self, outputs: np.ndarray) -> np.ndarray:
        """The decoder's outputs are images already."""
        return outputs

    def judge(self, x: np.ndarray) -> np.ndarray:
        """The discriminator's logit (N,) of images (N, H, W, C): positive where it takes them for real."""
        return self._apply("head", self._apply("features", self.as_images(x)))[:, 0]
