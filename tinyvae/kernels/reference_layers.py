"""The meaning of the ops of further layers and of importance weighting, in NumPy, as reference.py has it for the first.
It knows arrays only: no layer, no model, no device."""

from __future__ import annotations

import numpy as np

from .clock import CURSOR, SEED, STEP
from .reference import _bits, _row_starts
from .reference import philox_normal as _philox_normal

LEAST_LENGTH = 1e-12  # of W u: a weight under it is as good as zero, and stays as it is

# ---------------------------------------------------------------------------------------------- normalisation


def batch_norm(x, gamma, beta, epsilon, momentum, running_mean, running_var, mean, rstd, y):
    """y = gamma · (x − mean) · rstd + beta with mean and rstd = 1 / √(variance + epsilon) of each column of the batch.

    Ioffe & Szegedy 2015, algorithm 1. The variance divides by R; the running one by R − 1, as it estimates that of all
    images: running ← (1 − momentum) · running + momentum · that of the batch. At R = 1 there is nothing to estimate
    from and the variance is 0. x, y: (R, C). gamma, beta, running_mean, running_var, mean, rstd: (C,).
    """
    R = len(x)
    mean[...] = x.mean(axis=0, dtype=np.float64)
    squares = np.square(x - x.mean(axis=0, dtype=np.float64)).sum(axis=0)
    rstd[...] = 1 / np.sqrt(squares / R + epsilon)
    y[...] = gamma * ((x - mean) * rstd) + beta
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_var[...] = (1 - momentum) * running_var + momentum * squares / max(1, R - 1)


def batch_norm_frozen(x, mean, var, gamma, beta, epsilon, y):
    """y = gamma · (x − mean) / √(var + epsilon) + beta, with statistics that are given: batch_norm in evaluation.

    x, y: (R, C). mean, var, gamma, beta: (C,).
    """
    y[...] = gamma * ((x - mean) / np.sqrt(var + epsilon)) + beta


def batch_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """With n = (x − mean) · rstd and g = grad_y, every mean and sum over the R rows of the batch:

    grad_x     = gamma · rstd · (g − mean(g) − n · mean(g · n)), since mean and rstd depend on x as well
    grad_gamma = Σ g · n,  grad_beta = Σ g; with add = 1 both are added to what is there.
    x, grad_y, grad_x: (R, C), the last (0, C) where it is not wanted. mean, rstd, gamma: (C,).
    grad_gamma, grad_beta: (C,), or length 0 where they are not wanted.
    """
    n = (x - mean) * rstd
    total, along = grad_y.sum(axis=0), (grad_y * n).sum(axis=0)
    if grad_x.size:
        grad_x[...] = gamma * rstd * (grad_y - total / len(x) - n * (along / len(x)))
    if grad_gamma.size:
        grad_gamma[...] = grad_gamma + along if add else along
        grad_beta[...] = grad_beta + total if add else total


def layer_norm(x, gamma, beta, epsilon, mean, rstd, y):
    """y = gamma · (x − mean) · rstd + beta with mean and rstd = 1 / √(variance + epsilon) of each row.

    Ba, Kiros & Hinton 2016, equation 3. x, y: (R, C). gamma, beta: (C,). mean, rstd: (R,).
    """
    mean[...] = x.mean(axis=1, dtype=np.float64)
    squares = np.square(x - x.mean(axis=1, dtype=np.float64, keepdims=True)).mean(axis=1)
    rstd[...] = 1 / np.sqrt(squares + epsilon)
    y[...] = gamma * ((x - mean[:, None]) * rstd[:, None]) + beta


def layer_norm_grad(x, mean, rstd, gamma, grad_y, add, grad_gamma, grad_beta, grad_x):
    """With n = (x − mean) · rstd and g = gamma · grad_y, means over the C numbers of a row, sums over the R rows:

    grad_x     = rstd · (g − mean(g) − n · mean(g · n))
    grad_gamma = Σ grad_y · n,  grad_beta = Σ grad_y; with add = 1 both are added to what is there.
    x, grad_y, grad_x: (R, C), the last (0, C) where it is not wanted. gamma: (C,). mean, rstd: (R,).
    grad_gamma, grad_beta: (C,), or length 0 where they are not wanted.
    """
    n = (x - mean[:, None]) * rstd[:, None]
    if grad_x.size:
        g = gamma * grad_y
        along = (g * n).mean(axis=1, keepdims=True)
        grad_x[...] = rstd[:, None] * (g - g.mean(axis=1, keepdims=True) - n * along)
    if grad_gamma.size:
        along, total = (grad_y * n).sum(axis=0), grad_y.sum(axis=0)
        grad_gamma[...] = grad_gamma + along if add else along
        grad_beta[...] = grad_beta + total if add else total


