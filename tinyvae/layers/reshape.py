"""Reshape and Flatten: another view of the same memory, in (H, W, C) order; nothing is copied."""

from __future__ import annotations

from ..device import Array
from ..errors import ShapeError
from .layer import Example, Layer, Shape, Site, Twin, size_of


class Reshape(Layer):
    """y = x with another shape: (B, …) → (B, *shape). grad_x = grad_y with the shape of x. No copy is made."""

    def __init__(self, *shape: int) -> None:
        self.target = tuple(shape)

    def shape(self, *in_shapes: Shape) -> Shape:
        if size_of(in_shapes[0]) != size_of(self.target):
            have, want = size_of(in_shapes[0]), size_of(self.target)
            raise ShapeError(f"{self}: input {in_shapes[0]} has {have} elements, {self.target} needs {want}")
        return self.target

    def bind(self, site: Site) -> Twin:
        return ReshapeTwin(self, site)

    def describe(self) -> str:
        return ", ".join(map(str, self.target))

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(Reshape(2, 3, 2), ((12,),))]


class Flatten(Reshape):
    """y = x as one vector per image: (B, H, W, C) → (B, H·W·C)."""

    def __init__(self) -> None:
        super().__init__()

    def shape(self, *in_shapes: Shape) -> Shape:
        return (size_of(in_shapes[0]),)

    def describe(self) -> str:
        return ""

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(Flatten(), ((3, 2, 2),))]


class ReshapeTwin(Twin):
    """A view forward, the opposite view back."""

    def __init__(self, layer: Reshape, site: Site) -> None:
        self.y_shape = (site.rows, *layer.out_shape)
        self.x_shape = (site.rows, *layer.in_shapes[0])
        self.need_grad_x = site.need_grad_x

    def forward(self, *xs: Array) -> Array:
        return xs[0].reshape(self.y_shape)

    def backward(self, grad_y: Array) -> Array:
        return grad_y.reshape(self.x_shape) if self.need_grad_x else None
