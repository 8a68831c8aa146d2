"""Exhibits: latent layer, likelihoods and objective. Many are consistent, and mean something else."""

from __future__ import annotations

import numpy as np

from ...kernels import load
from ...kernels.ops.likelihood import LOG_2PI
from ...models import Batch, Model
from .exhibit import Array, method_exhibit, op_exhibit, op_exhibits

right = load("numpy", unchecked=True)  # what the ops give that are not wrong

# ---------------------------------------------------------------------------------------------- latent


def halves(h: Array) -> tuple[Array, Array]:
    """z_mean and z_log_sigma."""
    L = h.shape[1] // 2
    return h[:, :L], h[:, L:]


def per_image(rows: Array, B: int) -> Array:
    """(R, latent) as (B, samples, latent)."""
    return rows.reshape(B, -1, rows.shape[1])


def variance_for_sigma(h: Array, eps: Array, z: Array, kl: Array) -> None:
    """exp(log-variance) taken for the standard deviation, with the matching gradient: published in
    several libraries. The samples are blurred more than q says, and no gradient check can see
    it."""
    right.latent(h, eps, z, kl)
    mean, log_sigma = halves(h)
    per_image(z, len(h))[...] = mean[:, None] + np.exp(2 * log_sigma)[:, None] * per_image(eps, len(h))