def spectral_norm(weight, iterations, u, v, sigma, normalised):
    """normalised = W / sigma, sigma = vᵀ W u the largest singular value of W as power iteration finds it:

    v ← W u / |W u|,  u ← Wᵀ v / |Wᵀ v|, `iterations` times, then sigma = |Wᵀ v| = vᵀ W u.
    sigma is never above the largest singular value, nor below |W u| / |u| of the u that came in. Where that is 0 there
    is nothing to divide by: u stays, v = 0, sigma = 1. Miyato et al. 2018, algorithm 1, whose W is the transpose of
    this one. weight, normalised: (K, N). u: (N,), of any length when it comes in, 1 afterwards. v: (K,). sigma: (1,).
    """
    v[...], sigma[...] = 0, 1
    for _ in range(iterations):
        turned = weight @ u
        length = np.linalg.norm(turned)
        if not length > LEAST_LENGTH * np.linalg.norm(u):
            break
        v[...] = turned / length
        turned = v @ weight
        sigma[...] = np.linalg.norm(turned)
        u[...] = turned / sigma
    normalised[...] = weight / sigma


def spectral_norm_grad(grad_normalised, normalised, u, v, sigma, add, grad_weight):
    """grad_weight = (grad_normalised − <grad_normalised, normalised> v uᵀ) / sigma, <a, b> = Σ a · b.

    With u and v held constant sigma = vᵀ W u has the derivative v uᵀ, and d(W / sigma) = (dW − W/sigma · d sigma) /
    sigma. Where u and v are the singular vectors nothing is held back: sigma has its maximum over u and v there.
    Miyato et al. 2018, section 2.3. grad_normalised, normalised, grad_weight: (K, N), the last added to with add = 1.
    u: (N,). v: (K,). sigma: (1,).
    """
    along = (grad_normalised * normalised).sum()
    grad = (grad_normalised - along * np.outer(v, u)) / sigma
    grad_weight[...] = grad_weight + grad if add else grad


# ---------------------------------------------------------------------------------------------- noise


def dropout(x, counters, stream, rate, scale, y):
    """y = scale · x where a uniform number is at least `rate`, else 0: each number is left out with probability `rate`.

    The uniform at the same place of (SEED, STEP, stream) is always the same one, so the gradient is this op on grad_y
    and no mask is kept. Srivastava et al. 2014, section 4, with scale = 1 / (1 − rate) instead of smaller weights
    later; Vincent et al. 2008, section 2.3, with scale = 1. x, y: (R, width). counters: (5,) uint64.
    """
    bits = _bits(_row_starts(counters, y), y.shape[1], counters[STEP], stream, counters[SEED])
    y[...] = np.where((bits >> np.uint64(8)) * 2.0**-24 >= rate, x * x.dtype.type(scale), 0)


def add_noise(x, counters, stream, sigma, y):
    """y = x + sigma · eps, eps standard normal as philox_normal draws it. x, y: (R, width). counters: (5,) uint64."""
    _philox_normal(counters, stream, y)
    y *= y.dtype.type(sigma)
    y += x


# ---------------------------------------------------------------------------------------------- joining, enlarging


def add(a, b, y):
    """y = a + b. a, b, y: (n,)."""
    np.add(a, b, out=y)


def concat_label(x, label, y):
    """y[r] = x[r], and behind it label[r // k]: the label of the image that row r belongs to, k = R / B.

    x: (R, N). label: (B, M). y: (R, N + M).
    """
    k = len(x) // len(label)
    y[:, : x.shape[1]] = x
    y[:, x.shape[1] :] = np.repeat(label, k, axis=0)


def concat_label_grad(grad_y, grad_x):
    """grad_x = the first N columns of grad_y; a label has no gradient. grad_y: (R, N + M). grad_x: (R, N)."""
    grad_x[...] = grad_y[:, : grad_x.shape[1]]


def gather_labels(labels, order, counters, y):
    """y[b] = 1 at labels[order[CURSOR + b]], else 0: the labels of the images that `gather` takes, one-hot.

    labels: (N,) int64, from 0 to K − 1. order: (M,) int64. counters: (5,) uint64. y: (B, K).
    """
    cursor = int(counters[CURSOR])
    chosen = labels[order[cursor : cursor + len(y)]]
    y[...] = chosen[:, None] == np.arange(y.shape[1])


def upsample(x, y):
    """y[b, i, j] = x[b, i // fh, j // fw]: each pixel becomes a block of fh × fw equal ones (nearest neighbour).

    x: (B, H, W, C). y: (B, OH, OW, C) with OH = fh · H, OW = fw · W.
    """
    fh, fw = y.shape[1] // x.shape[1], y.shape[2] // x.shape[2]
    y[...] = x.repeat(fh, axis=1).repeat(fw, axis=2)


