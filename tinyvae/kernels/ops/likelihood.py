"""Likelihoods: the negative log-likelihood of the pixels given a decoder's outputs, and its gradient in the same pass.

A likelihood with n outputs per pixel reads them side by side, outputs (R, n·P): pixel p has columns n·p … n·p + n − 1.
Each op computes nll (R,), normalising constants included, and the gradient, each row times row_scale.
Row r belongs to image r // k, k = R / B.
"""

from __future__ import annotations

import math

import numpy as np

from ..op import In, InOut, Op, Option, Out, per, results, rows_rule, three_examples
from .activation import _sigmoid, _softplus

LOG_2PI = 1.8378770664093453
LEVELS = 256  # grey levels of a pixel: 0, 1/255, … 1
LEAST_LOG_SIGMA = -6.0  # of a Gaussian whose sigma is free: 0.0025, two thirds of a grey level
LEAST_LOG_SCALE = -7.0 - np.log(2)  # of a logistic; −7 on pixels in [−1, 1], as its authors have it
NEAR = 1.0  # where |logits| are below it, the mean of a continuous Bernoulli is summed from its series
TINY = 1e-30  # in place of 0 in a quotient of two vanishing numbers

# B_2j / (2j)!, j = 1, 2, …: ½ coth(l/2) − 1/l = Σ_j B_2j / (2j)! · l^(2j − 1)
COTH = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000, 43867 / 5109094217170944000, -174611 / 802857662698291200000,
)  # fmt: skip  # fmt: skip


def _targets(x, rows):
    """The image of each row."""
    return x if len(x) == rows else np.repeat(x, rows // len(x), axis=0)


# ---------------------------------------------------------------------------------------------- Bernoulli


def bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """nll = Σ_P softplus(logits) − x · logits, and grad_logits = row_scale · (sigmoid(logits) − x), in one pass.

    The cross-entropy −Σ x log p + (1 − x) log(1 − p) at p = sigmoid(logits), from the logits: never a log of 0.
    logits: (R, P). x: (B, P) in [0, 1], row r belongs to image r // k, k = R / B. row_scale, nll: (R,).
    grad_logits: (R, P), or (0, P) where no gradient is wanted.
    """
    k = logits.shape[0] // x.shape[0]
    target = x if k == 1 else np.repeat(x, k, axis=0)
    e = np.exp(-np.abs(logits))
    terms = np.log1p(e)
    terms += np.maximum(logits, 0)
    terms -= target * logits
    np.sum(terms, axis=1, out=nll)
    if grad_logits.size:
        np.divide(np.where(logits >= 0, logits.dtype.type(1), e), 1 + e, out=grad_logits)
        grad_logits -= target
        grad_logits *= row_scale[:, None]


def _log_share(a):
    """log((1 − exp(−a)) / a), a ≥ 0: 0 at a = 0."""
    a = np.maximum(a, a.dtype.type(TINY))
    return np.log(-np.expm1(-a) / a)


def _continuous_mean(logits):
    """1 / (1 − exp(−l)) − 1 / l; near 0, where both are large, ½ and a series in l."""
    real = logits.dtype.type
    near = np.clip(logits, real(-NEAR), real(NEAR))
    series = np.zeros_like(logits)
    for c in reversed(COTH):
        series = series * (near * near) + real(c)
    a = np.maximum(np.abs(logits), real(NEAR))
    far = np.copysign(-1 / np.expm1(-a) - 1 / a - real(0.5), logits)
    return real(0.5) + np.where(np.abs(logits) < NEAR, near * series, far)


def continuous_bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """nll = Σ_P log((exp(l) − 1) / l) − x · l, and grad_logits = row_scale · (mean(l) − x).

    The density exp(x l) · l / (exp(l) − 1) on [0, 1]: a Bernoulli's cross-entropy less log C(p), p = sigmoid(l),
    C = 2 atanh(1 − 2p) / (1 − 2p) = l / tanh(l / 2), 2 at l = 0 (Loaiza-Ganem & Cunningham 2019). Computed as
    max(l, 0) + log((1 − exp(−|l|)) / |l|) − x · l, where nothing overflows. mean(l) = 1 / (1 − exp(−l)) − 1 / l.
    logits: (R, P). x: (B, P) in [0, 1]. row_scale, nll: (R,). grad_logits: (R, P), or (0, P) for none.
    """
    target = _targets(x, len(logits))
    terms = np.maximum(logits, 0) + _log_share(np.abs(logits)) - target * logits
    np.sum(terms, axis=1, out=nll)
    if grad_logits.size:
        np.multiply(_continuous_mean(logits) - target, row_scale[:, None], out=grad_logits)


# ---------------------------------------------------------------------------------------------- Gaussian


def gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean):
    """nll = Σ_P (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, grad_mean = row_scale · (mean − x) / sigma².

    With sigma = 1 that is half the squared error plus a constant: MSE training is this likelihood.
    mean: (R, P). x: (B, P), row r belongs to image r // k. row_scale, nll: (R,). sigma: a positive number.
    grad_mean: (R, P), or (0, P) where no gradient is wanted.
    """
    R, P = mean.shape
    k = R // x.shape[0]
    difference = mean - (x if k == 1 else np.repeat(x, k, axis=0))
    constant = P * (np.log(sigma) + 0.5 * LOG_2PI)
    nll[...] = (difference * difference).sum(axis=1) * (0.5 / sigma**2) + constant
    if grad_mean.size:
        np.multiply(difference, (row_scale / sigma**2).astype(mean.dtype)[:, None], out=grad_mean)


