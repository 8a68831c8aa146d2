"""Layers made of layers, or beside them: Sequential, Residual, WithLabel, and Upsample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..device import Array
from ..errors import ShapeError
from ..kernels import IDENTITY
from .conv import Conv2d
from .dense import Activation, Dense, SiLU
from .latent import Latent
from .layer import Example, Layer, Shape, Site, Twin, Wrapping, size_of
from .noise import Dropout
from .normalise import BatchNorm, LayerNorm
from .reshape import Flatten, Reshape


class Sequential(Layer):
    """y = f_n(… f_2(f_1(x))): layers one after the other; backward walks them in reverse.

    Inner layers are named after their class and place among its kind: dense1, dense2, conv2d1, …
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers: dict[str, Layer] = {}
        counts: dict[str, int] = {}
        for layer in layers:
            if not isinstance(layer, Layer):
                raise ShapeError(f"Sequential takes layers, got {layer!r}; write Sequential(Dense(4, 3), Dense(3, 2))")
            if any(layer is other for other in self.layers.values()):
                raise ShapeError(f"Sequential has {layer!r} twice; a layer stands in one place, so make a second one")
            kind = type(layer).__name__.lower()
            counts[kind] = counts.get(kind, 0) + 1
            self.layers[f"{kind}{counts[kind]}"] = layer

    def shape(self, *in_shapes: Shape) -> Shape:
        shape = in_shapes[0]
        for name, layer in self.layers.items():
            try:
                shape = layer.declare(shape)
            except ShapeError as error:
                raise error.within(name) from None
        return shape

    def bind(self, site: Site) -> Twin:
        twins, need = [], site.need_grad_x
        for name, layer in self.layers.items():
            twins.append(layer.bind(site.child(name, need_grad_x=need)))
            need = need or any(leaf.tensors for _, leaf in layer.walk(name))
        return SequentialTwin(twins)

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        for name, layer in self.layers.items():
            yield from layer.walk(f"{path}.{name}")

    def describe(self) -> str:
        return ", ".join(map(repr, self.layers.values()))

    @classmethod
    def examples(cls) -> list[Example]:
        convolutional = Sequential(Conv2d(1, 2, 3, 2, 1, "elu"), Flatten(), Dense(12, 5, "tanh"), SiLU(), Dense(5, 3))
        latent = Sequential(Flatten(), Dense(6, 6), Latent(3), Dense(3, 8, "relu"), Reshape(2, 4, 1))
        normalised = Sequential(
            Conv2d(1, 3, 3, 1, 1), BatchNorm(), Activation("tanh"), Upsample(2), Flatten(),
            Dropout(0.2), LayerNorm(), Dense(72, 3),
        )  # fmt: skip
        shapes = ((5, 4, 1), (2, 3, 1), (3, 2, 1))
        layers = (convolutional, latent, normalised)
        return [Example(layer, (shape,)) for layer, shape in zip(layers, shapes, strict=True)]


class SequentialTwin(Twin):
    """The twins of a Sequential, walked forward and then back."""

    def __init__(self, twins: list[Twin]) -> None:
        self.twins, self.reversed = twins, twins[::-1]

    def forward(self, *xs: Array) -> Array:
        (y,) = xs
        for twin in self.twins:
            y = twin.forward(y)
        return y

    def backward(self, grad_y: Array) -> Array:
        for twin in self.reversed:
            grad_y = twin.backward(grad_y)
            if grad_y is None:  # only in front of the first layer with parameters
                return None
        return grad_y


class Residual(Wrapping):
    """y = x + f(x), for a layer f (a Sequential as a rule) whose output has the shape of its input.

    grad_x = grad_y + f's grad_x for grad_y. x, y: (B, …). He et al. 2016, equation 1.
    """

    def __init__(self, inner: Layer) -> None:
        if not isinstance(inner, Layer):
            raise ShapeError(f"Residual takes a layer, got {inner!r}; write Residual(Sequential(Dense(4, 4), …))")
        self.inner = inner

    def shape(self, *in_shapes: Shape) -> Shape:
        out = self.declare_inner(*in_shapes)
        if out != in_shapes[0]:
            raise ShapeError(f"{self}: the inner layer gives {out} for {in_shapes[0]}; a sum needs equal shapes")
        return out

    def bind(self, site: Site) -> Twin:
        return ResidualTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        return [
            Example(Residual(Sequential(Dense(5, 4, "relu"), Dense(4, 5, "tanh"))), ((5,),)),
            Example(Residual(Residual(Dense(3, 3, "elu"))), ((3,),), batch=2),
        ]


