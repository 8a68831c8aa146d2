"""Convolution and transposed convolution, channels last."""

from __future__ import annotations

from abc import abstractmethod

from ..device import Array
from ..errors import ShapeError
from ..kernels import BY_CODE, IDENTITY, output_size
from .dense import activation, activation_name
from .layer import Example, Layer, Shape, Site, Twin
from .params import Tensor, weight_and_bias

Pair = tuple[int, int]


def pair(value: int | Pair, name: str, least: int) -> Pair:
    """(h, w) from one number or two, each at least `least`."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or any(not isinstance(v, int) or v < least for v in both):
        raise ShapeError(f"{name}={value!r} must be an integer of at least {least}, or a pair (h, w) of such")
    return both[0], both[1]


class Conv2d(Layer):
    """y[n, i, j, f] = act(bias[f] + Σ_{u, v, c} x[n, i·sh + u − ph, j·sw + v − pw, c] · weight[u, v, c, f])

    x: (B, H, W, c_in), zero outside. weight: (KH, KW, c_in, c_out). bias: (c_out,). y: (B, OH, OW, c_out),
    OH = (H + 2 ph − KH) // sh + 1. No dilation, no groups. Strictly a cross-correlation: the kernel is not flipped.
    With g = grad_y · act'(y):
    grad_x      = the adjoint, each g[n, i, j, f] · weight[u, v, c, f] added where x was read
    grad_weight = Σ_{n, i, j} x[n, i·sh + u − ph, j·sw + v − pw, c] · g[n, i, j, f]
    grad_bias   = Σ_{n, i, j} g
    LeCun et al. 1989; Dumoulin & Visin 2016 for the geometry.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        act: int | str = IDENTITY,
        bias: bool = True,
        init: str = "fan_in",
    ) -> None:
        if c_in < 1 or c_out < 1:
            raise ShapeError(f"{type(self).__name__}({c_in}, {c_out}): both channel counts must be at least 1")
        self.c_in, self.c_out, self.act, self.bias, self.init = c_in, c_out, activation(act), bias, init
        self.kernel, self.stride = pair(kernel, "kernel", 1), pair(stride, "stride", 1)
        self.padding = pair(padding, "padding", 0)

    def shape(self, *in_shapes: Shape) -> Shape:
        H, W = self.image_size(in_shapes[0])
        OH, OW = self.small(H, W)
        if OH < 1 or OW < 1:
            raise ShapeError(
                f"{self}: a {H}×{W} input is smaller than the kernel; use a smaller kernel or more padding"
            )
        self.tensors = self.weight_and_bias(self.c_in, self.c_out)
        return OH, OW, self.c_out

    def image_size(self, shape: Shape) -> Pair:
        """(H, W) of the input's shape, which must have c_in channels."""
        if len(shape) != 3 or shape[2] != self.c_in:
            raise ShapeError(f"{self}: expected input (H, W, {self.c_in}), channels last, got {shape}")
        return shape[0], shape[1]

    def weight_and_bias(self, large: int, small: int) -> tuple[Tensor, ...]:
        """The tensors, for the channel counts on the two sides of the (mirrored) convolution."""
        KH, KW = self.kernel
        fans, bias = (KH * KW * large, KH * KW * small), self.c_out if self.bias else 0
        return weight_and_bias((KH, KW, large, small), *fans, bias, self.init)

    def small(self, H: int, W: int) -> Pair:
        """The size that the convolution makes of H × W."""
        sizes = [output_size(n, self.kernel[i], self.stride[i], self.padding[i]) for i, n in enumerate((H, W))]
        return sizes[0], sizes[1]

    def bind(self, site: Site) -> Twin:
        return Conv2dTwin(self, site)

    def describe(self) -> str:
        geometry = f"{self.kernel}, stride={self.stride}, padding={self.padding}"
        return f"{self.c_in}, {self.c_out}, {geometry}, {activation_name(self.act)!r}"

    @classmethod
    def examples(cls) -> list[Example]:
        return [
            Example(Conv2d(2, 3, (3, 2), (1, 2), (2, 0), "relu"), ((5, 7, 2),)),
            Example(Conv2d(1, 3, 4, 2, 1, "tanh"), ((7, 5, 1),)),
            Example(Conv2d(3, 2, (1, 3), (2, 1), (0, 1), bias=False), ((4, 5, 3),), batch=2),
            Example(Conv2d(2, 3, 3, 2, 2), ((1, 4, 2),), batch=2),
            Example(Conv2d(3, 17, 3, 1, 1, "elu"), ((5, 3, 3),), batch=2),
        ]