def gaussian_scalar_nll(mean, x, row_scale, log_sigma, nll, grad_mean, grad_log_sigma):
    """nll = Σ_P (x − mean)² / (2 sigma²) + log sigma + ½ log 2π with one sigma = exp(log_sigma) for all pixels.

    grad_mean = row_scale · (mean − x) / sigma², grad_log_sigma = row_scale · (P − Σ_P (x − mean)² / sigma²), each row's
    share of the gradient, which is their sum. mean: (R, P). x: (B, P). log_sigma: (1,). row_scale, nll: (R,).
    grad_mean: (R, P), or (0, P) for none; grad_log_sigma: (R, 1), or (0, 1). Rybkin et al. 2021.
    """
    difference = mean - _targets(x, len(mean))
    P, precision = mean.shape[1], np.exp(-2 * log_sigma[0])
    squares = (difference * difference).sum(axis=1) * precision
    nll[...] = 0.5 * squares + P * (log_sigma[0] + mean.dtype.type(0.5 * LOG_2PI))
    if grad_mean.size:
        np.multiply(difference, (row_scale * precision)[:, None], out=grad_mean)
    if grad_log_sigma.size:
        grad_log_sigma[:, 0] = row_scale * (P - squares)


def gaussian_pixel_nll(outputs, x, row_scale, nll, grad_outputs):
    """nll = Σ_P (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, mean and sigma of each pixel from two outputs (m, s).

    mean = m; log sigma = LEAST + softplus(s − LEAST), LEAST = −6, so that a pixel that never changes does not make the
    density infinite (Rybkin et al. 2021). With d = m − x: ∂nll/∂m = d / sigma²,
    ∂nll/∂s = sigmoid(s − LEAST) · (1 − d² / sigma²).
    outputs: (R, 2·P). x: (B, P). row_scale, nll: (R,). grad_outputs: (R, 2·P), or (0, 2·P) for none.
    """
    mean, raw = outputs[:, 0::2], outputs[:, 1::2] - outputs.dtype.type(LEAST_LOG_SIGMA)
    difference = mean - _targets(x, len(outputs))
    log_sigma = _softplus(raw) + outputs.dtype.type(LEAST_LOG_SIGMA)
    precision = np.exp(-2 * log_sigma)
    squares = difference * difference * precision
    np.sum(0.5 * squares + log_sigma + outputs.dtype.type(0.5 * LOG_2PI), axis=1, out=nll)
    if grad_outputs.size:
        grad_outputs[:, 0::2] = row_scale[:, None] * (difference * precision)
        grad_outputs[:, 1::2] = row_scale[:, None] * (_sigmoid(raw) * (1 - squares))


