"""Likelihoods: the cost of an image given the decoder's outputs, value and gradient in one pass.

A kind of likelihood is a class here: its names, its op, its outputs per channel, its mean, its figures.
"""

from __future__ import annotations

import numpy as np

from ..device import Array
from ..errors import ConfigError, ShapeError
from ..kernels.ops.likelihood import LEAST_LOG_SCALE, LEVELS, continuous_bernoulli_nll
from .layer import Example, Layer, Shape, Site, Twin, size_of
from .params import Tensor

LOG_2PIE = float(np.log(2 * np.pi)) + 1


class Likelihood(Layer):
    """nll[r] = −log p(x[r // k] | outputs[r]), normalising constants included, in nats.

    declare(outputs_shape, image_shape); forward(outputs (R, H, W, C'), x (B, H, W, C)) → nll (R,), R = B·samples.
    C' = C · outputs_per_channel: channel c has outputs c·n … c·n + n − 1, n = outputs_per_channel, side by side.
    The same pass writes grad_outputs, each row times `row_scale (R,)`, 1/R unless it is changed: the loss is a mean.
    backward(None) returns it as it is; backward(grad_nll (R,)) multiplies the rows by grad_nll first. x gets none.
    """

    names: tuple[str, ...] = ()  # in a model's configuration
    outputs_per_channel = 1
    tiny: Shape = (4, 3, 2)  # the image of the examples

    def shape(self, *in_shapes: Shape) -> Shape:
        outputs, image = in_shapes
        expected = (*image[:-1], image[-1] * self.outputs_per_channel)
        if outputs != expected:
            each = f", {self.outputs_per_channel} for each channel" if self.outputs_per_channel > 1 else ""
            raise ShapeError(f"{self}: expected decoder outputs {expected}{each} for images {image}, got {outputs}")
        return ()

    def bind(self, site: Site) -> Twin:
        return LikelihoodTwin(self, site)

    @classmethod
    def named(cls, name: str, sigma: float) -> Likelihood:
        """The likelihood called `name`, one of `names`. sigma: of the kinds that have a fixed one."""
        return cls()

    @classmethod
    def examples(cls) -> list[Example]:
        """One and three draws per image, for each kind; sigma is 0.3."""
        if not cls.names:
            return []
        outputs = (*cls.tiny[:-1], cls.tiny[-1] * cls.outputs_per_channel)
        return [Example(cls.named(cls.names[0], 0.3), (outputs, cls.tiny), 2, k) for k in (1, 3)]

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

    def forward(self, *xs: Array) -> Array:
        outputs, x = xs
        outputs, x = outputs.reshape(self.rows, self.n_outputs), x.reshape(self.images, self.pixels)
        self.score(outputs, x, self.row_scale, *self.options, self.nll, self.grad)
        return self.nll

    def backward(self, grad_y: Array) -> Array:
        if grad_y is not None:
            self.scale_rows(grad_y, self.grad)
        return self.grad_outputs


class Bernoulli(Likelihood):
    """nll = Σ softplus(logits) − x · logits, grad_logits = row_scale · (sigmoid(logits) − x).

    x in [0, 1]; on grey pixels it is the cross-entropy of the field's tutorials, no longer a likelihood of x.
    Kingma & Welling 2013, appendix C.1.
    """

    names = ("bernoulli",)
    tiny = (5, 3, 2)

    def op_name(self) -> str:
        return "bernoulli_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        e = np.exp(-np.abs(outputs))
        return np.where(outputs >= 0, 1, e) / (1 + e)


class ContinuousBernoulli(Likelihood):
    """nll = Σ log((exp(l) − 1) / l) − x · l, grad_logits = row_scale · (mean(l) − x)

    mean(l) = 1 / (1 − exp(−l)) − 1 / l, which is not p = sigmoid(l). The density p(x) = C(p) pˣ (1 − p)¹⁻ˣ of a grey
    pixel x in [0, 1]. A Bernoulli's cross-entropy lacks log C(p), and so is no likelihood of grey pixels.
    Loaiza-Ganem & Cunningham 2019.
    """

    names = ("continuous-bernoulli",)
    tiny = (4, 3, 1)

    def op_name(self) -> str:
        return "continuous_bernoulli_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        logits = outputs.reshape(len(outputs), -1)
        mean = np.empty_like(logits)
        nll, ones = np.empty(len(logits), logits.dtype), np.ones(len(logits), logits.dtype)
        continuous_bernoulli_nll(logits, np.zeros_like(logits), ones, nll, mean)  # at x = 0 the gradient is the mean
        return mean.reshape(outputs.shape)