class ResidualTwin(Twin):
    """Residual on fixed buffers. grad_y is needed twice and the inner layer may destroy it, so it is copied first."""

    def __init__(self, layer: Residual, site: Site) -> None:
        self.twins = [layer.inner.bind(site.child("inner"))]
        self.y, self.need_grad_x = site.empty(site.rows, *layer.out_shape), site.need_grad_x
        need = site.need_grad_x
        self.copied, self.grad_x = (site.empty(site.rows if need else 0, *layer.out_shape) for _ in range(2))
        self.add, self.activate = site.op("add"), site.op("activate")

    def forward(self, *xs: Array) -> Array:
        (x,) = xs
        inner = self.twins[0].forward(x)
        self.add(x.reshape(-1), inner.reshape(-1), self.y.reshape(-1))
        return self.y

    def backward(self, grad_y: Array) -> Any:
        if not self.need_grad_x:
            self.twins[0].backward(grad_y)
            return None
        self.activate(grad_y.reshape(-1), IDENTITY, self.copied.reshape(-1))
        inner = self.twins[0].backward(grad_y)
        self.add(self.copied.reshape(-1), inner.reshape(-1), self.grad_x.reshape(-1))
        return self.grad_x


class WithLabel(Wrapping):
    """y = f([x | label]): the label's one-hot vector stands behind each row of x, flattened, at the entrance of f.

    x: (R, …), N numbers per row. label: (B, classes), row r of x belongs to label r // k, k = R / B. f takes
    (N + classes,). grad_x = the first N columns of f's grad_x; a label has no gradient. Sohn et al. 2015, section 4.
    """

    def __init__(self, inner: Layer) -> None:
        self.inner = inner

    def shape(self, *in_shapes: Shape) -> Shape:
        x, label = in_shapes
        return self.declare_inner((size_of(x) + size_of(label),))

    def bind(self, site: Site) -> Twin:
        return WithLabelTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(WithLabel(Dense(9, 4, "tanh")), ((3, 2, 1), (3,)))]


class WithLabelTwin(Twin):
    """WithLabel on fixed buffers; there may be several rows of x per label."""

    def __init__(self, layer: WithLabel, site: Site) -> None:
        self.twins = [layer.inner.bind(site.child("inner"))]
        self.rows, self.N = site.rows, size_of(layer.in_shapes[0])
        self.joined = site.empty(site.rows, self.N + size_of(layer.in_shapes[1]))
        shape = (site.rows if site.need_grad_x else 0, *layer.in_shapes[0])
        self.grad_x, self.need_grad_x = site.empty(*shape), site.need_grad_x
        self.concat_label, self.concat_label_grad = site.op("concat_label"), site.op("concat_label_grad")

    def forward(self, *xs: Array) -> Array:
        x, label = xs
        self.concat_label(x.reshape(self.rows, self.N), label, self.joined)
        return self.twins[0].forward(self.joined)

    def backward(self, grad_y: Array) -> Any:
        grad = self.twins[0].backward(grad_y)
        if not self.need_grad_x:
            return None, None
        self.concat_label_grad(grad, self.grad_x.reshape(self.rows, self.N))
        return self.grad_x, None


class Upsample(Layer):
    """y[b, i, j] = x[b, i // factor, j // factor]: each pixel becomes a block of equal ones (nearest neighbour).

    x: (B, H, W, C). y: (B, factor·H, factor·W, C). grad_x = the sums of grad_y over the blocks. Before a convolution it
    enlarges without the checkerboards of a transposed convolution: Odena, Dumoulin & Olah 2016.
    """

    def __init__(self, factor: int = 2) -> None:
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ShapeError(f"Upsample({factor!r}): the factor must be an integer of at least 1")
        self.factor = factor

    def shape(self, *in_shapes: Shape) -> Shape:
        if len(in_shapes[0]) != 3:
            raise ShapeError(f"{self}: expected images (H, W, C), got {in_shapes[0]}; put Reshape(H, W, C) before it")
        H, W, C = in_shapes[0]
        return H * self.factor, W * self.factor, C

    def bind(self, site: Site) -> Twin:
        return UpsampleTwin(self, site)

    def describe(self) -> str:
        return str(self.factor)

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(Upsample(factor), ((2, 3, 2),)) for factor in (2, 3)]


class UpsampleTwin(Twin):
    """Upsample on fixed buffers."""

    def __init__(self, layer: Upsample, site: Site) -> None:
        self.y = site.empty(site.rows, *layer.out_shape)
        self.grad_x = site.empty(site.rows, *layer.in_shapes[0]) if site.need_grad_x else None
        self.upsample, self.upsample_grad = site.op("upsample"), site.op("upsample_grad")

    def forward(self, *xs: Array) -> Array:
        self.upsample(xs[0], self.y)
        return self.y

    def backward(self, grad_y: Array) -> Any:
        if self.grad_x is not None:
            self.upsample_grad(grad_y, self.grad_x)
        return self.grad_x