def gaussian_optimal_nll(mean, x, row_scale, nll, grad_mean):
    """nll = Σ_P (x − mean)² / (2 sigma²) + log sigma + ½ log 2π with the sigma that makes it smallest, row by row:

    sigma² = 1/P Σ_P (x − mean)², the row's mean squared error, but at least exp(−12): nll = P log sigma + P/2 log 2πe.
    sigma follows the row, but at the minimum its change costs nothing: grad_mean = row_scale · (mean − x) / sigma².
    mean: (R, P). x: (B, P). row_scale, nll: (R,). grad_mean: (R, P), or (0, P) for none. Rybkin et al. 2021, in whose
    program one sigma serves a batch; here a row's cost does not depend on the others.
    """
    P = mean.shape[1]
    difference = mean - _targets(x, len(mean))
    squares = (difference * difference).sum(axis=1)
    variance = np.maximum(squares / P, mean.dtype.type(np.exp(2 * LEAST_LOG_SIGMA)))
    nll[...] = 0.5 * squares / variance + (0.5 * P) * (np.log(variance) + mean.dtype.type(LOG_2PI))
    if grad_mean.size:
        np.multiply(difference, (row_scale / variance)[:, None], out=grad_mean)


# ---------------------------------------------------------------------------------------------- grey levels


def _levels(x):
    """The grey level 0 … 255 nearest to each pixel, as floats."""
    return np.clip(np.floor(x * (LEVELS - 1) + x.dtype.type(0.5)), 0, LEVELS - 1)


def discretized_logistic_nll(outputs, x, row_scale, nll, grad_outputs):
    """nll = −Σ_P log P(level), the share of a logistic distribution (m, s) that falls to the level of x.

    With c = level / 255, h = 1/510, scale = exp(LEAST + softplus(s − LEAST)), a = (c + h − m) / scale,
    b = (c − h − m) / scale: P = sigmoid(a) − sigmoid(b); level 0 takes all below, sigmoid(a), and level 255 all above,
    1 − sigmoid(b). Salimans et al. 2017, equation 2, on pixels in [0, 1]. In logarithms, d = a − b = 2h / scale:
    −log P = softplus(−a) + softplus(b) − log(1 − exp(−d)), and its first or both other terms fall away at the ends.
    ∂/∂m = (sigmoid(−a) − sigmoid(b)) / scale, ∂/∂log scale = a sigmoid(−a) − b sigmoid(b) + d / (exp(d) − 1).
    outputs: (R, 2·P), m and s of each pixel. x: (B, P). row_scale, nll: (R,). grad_outputs: (R, 2·P), or (0, 2·P).
    """
    real = outputs.dtype.type
    least, half = real(LEAST_LOG_SCALE), real(0.5 / (LEVELS - 1))
    mean, raw = outputs[:, 0::2], outputs[:, 1::2] - least
    level = _levels(_targets(x, len(outputs)))
    above, below = level > 0, level < LEVELS - 1  # whether there is an edge below the level, and one above it
    log_scale = _softplus(raw) + least
    rate = np.exp(-log_scale)
    centre = level / real(LEVELS - 1) - mean
    a, b, d = (centre + half) * rate, (centre - half) * rate, 2 * half * rate
    share = _log_share(d) + np.log(2 * half) - log_scale  # log(1 − exp(−d)), whatever the size of d
    np.sum(below * _softplus(-a) + above * _softplus(b) - (above & below) * share, axis=1, out=nll)
    if grad_outputs.size:
        up, down = below * _sigmoid(-a), above * _sigmoid(b)
        small = np.maximum(d, real(TINY))
        slope = a * up - b * down + (above & below) * (small / np.expm1(small))
        grad_outputs[:, 0::2] = row_scale[:, None] * ((up - down) * rate)
        grad_outputs[:, 1::2] = row_scale[:, None] * (slope * _sigmoid(raw))


def categorical_nll(logits, x, row_scale, nll, grad_logits):
    """nll = Σ_P log Σ_j exp(l_j) − l_level: each of the 256 grey levels of a pixel has its own logit.

    grad_logits = row_scale · (softmax(l) − 1 at the level of x). van den Oord et al. 2016.
    logits: (R, 256·P). x: (B, P). row_scale, nll: (R,). grad_logits: (R, 256·P), or (0, 256·P) for none.
    """
    R, P = len(logits), x.shape[1]
    logit = logits.reshape(R, P, LEVELS)
    level = _levels(_targets(x, R)).astype(np.int64)[..., None]
    largest = logit.max(axis=2, keepdims=True)
    e = np.exp(logit - largest)
    total = e.sum(axis=2, keepdims=True)
    chosen = np.take_along_axis(logit, level, axis=2) - largest
    np.sum((np.log(total) - chosen)[..., 0], axis=1, out=nll)
    if grad_logits.size:
        grad = grad_logits.reshape(R, P, LEVELS)
        np.divide(e, total, out=grad)
        np.put_along_axis(grad, level, np.take_along_axis(grad, level, axis=2) - 1, axis=2)
        grad_logits *= row_scale[:, None]