class Gaussian(Likelihood):
    """nll = Σ (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, grad_mean = row_scale · (mean − x) / sigma².

    sigma is fixed. With sigma = 1 this is half the squared error (MSE) plus ½ log 2π per pixel.
    Kingma & Welling 2013, appendix C.2.
    """

    names = ("gaussian", "mse")
    tiny = (4, 3, 1)

    def __init__(self, sigma: float = 1.0) -> None:
        if not (isinstance(sigma, int | float) and 0 < sigma < np.inf):
            raise ConfigError(f"sigma={sigma!r} must be a positive number, the standard deviation of a pixel")
        self.sigma = float(sigma)

    @classmethod
    def named(cls, name: str, sigma: float) -> Likelihood:
        return cls(1.0 if name == "mse" else sigma)

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


class GaussianScalar(Likelihood):
    """nll = Σ (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, one sigma = exp(log_sigma) for all pixels, learned.

    grad_mean = row_scale · (mean − x) / sigma², grad_log_sigma = Σ_rows row_scale · (P − Σ (x − mean)² / sigma²).
    log_sigma: (1,), 0 at first, a parameter of the part "likelihood". At its optimum sigma² is the mean squared error.
    Rybkin et al. 2021.
    """

    names = ("gaussian-scalar",)
    tiny = (3, 2, 2)
    tensors = (Tensor("log_sigma", (1,)),)

    def bind(self, site: Site) -> Twin:
        return GaussianScalarTwin(self, site)

    def op_name(self) -> str:
        return "gaussian_scalar_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        return outputs


class GaussianScalarTwin(LikelihoodTwin):
    """GaussianScalar on fixed buffers: a share of log_sigma's gradient for each row, summed in backward."""

    def __init__(self, layer: GaussianScalar, site: Site) -> None:
        super().__init__(layer, site)
        self.log_sigma, self.grad_log_sigma = site.value("log_sigma"), site.grad("log_sigma")
        self.need_grad_x, self.add = site.need_grad_x, int(site.weight_grad == "add")
        learns = site.weight_grad != "skip"
        self.shares = site.empty(self.rows if learns else 0, 1)
        self.work = site.work("bias_grad", (self.rows, 1))
        self.bias_grad = site.op("bias_grad")

    def forward(self, *xs: Array) -> Array:
        outputs, x = xs
        outputs, x = outputs.reshape(self.rows, self.n_outputs), x.reshape(self.images, self.pixels)
        self.score(outputs, x, self.row_scale, self.log_sigma, self.nll, self.grad, self.shares)
        return self.nll

    def backward(self, grad_y: Array) -> Array:
        if self.shares.size:
            if grad_y is not None:
                self.scale_rows(grad_y, self.shares)
            self.bias_grad(self.shares, self.add, self.work, self.grad_log_sigma)
        return super().backward(grad_y) if self.need_grad_x else None


class GaussianPixel(Likelihood):
    """nll = Σ (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, mean and sigma of each pixel from two outputs (m, s).

    mean = m, log sigma = −6 + softplus(s + 6): never below −6, or the density of a pixel that does not change in the
    data would grow without end. With d = m − x: grad_m = row_scale · d / sigma²,
    grad_s = row_scale · sigmoid(s + 6) · (1 − d² / sigma²). Rybkin et al. 2021.
    """

    names = ("gaussian-pixel",)
    outputs_per_channel = 2

    def op_name(self) -> str:
        return "gaussian_pixel_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(outputs[..., 0::2])


