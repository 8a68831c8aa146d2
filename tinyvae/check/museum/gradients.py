"""Exhibits: gradients that are not the derivative of their forward pass, or that do harm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels import ELU, IDENTITY, LEAKY_RELU, RELU, SIGMOID, load
from ...layers.dense import DenseTwin
from ...layers.reshape import ReshapeTwin
from .exhibit import Array, method_exhibit, op_exhibit, op_exhibits

right = load("numpy", unchecked=True)  # what the ops give that are not wrong


def write(out: Array, value: Array, add: int) -> None:
    """out ← value, or out ← out + value."""
    out[...] = out + value if add else value


# ---------------------------------------------------------------------------------------------- dense


def weight_transposed(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """The factors of xᵀ grad_y swapped. With as many inputs as outputs everything runs, and trains
    badly."""
    right.dense_grad_w(x, grad_y, add, work, np.empty_like(grad_w), grad_b)
    write(grad_w, (grad_y.T @ x).reshape(grad_w.shape), add)


def averaged_twice(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """grad_y carries 1/B from the loss already; dividing by B in the layer again makes training B
    times too slow."""
    right.dense_grad_w(x, grad_y / len(x), add, work, grad_w, grad_b)


def bias_mean(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """np.mean where np.sum belongs, in the bias only: the weights learn, the biases hardly move."""
    right.dense_grad_w(x, grad_y, add, work, grad_w, np.zeros(0))
    if grad_b.size:
        write(grad_b, grad_y.mean(axis=0), add)


def bias_left_out(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """The bias has a gradient buffer that nobody fills: it stays what it was at the start."""
    right.dense_grad_w(x, grad_y, add, work, grad_w, np.zeros(0))
    grad_b[...] = 0


def add_overwrites(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """= where += belongs: with two losses on one layer, only the last one counts."""
    right.dense_grad_w(x, grad_y, 0, work, grad_w, grad_b)


def write_adds(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """+= where = belongs: without zeroing, gradients of all steps pile up. The first step is right."""
    right.dense_grad_w(x, grad_y, 1, work, grad_w, grad_b)


def whole_tiles_only(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    """A blocked loop without the remainder: right for batches of 4, 8, 12, wrong for the last,
    ragged one."""
    whole = max(4, len(x) // 4 * 4)
    right.dense_grad_w(x[:whole], grad_y[:whole], add, work, grad_w, grad_b)


def last_column_unwritten(grad_y: Array, w: Array, work: Array, grad_x: Array) -> None:
    """A loop that ends one too early leaves NaN behind; a test of the form |a − n| > tolerance lets
    NaN pass."""
    grad_x[:, :-1] = grad_y @ w[:-1].T


def grad_x_not_transposed(grad_y: Array, w: Array, work: Array, grad_x: Array) -> None:
    """grad_y w instead of grad_y wᵀ, made to fit: invisible on a single layer, fatal under a second
    one."""
    right.dense_grad_x(grad_y, np.ascontiguousarray(w.T).reshape(w.shape), work, grad_x)


def one_too_far(x: Array, w: Array, b: Array, act: int, y: Array) -> None:
    """One element written past the end of y: harmless until another array lies there."""
    right.dense(x, w, b, act, y)
    np.lib.stride_tricks.as_strided(y.reshape(-1), (y.size + 1,))[-1] = 0.0  # lands in the buffer's own padding


def first_input_kept(self: DenseTwin, *xs: Any) -> Any:
    """The layer keeps its first input and goes on using it in backward: right once, wrong ever
    after."""
    (x,) = xs
    self.x = self.__dict__.get("x", x.copy())
    self.dense(x, self.weight, self.bias, self.act, self.y)
    return self.y


DENSE = (
    *op_exhibits("dense_grad_w", weight_transposed, averaged_twice, bias_mean, bias_left_out),
    *op_exhibits("dense_grad_w", add_overwrites, write_adds, whole_tiles_only),
    *op_exhibits("dense_grad_x", last_column_unwritten, grad_x_not_transposed),
    op_exhibit(dense=one_too_far),
    method_exhibit("Dense", DenseTwin, forward=first_input_kept),
)

# ---------------------------------------------------------------------------------------------- activations


def upstream_ignored(y: Array, act: int, grad: Array) -> None:
    """The activation's own derivative without grad_y: right while the loss is the sum of the
    outputs, as in many a gradient check."""
    grad[...] = 1
    right.act_grad(y, act, grad)


def relu_mask_not_strict(y: Array, act: int, grad: Array) -> None:
    """y >= 0 where y > 0 belongs. The output of a ReLU is never below 0, so every gradient passes."""
    if act == RELU:
        grad *= y >= 0
    else:
        right.act_grad(y, act, grad)


def relu_mask_of_the_gradient(y: Array, act: int, grad: Array) -> None:
    """The mask taken of the gradient as well as of the input: pretty pictures, but no derivative."""
    right.act_grad(y, act, grad)
    if act == RELU:
        grad *= grad > 0


def sigmoid_derivative_of_y(y: Array, act: int, grad: Array) -> None:
    """s (1 − s) with s = sigmoid(y), where y is the sigmoid already."""
    if act == SIGMOID:
        s = 1 / (1 + np.exp(-y))
        grad *= s * (1 - s)
    else:
        right.act_grad(y, act, grad)


def elu_without_one(y: Array, act: int, grad: Array) -> None:
    """y for y + 1 in the negative part of ELU: the gradient has the wrong sign there."""
    if act == ELU:
        grad *= np.where(y > 0, 1, y)
    else:
        right.act_grad(y, act, grad)


def two_slopes(y: Array, act: int, grad: Array) -> None:
    """Slope 0.2 forward and 0.01 backward: two defaults of two libraries in one layer."""
    if act == LEAKY_RELU:
        grad *= np.where(y > 0, 1, 0.01)
    else:
        right.act_grad(y, act, grad)


def product_rule_forgotten(x: Array, grad: Array) -> None:
    """SiLU is a product, x · sigmoid(x); only one of its two terms was differentiated."""
    grad *= 1 / (1 + np.exp(-x))


def in_place(x: Array, y: Array) -> None:
    """The activation is written over its input to save memory; the layer below needs that input in
    backward."""
    x *= 1 / (1 + np.exp(-x))
    y[...] = x


def reshape_in_column_order(self: ReshapeTwin, grad_y: Any) -> Any:
    """Forward in row order, backward in column order: all numbers are there, in the wrong
    places."""
    return np.ascontiguousarray(grad_y.reshape(self.x_shape, order="F")) if self.need_grad_x else None


def flatten_channels_first(self: ReshapeTwin, *xs: Any) -> Any:
    """Flatten in (C, H, W) order, as code brought over from another library has it. Consistent both
    ways, so only loaded weights and neighbouring layers disagree."""
    (x,) = xs
    if x.ndim == 4 and len(self.y_shape) == 2:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x.reshape(self.y_shape)


def channels_first_back(self: ReshapeTwin, grad_y: Any) -> Any:
    if len(self.x_shape) == 4 and len(self.y_shape) == 2:
        B, H, W, C = self.x_shape
        return np.ascontiguousarray(grad_y.reshape(B, C, H, W).transpose(0, 2, 3, 1))
    return grad_y.reshape(self.x_shape)


ACTIVATION = (
    *op_exhibits("act_grad", upstream_ignored, relu_mask_not_strict, relu_mask_of_the_gradient),
    *op_exhibits("act_grad", sigmoid_derivative_of_y, elu_without_one, two_slopes),
    op_exhibit(silu_grad=product_rule_forgotten),
    op_exhibit(silu=in_place),
    method_exhibit("Reshape", ReshapeTwin, backward=reshape_in_column_order),
    method_exhibit("Flatten", ReshapeTwin, hidden=True, forward=flatten_channels_first, backward=channels_first_back),
)

# ---------------------------------------------------------------------------------------------- convolution

NONE = np.zeros(0)


def turned(w: Array) -> Array:
    """The kernel flipped in both axes."""
    return np.ascontiguousarray(w[::-1, ::-1])


def kernel_flipped_throughout(
    x: Array, w: Array, b: Array, stride: tuple[int, int], padding: tuple[int, int], act: int, work: Array,
    y: Array,
) -> None:  # fmt: skip
    """A true convolution in all three passes. It learns as well; weights from elsewhere give
    nonsense."""
    right.conv2d(x, turned(w), b, stride, padding, act, work, y)


def kernel_flipped_backward(
    grad_y: Array, w: Array, b: Array, stride: tuple[int, int], padding: tuple[int, int], act: int, work: Array,
    grad_x: Array,
) -> None:  # fmt: skip
    """The gradient's convolution takes the kernel as it stands: with symmetric test kernels nobody
    notices."""
    right.conv2d_grad_x(grad_y, turned(w), b, stride, padding, act, work, grad_x)


def flipped_grad_w(
    x: Array, grad_y: Array, stride: Any, padding: Any, add: int, work: Array, grad_w: Array, grad_b: Array
) -> None:
    flipped = np.zeros_like(grad_w)
    right.conv2d_grad_w(x, grad_y, stride, padding, 0, work, flipped, NONE)
    write(grad_w, turned(flipped), add)
    if grad_b.size:
        write(grad_b, grad_y.sum(axis=(0, 1, 2)), add)


def wrapped_edges(
    grad_y: Array, w: Array, b: Array, stride: Any, padding: Any, act: int, work: Array, grad_x: Array
) -> None:
    """A negative index in the backward pass wraps around: only the pixels at the edges are wrong."""
    (ph, pw), (B, H, W, C) = padding, grad_x.shape
    padded = np.zeros((B, H + 2 * ph, W + 2 * pw, C), grad_x.dtype)
    right.conv2d_grad_x(grad_y, w, NONE, stride, (0, 0), IDENTITY, work, padded)
    inner = padded[:, ph : ph + H, pw : pw + W].copy()
    for p in range(ph):  # the border comes back in at the other side
        inner[:, H - 1 - p] += padded[:, ph - 1 - p, pw : pw + W]
        inner[:, p] += padded[:, ph + H + p, pw : pw + W]
    for q in range(pw):
        inner[:, :, W - 1 - q] += padded[:, ph : ph + H, pw - 1 - q]
        inner[:, :, q] += padded[:, ph : ph + H, pw + W + q]
    right.activate((inner + b if b.size else inner).reshape(-1), act, grad_x.reshape(-1))


def kernel_axes_swapped(
    x: Array, grad_y: Array, stride: Any, padding: Any, add: int, work: Array, grad_w: Array, grad_b: Array
) -> None:
    """Height and width of the kernel exchanged in its gradient: the shapes fit for every square
    kernel."""
    true = np.zeros_like(grad_w)
    right.conv2d_grad_w(x, grad_y, stride, padding, add, work, true, grad_b)
    write(grad_w, true.transpose(1, 0, 2, 3).reshape(grad_w.shape), add)


def first_image_only(
    x: Array, grad_y: Array, stride: Any, padding: Any, add: int, work: Array, grad_w: Array, grad_b: Array
) -> None:
    """The bias sums its gradient over the pixels and forgets the batch. With batch 1 it is right."""
    right.conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, NONE)
    if grad_b.size:
        write(grad_b, grad_y[0].sum(axis=(0, 1)), add)


def transposed_without_bias(
    grad_y: Array, w: Array, b: Array, stride: tuple[int, int], padding: tuple[int, int], act: int, work: Array,
    grad_x: Array,
) -> None:  # fmt: skip
    """The transposed convolution has a bias with a gradient, and does not add it."""
    right.conv2d_grad_x(grad_y, w, NONE, stride, padding, act, work, grad_x)


CONVOLUTION = (
    op_exhibit(conv2d_grad_x=kernel_flipped_backward),
    op_exhibit(
        hidden=True,
        conv2d=kernel_flipped_throughout,
        conv2d_grad_x=kernel_flipped_backward,
        conv2d_grad_w=flipped_grad_w,
    ),
    op_exhibit(conv2d_grad_x=wrapped_edges),
    *op_exhibits("conv2d_grad_w", kernel_axes_swapped, first_image_only),
    op_exhibit(conv2d_grad_x=transposed_without_bias),
)

GRADIENTS = (*DENSE, *ACTIVATION, *CONVOLUTION)
