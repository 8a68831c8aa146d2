"""Dense, and activations as layers of their own."""

from __future__ import annotations

from ..device import Array
from ..errors import ShapeError
from ..kernels import ACTIVATIONS, BY_CODE, IDENTITY
from .layer import Example, Layer, Shape, Site, Twin, size_of
from .params import weight_and_bias


def activation(act: int | str) -> int:
    """The constant of an activation given as constant or by name."""
    if isinstance(act, str) and act in ACTIVATIONS:
        return ACTIVATIONS[act]
    if isinstance(act, int) and not isinstance(act, bool) and act in ACTIVATIONS.values():
        return act
    raise ShapeError(f"act={act!r} is not an activation; use one of {', '.join(map(repr, ACTIVATIONS))}")


def activation_name(act: int) -> str:
    """The name of an activation's constant."""
    return BY_CODE[act].name


class Dense(Layer):
    """y = act(x weight + bias)

    x: (B, n_in). weight: (n_in, n_out). bias: (n_out,). y: (B, n_out).
    With g = grad_y · act'(y):
    grad_x      = g weightᵀ
    grad_weight = xᵀ g
    grad_bias   = Σ_B g
    Rumelhart, Hinton & Williams 1986.
    """

    def __init__(
        self, n_in: int, n_out: int, act: int | str = IDENTITY, bias: bool = True, init: str = "fan_in"
    ) -> None:
        if n_in < 1 or n_out < 1:
            raise ShapeError(f"Dense({n_in}, {n_out}): both sizes must be at least 1")
        self.n_in, self.n_out, self.act, self.bias, self.init = n_in, n_out, activation(act), bias, init

    def shape(self, *in_shapes: Shape) -> Shape:
        if in_shapes[0] != (self.n_in,):
            fix = f"put Flatten() before it, or Dense({size_of(in_shapes[0])}, {self.n_out})"
            raise ShapeError(f"{self}: expected input ({self.n_in},), got {in_shapes[0]}; {fix}")
        bias = self.n_out if self.bias else 0
        self.tensors = weight_and_bias((self.n_in, self.n_out), self.n_in, self.n_out, bias, self.init)
        return (self.n_out,)

    def bind(self, site: Site) -> Twin:
        return DenseTwin(self, site)

    def describe(self) -> str:
        return f"{self.n_in}, {self.n_out}, {activation_name(self.act)!r}"

    @classmethod
    def examples(cls) -> list[Example]:
        return [
            *(Example(Dense(5, 4, act), ((5,),)) for act in ACTIVATIONS),
            Example(Dense(1, 1), ((1,),), batch=2),
            Example(Dense(33, 17, "tanh", bias=False), ((33,),), batch=7),
            Example(Dense(15, 31, init="he"), ((15,),), batch=2),
            Example(Dense(31, 33, "elu"), ((31,),), batch=15),
            Example(Dense(73, 64, "relu"), ((73,),), batch=5),  # so many weights that directions are checked
        ]


class DenseTwin(Twin):
    """Dense on fixed buffers."""

    def __init__(self, layer: Dense, site: Site) -> None:
        self.act, self.weight_grad, self.gate = layer.act, site.weight_grad, site.gate
        self.weight, self.bias = site.value("weight"), site.value("bias")
        self.grad_weight, self.grad_bias = site.grad("weight"), site.grad("bias")
        self.y = site.empty(site.rows, layer.n_out)  # (B, n_out)
        self.grad_x = site.empty(site.rows, layer.n_in) if site.need_grad_x else None  # (B, n_in)
        self.dense, self.act_grad = site.op("dense"), site.op("act_grad")
        self.dense_grad_x, self.dense_grad_w = site.op("dense_grad_x"), site.op("dense_grad_w")
        shape_x, shape_y = (site.rows, layer.n_in), (site.rows, layer.n_out)
        self.work_x = site.work("dense_grad_x", shape_y, self.weight.shape)
        self.work_w = site.work("dense_grad_w", shape_x, shape_y)

    def forward(self, *xs: Array) -> Array:
        (self.x,) = xs
        self.dense(self.x, self.weight, self.bias, self.act, self.y)
        return self.y

    def backward(self, grad_y: Array) -> Array:
        if self.act != IDENTITY:
            self.act_grad(self.y.reshape(-1), self.act, grad_y.reshape(-1))
        if self.weight_grad != "skip" and self.gate.open:
            add = int(self.weight_grad == "add")
            self.dense_grad_w(self.x, grad_y, add, self.work_w, self.grad_weight, self.grad_bias)
        if self.grad_x is None:
            return None
        self.dense_grad_x(grad_y, self.weight, self.work_x, self.grad_x)
        return self.grad_x

    def kinks(self) -> list[Array]:
        return [self.y] if BY_CODE[self.act].kinked else []


class Activation(Layer):
    """y = act(x), elementwise, an activation as a layer of its own. grad_x = grad_y · act'(y).

    x, y: (B, …).
    """

    def __init__(self, act: int | str) -> None:
        self.act = activation(act)

    def bind(self, site: Site) -> Twin:
        return ActivationTwin(self, site)

    def describe(self) -> str:
        return repr(activation_name(self.act))

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(Activation(act), ((3, 5, 2),)) for act in ACTIVATIONS]


class ActivationTwin(Twin):
    """Activation on fixed buffers."""

    def __init__(self, layer: Activation, site: Site) -> None:
        self.act = layer.act
        self.y = site.empty(site.rows, *layer.out_shape)
        self.activate, self.act_grad = site.op("activate"), site.op("act_grad")

    def forward(self, *xs: Array) -> Array:
        (x,) = xs
        self.activate(x.reshape(-1), self.act, self.y.reshape(-1))
        return self.y

    def backward(self, grad_y: Array) -> Array:
        self.act_grad(self.y.reshape(-1), self.act, grad_y.reshape(-1))
        return grad_y

    def kinks(self) -> list[Array]:
        return [self.y] if BY_CODE[self.act].kinked else []


class SiLU(Layer):
    """y = x · s, s = sigmoid(x); grad_x = grad_y · s (1 + x (1 − s)). Elfwing, Uchibe & Doya 2018, equation 2.

    x, y: (B, …). Its derivative does not follow from y, so the twin keeps x.
    """

    def bind(self, site: Site) -> Twin:
        return SiLUTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        return [Example(SiLU(), ((7,),))]


class SiLUTwin(Twin):
    """SiLU on fixed buffers."""

    def __init__(self, layer: SiLU, site: Site) -> None:
        self.y = site.empty(site.rows, *layer.out_shape)
        self.silu, self.silu_grad = site.op("silu"), site.op("silu_grad")

    def forward(self, *xs: Array) -> Array:
        (self.x,) = xs
        self.silu(self.x.reshape(-1), self.y.reshape(-1))
        return self.y

    def backward(self, grad_y: Array) -> Array:
        self.silu_grad(self.x.reshape(-1), grad_y.reshape(-1))
        return grad_y