class GaussianOptimal(Likelihood):
    """nll = P log sigma + P/2 log 2πe, sigma² = 1/P Σ (x − mean)² of the row: sigma is the RMSE of each image itself.

    grad_mean = row_scale · (mean − x) / sigma²: sigma follows the outputs, but stands at its optimum, where that costs
    nothing. sigma is held above exp(−6). Each image has its own, so that its cost does not depend on the batch (Rybkin
    et al. 2021 share one sigma in a batch). As sigma is fitted to x, exp(−nll) is not a density of x: compare these
    figures among runs of this likelihood only.
    """

    names = ("gaussian-optimal", "rmse")
    tiny = (5, 3, 1)

    def op_name(self) -> str:
        return "gaussian_optimal_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def figures(self, recon: float, pixels: int) -> dict[str, float]:
        """rmse: the geometric mean over the images of their own, from recon = P · mean of log rmse + P/2 log 2πe."""
        return {"rmse": float(np.exp(recon / pixels - 0.5 * LOG_2PIE))}


class DiscretizedLogistic(Likelihood):
    """nll = −Σ log P(level of x); two outputs (m, s) for each pixel: a logistic distribution cut at the 255 edges
    between the 256 grey levels, the lowest and the highest taking all that lies beyond.

    scale = exp(LEAST + softplus(s − LEAST)), LEAST = −7 − log 2; a, b = (x ± 1/510 − m) / scale, P = sigmoid(a) −
    sigmoid(b). grad_m = row_scale · (sigmoid(−a) − sigmoid(b)) / scale; grad_s stands with the op. A probability of
    8-bit pixels, so nll is in nats and comparable with published bits per pixel. Salimans et al. 2017.
    """

    names = ("discretized-logistic",)
    tiny = (3, 4, 2)
    outputs_per_channel = 2

    def op_name(self) -> str:
        return "discretized_logistic_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        """Σ_j j/255 · P(j) = 1 − 1/255 Σ over the 255 edges of P(x below the edge)."""
        raw = outputs[..., 1::2] - LEAST_LOG_SCALE
        half_rate = 0.5 * np.exp(-(np.logaddexp(0, raw) + LEAST_LOG_SCALE)).astype(outputs.dtype)
        below = np.zeros_like(half_rate)
        for edge in (np.arange(LEVELS - 1) + 0.5) / (LEVELS - 1):
            below += 0.5 * (1 + np.tanh((outputs.dtype.type(edge) - outputs[..., 0::2]) * half_rate))
        return 1 - below / (LEVELS - 1)


class Categorical(Likelihood):
    """nll = Σ log Σ_j exp(l_j) − l_level: 256 logits for each pixel, one for each grey level of 8 bits.

    grad_logits = row_scale · (softmax(l) − 1 at the level of x). It has no order of the levels and has to learn it;
    a dense decoder's last layer is 256 times as large, a convolutional one's 256 times as deep. van den Oord et al.
    2016.
    """

    names = ("categorical",)
    tiny = (2, 1, 1)
    outputs_per_channel = LEVELS

    def op_name(self) -> str:
        return "categorical_nll"

    def mean(self, outputs: np.ndarray) -> np.ndarray:
        logits = outputs.reshape(*outputs.shape[:-1], -1, LEVELS)
        e = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return e @ np.linspace(0, 1, LEVELS, dtype=e.dtype) / e.sum(axis=-1)


KINDS: tuple[type[Likelihood], ...] = tuple(
    kind for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, Likelihood) and kind.names
)
NAMED: dict[str, type[Likelihood]] = {name: kind for kind in KINDS for name in kind.names}
"""Every likelihood's name, and its class."""


def make_likelihood(likelihood: str | Likelihood, sigma: float = 1.0) -> Likelihood:
    """A likelihood from its name; sigma is that of "gaussian". Two names are the usual ones of what is minimised:

    "mse"   Gaussian with sigma = 1: what is minimised is half the sum of squared errors of an image (and a constant),
            P/2 times its mean squared error. The sum, not the mean: a mean over P pixels would weigh the KL P/2 times.
    "rmse"  Gaussian whose sigma is the RMSE of the image itself, GaussianOptimal: what is minimised is P times the
            logarithm of that RMSE (and a constant), image by image, and then the mean over the batch. The RMSE of a
            whole batch, √(mean of the images' MSE), is another thing: large errors of a few images rule it.
    """
    if isinstance(likelihood, Likelihood):
        return likelihood
    if likelihood not in NAMED:
        raise ConfigError(f"likelihood={likelihood!r} is not known; use one of {', '.join(map(repr, NAMED))}")
    return NAMED[likelihood].named(likelihood, sigma)
