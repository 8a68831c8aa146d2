"""Dropout, and the corruption of a denoising autoencoder: random masks and Gaussian noise, drawn by counter."""

from __future__ import annotations

from ..config import require_choice, require_number
from ..device import Array
from ..errors import ConfigError
from .layer import Example, Layer, Site, Twin, size_of

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

    def bind(self, site: Site) -> Twin:
        return MaskTwin(self, site, self.rate, 1 / (1 - self.rate)) if site.train else PassTwin()

    def describe(self) -> str:
        return f"{self.rate:g}"

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(Dropout(0.3), (shape,)) for shape in ((5,), (3, 2, 4))]


class PassTwin(Twin):
    """y = x: Dropout in evaluation."""

    def forward(self, *xs: Array) -> Array:
        return xs[0]

    def backward(self, grad_y: Array) -> Array:
        return grad_y


class NoiseTwin(Twin):
    """The common part of noise layers: rows of numbers, an output, and the address of the random numbers."""

    def __init__(self, layer: Layer, site: Site) -> None:
        self.flat, self.y = (site.rows, size_of(layer.out_shape)), site.empty(site.rows, *layer.out_shape)
        self.counters, self.stream, self.need_grad_x = site.clock.counters, site.stream(), site.need_grad_x


class MaskTwin(NoiseTwin):
    """Zeros with probability `rate`, the other numbers times `scale`, on fixed buffers."""

    def __init__(self, layer: Layer, site: Site, rate: float, scale: float) -> None:
        super().__init__(layer, site)
        self.rate, self.scale, self.dropout = rate, scale, site.op("dropout")
        self.grad_x = site.empty(site.rows, *layer.out_shape) if site.need_grad_x else None

    def forward(self, *xs: Array) -> Array:
        self._mask(xs[0], self.y)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        if self.grad_x is not None:
            self._mask(grad_y, self.grad_x)
        return self.grad_x

    def _mask(self, x: Array, y: Array) -> None:
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

    def bind(self, site: Site) -> Twin:
        return MaskTwin(self, site, self.amount, 1.0) if self.noise == "masking" else DisturbTwin(self, site)

    def describe(self) -> str:
        return f"{self.noise!r}, {self.amount:g}"

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(Corrupt(noise, 0.4), ((3, 2, 1),)) for noise in NOISE]


class DisturbTwin(NoiseTwin):
    """Gaussian noise on fixed buffers."""

    def __init__(self, layer: Corrupt, site: Site) -> None:
        super().__init__(layer, site)
        self.amount, self.add_noise = layer.amount, site.op("add_noise")

    def forward(self, *xs: Array) -> Array:
        x, y = xs[0].reshape(self.flat), self.y.reshape(self.flat)
        self.add_noise(x, self.counters, self.stream, self.amount, y)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        return grad_y if self.need_grad_x else None
