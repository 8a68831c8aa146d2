"""The layer protocol: a Layer declares shapes and tensors, its Twin computes on fixed buffers, a Site supplies them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..device import Array
from ..errors import KernelError, ShapeError
from ..kernels import OPS
from ..kernels.clock import Clock
from ..kernels.op import NO_OPTIONS
from .params import ParamTable, Tensor

Shape = tuple[int, ...]


class Gate:
    """A switch shared by the twins of a site: while it is closed, backward computes grad_x only, no weight gradients.

    So one forward serves several backward passes: that of a discriminator on generated images, for example, once for
    the generator before it, which needs grad_x alone, and once for its own weights.
    """

    open = True


@dataclass(frozen=True)
class Site:
    """Where a twin is bound: a batch size, the ops of a device, and the source of its buffers.

    rows: the batch size. train: for layers that behave differently in training. need_grad_x: False only for the first
    layer of an encoder. weight_grad: "write" overwrites gradients, "add" accumulates, "skip" computes none.
    samples: latent draws per image; what follows the latent layer has rows · samples rows. gate: see `Gate`.
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

    def empty(self, *shape: int, dtype: Any = None) -> Array:
        """A new buffer for the twin, in the model's dtype by default."""
        return self.table.device.empty(shape, dtype or self.table.dtype)

    def op(self, name: str) -> Callable[..., None]:
        """The op `name` of this device, unchecked; a KernelError names op, device and layer where it is missing."""
        try:
            return getattr(self.kernels, name)
        except KernelError as error:
            raise KernelError(f"layer {self.path!r}: {error}") from None

    def work(self, op: str, *shapes: Shape, options: Mapping[str, Any] = NO_OPTIONS) -> Array:
        """Scratch memory for `op` on arrays of these shapes; () stands for one that is left out."""
        return self.empty(OPS[op].work_size(*shapes, options=options))

    def value(self, name: str) -> Array:
        """A tensor of this layer; length 0 where the layer declared none of that name."""
        full = f"{self.path}.{name}"
        return self.table.view(full) if full in self.table.places else self.empty(0)

    def grad(self, name: str) -> Array:
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
    twins: those of the inner layers.
    """

    twins: Sequence[Twin] = ()

    def forward(self, *xs: Array) -> Array:
        raise NotImplementedError

    def backward(self, grad_y: Array) -> Any:
        raise NotImplementedError

    def kinks(self) -> list[Array]:
        """Arrays whose signs show on which side of a kink the last forward was; for the gradient checker."""
        return [kink for twin in self.twins for kink in twin.kinks()]


@dataclass(frozen=True)
class Example:
    """A small instance of a layer, for the gradient checker and the tests.

    in_shapes: as `declare` takes them, without the batch axis. samples: rows per image, for the layers that have them.
    """

    layer: Layer
    in_shapes: tuple[Shape, ...]
    batch: int = 3
    samples: int = 1


class Layer:
    """One differentiable map: its options and, once declared, its shapes and tensors; never an array."""

    noisy = False
    tensors: tuple[Tensor, ...] = ()
    in_shapes: tuple[Shape, ...] = ()
    out_shape: Shape = ()

    def declare(self, *in_shapes: Shape) -> Shape:
        """Checks the shapes (without the batch axis), names the tensors, returns the output's shape."""
        shapes = tuple(tuple(int(n) for n in s) for s in in_shapes)
        if self.in_shapes and shapes != self.in_shapes:
            raise ShapeError(
                f"{self} is declared for {self.in_shapes[0]} already, not {shapes[0]}; make a second layer"
            )
        self.out_shape, self.in_shapes = self.shape(*shapes), shapes
        return self.out_shape

    def shape(self, *in_shapes: Shape) -> Shape:
        """What `declare` does for this layer: checks, sets `self.tensors`, returns the output's shape; the input's."""
        return in_shapes[0]

    def bind(self, site: Site) -> Twin:
        """A twin of this layer for `site`."""
        raise NotImplementedError

    @classmethod
    def examples(cls) -> list[Example]:
        """Small instances of odd shapes, one for each option that changes the arithmetic; new ones at every call."""
        return []

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        """Every leaf below this layer with its path, in order of declaration."""
        yield path, self

    def describe(self) -> str:
        """The arguments, as they stand in the class's repr."""
        return ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()})"


class Wrapping(Layer):
    """A layer around one other, `inner`."""

    inner: Layer

    def declare_inner(self, *in_shapes: Shape) -> Shape:
        """`inner.declare`; a ShapeError names the inner layer."""
        try:
            return self.inner.declare(*in_shapes)
        except ShapeError as error:
            raise error.within("inner") from None

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        yield from self.inner.walk(f"{path}.inner")

    def describe(self) -> str:
        return repr(self.inner)


def size_of(shape: Shape) -> int:
    """The number of elements of a shape."""
    return int(np.prod(shape, dtype=np.int64))
