"""Chapter 02: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import numpy as np


def numerical_gradient_in_place(f, x, h):
    grad = np.empty_like(x)
    for i in range(x.size):
        kept = x.flat[i]
        x.flat[i] = kept + h
        above = f(x)
        x.flat[i] = kept - h
        grad.flat[i] = (above - f(x)) / (2 * h)
        x.flat[i] = kept
    return grad


def numerical_gradient_by_one_hot(f, x, h):
    steps = h * np.eye(x.size).reshape(-1, *x.shape)
    return np.array([(f(x + s) - f(x - s)) / (2 * h) for s in steps]).reshape(x.shape)


def numerical_gradient_by_nditer(f, x, h):
    grad, moved = np.zeros_like(x), x.copy()
    walk = np.nditer(x, flags=["multi_index"])
    for value in walk:
        i = walk.multi_index
        moved[i] = value + h
        grad[i] = f(moved)
        moved[i] = value - h
        grad[i] = (grad[i] - f(moved)) / (2 * h)
        moved[i] = value
    return grad


def product_backward_by_loops(grad_y, x, w):
    grad_x, grad_w = np.zeros(x.shape), np.zeros(w.shape)
    for b, k, n in np.ndindex(len(x), *w.shape):
        grad_x[b, k] += grad_y[b, n] * w[k, n]
        grad_w[k, n] += grad_y[b, n] * x[b, k]
    return grad_x, grad_w


ANSWERS = {
    "numerical_gradient": (numerical_gradient_in_place, numerical_gradient_by_one_hot, numerical_gradient_by_nditer),
    "tanh_backward": (
        lambda grad_y, x: grad_y / np.cosh(x) ** 2,
        lambda grad_y, x: grad_y * (1 - np.tanh(x)) * (1 + np.tanh(x)),
        lambda grad_y, x: [grad_y[b] * 4 / (np.exp(x[b]) + np.exp(-x[b])) ** 2 for b in range(len(x))],
    ),
    "row_mean_backward": (
        lambda grad_y, x: np.broadcast_to(grad_y[:, None] / x.shape[1], x.shape),
        lambda grad_y, x: np.outer(grad_y, np.full(x.shape[1], 1 / x.shape[1])),
        lambda grad_y, x: [[g / x.shape[1]] * x.shape[1] for g in grad_y],
    ),
    "product_backward": (
        product_backward_by_loops,
        lambda grad_y, x, w: [np.einsum("bn,kn->bk", grad_y, w), np.einsum("bn,bk->kn", grad_y, x)],
        lambda grad_y, x, w: ((w @ grad_y.T).T, (grad_y.T @ x).T),
    ),
}