# ---------------------------------------------------------------------------------------------- all of them


def scale_rows(row_weight, grad):
    """grad[r] ← row_weight[r] · grad[r]. row_weight: (R,). grad: (R, P)."""
    grad *= row_weight[:, None]


# ---------------------------------------------------------------------------------------------- Σ|terms|


def _bernoulli_terms(a):
    logits, x, scale = a["logits"], _targets(a["x"], len(a["logits"])), np.abs(a["row_scale"])[:, None]
    terms = np.logaddexp(0, logits) + np.abs(x * logits)
    return {"nll": terms.sum(1), "grad_logits": scale * (_sigmoid(logits) + x)}


def _continuous_bernoulli_terms(a):
    """1 for each pixel: what is near 1 is taken the logarithm of, and the mean is a difference of what is."""
    logits, x, scale = a["logits"], _targets(a["x"], len(a["logits"])), np.abs(a["row_scale"])[:, None]
    return {"nll": (1 + np.abs(logits) * (1 + x)).sum(1), "grad_logits": scale * (2 + x)}


def _gaussian_terms(a):
    difference, sigma = np.abs(a["mean"] - _targets(a["x"], len(a["mean"]))), a["sigma"]
    constant = abs(math.log(sigma)) + 0.5 * math.log(2 * math.pi)
    return {
        "nll": (difference**2 / (2 * sigma**2) + constant).sum(1),
        "grad_mean": difference * np.abs(a["row_scale"])[:, None] / sigma**2,
    }


def _gaussian_scalar_terms(a):
    difference, log_sigma = np.abs(a["mean"] - _targets(a["x"], len(a["mean"]))), a["log_sigma"][0]
    scale, precision = np.abs(a["row_scale"])[:, None], np.exp(-2 * log_sigma)
    return {
        "nll": (difference**2 * precision / 2 + abs(log_sigma) + 0.5 * math.log(2 * math.pi)).sum(1),
        "grad_mean": scale * difference * precision,
        "grad_log_sigma": scale * (1 + difference**2 * precision).sum(1, keepdims=True),
    }


def _gaussian_pixel_terms(a):
    """What cancels where sigma is made from its output is of the size of the least sigma's logarithm."""
    outputs, scale = a["outputs"], np.abs(a["row_scale"])[:, None]
    size = np.abs(outputs[:, 0::2]) + _targets(a["x"], len(outputs))
    log_sigma = np.logaddexp(0, outputs[:, 1::2] - LEAST_LOG_SIGMA) + LEAST_LOG_SIGMA
    wide = 1 + np.abs(outputs[:, 1::2]) - 2 * LEAST_LOG_SIGMA
    squares = size**2 * np.exp(-2 * log_sigma) * wide
    both = scale[..., None] * np.stack([size * np.exp(-2 * log_sigma) * wide, 1 + squares], axis=2)
    return {"nll": (squares + wide).sum(1), "grad_outputs": both.reshape(outputs.shape)}


def _gaussian_optimal_terms(a):
    mean, x = a["mean"], _targets(a["x"], len(a["mean"]))
    variance = np.maximum(((mean - x) ** 2).mean(1, keepdims=True), math.exp(2 * LEAST_LOG_SIGMA))
    nll = mean.shape[1] * (2 + np.abs(np.log(variance[:, 0])) + 0.5 * math.log(2 * math.pi))
    return {"nll": nll, "grad_mean": np.abs(a["row_scale"])[:, None] * (np.abs(mean) + x) / variance}


def _discretized_logistic_terms(a):
    outputs, scale = a["outputs"], np.abs(a["row_scale"])[:, None]
    log_scale = np.logaddexp(0, outputs[:, 1::2] - LEAST_LOG_SCALE) + LEAST_LOG_SCALE
    wide, rate = 1 + np.abs(outputs[:, 1::2]) - 2 * LEAST_LOG_SCALE, np.exp(-log_scale)
    size = wide * (1 + (np.abs(outputs[:, 0::2]) + _targets(a["x"], len(outputs)) + 1 / LEVELS) * rate)
    both = scale[..., None] * np.stack([size * rate, size], axis=2)
    return {"nll": size.sum(1), "grad_outputs": both.reshape(outputs.shape)}


