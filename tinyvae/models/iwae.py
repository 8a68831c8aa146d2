"""The importance weighted autoencoder: a VAE whose loss is a tighter bound, from several draws of z per image."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np

from ..config import IWAEConfig, ModelConfig, require_int
from ..errors import ConfigError
from ..layers.importance import ImportanceLatent
from ..layers.latent import Latent
from ..layers.layer import Layer, Shape
from .methods import Abilities
from .model import Batch, Player, Scored
from .vae import VAE


class IWAE(VAE):
    """loss = −E[log 1/k Σ_k w_k],  w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k = z_mean + exp(z_log_sigma) · eps_k

    By Jensen's inequality it is at most the negative ELBO, which is the case k = 1, and it falls towards −log p(x) as k
    grows: Burda, Grosse & Salakhutdinov 2015, equation 8 and theorem 1. With the normalised weights v_k = w_k / Σ w,
    grad loss = −E[Σ_k v_k · grad log w_k]                                                            (their section 3)
    so every row of the decoder's gradient is scaled by its weight. For the encoder that estimate gets noisier, beside
    its mean, with more draws; doubly = True takes the one of Tucker et al. 2018, section 3, which has the same mean:
    grad loss = −E[Σ_k v_k² · ∂log w_k/∂z_k · ∂z_k/∂h], where log q(z|x) counts through z alone.
    Another beta: log w = log p(x|z) + beta · (log p(z) − log q(z|x)). These two are taken at the draw; only the figure
    `kl` is the analytic one, so that neg_elbo = recon + kl compares with a VAE's.
    """

    Config = IWAEConfig
    can = Abilities(posterior=True, bound=True)

    def __init__(
        self, encoder: Layer, decoder: Layer, latent_dim: int, image_shape: Shape, *,
        samples: int = 5, doubly: bool = False, **scored: Unpack[Scored],
    ) -> None:  # fmt: skip
        require_int("samples", samples, 1, ", the draws of z per image")
        self.samples, self.doubly = samples, bool(doubly)
        super().__init__(encoder, decoder, latent_dim, image_shape, **scored)

    @classmethod
    def options(cls, config: ModelConfig) -> dict[str, Any]:
        assert isinstance(config, IWAEConfig)
        return super().options(config) | {"samples": config.samples, "doubly": config.doubly}

    def make_latent(self, latent_dim: int) -> Latent:
        """The layer that draws z and weighs the draws."""
        return ImportanceLatent(latent_dim, self.doubly)

    def set_plan(self, plan: np.ndarray) -> None:
        """As in Model; a ConfigError for an objective of the analytic KL, which this loss does not have."""
        super().set_plan(plan)
        if self.clock.targeted:
            raise ConfigError("an IWAE draws its KL and has no free_bits and no capacity; leave both out, or use a VAE")

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """As in Model. The weights of an image's rows sum to 1, so a row's gradient counts 1/B before it is weighed."""
        batch = super().batch(role, rows, samples)
        self.device.fill(batch.twins["likelihood"].row_scale, 1 / rows)
        return batch

    def loss(self, batch: Batch) -> None:
        """Forward: fills nll, the weights, kl and `batch.metrics` = [loss, recon, kl]."""
        twins = batch.twins
        z = twins["latent"].forward(self.encoded(batch))
        nll = twins["likelihood"].forward(self.decoded(batch, z), batch.x)
        bound = twins["latent"].weigh(nll)
        self.kernels.importance_objective(bound, nll, batch.kl, batch.sums, batch.metrics)

    def grad(self, player: Player, batch: Batch) -> None:
        """Back: rows are scaled by their weights before they enter the decoder."""
        twins = batch.twins
        grad = twins["likelihood"].backward(twins["latent"].weight)
        grad = twins["decoder"].backward(grad)
        twins["encoder"].backward(twins["latent"].backward(grad))

    # ------------------------------------------------------------------------------------------ for the checker

    def frozen(self, batch: Batch) -> tuple[np.ndarray, ...] | None:
        """What the doubly reparameterised gradient holds constant: h in log q(z|x), z where paths begin, weights."""
        if not self.doubly:
            return None  # the plain estimate is the derivative of the loss for given eps
        self.loss(batch)
        latent = batch.twins["latent"]
        return tuple(self.device.get(a).astype(np.float64) for a in (latent.h, latent.z, latent.weight))

    def surrogate(self, batch: Batch, frozen: tuple[np.ndarray, ...] | None) -> float:
        """A function whose derivative the gradient is: the loss, or with frozen h, z and v

        1/B Σ_r v_r · (nll(y_r) + Σ beta · (log q(y_r; h) − log p(y_r))) at y = z + (1 − beta (1 − v)) · (z(now) − z).
        """
        self.loss(batch)
        if frozen is None:
            return super().surrogate(batch, frozen)
        (h, z, weight), latent, k = frozen, batch.twins["latent"], batch.samples
        beta = self.device.get(batch.clock.kl_weight)
        y = z + (1 - beta * (1 - weight[:, None])) * (self.device.get(latent.z) - z)
        self.device.put(y.astype(self.dtype), latent.z)
        nll = self.device.get(batch.twins["likelihood"].forward(self.decoded(batch, latent.z), batch.x))
        mean, log_sigma = np.repeat(h, k, axis=0)[:, : self.latent_dim], np.repeat(h, k, axis=0)[:, self.latent_dim :]
        log_q = -0.5 * ((y - mean) / np.exp(log_sigma)) ** 2 - log_sigma
        return float(weight @ (nll + (log_q + 0.5 * y * y) @ beta) / batch.rows)