class ConvTwin(Twin):
    """The common part of Conv2d and its transpose: parameters, buffers, the order of backward."""

    def __init__(self, layer: Conv2d, site: Site) -> None:
        self.act, self.stride, self.padding = layer.act, layer.stride, layer.padding
        self.weight_grad, self.add, self.gate = site.weight_grad, int(site.weight_grad == "add"), site.gate
        self.weight, self.bias, self.none = site.value("weight"), site.value("bias"), site.empty(0)
        self.grad_weight, self.grad_bias = site.grad("weight"), site.grad("bias")
        self.y = site.empty(site.rows, *layer.out_shape)
        self.grad_x = site.empty(site.rows, *layer.in_shapes[0]) if site.need_grad_x else None
        self.conv2d, self.conv2d_grad_x = site.op("conv2d"), site.op("conv2d_grad_x")
        self.conv2d_grad_w, self.bias_grad = site.op("conv2d_grad_w"), site.op("bias_grad")
        self.act_grad = site.op("act_grad")

    def backward(self, grad_y: Array) -> Array:
        if self.act != IDENTITY:
            self.act_grad(self.y.reshape(-1), self.act, grad_y.reshape(-1))
        if self.weight_grad != "skip" and self.gate.open:
            self.backward_weight(grad_y)
        if self.grad_x is not None:
            self.backward_x(grad_y)
        return self.grad_x

    @abstractmethod
    def backward_weight(self, grad_y: Array) -> None:
        """Fills grad_weight and grad_bias."""

    @abstractmethod
    def backward_x(self, grad_y: Array) -> None:
        """Fills grad_x."""

    def kinks(self) -> list[Array]:
        return [self.y] if BY_CODE[self.act].kinked else []

    def allocate_work(self, site: Site, large: Shape, small: Shape) -> None:
        """Scratch for the three primitives between the large (H, W) and the small (OH, OW) side."""
        geometry = {"stride": self.stride, "padding": self.padding}
        self.work = site.work("conv2d", large, self.weight.shape, options=geometry)
        self.work_x = site.work("conv2d_grad_x", small, self.weight.shape, (), large, options=geometry)
        self.work_w = site.work("conv2d_grad_w", large, small, self.weight.shape, options=geometry)


class Conv2dTwin(ConvTwin):
    """Conv2d on fixed buffers."""

    def __init__(self, layer: Conv2d, site: Site) -> None:
        super().__init__(layer, site)
        self.allocate_work(site, (site.rows, *layer.in_shapes[0]), self.y.shape)

    def forward(self, *xs: Array) -> Array:
        (self.x,) = xs
        self.conv2d(self.x, self.weight, self.bias, self.stride, self.padding, self.act, self.work, self.y)
        return self.y

    def backward_weight(self, grad_y: Array) -> None:
        self.conv2d_grad_w(
            self.x, grad_y, self.stride, self.padding, self.add, self.work_w, self.grad_weight,
            self.grad_bias,
        )  # fmt: skip

    def backward_x(self, grad_y: Array) -> None:
        self.conv2d_grad_x(
            grad_y, self.weight, self.none, self.stride, self.padding, IDENTITY, self.work_x,
            self.grad_x,
        )  # fmt: skip


class ConvTranspose2d(Conv2d):
    """The adjoint of Conv2d(c_out, c_in, …): y = act(bias + conv2d_grad_x(x, weight))

    x: (B, OH, OW, c_in). weight: (KH, KW, c_out, c_in), that of the mirrored convolution. y: (B, H, W, c_out), where
    (H, W) = out_size is the input size of the mirrored convolution: several sizes give the same (OH, OW), so it is an
    argument, and is checked. With g = grad_y · act'(y):
    grad_x      = conv2d(g, weight)
    grad_weight = conv2d_grad_w with the roles swapped: g is read where x was, x stands for the gradient
    grad_bias   = Σ_{n, p, q} g
    Initial range ±1/√(c_out·KH·KW), as PyTorch has it. Zeiler et al. 2010; Dumoulin & Visin 2016, chapter 4.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int | Pair,
        out_size: Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        act: int | str = IDENTITY,
        bias: bool = True,
        init: str = "fan_in",
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding, act, bias, init)
        self.out_size = pair(out_size, "out_size", 1)

    def shape(self, *in_shapes: Shape) -> Shape:
        size = self.image_size(in_shapes[0])
        made = self.small(*self.out_size)
        if made != size:
            raise ShapeError(f"{self}: out_size={self.out_size} mirrors an input of {made}, got {size}")
        self.tensors = self.weight_and_bias(self.c_out, self.c_in)
        return (*self.out_size, self.c_out)

    def bind(self, site: Site) -> Twin:
        return ConvTranspose2dTwin(self, site)

    @classmethod
    def examples(cls) -> list[Example]:
        return [
            Example(ConvTranspose2d(3, 2, (3, 2), (5, 7), (1, 2), (2, 0), "relu"), ((7, 3, 3),)),
            Example(ConvTranspose2d(3, 1, 4, (7, 5), 2, 1), ((3, 2, 3),)),
            Example(ConvTranspose2d(2, 3, 2, (6, 4), 3, 0, "elu"), ((2, 1, 2),), batch=2),
            Example(ConvTranspose2d(2, 3, 3, (5, 6), 2, 1, bias=False), ((3, 3, 2),)),
        ]


class ConvTranspose2dTwin(ConvTwin):
    """ConvTranspose2d on fixed buffers."""

    def __init__(self, layer: ConvTranspose2d, site: Site) -> None:
        super().__init__(layer, site)
        self.c_out = layer.c_out
        small = (site.rows, *layer.in_shapes[0])
        self.allocate_work(site, self.y.shape, small)
        self.work_b = site.work("bias_grad", (self.y.size // self.c_out, self.c_out))

    def forward(self, *xs: Array) -> Array:
        (self.x,) = xs
        self.conv2d_grad_x(self.x, self.weight, self.bias, self.stride, self.padding, self.act, self.work_x, self.y)
        return self.y

    def backward_weight(self, grad_y: Array) -> None:
        self.conv2d_grad_w(
            grad_y, self.x, self.stride, self.padding, self.add, self.work_w, self.grad_weight,
            self.none,
        )  # fmt: skip
        if self.grad_bias.size:
            self.bias_grad(grad_y.reshape(-1, self.c_out), self.add, self.work_b, self.grad_bias)

    def backward_x(self, grad_y: Array) -> None:
        self.conv2d(
            grad_y, self.weight, self.none, self.stride, self.padding, IDENTITY, self.work, self.grad_x
        )  # fmt: skip
