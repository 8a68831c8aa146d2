"""Residual, WithLabel and Upsample: a sum around a layer, a label beside its input, an enlarged image.
They know how shapes fit together; what is inside them computes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import ShapeError
from ..kernels import IDENTITY
from .layer import Layer, Shape, Site, Twin, size_of


class Residual(Layer):
    """y = x + f(x), for a layer f (a Sequential as a rule) whose output has the shape of its input.

    grad_x = grad_y + f's grad_x for grad_y. x, y: (B, …). He et al. 2016, equation 1.
    """

    def __init__(self, inner: Layer) -> None:
        if not isinstance(inner, Layer):
            raise ShapeError(f"Residual takes a layer, got {inner!r}; write Residual(Sequential(Dense(4, 4), …))")
        self.inner = inner

    def shape(self, *in_shapes: Shape) -> Shape:
        try:
            out = self.inner.declare(*in_shapes)
        except ShapeError as error:
            raise error.within("inner") from None
        if out != in_shapes[0]:
            raise ShapeError(f"{self}: the inner layer gives {out} for {in_shapes[0]}; a sum needs equal shapes")
        return out

    def bind(self, site: Site) -> Twin:
        return ResidualTwin(self, site)

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        yield from self.inner.walk(f"{path}.inner")

    def describe(self) -> str:
        return repr(self.inner)


class ResidualTwin(Twin):
    """Residual on fixed buffers. grad_y is needed twice and the inner layer may destroy it, so it is copied first."""

    def __init__(self, layer: Residual, site: Site) -> None:
        self.twins = [layer.inner.bind(site.child("inner"))]
        self.y, self.need_grad_x = site.empty(site.rows, *layer.out_shape), site.need_grad_x
        need = site.need_grad_x
        self.copied, self.grad_x = (site.empty(site.rows if need else 0, *layer.out_shape) for _ in range(2))
        self.add, self.activate = site.op("add"), site.op("activate")

    def forward(self, *xs: Any) -> Any:
        (x,) = xs
        inner = self.twins[0].forward(x)
        self.add(x.reshape(-1), inner.reshape(-1), self.y.reshape(-1))
        return self.y

    def backward(self, grad_y: Any) -> Any:
        if not self.need_grad_x:
            self.twins[0].backward(grad_y)
            return None
        self.activate(grad_y.reshape(-1), IDENTITY, self.copied.reshape(-1))
        inner = self.twins[0].backward(grad_y)
        self.add(self.copied.reshape(-1), inner.reshape(-1), self.grad_x.reshape(-1))
        return self.grad_x

    def kinks(self) -> list[Any]:
        return self.twins[0].kinks()


class WithLabel(Layer):
    """y = f([x | label]): the label's one-hot vector stands behind each row of x, flattened, at the entrance of f.

    x: (R, …), N numbers per row. label: (B, classes), row r of x belongs to label r // k, k = R / B. f takes
    (N + classes,). grad_x = the first N columns of f's grad_x; a label has no gradient. Sohn et al. 2015, section 4.
    """

    def __init__(self, inner: Layer) -> None:
        self.inner = inner

    def shape(self, *in_shapes: Shape) -> Shape:
        x, label = in_shapes
        try:
            return self.inner.declare((size_of(x) + size_of(label),))
        except ShapeError as error:
            raise error.within("inner") from None

    def bind(self, site: Site) -> Twin:
        return WithLabelTwin(self, site)

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        yield from self.inner.walk(f"{path}.inner")

    def describe(self) -> str:
        return repr(self.inner)


class WithLabelTwin(Twin):
    """WithLabel on fixed buffers; there may be several rows of x per label."""

    def __init__(self, layer: WithLabel, site: Site) -> None:
        self.twins = [layer.inner.bind(site.child("inner"))]
        self.rows, self.N = site.rows, size_of(layer.in_shapes[0])
        self.joined = site.empty(site.rows, self.N + size_of(layer.in_shapes[1]))
        shape = (site.rows if site.need_grad_x else 0, *layer.in_shapes[0])
        self.grad_x, self.need_grad_x = site.empty(*shape), site.need_grad_x
        self.concat_label, self.concat_label_grad = site.op("concat_label"), site.op("concat_label_grad")

    def forward(self, *xs: Any) -> Any:
        x, label = xs
        self.concat_label(x.reshape(self.rows, self.N), label, self.joined)
        return self.twins[0].forward(self.joined)

    def backward(self, grad_y: Any) -> Any:
        grad = self.twins[0].backward(grad_y)
        if not self.need_grad_x:
            return None, None
        self.concat_label_grad(grad, self.grad_x.reshape(self.rows, self.N))
        return self.grad_x, None

    def kinks(self) -> list[Any]:
        return self.twins[0].kinks()


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


class UpsampleTwin(Twin):
    """Upsample on fixed buffers."""

    def __init__(self, layer: Upsample, site: Site) -> None:
        self.y = site.empty(site.rows, *layer.out_shape)
        self.grad_x = site.empty(site.rows, *layer.in_shapes[0]) if site.need_grad_x else None
        self.upsample, self.upsample_grad = site.op("upsample"), site.op("upsample_grad")

    def forward(self, *xs: Any) -> Any:
        self.upsample(xs[0], self.y)
        return self.y

    def backward(self, grad_y: Any) -> Any:
        if self.grad_x is not None:
            self.upsample_grad(grad_y, self.grad_x)
        return self.grad_x