def _categorical_terms(a):
    logits, scale = a["logits"].reshape(len(a["logits"]), -1, LEVELS), np.abs(a["row_scale"])[:, None]
    size = 1 + 2 * np.abs(logits).max(2)
    shares = np.exp(logits - np.logaddexp.reduce(logits, 2, keepdims=True)) * size[..., None]
    shares = shares.reshape(len(logits), -1)
    chosen = np.abs(results(categorical_nll, a)["grad_logits"])
    return {"nll": (math.log(LEVELS) + size).sum(1), "grad_logits": scale * shares + (chosen if chosen.size else 0)}


# ---------------------------------------------------------------------------------------------- the table


def _examples(**options):
    return three_examples(
        {"B": 1, "R": 1, "P": 1}, {"B": 3, "R": 6, "P": 37}, {"B": 128, "R": 128, "P": 784}, **options
    )


_TARGETS = (In("x", "B", "P", draw="unit"), In("row_scale", "R", draw="positive"))
_NLL = Out("nll", "R")


def _grad(name, *dims):
    """A gradient that is made where it is wanted."""
    return Out(f"grad_{name}", *dims, optional=True)


OPS = (
    Op(
        "bernoulli_nll", (In("logits", "R", "P"), *_TARGETS, _NLL, _grad("logits", "R", "P")),
        _examples(), per("R", "P", cost=12), ulp=12, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_logits": True},), terms=_bernoulli_terms,
    ),
    Op(
        "gaussian_nll",
        (In("mean", "R", "P"), *_TARGETS, Option("sigma", "positive"), _NLL, _grad("mean", "R", "P")),
        _examples(sigma=0.7), per("R", "P", cost=5), ulp=12, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_mean": True}, {"sigma": 1.3}), terms=_gaussian_terms,
    ),
    Op(
        "continuous_bernoulli_nll",
        (In("logits", "R", "P"), *_TARGETS, _NLL, _grad("logits", "R", "P")),
        _examples(), per("R", "P", cost=40), ulp=16, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_logits": True},), terms=_continuous_bernoulli_terms,
    ),
    Op(
        "gaussian_scalar_nll",
        (In("mean", "R", "P"), *_TARGETS, In("log_sigma", "1"), _NLL, _grad("mean", "R", "P"),
         _grad("log_sigma", "R", "1")),
        _examples(), per("R", "P", cost=5), ulp=16, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_mean": True, "no_grad_log_sigma": True},), terms=_gaussian_scalar_terms,
    ),
    Op(
        "gaussian_pixel_nll",
        (In("outputs", "R", "2*P"), *_TARGETS, _NLL, _grad("outputs", "R", "2*P")),
        _examples(), per("R", "P", cost=40), ulp=24, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_outputs": True},), terms=_gaussian_pixel_terms,
    ),
    Op(
        "gaussian_optimal_nll", (In("mean", "R", "P"), *_TARGETS, _NLL, _grad("mean", "R", "P")),
        _examples(), per("R", "P", cost=5), ulp=16, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_mean": True},), terms=_gaussian_optimal_terms,
    ),
    Op(
        "discretized_logistic_nll",
        (In("outputs", "R", "2*P"), *_TARGETS, _NLL, _grad("outputs", "R", "2*P")),
        _examples(), per("R", "P", cost=80), ulp=24, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_outputs": True},), terms=_discretized_logistic_terms,
    ),
    Op(
        "categorical_nll",
        (In("logits", "R", f"{LEVELS}*P"), *_TARGETS, _NLL, _grad("logits", "R", f"{LEVELS}*P")),
        _examples() | {"model": {"B": 8, "R": 8, "P": 784}}, per("R", "P", cost=12 * LEVELS),
        ulp=16, reduction=("P",), rule=rows_rule,
        variants=({"no_grad_logits": True},), terms=_categorical_terms,
    ),
    Op(
        "scale_rows", (In("row_weight", "R"), InOut("grad", "R", "P")),
        three_examples({"R": 1, "P": 1}, {"R": 5, "P": 37}, {"R": 128, "P": 784}),
        per("R", "P"), linear=True,
    ),
)  # fmt: skip
