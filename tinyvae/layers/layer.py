"""The layer protocol: Layer declares, a Twin computes on fixed buffers, a Site supplies both; Sequential chains them.
It knows how layers are joined, not what any of them computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import KernelError, ShapeError
from ..kernels import OPS
from ..kernels.clock import Clock
from ..kernels.op import NO_OPTIONS
from .params import ParamTable, Tensor

Shape = tuple[int, ...]


class Gate:
    """A switch that the twins of a site share: shut, backward gives grad_x and leaves the weights' gradients alone.

    So one forward serves several backward passes: a discriminator's on drawn images, once for the generator in front of
    it, which wants grad_x alone, and once for itself.
    """

    open = True


@dataclass(frozen=True)
class Site:
    """Where a twin is built: for one number of rows, with its ops and its buffers.

    rows: the batch. train: layers that behave differently in training ask it. need_grad_x: False only for an encoder's
    first layer. weight_grad: "write" overwrites gradients, "add" adds to them, "skip" leaves them alone.
    samples: latent draws per image, so that what follows the latent layer has rows · samples rows. gate: see `Gate`.
    """

    table: ParamTable
    kernels: Any
    clock: Clock
    rows: int
    train: bool = True
    need_grad_x: bool = True
    weight_grad: str = "write"
    samples: int = 1
    path: str = ""
    gate: Gate = field(default_factory=Gate)

    def __post_init__(self) -> None:
        if self.weight_grad not in ("write", "add", "skip"):
            raise ShapeError(f"weight_grad={self.weight_grad!r} must be 'write', 'add' or 'skip'")

    def child(self, name: str, need_grad_x: bool | None = None) -> Site:
        """The site of an inner layer."""
        need = self.need_grad_x if need_grad_x is None else need_grad_x
        return replace(self, path=f"{self.path}.{name}" if self.path else name, need_grad_x=need)

    def empty(self, *shape: int, dtype: Any = None) -> Any:
        """A buffer of the twin's own, in the model's dtype unless told."""
        return self.table.device.empty(shape, dtype or self.table.dtype)

    def op(self, name: str) -> Callable[..., None]:
        """The op `name` of this device, unchecked; a KernelError names op, device and layer where it is missing."""
        try:
            return getattr(self.kernels, name)
        except KernelError as error:
            raise KernelError(f"layer {self.path!r}: {error}") from None

    def work(self, op: str, *shapes: Shape, options: Mapping[str, Any] = NO_OPTIONS) -> Any:
        """Scratch memory for `op` on arrays of these shapes; () stands for one that is left out."""
        return self.empty(OPS[op].work_size(*shapes, options=options))

    def value(self, name: str) -> Any:
        """A tensor of this layer; length 0 where the layer declared none of that name."""
        full = f"{self.path}.{name}"
        return self.table.view(full) if full in self.table.places else self.empty(0)

    def grad(self, name: str) -> Any:
        """The gradient of a tensor of this layer; length 0 where there is none."""
        full = f"{self.path}.{name}"
        return self.table.grad(full) if full in self.table.places else self.empty(0)

    def stream(self) -> int:
        """The Philox stream of this noisy layer."""
        return self.table.streams[self.path]


class Twin:
    """A layer bound to buffers for one number of rows.

    forward(*xs) → y: valid until this twin's next forward; may be a view of x; the xs stay unchanged until backward.
    backward(grad_y) → grad_x: may destroy grad_y and may return it; None where the site needs no grad_x.
    """

    def forward(self, *xs: Any) -> Any:
        raise NotImplementedError

    def backward(self, grad_y: Any) -> Any:
        raise NotImplementedError

    def kinks(self) -> list[Any]:
        """Arrays whose signs tell on which side of a kink the last forward stood; for the gradient checker."""
        return []


class Layer:
    """One differentiable map. Holds its options and, once declared, its shapes and tensors; never an array."""

    noisy = False
    tensors: tuple[Tensor, ...] = ()
    in_shapes: tuple[Shape, ...] = ()
    out_shape: Shape = ()

    def declare(self, *in_shapes: Shape) -> Shape:
        """Checks the shapes (without the batch axis), fixes names and shapes of tensors, returns the output's shape."""
        shapes = tuple(tuple(int(n) for n in s) for s in in_shapes)
        if self.in_shapes and shapes != self.in_shapes:
            raise ShapeError(
                f"{self} is declared for {self.in_shapes[0]} already, not {shapes[0]}; make a second layer"
            )
        self.out_shape, self.in_shapes = self.shape(*shapes), shapes
        return self.out_shape

    def shape(self, *in_shapes: Shape) -> Shape:
        """What `declare` does for this layer: check, set `self.tensors`, return the output's shape."""
        raise NotImplementedError

    def bind(self, site: Site) -> Twin:
        """A twin of this layer for `site`."""
        raise NotImplementedError

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        """Every leaf below this layer with its path, in order of declaration."""
        yield path, self

    def describe(self) -> str:
        """The arguments, as they stand in the class's repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


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


class SequentialTwin(Twin):
    """The twins of a Sequential, walked forward and then back."""

    def __init__(self, twins: list[Twin]) -> None:
        self.twins, self.reversed = twins, twins[::-1]

    def forward(self, *xs: Any) -> Any:
        (y,) = xs
        for twin in self.twins:
            y = twin.forward(y)
        return y

    def backward(self, grad_y: Any) -> Any:
        for twin in self.reversed:
            grad_y = twin.backward(grad_y)
            if grad_y is None:  # only in front of the first layer with parameters
                return None
        return grad_y

    def kinks(self) -> list[Any]:
        return [k for twin in self.twins for k in twin.kinks()]


def size_of(shape: Shape) -> int:
    """The number of elements of a shape."""
    return int(np.prod(shape, dtype=np.int64))
