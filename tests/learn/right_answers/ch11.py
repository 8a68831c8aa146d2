"""Chapter 11: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import math

import numpy as np


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


ANSWERS = {
    "log_mean_exp": (
        log_mean_exp_row_by_row,
        log_mean_exp_from_the_middle,
        lambda log_w: np.logaddexp.reduce(log_w, axis=1) - math.log(log_w.shape[1]),
    ),
    "effective_samples": (effective_from_normalised, effective_in_loops, effective_from_the_spread),
    "doubly_grad": (doubly_by_einsum, doubly_in_loops, doubly_image_by_image),
}