def variance_for_sigma_back(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    right.latent_grad(h, eps, grad_z, kl_weight, grad_h)
    log_sigma, L = halves(h)[1], h.shape[1] // 2
    pathwise = (per_image(grad_z, len(h)) * per_image(eps, len(h))).sum(axis=1)
    grad_h[:, L:] += pathwise * (2 * np.exp(2 * log_sigma) - np.exp(log_sigma))


def kl_of_log_variance(h: Array, eps: Array, z: Array, kl: Array) -> None:
    """z drawn with exp(z_log_sigma), the KL taken from a formula for log-variances: consistent, but
    of another q."""
    right.latent(h, eps, z, kl)
    mean, log_sigma = halves(h)
    kl[...] = -0.5 * (1 + log_sigma - mean * mean - np.exp(log_sigma))


def kl_of_log_variance_back(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    right.latent_grad(h, eps, grad_z, kl_weight, grad_h)
    log_sigma, L = halves(h)[1], h.shape[1] // 2
    grad_h[:, L:] += kl_weight / len(h) * (0.5 * np.expm1(log_sigma) - np.expm1(2 * log_sigma))


def kl_negative(h: Array, eps: Array, z: Array, kl: Array) -> None:
    """½ Σ (1 + 2 z_log_sigma − …) without its minus: the loss falls for ever while the codes run
    away."""
    right.latent(h, eps, z, kl)
    kl *= -1


def kl_negative_back(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    right.latent_grad(h, eps, grad_z, -kl_weight, grad_h)


def kl_mean_over_latents(h: Array, eps: Array, z: Array, kl: Array) -> None:
    """The reconstruction summed over pixels, the KL averaged over latents: beta is 1/20 and nobody
    chose it."""
    right.latent(h, eps, z, kl)
    kl /= kl.shape[1]


def kl_mean_back(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    right.latent_grad(h, eps, grad_z, kl_weight / len(kl_weight), grad_h)


def kl_not_averaged(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """The KL's gradient without 1/B: beta grows with the batch size, and the posterior collapses."""
    right.latent_grad(h, eps, grad_z, kl_weight * len(h), grad_h)


def kl_pulls_away(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """The sign of z_mean in the KL's gradient turned round: codes are pushed away from the prior."""
    right.latent_grad(h, eps, grad_z, kl_weight, grad_h)
    L = h.shape[1] // 2
    grad_h[:, :L] -= 2 * kl_weight / len(h) * h[:, :L]


def kl_single_exponent(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """exp(z_log_sigma) − 1 for exp(2 z_log_sigma) − 1: half of the formula for log-variances."""
    right.latent_grad(h, eps, grad_z, kl_weight, grad_h)
    log_sigma, L = halves(h)[1], h.shape[1] // 2
    grad_h[:, L:] += kl_weight / len(h) * (np.expm1(log_sigma) - np.expm1(2 * log_sigma))


def sigma_left_out(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """dz/dz_log_sigma = eps, without exp(z_log_sigma): right at the start, where z_log_sigma is
    near 0."""
    right.latent_grad(h, eps, grad_z, kl_weight, grad_h)
    log_sigma, L = halves(h)[1], h.shape[1] // 2
    pathwise = (per_image(grad_z, len(h)) * per_image(eps, len(h))).sum(axis=1)
    grad_h[:, L:] += pathwise * (1 - np.exp(log_sigma))


def path_cut(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """z sampled without the reparameterisation: z_log_sigma learns from the KL alone and returns to
    0."""
    right.latent_grad(h, np.zeros_like(eps), grad_z, kl_weight, grad_h)


def backward_draws_again(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """The backward pass draws noise of its own instead of using the noise of the forward pass."""
    again = np.random.default_rng(0).standard_normal(eps.shape)
    right.latent_grad(h, again.astype(eps.dtype), grad_z, kl_weight, grad_h)


def first_sample_only(h: Array, eps: Array, grad_z: Array, kl_weight: Array, grad_h: Array) -> None:
    """With k samples per image the gradient of the first one is kept; with k = 1 all is well."""
    only = np.zeros_like(grad_z)
    per_image(only, len(h))[:, 0] = per_image(grad_z, len(h))[:, 0]
    right.latent_grad(h, eps, only, kl_weight, grad_h)


def noise_redrawn(counters: Array, stream: int, out: Array) -> None:
    """Noise from a generator with hidden state: f(x + h) and f(x − h) see different noise, and a
    resumed run is another run."""
    out[...] = np.random.default_rng().standard_normal(out.shape)


LATENT = (
    op_exhibit(hidden=True, latent=variance_for_sigma, latent_grad=variance_for_sigma_back),
    op_exhibit(hidden=True, latent=kl_of_log_variance, latent_grad=kl_of_log_variance_back),
    op_exhibit(hidden=True, latent=kl_negative, latent_grad=kl_negative_back),
    op_exhibit(hidden=True, latent=kl_mean_over_latents, latent_grad=kl_mean_back),
    *op_exhibits("latent_grad", kl_not_averaged, kl_pulls_away, kl_single_exponent, sigma_left_out),
    *op_exhibits("latent_grad", path_cut, backward_draws_again, first_sample_only),
    op_exhibit(philox_normal=noise_redrawn),
)

# ---------------------------------------------------------------------------------------------- likelihoods


def target_of(outputs: Array, x: Array) -> Array:
    """x repeated for every sample."""
    return np.repeat(x, len(outputs) // len(x), axis=0)


def sigmoid_then_log(logits: Array, x: Array, row_scale: Array, nll: Array, grad_logits: Array) -> None:
    """log(sigmoid(logits)) in two steps: exact until a logit passes 37, then log(0). It ends some
    night in NaN."""
    target = target_of(logits, x)
    with np.errstate(all="ignore"):
        p = 1 / (1 + np.exp(-logits))
        nll[...] = -(target * np.log(p) + (1 - target) * np.log(1 - p)).sum(axis=1)
        if grad_logits.size:
            grad_logits[...] = row_scale[:, None] * (p - target)


def mean_over_pixels(logits: Array, x: Array, row_scale: Array, nll: Array, grad_logits: Array) -> None:
    """The library's default reduction: nats per pixel. Beside a summed KL, beta is 784 and nobody
    chose it."""
    right.bernoulli_nll(logits, x, row_scale, nll, grad_logits)
    nll /= logits.shape[1]
    grad_logits /= logits.shape[1]


def sigmoid_derivative_again(logits: Array, x: Array, row_scale: Array, nll: Array, grad_logits: Array) -> None:
    """(p − x) · p (1 − p): the habit from squared errors. The cross-entropy has cancelled that
    factor already."""
    right.bernoulli_nll(logits, x, row_scale, nll, grad_logits)
    if grad_logits.size:
        p = 1 / (1 + np.exp(-logits))
        grad_logits *= p * (1 - p)


def target_minus_p(logits: Array, x: Array, row_scale: Array, nll: Array, grad_logits: Array) -> None:
    """x − p, the gradient of the log-likelihood, where the loss is its negative."""
    right.bernoulli_nll(logits, x, row_scale, nll, grad_logits)
    grad_logits *= -1


def row_scale_ignored(logits: Array, x: Array, row_scale: Array, nll: Array, grad_logits: Array) -> None:
    """The gradient without the rows' weights: not averaged over the batch, and an IWAE's weights
    are lost."""
    right.bernoulli_nll(logits, x, np.ones_like(row_scale), nll, grad_logits)


def rows_tiled(logits: Array, x: Array, row_scale: Array, nll: Array, grad_logits: Array) -> None:
    """np.tile for np.repeat: with k samples, row r is scored against image r % B. With k = 1 it is
    right."""
    right.bernoulli_nll(logits, np.tile(x, (len(logits) // len(x), 1)), row_scale, nll, grad_logits)


def constants_left_out(mean: Array, x: Array, row_scale: Array, sigma: float, nll: Array, grad_mean: Array) -> None:
    """log sigma + ½ log 2π dropped, as it has no gradient: likelihoods of different sigma cannot be
    compared."""
    right.gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean)
    nll -= mean.shape[1] * (np.log(sigma) + 0.5 * LOG_2PI)


def sigma_squared_forgotten(
    mean: Array, x: Array, row_scale: Array, sigma: float, nll: Array, grad_mean: Array
) -> None:
    """mean − x without 1/sigma². With sigma = 1, the usual test, it is right."""
    right.gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean)
    grad_mean *= sigma**2


def square_not_halved(mean: Array, x: Array, row_scale: Array, sigma: float, nll: Array, grad_mean: Array) -> None:
    """2 (mean − x), the derivative of the square, where the forward pass has half the square."""
    right.gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean)
    grad_mean *= 2


LIKELIHOOD = (
    op_exhibit(hidden=True, bernoulli_nll=sigmoid_then_log),
    op_exhibit(hidden=True, bernoulli_nll=mean_over_pixels),
    *op_exhibits("bernoulli_nll", sigmoid_derivative_again, target_minus_p, row_scale_ignored),
    op_exhibit(hidden=True, bernoulli_nll=rows_tiled),
    op_exhibit(hidden=True, gaussian_nll=constants_left_out),
    *op_exhibits("gaussian_nll", sigma_squared_forgotten, square_not_halved),
)

# ---------------------------------------------------------------------------------------------- objective


def mean_of_batch_means(nll: Array, kl: Array, kl_weight: Array, sums: Array, metrics: Array) -> None:
    """An epoch's figure as the mean over batches: the last, ragged batch counts as much as a full
    one."""
    before = sums.copy()
    right.objective(nll, kl, kl_weight, sums, metrics)
    sums[:3], sums[3] = before[:3] + metrics, before[3] + 1


def summed_over_batch(nll: Array, kl: Array, kl_weight: Array, sums: Array, metrics: Array) -> None:
    """The loss summed over the batch, its gradient averaged: a larger batch looks worse."""
    right.objective(nll, kl, kl_weight, sums, metrics)
    metrics *= len(kl)


def beta_in_the_kl(nll: Array, kl: Array, kl_weight: Array, sums: Array, metrics: Array) -> None:
    """The logged KL has beta in it, so that neg_elbo = recon + kl is no bound any more."""
    right.objective(nll, kl, kl_weight, sums, metrics)
    metrics[2] = metrics[0] - metrics[1]


right_loss = Model.loss


def two_objectives(self: Model, batch: Batch) -> None:
    """Training and evaluation compute the loss in two functions, and only one of them knows
    beta."""
    right_loss(self, batch)
    if batch.clock is not self.clock:
        batch.metrics[0] = batch.metrics[1] + batch.metrics[2]


OBJECTIVE = (
    *op_exhibits("objective", mean_of_batch_means, summed_over_batch, beta_in_the_kl),
    method_exhibit("Model", Model, loss=two_objectives),
)

OBJECTIVES = (*LATENT, *LIKELIHOOD, *OBJECTIVE)
