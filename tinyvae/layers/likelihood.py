"""Likelihoods: how an image is scored given the decoder's outputs; value and gradient in one pass.
They know pixels and outputs, not where the outputs come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from .layer import Layer, Shape, Site, Twin, size_of


class Likelihood(Layer):
    """nll[r] = −log p(x[r // k] | outputs[r]), normalising constants included, in nats.

    declare(outputs_shape, image_shape); forward(outputs (R, H, W, C'), x (B, H, W, C)) → nll (R,), R = B·samples.
    C' = C · outputs_per_channel: channel c has outputs c·n … c·n + n − 1, n = outputs_per_channel, side by side.
    The same pass writes grad_outputs, each row times `row_scale (R,)`, 1/R unless it is changed: the loss is a mean.
    backward(None) returns it as it is; backward(grad_nll (R,)) multiplies the rows by grad_nll first. x gets none.
    """

    outputs_per_channel = 1

    def shape(self, *in_shapes: Shape) -> Shape:
        outputs, image = in_shapes
        expected = (*image[:-1], image[-1] * self.outputs_per_channel)
        if outputs != expected:
            each = f", {self.outputs_per_channel} for each channel" if self.outputs_per_channel > 1 else ""
            raise ShapeError(f"{self}: expected decoder outputs {expected}{each} for images {image}, got {outputs}")
        return ()

    def bind(self, site: Site) -> Twin:
        return LikelihoodTwin(self, site)

    def op_name(self) -> str:
        """The op that scores."""
        raise NotImplementedError

    def options(self) -> tuple[float, ...]:
        """The op's options, after its inputs."""
        return ()

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        """The mean image that these outputs stand for (NumPy in, NumPy out)."""
        raise NotImplementedError

    def figures(self, recon: float, pixels: int) -> dict[str, float]:
        """Figures that follow from the mean reconstruction cost, for the log."""
        return {}


class Bernoulli(Likelihood):
    """nll = Σ softplus(logits) − x · logits, grad_logits = row_scale · (sigmoid(logits) − x).

    x in [0, 1]; on grey pixels it is the cross-entropy of the field's tutorials, no longer a likelihood of x.
    Kingma & Welling 2013, appendix C.1.
    """

    def op_name(self) -> str:
        return "bernoulli_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        e = np.exp(-np.abs(outputs))
        return np.where(outputs >= 0, 1, e) / (1 + e)


class Gaussian(Likelihood):
    """nll = Σ (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, grad_mean = row_scale · (mean − x) / sigma².

    sigma is fixed. With sigma = 1 this is half the squared error (MSE) plus ½ log 2π per pixel.
    Kingma & Welling 2013, appendix C.2.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        if not (isinstance(sigma, int | float) and 0 < sigma < np.inf):
            raise ConfigError(f"sigma={sigma!r} must be a positive number, the standard deviation of a pixel")
        self.sigma = float(sigma)

    def op_name(self) -> str:
        return "gaussian_nll"

    def options(self) -> tuple[float, ...]:
        return (self.sigma,)

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def figures(self, recon: float, pixels: int) -> dict[str, float]:
        """rmse: √(mean squared error per pixel), from recon = Σ (x − mean)² / (2 sigma²) + constant."""
        squared = (recon - pixels * (np.log(self.sigma) + 0.5 * np.log(2 * np.pi))) * 2 * self.sigma**2
        return {"rmse": float(np.sqrt(max(0.0, squared) / pixels))}

    def describe(self) -> str:
        return f"sigma={self.sigma:g}"


class LikelihoodTwin(Twin):
    """A likelihood on fixed buffers."""

    def __init__(self, layer: Likelihood, site: Site) -> None:
        self.rows, self.images = site.rows * site.samples, site.rows
        outputs, image = layer.in_shapes
        self.n_outputs, self.pixels, self.options = size_of(outputs), size_of(image), layer.options()
        self.nll = site.empty(self.rows)
        self.row_scale = site.empty(self.rows)
        site.table.device.fill(self.row_scale, 1 / self.rows)
        # evaluation asks for values only: an array of no rows stands for "no gradient"
        self.grad = site.empty(self.rows if site.need_grad_x else 0, self.n_outputs)
        self.grad_outputs = self.grad.reshape(self.grad.shape[0], *outputs)
        self.score, self.scale_rows = site.op(layer.op_name()), site.op("scale_rows")

    def forward(self, *xs: Any) -> Any:
        outputs, x = xs
        outputs, x = outputs.reshape(self.rows, self.n_outputs), x.reshape(self.images, self.pixels)
        self.score(outputs, x, self.row_scale, *self.options, self.nll, self.grad)
        return self.nll

    def backward(self, grad_y: Any) -> Any:
        if grad_y is not None:
            self.scale_rows(grad_y, self.grad)
        return self.grad_outputs
