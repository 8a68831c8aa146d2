"""Exhibits of the first room: gradients that are not the derivative of their forward pass, or that do harm."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels import ELU, IDENTITY, LEAKY_RELU, RELU, SIGMOID, load
from ...layers.dense import DenseTwin
from ...layers.reshape import ReshapeTwin
from .exhibit import Array, Exhibit

right = load("numpy", unchecked=True)  # what the ops give that are not wrong


def write(out: Array, value: Array, add: int) -> None:
    """out ← value, or out ← out + value."""
    out[...] = out + value if add else value


# ---------------------------------------------------------------------------------------------- dense


def weight_transposed(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    right.dense_grad_w(x, grad_y, add, work, np.empty_like(grad_w), grad_b)
    write(grad_w, (grad_y.T @ x).reshape(grad_w.shape), add)


def averaged_again(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    right.dense_grad_w(x, grad_y / len(x), add, work, grad_w, grad_b)


def bias_mean(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    right.dense_grad_w(x, grad_y, add, work, grad_w, np.zeros(0))
    if grad_b.size:
        write(grad_b, grad_y.mean(axis=0), add)


def bias_left_out(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    right.dense_grad_w(x, grad_y, add, work, grad_w, np.zeros(0))
    grad_b[...] = 0


def add_overwrites(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    right.dense_grad_w(x, grad_y, 0, work, grad_w, grad_b)


def write_adds(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    right.dense_grad_w(x, grad_y, 1, work, grad_w, grad_b)


def whole_tiles_only(x: Array, grad_y: Array, add: int, work: Array, grad_w: Array, grad_b: Array) -> None:
    whole = max(4, len(x) // 4 * 4)
    right.dense_grad_w(x[:whole], grad_y[:whole], add, work, grad_w, grad_b)


def last_column_unwritten(grad_y: Array, w: Array, work: Array, grad_x: Array) -> None:
    grad_x[:, :-1] = grad_y @ w[:-1].T


def not_transposed(grad_y: Array, w: Array, work: Array, grad_x: Array) -> None:
    right.dense_grad_x(grad_y, np.ascontiguousarray(w.T).reshape(w.shape), work, grad_x)


def one_too_far(x: Array, w: Array, b: Array, act: int, y: Array) -> None:
    right.dense(x, w, b, act, y)
    np.lib.stride_tricks.as_strided(y.reshape(-1), (y.size + 1,))[-1] = 0.0  # lands in the buffer's own padding


def first_input_kept(self: DenseTwin, *xs: Any) -> Any:
    (x,) = xs
    self.x = self.__dict__.get("x", x.copy())
    self.dense(x, self.weight, self.bias, self.act, self.y)
    return self.y


DENSE = (
    Exhibit(
        "weight-transposed",
        "The factors of xᵀ grad_y swapped. With as many inputs as outputs everything runs, and trains badly.",
        {"dense_grad_w": weight_transposed},
    ),
    Exhibit(
        "averaged-twice",
        "grad_y carries 1/B from the loss already; dividing by B in the layer again makes training B times too slow.",
        {"dense_grad_w": averaged_again},
    ),
    Exhibit(
        "bias-mean",
        "np.mean where np.sum belongs, in the bias only: the weights learn, the biases hardly move.",
        {"dense_grad_w": bias_mean},
    ),
    Exhibit(
        "bias-left-out",
        "The bias has a gradient buffer that nobody fills: it stays what it was at the start.",
        {"dense_grad_w": bias_left_out},
    ),
    Exhibit(
        "add-overwrites",
        "= where += belongs: with two losses on one layer, only the last one counts.",
        {"dense_grad_w": add_overwrites},
    ),
    Exhibit(
        "write-adds",
        "+= where = belongs: without zeroing, gradients of all steps pile up. The first step is right.",
        {"dense_grad_w": write_adds},
    ),
    Exhibit(
        "whole-tiles-only",
        "A blocked loop without the remainder: right for batches of 4, 8, 12, wrong for the last, ragged one.",
        {"dense_grad_w": whole_tiles_only},
    ),
    Exhibit(
        "last-column-unwritten",
        "A loop that ends one too early leaves NaN behind; a test of the form |a − n| > tolerance lets NaN pass.",
        {"dense_grad_x": last_column_unwritten},
    ),
    Exhibit(
        "grad-x-not-transposed",
        "grad_y w instead of grad_y wᵀ, made to fit: invisible on a single layer, fatal under a second one.",
        {"dense_grad_x": not_transposed},
    ),
    Exhibit(
        "one-too-far",
        "One element written past the end of y: harmless until another array lies there.",
        {"dense": one_too_far},
    ),
    Exhibit(
        "first-input-kept",
        "The layer keeps its first input and goes on using it in backward: right once, wrong ever after.",
        methods=((DenseTwin, "forward", first_input_kept),),
        place="Dense",
    ),
)

# ---------------------------------------------------------------------------------------------- activations


def upstream_ignored(y: Array, act: int, grad: Array) -> None:
    grad[...] = 1
    right.act_grad(y, act, grad)


def relu_all_pass(y: Array, act: int, grad: Array) -> None:
    if act == RELU:
        grad *= y >= 0
    else:
        right.act_grad(y, act, grad)


def relu_by_gradient(y: Array, act: int, grad: Array) -> None:
    right.act_grad(y, act, grad)
    if act == RELU:
        grad *= grad > 0


def sigmoid_twice(y: Array, act: int, grad: Array) -> None:
    if act == SIGMOID:
        s = 1 / (1 + np.exp(-y))
        grad *= s * (1 - s)
    else:
        right.act_grad(y, act, grad)


def elu_without_one(y: Array, act: int, grad: Array) -> None:
    if act == ELU:
        grad *= np.where(y > 0, 1, y)
    else:
        right.act_grad(y, act, grad)


def other_slope(y: Array, act: int, grad: Array) -> None:
    if act == LEAKY_RELU:
        grad *= np.where(y > 0, 1, 0.01)
    else:
        right.act_grad(y, act, grad)


def silu_first_term(x: Array, grad: Array) -> None:
    grad *= 1 / (1 + np.exp(-x))


def silu_in_place(x: Array, y: Array) -> None:
    x *= 1 / (1 + np.exp(-x))
    y[...] = x


def column_order(self: ReshapeTwin, grad_y: Any) -> Any:
    return np.ascontiguousarray(grad_y.reshape(self.x_shape, order="F")) if self.need_grad_x else None


def channels_first(self: ReshapeTwin, *xs: Any) -> Any:
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
    Exhibit(
        "upstream-ignored",
        "The activation's own derivative without grad_y: right while the loss is the sum of the outputs, as in many a "
        "gradient check.",
        {"act_grad": upstream_ignored},
    ),
    Exhibit(
        "relu-mask-not-strict",
        "y >= 0 where y > 0 belongs. The output of a ReLU is never below 0, so every gradient passes.",
        {"act_grad": relu_all_pass},
    ),
    Exhibit(
        "relu-mask-of-the-gradient",
        "The mask taken of the gradient as well as of the input: pretty pictures, but no derivative.",
        {"act_grad": relu_by_gradient},
    ),
    Exhibit(
        "sigmoid-derivative-of-y",
        "s (1 − s) with s = sigmoid(y), where y is the sigmoid already.",
        {"act_grad": sigmoid_twice},
    ),
    Exhibit(
        "elu-without-one",
        "y for y + 1 in the negative part of ELU: the gradient has the wrong sign there.",
        {"act_grad": elu_without_one},
    ),
    Exhibit(
        "two-slopes",
        "Slope 0.2 forward and 0.01 backward: two defaults of two libraries in one layer.",
        {"act_grad": other_slope},
    ),
    Exhibit(
        "product-rule-forgotten",
        "SiLU is a product, x · sigmoid(x); only one of its two terms was differentiated.",
        {"silu_grad": silu_first_term},
    ),
    Exhibit(
        "in-place",
        "The activation is written over its input to save memory; the layer below needs that input in backward.",
        {"silu": silu_in_place},
    ),
    Exhibit(
        "reshape-in-column-order",
        "Forward in row order, backward in column order: all numbers are there, in the wrong places.",
        methods=((ReshapeTwin, "backward", column_order),),
        place="Reshape",
    ),
    Exhibit(
        "flatten-channels-first",
        "Flatten in (C, H, W) order, as code brought over from another library has it. Consistent both ways, so only "
        "loaded weights and neighbouring layers disagree.",
        methods=((ReshapeTwin, "forward", channels_first), (ReshapeTwin, "backward", channels_first_back)),
        place="Flatten",
        hidden=True,
    ),
)

# ---------------------------------------------------------------------------------------------- convolution

NONE = np.zeros(0)


def turned(w: Array) -> Array:
    """The kernel flipped in both axes."""
    return np.ascontiguousarray(w[::-1, ::-1])


def flipped_forward(x: Array, w: Array, b: Array, stride: Any, padding: Any, act: int, work: Array, y: Array) -> None:
    right.conv2d(x, turned(w), b, stride, padding, act, work, y)


def flipped_grad_x(
    grad_y: Array, w: Array, b: Array, stride: Any, padding: Any, act: int, work: Array, grad_x: Array
) -> None:
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


def axes_swapped(
    x: Array, grad_y: Array, stride: Any, padding: Any, add: int, work: Array, grad_w: Array, grad_b: Array
) -> None:
    true = np.zeros_like(grad_w)
    right.conv2d_grad_w(x, grad_y, stride, padding, add, work, true, grad_b)
    write(grad_w, true.transpose(1, 0, 2, 3).reshape(grad_w.shape), add)


def first_image_only(
    x: Array, grad_y: Array, stride: Any, padding: Any, add: int, work: Array, grad_w: Array, grad_b: Array
) -> None:
    right.conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, NONE)
    if grad_b.size:
        write(grad_b, grad_y[0].sum(axis=(0, 1)), add)


def bias_ignored(
    grad_y: Array, w: Array, b: Array, stride: Any, padding: Any, act: int, work: Array, grad_x: Array
) -> None:
    right.conv2d_grad_x(grad_y, w, NONE, stride, padding, act, work, grad_x)


CONVOLUTION = (
    Exhibit(
        "kernel-flipped-backward",
        "The gradient's convolution takes the kernel as it stands: with symmetric test kernels nobody notices.",
        {"conv2d_grad_x": flipped_grad_x},
    ),
    Exhibit(
        "kernel-flipped-throughout",
        "A true convolution in all three passes. It learns as well; weights from elsewhere give nonsense.",
        {"conv2d": flipped_forward, "conv2d_grad_x": flipped_grad_x, "conv2d_grad_w": flipped_grad_w},
        hidden=True,
    ),
    Exhibit(
        "wrapped-edges",
        "A negative index in the backward pass wraps around: only the pixels at the edges are wrong.",
        {"conv2d_grad_x": wrapped_edges},
    ),
    Exhibit(
        "kernel-axes-swapped",
        "Height and width of the kernel exchanged in its gradient: the shapes fit for every square kernel.",
        {"conv2d_grad_w": axes_swapped},
    ),
    Exhibit(
        "first-image-only",
        "The bias sums its gradient over the pixels and forgets the batch. With batch 1 it is right.",
        {"conv2d_grad_w": first_image_only},
    ),
    Exhibit(
        "transposed-without-bias",
        "The transposed convolution has a bias with a gradient, and does not add it.",
        {"conv2d_grad_x": bias_ignored},
    ),
)

GRADIENTS = (*DENSE, *ACTIVATION, *CONVOLUTION)
