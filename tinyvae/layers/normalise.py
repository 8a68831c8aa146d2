"""BatchNorm and LayerNorm: numbers brought to mean 0 and variance 1, then scaled and shifted again."""

from __future__ import annotations

from ..device import Array
from ..errors import KernelError, ShapeError
from .layer import Example, Layer, Shape, Site, Twin, size_of
from .params import Tensor

EPSILON = 1e-5  # added to a variance, PyTorch's default


def _require_fraction(layer: str, name: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 < value <= 1):
        raise ShapeError(f"{layer}: {name}={value!r} must be a number above 0 and at most 1")


class BatchNorm(Layer):
    """n = (x − mean) / √(variance + 1e-5),  y = gamma · n + beta: mean and variance of each channel over the batch.

    x, y: (B, …, C), every axis but the last is averaged over: R = B·H·W rows of an image. gamma, beta: (C,), 1 and 0 at
    first. With sums and means over the R rows
    grad_x     = gamma / √(variance + 1e-5) · (grad_y − mean(grad_y) − n · mean(grad_y · n))
    grad_gamma = Σ grad_y · n,  grad_beta = Σ grad_y
    running ← (1 − momentum) · running + momentum · that of the batch, for mean and variance, which are state: saved,
    never optimised. In evaluation they take the batch's place, so that an image does not depend on its neighbours; such
    a twin only goes forward. Ioffe & Szegedy 2015, algorithms 1 and 2, with PyTorch's constants.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        _require_fraction("BatchNorm", "momentum", momentum)
        self.momentum = float(momentum)

    def shape(self, *in_shapes: Shape) -> Shape:
        C = in_shapes[0][-1]
        self.tensors = (
            Tensor("gamma", (C,), fill=1.0), Tensor("beta", (C,)),
            Tensor("running_mean", (C,), kind="state"), Tensor("running_var", (C,), fill=1.0, kind="state"),
        )  # fmt: skip
        return in_shapes[0]

    def bind(self, site: Site) -> Twin:
        return BatchNormTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(cls(), (shape,)) for shape in ((5,), (3, 2, 4))]

    def describe(self) -> str:
        return "" if self.momentum == 0.1 else f"momentum={self.momentum:g}"


class NormTwin(Twin):
    """The common part of the two: rows of channels, gamma and beta, backward. `op`: the name of the forward op."""

    x: Array  # rows of the last forward

    def __init__(self, op: str, shape: Shape, rows: int, columns: int, site: Site) -> None:
        self.flat, self.train, self.weight_grad = (rows, columns), site.train, site.weight_grad
        self.gamma, self.beta = site.value("gamma"), site.value("beta")
        skip = site.weight_grad == "skip"
        self.gate, self.none = site.gate, (site.empty(0), site.empty(0))
        self.grads = self.none if skip else (site.grad("gamma"), site.grad("beta"))
        self.y = site.empty(site.rows, *shape)
        self.grad_x = site.empty(*((site.rows, *shape) if site.need_grad_x else (0, *shape)))
        self.grad_rows = self.grad_x.reshape(rows if site.need_grad_x else 0, columns)
        self.need_grad_x, self.add = site.need_grad_x, int(site.weight_grad == "add")
        groups = columns if op == "batch_norm" else rows  # how many means and variances there are
        self.mean, self.rstd = site.empty(groups), site.empty(groups)
        self.normalise, self.normalise_grad = site.op(op), site.op(f"{op}_grad")

    def backward(self, grad_y: Array) -> Array:
        grad_gamma, grad_beta = self.grads if self.gate.open else self.none
        self.normalise_grad(
            self.x, self.mean, self.rstd, self.gamma, grad_y.reshape(self.flat), self.add, grad_gamma,
            grad_beta, self.grad_rows,
        )  # fmt: skip
        return self.grad_x if self.need_grad_x else None


class BatchNormTwin(NormTwin):
    """BatchNorm on fixed buffers."""

    def __init__(self, layer: BatchNorm, site: Site) -> None:
        shape = layer.out_shape
        C = shape[-1]
        super().__init__("batch_norm", shape, site.rows * size_of(shape) // C, C, site)
        self.momentum, self.path = layer.momentum, site.path
        self.running_mean, self.running_var = site.value("running_mean"), site.value("running_var")
        self.batch_norm_frozen = site.op("batch_norm_frozen")

    def forward(self, *xs: Array) -> Array:
        self.x, y = xs[0].reshape(self.flat), self.y.reshape(self.flat)
        if self.train:
            self.normalise(
                self.x, self.gamma, self.beta, EPSILON, self.momentum, self.running_mean, self.running_var, self.mean,
                self.rstd, y,
            )  # fmt: skip
        else:
            self.batch_norm_frozen(self.x, self.running_mean, self.running_var, self.gamma, self.beta, EPSILON, y)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        if not self.train:
            raise KernelError(f"layer {self.path!r}: BatchNorm goes only forward in evaluation; bind it for training")
        return super().backward(grad_y)


class LayerNorm(Layer):
    """n = (x − mean) / √(variance + 1e-5),  y = gamma · n + beta: mean and variance over all numbers of one image.

    x, y: (B, …), C numbers per image. gamma, beta: the shape of an image's numbers, 1 and 0 at first. With
    g = gamma · grad_y, means over the C numbers of an image and sums over the batch
    grad_x     = (g − mean(g) − n · mean(g · n)) / √(variance + 1e-5)
    grad_gamma = Σ grad_y · n,  grad_beta = Σ grad_y
    Training and evaluation are alike. Ba, Kiros & Hinton 2016, equation 3.
    """

    def shape(self, *in_shapes: Shape) -> Shape:
        self.tensors = (Tensor("gamma", in_shapes[0], fill=1.0), Tensor("beta", in_shapes[0]))
        return in_shapes[0]

    def bind(self, site: Site) -> Twin:
        return LayerNormTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(cls(), (shape,)) for shape in ((5,), (3, 2, 4))]


class LayerNormTwin(NormTwin):
    """LayerNorm on fixed buffers."""

    def __init__(self, layer: LayerNorm, site: Site) -> None:
        super().__init__("layer_norm", layer.out_shape, site.rows, size_of(layer.out_shape), site)
        self.gamma, self.beta = self.gamma.reshape(-1), self.beta.reshape(-1)
        self.grads = (self.grads[0].reshape(-1), self.grads[1].reshape(-1))

    def forward(self, *xs: Array) -> Array:
        self.x = xs[0].reshape(self.flat)
        self.normalise(self.x, self.gamma, self.beta, EPSILON, self.mean, self.rstd, self.y.reshape(self.flat))
        return self.y
