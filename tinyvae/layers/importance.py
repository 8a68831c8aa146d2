"""The latent layer with importance weights: each draw of an image counts by how well it explains the image."""

from __future__ import annotations

from ..device import Array
from .latent import Latent, LatentTwin
from .layer import Example, Site, Twin


class ImportanceLatent(Latent):
    """z_k = z_mean + exp(z_log_sigma) · eps_k, and for the cost nll_k of what is decoded from each:

    log w_k = −nll_k + Σ kl_weight · (log p(z_k) − log q(z_k|x)),  weight_k = w_k / Σ w,  bound = log 1/k Σ w_k.
    h: (B, 2·latent). z, eps: (R, latent), R = B·samples. nll, weight: (R,). bound: (B,), nats.
    Its twin has a second half of the forward pass, `weigh(nll)`. backward expects grad_z from rows that were scaled by
    weight / B and gives grad_h of −mean(bound); `doubly`: the doubly reparameterised gradient (see IWAE).
    Burda et al. 2015, equation 8 and section 3; Tucker et al. 2018, section 3.
    """

    def __init__(self, latent_dim: int, doubly: bool = False) -> None:
        super().__init__(latent_dim)
        self.doubly = doubly

    def bind(self, site: Site) -> Twin:
        return ImportanceLatentTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        """None: its backward needs `weigh` before, so it is checked within IWAE."""
        return []


class ImportanceLatentTwin(LatentTwin):
    """ImportanceLatent on fixed buffers."""

    def __init__(self, layer: ImportanceLatent, site: Site) -> None:
        super().__init__(layer, site)
        self.doubly = int(layer.doubly)
        self.weight, self.bound = site.empty(site.rows * site.samples), site.empty(site.rows)
        self.importance_weights, self.importance_grad = site.op("importance_weights"), site.op("importance_grad")

    def weigh(self, nll: Array) -> Array:
        """bound (B,) from nll (R,), the cost of each draw of the last forward; keeps the weights for backward."""
        self.importance_weights(self.h, self.eps, self.z, nll, self.kl_weight, self.weight, self.bound)
        return self.bound

    def backward(self, grad_y: Array) -> Array:
        self.importance_grad(
            self.h, self.eps, self.z, grad_y, self.weight, self.kl_weight, self.doubly, self.grad_h
        )  # fmt: skip
        return self.grad_h
