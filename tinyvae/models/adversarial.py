"""The common part of models with a discriminator: its verdict on one kind of input, the costs, the ways back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..config import Adam, JudgedConfig, ModelConfig
from ..layers.layer import Gate, Shape, Twin
from .model import Model

PLAYER_ADAM = Adam(beta1=0.5)  # Radford et al. 2015, section 4, whose lr is 2e-4: small, where an epoch is 469 steps
FAKE, REAL = 0, 1  # targets of the discriminator
LARGE = 32  # pixels of the longer side, above which a discriminator has spectral normalisation by default


def has_spectral(config: ModelConfig) -> bool:
    """Whether the discriminator of images, where there is one, has spectral normalisation."""
    given = config.spectral if isinstance(config, JudgedConfig) else None
    return max(config.image_shape[:2]) > LARGE if given is None else given


class Verdict(Twin):
    """Parts that end in one logit, on one kind of input, and what the logits cost against each target asked for.

    forward(x) → logit (B, 1), and fills nll[REAL] (B,) = softplus(−logit) = −log D(x) and nll[FAKE] = softplus(logit) =
    −log(1 − D(x)), D = sigmoid(logit).
    back(target) → the gradient of the mean of nll[target] with respect to x, and those of the parts' weights.
    weight_grad, need_grad_x: as in `Site`. tap: the output of the first part, which `back_from_tap` goes back from.
    """

    def __init__(
        self, model: Model, parts: tuple[str, ...], rows: int, role: str, targets: tuple[int, ...],
        weight_grad: str = "write", need_grad_x: bool = False,
    ) -> None:  # fmt: skip
        self.gate, train = Gate(), role == "train"
        self.twins: list[Twin] = []
        for i, part in enumerate(parts):
            site = replace(model.site(part, rows, role), gate=self.gate)
            if train:
                site = replace(site, weight_grad=weight_grad, need_grad_x=need_grad_x or i > 0)
            self.twins.append(model.parts[part].bind(site))
        bind = model.parts["verdict"].bind
        self.costs: dict[int, Any] = {target: bind(model.site("verdict", rows, role)) for target in targets}
        self.targets = {t: model.device.put(np.full((rows, 1), t, model.dtype)) for t in targets}
        self.nll: dict[int, Any] = {target: cost.nll for target, cost in self.costs.items()}

    def forward(self, *xs: Any) -> Any:
        self.tap = y = self.twins[0].forward(*xs)
        for twin in self.twins[1:]:
            y = twin.forward(y)
        for target, cost in self.costs.items():
            cost.forward(y, self.targets[target])
        return y

    def back(self, target: int, judging: bool = False) -> Any:
        """Back from the cost against `target`. judging: only grad_x is wanted, the weights' gradients stay."""
        self.gate.open = not judging
        grad = self.costs[target].backward(None)
        for twin in reversed(self.twins):
            grad = twin.backward(grad)
        self.gate.open = True
        return grad

    def back_from_tap(self, grad_tap: Any) -> Any:
        """grad_x of what came to the first part's output; the weights' gradients stay."""
        self.gate.open = False
        grad_x = self.twins[0].backward(grad_tap)
        self.gate.open = True
        return grad_x

    def kinks(self) -> list[Any]:
        return [kink for twin in self.twins for kink in twin.kinks()]


def declare_verdict(model: Model, part: str, shape: Shape) -> None:
    """Declares a part that must end in one logit, and the cost behind it."""
    model.require_output(part, model.declared(part, shape), (1,))
    model.declared("verdict", (1,), (1,))


def geometric_mean(cost: float) -> float:
    """exp(−mean of −log D): the mean of D that belongs to a mean cost."""
    return float(np.exp(-cost))
