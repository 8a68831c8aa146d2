"""The generative adversarial network: two players, a generator that draws images and a discriminator that judges them.
It knows both losses and whose gradients a turn fills; networks, optimisers' steps and epochs are others' affair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..config import DEFAULT_DEVICE, Adam, ModelConfig, require_int
from ..errors import ConfigError, ShapeError
from ..layers import Bernoulli, Layer, Prior, Shape, Twin
from .model import Batch, Model, Player

DCGAN_ADAM = Adam(lr=2e-4, beta1=0.5)  # Radford et al. 2015, section 4
FIGURES = 4  # running sums of a player: Σ B · [its loss, two parts of it, 1]


class Verdict(Twin):
    """One task of the discriminator: its twin, and the cost of its logits against one target for all images.

    forward(images (B, H, W, C)) → nll (B,): softplus(−logit) for the target 1, softplus(logit) for 0.
    backward(None) → the gradient of the mean with respect to the images.
    """

    def __init__(self, model: GAN, rows: int, role: str, target: float, weight_grad: str, need_grad_x: bool) -> None:
        site = model.site("discriminator", rows, role)
        if role == "train":
            site = replace(site, weight_grad=weight_grad, need_grad_x=need_grad_x)
        self.discriminator = model.parts["discriminator"].bind(site)
        self.cost: Any = model.likelihood.bind(model.site("likelihood", rows, role))
        self.target = model.device.put(np.full((rows, 1), target, model.dtype))
        self.asked = False

    def forward(self, *xs: Any) -> Any:
        self.asked = True
        return self.cost.forward(self.discriminator.forward(*xs), self.target)

    def backward(self, grad_y: Any) -> Any:
        return self.discriminator.backward(self.cost.backward(grad_y))

    def kinks(self) -> list[Any]:
        return self.discriminator.kinks() if self.asked else []  # its buffers hold nothing before


class GAN(Model):
    """loss_d = −mean log D(x) − mean log(1 − D(G(z))),  loss_g = −mean log D(G(z)),  z ~ N(0, I), D = sigmoid(logit)

    generator: (latent,) → image with pixels in [0, 1]. discriminator: image → (1,), a logit. Each player has an Adam of
    its own, lr 2e-4, beta1 0.5, and one turn in a step: first the discriminator, then the generator, on the same z.
    grad logit = (D(x) − 1) / B for loss_d on images, D(G(z)) / B on drawn ones, and (D(G(z)) − 1) / B for loss_g, which
    goes back through the discriminator, whose weights do not move in that turn, to the generator.
    loss_g is not −loss_d, whose gradient vanishes where D(G(z)) is near 0, but has the same fixed point: there D = ½
    everywhere, loss_d = 2 ln 2 and loss_g = ln 2. The figures d_real and d_fake are the geometric means of D(x) and
    D(G(z)). Goodfellow et al. 2014, equation 1, algorithm 1 and section 3; Radford et al. 2015, section 4.
    """

    figure_names = ("loss_d", "loss_g", "d_real", "d_fake")
    sum_count = 2 * FIGURES

    def __init__(
        self,
        generator: Layer,
        discriminator: Layer,
        latent_dim: int,
        image_shape: Shape,
        device: str = DEFAULT_DEVICE,
        dtype: str = "float32",
        seed: int = 0,
        config: ModelConfig | None = None,
        precision: str = "fp32",
    ) -> None:
        require_int("latent_dim", latent_dim, 1, ", the length of z")
        parts = {
            "prior": Prior(latent_dim), "generator": generator, "discriminator": discriminator,
            "likelihood": Bernoulli(),
        }  # fmt: skip
        players = tuple(Player(name, (name,), DCGAN_ADAM) for name in ("discriminator", "generator"))
        super().__init__(parts, image_shape, latent_dim, players, device, dtype, seed, config, precision)
        self.one = self.device.put(np.ones(1))

    def _declare(self) -> None:
        """The generator must end in images, the discriminator in one logit, which the likelihood scores."""
        shape = self.parts["prior"].declare()
        for name, wanted in (("generator", self.image_shape), ("discriminator", (1,))):
            try:
                shape = self.parts[name].declare(shape)
            except ShapeError as error:
                raise error.within(name) from None
            if shape != wanted:
                raise ShapeError(f"{name}: expected outputs {wanted}, got {shape}")
        self.parts["likelihood"].declare((1,), (1,))

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """The batch of this role and size, with the discriminator at its three tasks: real, fake and judge.

        `sums` are those of each player, by its name.
        """
        key = (role, rows, 1)
        if key not in self._batches:
            draw = replace(self.site("generator", rows, role), need_grad_x=False)
            twins = {
                "prior": self.parts["prior"].bind(self.site("prior", rows, role)),
                "generator": self.parts["generator"].bind(draw),
                "real": Verdict(self, rows, role, 1, "write", False),
                "fake": Verdict(self, rows, role, 0, "add", False),
                "judge": Verdict(self, rows, role, 1, "skip", True),
            }
            x = self.device.empty((rows, *self.image_shape), self.dtype)
            sums = {"discriminator": self.sums[role][:FIGURES], "generator": self.sums[role][FIGURES:]}
            clock = self.clock if role == "train" else self.eval_clock
            kl = self.device.empty((rows, 0), self.dtype)
            self._batches[key] = Batch(x, twins, kl, clock, sums, self.device.put(np.zeros(3)))
        return self._batches[key]

    def player_loss(self, player: Player, batch: Batch) -> None:
        """Forward of one player's turn: fills `batch.metrics` = [its loss, part, part], adds to its running sums."""
        twins = batch.twins
        drawn = twins["generator"].forward(twins["prior"].forward())
        if player.name == "discriminator":
            # the cost of drawn images stands where a VAE has its KL, with the weight 1
            nll, other = twins["real"].forward(batch.x), twins["fake"].forward(drawn).reshape(-1, 1)
            weight = self.one
        else:
            nll, other, weight = twins["judge"].forward(drawn), batch.kl, batch.clock.kl_weight
        self.kernels.objective(nll, other, weight, batch.sums[player.name], batch.metrics)

    def loss(self, batch: Batch) -> None:
        """Both players' losses, one after the other."""
        for player in self.players:
            self.player_loss(player, batch)

    def loss_and_grad(self, player: Player, batch: Batch) -> None:
        """`player_loss`, and then back: fills this player's gradients and leaves the other's alone."""
        self.player_loss(player, batch)
        twins = batch.twins
        if player.name == "discriminator":
            twins["real"].backward(None)  # writes the gradients,
            twins["fake"].backward(None)  # adds to them
        else:
            twins["generator"].backward(twins["judge"].backward(None))

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """Both losses, means over the images, and D(x) and D(G(z)) in the geometric mean."""
        loss_d, real = (float(s) for s in sums[:2] / sums[3])
        loss_g = float(sums[FIGURES] / sums[FIGURES + 3])
        return {"loss_d": loss_d, "loss_g": loss_g, "d_real": float(np.exp(-real)), "d_fake": float(np.exp(-loss_g))}

    def encode(self, x: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """A ConfigError: there is no way from an image to a z here."""
        raise ConfigError("a GAN has no encoder, so it neither encodes nor reconstructs; use sample(n) or decode(z)")

    def decode(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The generator's images (N, H, W, C) for z (N, latent)."""
        z = self.as_codes(z)
        self.one_hot(labels, len(z))  # only its check is wanted
        return self._apply("generator", z)
