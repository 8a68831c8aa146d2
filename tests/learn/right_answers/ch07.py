"""Chapter 07: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import numpy as np


def size_by_counting(size, kernel, stride, padding):
    return len(range(-padding, size + padding - kernel + 1, stride))


def conv_in_four_loops(x, w, stride, padding):
    (H, W), (KH, KW) = x.shape, w.shape
    y = np.zeros(((H + 2 * padding - KH) // stride + 1, (W + 2 * padding - KW) // stride + 1))
    for i, j in np.ndindex(y.shape):
        for u, v in np.ndindex(w.shape):
            p, q = i * stride + u - padding, j * stride + v - padding
            if 0 <= p < H and 0 <= q < W:
                y[i, j] += x[p, q] * w[u, v]
    return y


def conv_by_shifts(x, w, stride, padding):
    """One shifted and thinned image for each weight."""
    x = np.pad(x, padding)
    OH, OW = ((n - k) // stride + 1 for n, k in zip(x.shape, w.shape, strict=True))
    return sum(
        w[u, v] * x[u : u + stride * OH : stride, v : v + stride * OW : stride][:OH, :OW]
        for u, v in np.ndindex(w.shape)
    )


def conv_by_lists(x, w, stride, padding):
    x = np.pad(x, padding)
    KH, KW = w.shape
    return [
        [(x[i : i + KH, j : j + KW] * w).sum() for j in range(0, x.shape[1] - KW + 1, stride)]
        for i in range(0, x.shape[0] - KH + 1, stride)
    ]


def grad_w_in_loops(grad_y, x, w, stride, padding):
    padded, grad = np.pad(x, padding), np.zeros(w.shape)
    for i, j in np.ndindex(grad_y.shape):
        grad += grad_y[i, j] * padded[i * stride :, j * stride :][: w.shape[0], : w.shape[1]]
    return grad


def grad_w_by_differences(grad_y, x, w, stride, padding):
    """conv is linear in w: its gradient is what each unit weight gives."""
    units = np.eye(w.size).reshape(-1, *w.shape)
    return np.reshape([(grad_y * conv_by_shifts(x, unit, stride, padding)).sum() for unit in units], w.shape)


def grad_w_as_convolution(grad_y, x, w, stride, padding):
    """grad_y, pulled apart by the stride, is the window."""
    apart = np.zeros([(n - 1) * stride + 1 for n in grad_y.shape])
    apart[::stride, ::stride] = grad_y
    return conv_by_shifts(np.pad(x, padding), apart, 1, 0)[: w.shape[0], : w.shape[1]]


def grad_x_pixel_by_pixel(grad_y, x, w, stride, padding):
    grad = np.zeros_like(x)
    for p, q in np.ndindex(x.shape):
        for i, j in np.ndindex(grad_y.shape):
            u, v = p + padding - i * stride, q + padding - j * stride
            if 0 <= u < w.shape[0] and 0 <= v < w.shape[1]:
                grad[p, q] += grad_y[i, j] * w[u, v]
    return grad


def grad_x_by_units(grad_y, x, w, stride, padding):
    units = np.eye(x.size).reshape(-1, *x.shape)
    return np.reshape([np.vdot(grad_y, conv_by_shifts(unit, w, stride, padding)) for unit in units], x.shape)


def grad_x_as_convolution(grad_y, x, w, stride, padding):
    """grad_y, pulled apart and framed, is convolved with w turned round."""
    (H, W), (KH, KW) = x.shape, w.shape
    wide = np.zeros((H + 2 * padding + KH - 1, W + 2 * padding + KW - 1))
    for (i, j), value in np.ndenumerate(grad_y):
        wide[i * stride + KH - 1, j * stride + KW - 1] = value
    return conv_by_shifts(wide, np.rot90(w, 2), 1, 0)[padding : padding + H, padding : padding + W]


ANSWERS = {
    "output_size": (
        size_by_counting,
        lambda size, kernel, stride, padding: np.floor((size + 2 * padding - kernel) / stride + 1),
        lambda size, kernel, stride, padding: (size + 2 * padding - kernel + stride) // stride,
    ),
    "conv": (conv_in_four_loops, conv_by_shifts, conv_by_lists),
    "conv_grad_w": (grad_w_in_loops, grad_w_by_differences, grad_w_as_convolution),
    "conv_grad_x": (grad_x_pixel_by_pixel, grad_x_by_units, grad_x_as_convolution),
}