def upsample_grad(grad_y, grad_x):
    """grad_x = the sums of grad_y over the blocks of fh × fw pixels, the adjoint of upsample.

    grad_y: (B, OH, OW, C). grad_x: (B, H, W, C).
    """
    B, H, W, C = grad_x.shape
    fh, fw = grad_y.shape[1] // H, grad_y.shape[2] // W
    grad_x[...] = grad_y.reshape(B, H, fh, W, fw, C).sum(axis=(2, 4))


# ---------------------------------------------------------------------------------------------- importance weights


def importance_weights(h, eps, z, nll, kl_weight, weight, bound):
    """The normalised importance weights of an image's k draws, and log 1/k Σ_k w_k, the bound they give together.

    log w = −nll + Σ_latent kl_weight · (log p(z) − log q(z|x)), and log p(z) − log q(z|x) = z_log_sigma + ½ eps² − ½ z²
    in each dimension, as z = z_mean + exp(z_log_sigma) · eps. weight = w / Σ_k w. Burda et al. 2015, equation 8,
    where kl_weight is 1. In float64 whatever the arrays are: a weight is the exp of a difference of large numbers.
    h: (B, 2·latent). eps, z: (R, latent), R = B·k, row r of image r // k. nll, weight: (R,). kl_weight: (latent,)
    float64. bound: (B,), nats.
    """
    B, L = h.shape[0], h.shape[1] // 2
    eps, z = (a.astype(np.float64).reshape(B, -1, L) for a in (eps, z))
    ratio = h[:, None, L:] + 0.5 * (eps * eps - z * z)  # (B, k, latent): log p(z) − log q(z|x)
    log_w = ratio @ kl_weight - nll.reshape(B, -1)
    largest = log_w.max(axis=1, keepdims=True)
    w = np.exp(log_w - largest)  # at most 1: no overflow
    total = w.sum(axis=1, keepdims=True)
    weight[...] = (w / total).reshape(-1)
    bound[...] = (largest + np.log(total / w.shape[1]))[:, 0]


def importance_grad(h, eps, z, grad_z, weight, kl_weight, doubly, grad_h):
    """The gradient of −(mean over images of log 1/k Σ_k w_k) with respect to h: every row counts by its weight.

    grad_z carries weight / B · ∂nll/∂z already. With c = weight / B · kl_weight and path = grad_z + c · z
    grad_mean      = Σ_k path
    grad_log_sigma = Σ_k path · eps · exp(z_log_sigma) − c
    doubly = 1 leaves out the terms whose mean is zero, which is the doubly reparameterised gradient of Tucker et al.
    2018, section 3 (k = 1: the path derivative of Roeder et al. 2017). q's own density counts along the path then:
    path = (1 − kl_weight · (1 − weight)) · (grad_z + c · (z − eps · exp(−z_log_sigma))), and
    grad_log_sigma = Σ_k path · eps · exp(z_log_sigma). The factor in front is `weight` where kl_weight is 1.
    h, grad_h: (B, 2·latent). eps, z, grad_z: (R, latent). weight: (R,). kl_weight: (latent,) float64.
    """
    B, L = h.shape[0], h.shape[1] // 2
    sigma = np.exp(h[:, None, L:])
    eps, z, grad_z = (a.reshape(B, -1, L) for a in (eps, z, grad_z))
    weight = weight.reshape(B, -1, 1)
    beta = kl_weight.astype(h.dtype)
    share = weight / B * beta  # (B, k, latent)
    if doubly:
        path = (1 - beta * (1 - weight)) * (grad_z + share * (z - eps / sigma))
        direct = 0
    else:
        path, direct = grad_z + share * z, share.sum(axis=1)
    grad_h[:, :L] = path.sum(axis=1)
    grad_h[:, L:] = (path * eps * sigma).sum(axis=1) - direct


def importance_objective(bound, nll, kl, sums, metrics):
    """The loss of one batch under importance weighting, in nats per image, and the running sums over an epoch.

    metrics = [loss, recon, kl]: loss = −(mean of bound), recon = mean of nll over rows, kl = Σ_latent of its mean over
    images: recon + kl is the negative ELBO of the same model, which is never below the loss in the mean.
    sums += B · [loss, recon, kl, 1]. bound: (B,). nll: (R,). kl: (B, latent). sums: (4,), metrics: (3,), float64.
    """
    metrics[:] = -bound.mean(dtype=np.float64), nll.mean(dtype=np.float64), kl.sum(dtype=np.float64) / kl.shape[0]
    sums[:3] += kl.shape[0] * metrics
    sums[3] += kl.shape[0]
