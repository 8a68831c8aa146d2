"""The second page of meanings: likelihoods of grey levels and of unknown sigma, and the objective that aims at a KL.
It knows arrays only: no layer, no model, no device.

A likelihood with n outputs per pixel reads them side by side, outputs (R, n·P): pixel p has columns n·p … n·p + n − 1.
Every one gives nll (R,), normalising constants included, and in the same pass the gradient, each row times row_scale.
Row r belongs to image r // k, k = R / B.
"""

from __future__ import annotations

import numpy as np

from .clock import KL_BETA, KL_CAPACITY, KL_FREE
from .reference import LOG_2PI

LEVELS = 256  # grey levels of a pixel: 0, 1/255, … 1
LEAST_LOG_SIGMA = -6.0  # of a Gaussian whose sigma is free: 0.0025, two thirds of a grey level
LEAST_LOG_SCALE = -7.0 - np.log(2)  # of a logistic; −7 on pixels in [−1, 1], as its authors have it
NEAR = 1.0  # where |logits| are below it, the mean of a continuous Bernoulli is summed from its series
TINY = 1e-30  # stands for 0 where a quotient of two vanishing numbers is taken

# B_2j / (2j)!, j = 1, 2, …: ½ coth(l/2) − 1/l = Σ_j B_2j / (2j)! · l^(2j − 1)
COTH = (
    1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160, -691 / 1307674368000, 1 / 74724249600,
    -3617 / 10670622842880000, 43867 / 5109094217170944000, -174611 / 802857662698291200000,
)  # fmt: skip


def _targets(x, rows):
    return x if len(x) == rows else np.repeat(x, rows // len(x), axis=0)


def _sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, x.dtype.type(1), e) / (1 + e)


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _log_share(a):
    """log((1 − exp(−a)) / a), a ≥ 0: 0 at a = 0."""
    a = np.maximum(a, a.dtype.type(TINY))
    return np.log(-np.expm1(-a) / a)


def _levels(x):
    """The grey level 0 … 255 nearest to each pixel, as floats."""
    return np.clip(np.floor(x * (LEVELS - 1) + x.dtype.type(0.5)), 0, LEVELS - 1)


# ---------------------------------------------------------------------------------------------- grey pixels


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


# ---------------------------------------------------------------------------------------------- unknown sigma


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
    """nll = Σ_P log Σ_j exp(l_j) − l_level: each of the 256 grey levels of a pixel has a logit of its own.

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


# ---------------------------------------------------------------------------------------------- the objective


def aimed_objective(nll, kl, rates, sums, kl_weight, metrics):
    """`objective`, where the KL's cost depends on the batch's KL divergences, and the weights that its gradient has.

    With kl_d the mean over the batch of dimension d, recon the mean of nll over rows, and beta = rates[KL_BETA]:
    free bits    loss = recon + beta · Σ_d max(KL_FREE, kl_d),        kl_weight_d = beta where kl_d > KL_FREE, else 0
    a capacity   loss = recon + beta · |Σ_d kl_d − KL_CAPACITY|,      kl_weight_d = beta · sign(Σ_d kl_d − KL_CAPACITY)
    Kingma et al. 2016; Burgess et al. 2018, beta being their γ. The capacity, where there is
    one (above 0), goes first. metrics = [loss, recon, Σ_d kl_d], sums += B · [loss, recon, Σ_d kl_d, 1].
    nll: (R,). kl: (B, latent). rates: (8,), sums: (4,), kl_weight: (latent,), metrics: (3,), these four float64.
    """
    B = kl.shape[0]
    recon = nll.mean(dtype=np.float64)
    each = kl.mean(axis=0, dtype=np.float64)  # (latent,)
    beta, capacity, free = rates[KL_BETA], rates[KL_CAPACITY], rates[KL_FREE]
    total = each.sum()
    if capacity > 0:
        kl_weight[...] = beta * np.sign(total - capacity)
        cost = beta * abs(total - capacity)
    else:
        kl_weight[...] = np.where(each > free, beta, 0)
        cost = beta * np.maximum(each, free).sum()
    metrics[:] = recon + cost, recon, total
    sums[:3] += B * metrics
    sums[3] += B
