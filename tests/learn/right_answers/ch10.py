"""Chapter 10: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import math

import numpy as np


def standardise_row_by_row(x, epsilon):
    return [(row - row.mean()) / math.sqrt(row.var() + epsilon) for row in x]


def standardise_from_moments(x, epsilon):
    N = x.shape[1]
    mean = x @ np.ones(N) / N
    variance = np.einsum("bn,bn->b", x, x) / N - mean**2
    return ((x.T - mean) * (variance + epsilon) ** -0.5).T


def standardise_by_projection(x, epsilon):
    N = x.shape[1]
    centred = x @ (np.eye(N) - 1 / N)
    return centred / np.sqrt(np.mean(centred * centred, axis=1) + epsilon)[:, np.newaxis]


def standardise_grad_by_jacobian(grad_y, x, epsilon):
    N, rows = x.shape[1], []
    for g, row in zip(grad_y, x, strict=True):
        s = np.sqrt(row.var() + epsilon)
        y = (row - row.mean()) / s
        rows.append(g @ (np.eye(N) - 1 / N - np.outer(y, y) / N) / s)
    return np.array(rows)


def standardise_grad_in_steps(grad_y, x, epsilon):
    """Backwards through each step of the forward pass: y = c · i, i = (v + ε)^(−1/2), v = mean c², c = x − mean."""
    N = x.shape[1]
    c = x - x.mean(1, keepdims=True)
    i = 1 / np.sqrt((c * c).mean(1, keepdims=True) + epsilon)
    grad_v = (grad_y * c).sum(1, keepdims=True) * -0.5 * i**3
    grad_c = grad_y * i + grad_v * 2 * c / N
    return grad_c - grad_c.sum(1, keepdims=True) / N


def standardise_grad_in_loops(grad_y, x, epsilon):
    grad = np.empty(x.shape)
    for b in range(len(x)):
        N, mean = x.shape[1], sum(x[b]) / x.shape[1]
        s = math.sqrt(sum((v - mean) ** 2 for v in x[b]) / N + epsilon)
        first, second = sum(grad_y[b]), sum(g * (v - mean) for g, v in zip(grad_y[b], x[b], strict=True))
        for n in range(N):
            grad[b, n] = (grad_y[b, n] - first / N - (x[b, n] - mean) * second / (s * s * N)) / s
    return grad


def affine_grad_by_where(grad_y, u, add, grad_gain, grad_shift):
    grad_gain[:] = np.where(add, grad_gain, 0) + np.einsum("bn,bn->n", grad_y, u)
    grad_shift[:] = np.where(add, grad_shift, 0) + np.ones(len(grad_y)) @ grad_y


def affine_grad_in_loops(grad_y, u, add, grad_gain, grad_shift):
    for n in range(len(grad_gain)):
        gain = shift = 0.0
        for b in range(len(u)):
            gain += grad_y[b, n] * u[b, n]
            shift += grad_y[b, n]
        grad_gain[n] = grad_gain[n] + gain if add else gain
        grad_shift[n] = grad_shift[n] + shift if add else shift


def affine_grad_in_two_branches(grad_y, u, add, grad_gain, grad_shift):
    if add == 1:
        np.add(grad_gain, np.sum(grad_y * u, 0), out=grad_gain)
        np.add(grad_shift, np.sum(grad_y, 0), out=grad_shift)
    else:
        np.sum(grad_y * u, axis=0, out=grad_gain)
        np.sum(grad_y, axis=0, out=grad_shift)
    return grad_gain, grad_shift  # an op returns nothing; that it does is no mistake of arithmetic


ANSWERS = {
    "standardise": (standardise_row_by_row, standardise_from_moments, standardise_by_projection),
    "standardise_grad": (standardise_grad_by_jacobian, standardise_grad_in_steps, standardise_grad_in_loops),
    "affine_grad": (affine_grad_by_where, affine_grad_in_loops, affine_grad_in_two_branches),
}
