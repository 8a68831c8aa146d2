"""Right answers to the exercises of chapters 06, 07, 10 and 11, each written in three other ways: all must pass.
It knows answers as learners write them, with loops, lists, other formulas; chapter 14's are in test_cuda_learn.py."""

import math

import numpy as np
import pytest

from tinyvae.learn import chapter_of, grade
from tinyvae.learn.elsewhere import is_here

# ------------------------------------------------------------------------------------------------ 06


def line_in_steps(a, b, steps):
    return [a + (b - a) * i / (steps - 1) for i in range(steps)]


def circle_by_gram_schmidt(a, b, t):
    """Along a, and along what of b stands upright on it; the lengths from a to b as slerp has them."""
    e = a / math.sqrt(sum(a * a))
    f = b - (b @ e) * e
    f = f / np.linalg.norm(f)
    angle = math.atan2(b @ f, b @ e)
    from_a = math.sin((1 - t) * angle) / math.sin(angle) * np.linalg.norm(a)
    from_b = math.sin(t * angle) / math.sin(angle) * np.linalg.norm(b)
    return from_a * e + from_b * (math.cos(angle) * e + math.sin(angle) * f)


def circle_from_units(a, b, t):
    cosine = np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b))
    w = np.arccos(np.clip(cosine, -1, 1))
    return np.sin((1 - t) * w) / np.sin(w) * a + np.sin(t * w) / np.sin(w) * b


def circle_number_by_number(a, b, t):
    w = math.acos(math.fsum(a * b) / math.hypot(*a) / math.hypot(*b))
    return [
        math.sin((1 - t) * w) / math.sin(w) * p + math.sin(t * w) / math.sin(w) * q for p, q in zip(a, b, strict=True)
    ]


def units_one_by_one(z_mean, threshold):
    count = 0
    for column in z_mean.T:
        mean = sum(column) / len(column)
        if sum((v - mean) ** 2 for v in column) / len(column) > threshold:
            count += 1
    return count


# ------------------------------------------------------------------------------------------------ 07


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


# ------------------------------------------------------------------------------------------------ 10


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


# ------------------------------------------------------------------------------------------------ 11


def log_mean_exp_row_by_row(log_w):
    return [max(row) + math.log(math.fsum(math.exp(v - max(row)) for v in row) / len(row)) for row in log_w]


def log_mean_exp_from_the_middle(log_w):
    """Any number near the largest may be taken out, here the row's mean."""
    c = log_w.mean(axis=1)
    return c + np.log1p(np.expm1(log_w - c[:, None]).mean(axis=1))


def effective_from_normalised(log_w):
    v = np.exp(log_w - np.logaddexp.reduce(log_w, axis=1, keepdims=True))
    return 1 / (v * v).sum(axis=1)


def effective_in_loops(log_w):
    counts = []
    for row in log_w:
        w = [math.exp(v - row[0]) for v in row]
        counts.append(sum(w) ** 2 / sum(v * v for v in w))
    return counts


def effective_from_the_spread(log_w):
    """k over 1 + the squared coefficient of variation."""
    w = np.exp(log_w - log_w.max(1)[:, None])
    return log_w.shape[1] / (1 + w.var(1) / w.mean(1) ** 2)


def doubly_by_einsum(log_w, grad_z, z_log_sigma, eps):
    v = np.exp(log_w - np.logaddexp.reduce(log_w, axis=1)[:, None])
    grad_mean = np.einsum("bk,bk,bkl->bl", v, v, grad_z)
    return grad_mean, np.einsum("bk,bkl,bkl,bl->bl", v**2, grad_z, eps, np.exp(z_log_sigma))


def doubly_in_loops(log_w, grad_z, z_log_sigma, eps):
    B, k, L = grad_z.shape
    mean, log_sigma = np.zeros((B, L)), np.zeros((B, L))
    for b in range(B):
        w = [math.exp(value - max(log_w[b])) for value in log_w[b]]
        for i in range(k):
            share = (w[i] / sum(w)) ** 2
            mean[b] += share * grad_z[b, i]
            log_sigma[b] += share * grad_z[b, i] * np.exp(z_log_sigma[b]) * eps[b, i]
    return [mean, log_sigma]


def doubly_image_by_image(log_w, grad_z, z_log_sigma, eps):
    """v² as the normalised weights of 2 log_w, over the effective number of draws."""
    means, log_sigmas = [], []
    for a, g, s, e in zip(log_w, grad_z, z_log_sigma, eps, strict=True):
        w = np.exp(2 * (a - a.max()))
        share = w / w.sum() / effective_in_loops([a])[0]
        means.append(share @ g)
        log_sigmas.append(share @ (g * e * np.exp(s)))
    return np.array(means), np.array(log_sigmas)


WAYS = {
    ("06", "line"): (
        line_in_steps,
        lambda a, b, steps: np.linspace(a, b, steps),
        lambda a, b, steps: a + np.outer(np.arange(steps) / (steps - 1), b - a),
    ),
    ("06", "great_circle"): (circle_by_gram_schmidt, circle_from_units, circle_number_by_number),
    ("06", "active_units"): (
        units_one_by_one,
        lambda z, threshold: np.count_nonzero(np.var(z, axis=0) > threshold),
        lambda z, threshold: sum((z**2).mean(0) - z.mean(0) ** 2 > threshold),
    ),
    ("07", "output_size"): (
        size_by_counting,
        lambda size, kernel, stride, padding: np.floor((size + 2 * padding - kernel) / stride + 1),
        lambda size, kernel, stride, padding: (size + 2 * padding - kernel + stride) // stride,
    ),
    ("07", "conv"): (conv_in_four_loops, conv_by_shifts, conv_by_lists),
    ("07", "conv_grad_w"): (grad_w_in_loops, grad_w_by_differences, grad_w_as_convolution),
    ("07", "conv_grad_x"): (grad_x_pixel_by_pixel, grad_x_by_units, grad_x_as_convolution),
    ("10", "standardise"): (standardise_row_by_row, standardise_from_moments, standardise_by_projection),
    ("10", "standardise_grad"): (
        standardise_grad_by_jacobian, standardise_grad_in_steps, standardise_grad_in_loops,
    ),
    ("10", "affine_grad"): (affine_grad_by_where, affine_grad_in_loops, affine_grad_in_two_branches),
    ("11", "log_mean_exp"): (
        log_mean_exp_row_by_row,
        log_mean_exp_from_the_middle,
        lambda log_w: np.logaddexp.reduce(log_w, axis=1) - math.log(log_w.shape[1]),
    ),
    ("11", "effective_samples"): (effective_from_normalised, effective_in_loops, effective_from_the_spread),
    ("11", "doubly_grad"): (doubly_by_einsum, doubly_in_loops, doubly_image_by_image),
}  # fmt: skip


@pytest.mark.parametrize(("number", "name"), [pytest.param(*key, id="-".join(key)) for key in WAYS])
def test_right_answers_written_otherwise_pass(number, name):
    for way in WAYS[number, name]:
        verdict = grade(chapter_of(number).exercise(name), way)
        assert verdict.ok, f"{way.__name__}: {verdict.text}"


@pytest.mark.parametrize("number", ["06", "07", "10", "11"])
def test_each_exercise_has_three(number):
    chapter = chapter_of(number)
    assert is_here(chapter)
    assert {name for n, name in WAYS if n == number} == {e.name for e in chapter.exercises}
    assert all(len(set(ways)) == 3 for ways in WAYS.values())
