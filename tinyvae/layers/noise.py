"""Dropout, and noise that a denoising autoencoder is to undo: numbers left out or disturbed, drawn by counter.
They know how much noise; which layer of a model has it is not their affair."""

from __future__ import annotations

from typing import Any

from ..config import require_choice, require_number
from ..errors import ConfigError
from .layer import Layer, Shape, Site, Twin, size_of

NOISE = ("masking", "gaussian")


class Dropout(Layer):
    """y = x · [u ≥ rate] / (1 − rate), u uniform in [0, 1), in training; y = x in evaluation.

    grad_x = grad_y · [u ≥ rate] / (1 − rate), with the same u: it is drawn by counter, so no mask is kept.
    x, y: (B, …). The scale keeps the mean of y at x. Srivastava et al. 2014, section 4.
    """

    noisy = True

    def __init__(self, rate: float = 0.5) -> None:
        require_number("rate", rate, 0, why=", the share of numbers that are left out")
        if rate >= 1:
            raise ConfigError(f"rate={rate!r} must be below 1; it is the share of numbers that Dropout leaves out")
        self.rate = float(rate)

    def shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def bind(self, site: Site) -> Twin:
        return MaskTwin(self, site, self.rate, 1 / (1 - self.rate)) if site.train else PassTwin()

    def describe(self) -> str:
        return f"{self.rate:g}"


class PassTwin(Twin):
    """y = x: Dropout in evaluation."""

    def forward(self, *xs: Any) -> Any:
        return xs[0]

    def backward(self, grad_y: Any) -> Any:
        return grad_y


class MaskTwin(Twin):
    """Numbers left out with probability `rate`, those that stay times `scale`, on fixed buffers."""

    def __init__(self, layer: Layer, site: Site, rate: float, scale: float) -> None:
        self.rate, self.scale, self.flat = rate, scale, (site.rows, size_of(layer.out_shape))
        self.y = site.empty(site.rows, *layer.out_shape)
        self.grad_x = site.empty(site.rows, *layer.out_shape) if site.need_grad_x else None
        self.counters, self.stream, self.dropout = site.clock.counters, site.stream(), site.op("dropout")

    def forward(self, *xs: Any) -> Any:
        self._mask(xs[0], self.y)
        return self.y

    def backward(self, grad_y: Any) -> Any:
        if self.grad_x is not None:
            self._mask(grad_y, self.grad_x)
        return self.grad_x

    def _mask(self, x: Any, y: Any) -> None:
        x, y = x.reshape(self.flat), y.reshape(self.flat)
        self.dropout(x, self.counters, self.stream, self.rate, self.scale, y)


class Corrupt(Layer):
    """The noise of a denoising autoencoder, in training and in evaluation alike: it is part of the task.

    "masking":  y = x · [u ≥ amount], u uniform: the share `amount` of the pixels is set to 0;  grad_x masked alike
    "gaussian": y = x + amount · eps, eps ~ N(0, 1);                                           grad_x = grad_y
    x, y: (B, …). Vincent et al. 2008, section 2.3; Vincent et al. 2010, section 3.3.
    """

    noisy = True

    def __init__(self, noise: str = "masking", amount: float = 0.25) -> None:
        require_choice("noise", noise, NOISE)
        require_number("noise_amount", amount, 0, why=", the share of pixels masked, or the noise's standard deviation")
        if noise == "masking" and amount >= 1:
            raise ConfigError(f"noise_amount={amount!r} must be below 1 for masking, or no pixel is left")
        self.noise, self.amount = noise, float(amount)

    def shape(self, *in_shapes: Shape) -> Shape:
        return in_shapes[0]

    def bind(self, site: Site) -> Twin:
        return MaskTwin(self, site, self.amount, 1.0) if self.noise == "masking" else DisturbTwin(self, site)

    def describe(self) -> str:
        return f"{self.noise!r}, {self.amount:g}"


class DisturbTwin(Twin):
    """Gaussian noise on fixed buffers."""

    def __init__(self, layer: Corrupt, site: Site) -> None:
        self.amount, self.flat = layer.amount, (site.rows, size_of(layer.out_shape))
        self.y, self.need_grad_x = site.empty(site.rows, *layer.out_shape), site.need_grad_x
        self.counters, self.stream, self.add_noise = site.clock.counters, site.stream(), site.op("add_noise")

    def forward(self, *xs: Any) -> Any:
        x, y = xs[0].reshape(self.flat), self.y.reshape(self.flat)
        self.add_noise(x, self.counters, self.stream, self.amount, y)
        return self.y

    def backward(self, grad_y: Any) -> Any:
        return grad_y if self.need_grad_x else None
