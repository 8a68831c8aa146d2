"""The aggregate posterior q(z) = mean over images of q(z|x), held against the prior: what the KL is spent on.
It knows codes, as arrays or from a model's encoder; what to make of the figures is doctor's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..datasets.dataset import subset
from ..errors import DataError
from ..layers.priors import LOG_2PI, FullGaussian, StandardNormal
from ..models import Model
from .latent_space import nearest, priors_of, squared_distances

BLOCK = 1000  # rows of the N × N densities held at a time
IMAGES = 5000  # images that the quadratic figures look at, at most
FRESH = 2000  # codes of other images, and prior draws, that are looked for among these

# ---------------------------------------------------------------------------------------------- nats


def dimension_kl(z_mean: np.ndarray, z_log_sigma: np.ndarray) -> np.ndarray:
    """KL(q(z_d|x) ‖ N(0, 1)) of each latent dimension, mean over the images: (latent,) nats.

    −½ (1 + 2 z_log_sigma − z_mean² − exp(2 z_log_sigma)). z_mean, z_log_sigma: (N, latent).
    """
    m, s = z_mean.astype(np.float64), z_log_sigma.astype(np.float64)
    return (-0.5 * (1 + 2 * s - m * m - np.exp(2 * s))).mean(axis=0)


@dataclass(frozen=True)
class RateSplit:
    """kl = mutual_information + marginal_kl, nats; the first part never exceeds log N. stderr: from the draws."""

    kl: float
    mutual_information: float
    marginal_kl: float
    stderr: float
    images: int

    @property
    def saturated(self) -> bool:
        """Whether N images are too few to say how much more than log N the codes tell of them."""
        return self.mutual_information > 0.9 * float(np.log(self.images))


def rate_split(z_mean: np.ndarray, z_log_sigma: np.ndarray, seed: int = 0) -> RateSplit:
    """Σ_d KL(q(z|x) ‖ p(z)), averaged = I(n; z) + KL(q(z) ‖ p(z)): Hoffman & Johnson 2016.

    I(n; z) = E[log q(z|x_n) − log q(z)] says how well a code tells which of the N images it is of, and is at most
    log N; KL(q(z) ‖ p(z)) = E[log q(z) − log p(z)]. One z ~ q(z|x_n) per image; q(z) is the mean of all N densities.
    Where codes tell all N apart (`saturated`), more images would move nats from the second part to the first.
    """
    m, s = z_mean.astype(np.float64), z_log_sigma.astype(np.float64)
    N = len(m)
    eps = np.random.Generator(np.random.Philox(seed)).standard_normal(m.shape)
    z = m + np.exp(s) * eps
    normal = StandardNormal(m.shape[1])
    own = normal.log_density(eps) - s.sum(axis=1)  # log q(z|x), (N,)
    log_q = log_mixture(z, m, s)
    information = own - log_q  # log N at most, each
    log_p = normal.log_density(z)
    kl, mutual = float(dimension_kl(m, s).sum()), float(information.mean())
    stderr = float(max(information.std(), (log_q - log_p).std()) / np.sqrt(N))
    return RateSplit(kl, mutual, kl - mutual, stderr, N)


def log_mixture(z: np.ndarray, z_mean: np.ndarray, z_log_sigma: np.ndarray) -> np.ndarray:
    """log of the mean over n of N(z; z_mean[n], exp(z_log_sigma[n])²): (M,) for z (M, latent).

    Σ_d (z − m)² / s² is three products, so that no array (M, N, latent) is needed.
    """
    precision = np.exp(-2 * z_log_sigma)  # (N, latent)
    scaled = z_mean * precision
    constant = -0.5 * (z_mean * scaled).sum(axis=1) - z_log_sigma.sum(axis=1) - 0.5 * z.shape[1] * LOG_2PI
    out = np.empty(len(z))
    for start in range(0, len(z), BLOCK):
        part = z[start : start + BLOCK]
        log_density = part @ scaled.T - 0.5 * (part * part) @ precision.T + constant  # (block, N)
        largest = log_density.max(axis=1)
        out[start : start + BLOCK] = largest + np.log(np.exp(log_density - largest[:, None]).mean(axis=1))
    return out


def moments(z_mean: np.ndarray, z_log_sigma: np.ndarray | None) -> FullGaussian:
    """The Gaussian with q(z)'s mean and covariance: those of the codes, plus the mean variance of the noise."""
    m = z_mean.astype(np.float64)
    noise = 0.0 if z_log_sigma is None else np.exp(2 * z_log_sigma.astype(np.float64)).mean(axis=0)
    covariance = np.atleast_2d(np.cov(m.T, bias=True)) + np.diag(np.broadcast_to(noise, m.shape[1:]))
    return FullGaussian(m.mean(axis=0), covariance)


# ---------------------------------------------------------------------------------------------- samples


def mmd(a: np.ndarray, b: np.ndarray) -> float:
    """MMD² = E k(a, a') + E k(b, b') − 2 E k(a, b), k(u, v) = C / (C + ‖u − v‖²), C = 2·latent; unbiased, so near 0
    and sometimes below it where both are of one distribution.

    a (N, latent), b (M, latent). Gretton et al. 2012, lemma 6; the kernel of Tolstikhin et al. 2018, for N(0, I).
    """
    if min(len(a), len(b)) < 2:
        raise DataError("the MMD needs two rows at least on either side")

    def kernel(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        C = 2.0 * u.shape[1]
        return C / (C + np.maximum(squared_distances(u, v), 0))

    N, M = len(a), len(b)
    within = (kernel(a, a).sum() - N) / (N * (N - 1)) + (kernel(b, b).sum() - M) / (M * (M - 1))
    return float(within - 2 * kernel(a, b).mean())


class Overlap(NamedTuple):
    """filled: prior draws with a code near. reached: codes with a prior draw near. 0.95 each where q(z) = p(z)."""

    filled: float
    reached: float


def overlap(codes: np.ndarray, fresh_codes: np.ndarray, draws: np.ndarray, fresh_draws: np.ndarray) -> Overlap:
    """Near is: as near to one of `codes` as 95 % of `fresh_codes`, which come from other images; and so for the draws.

    All (N, latent); codes and draws equally many, or the comparison is not fair. Distances are to the nearest. What is
    not filled are holes: places that sampling goes to, and where the decoder was never trained.
    """

    def within(points: np.ndarray, ours: np.ndarray, known: np.ndarray) -> float:
        return float((nearest(points, known)[0] <= np.quantile(nearest(ours, known)[0], 0.95)).mean())

    return Overlap(within(fresh_draws, fresh_codes, codes), within(fresh_codes, fresh_draws, draws))


# ---------------------------------------------------------------------------------------------- a model's figures


def draw_codes(model: Model, images: np.ndarray, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
    """One z ~ q(z|x) per image (N, latent) float64, what the decoder sees in training; of an autoencoder the code.

    labels: those of the images, for a conditional model, which draws z ~ q(z|x, label).
    """
    z_mean, z_log_sigma = model.encode(images, labels)
    z = z_mean.astype(np.float64)
    if z_log_sigma is None:
        return z
    eps = np.random.Generator(np.random.Philox(seed)).standard_normal(z.shape)
    return z + np.exp(z_log_sigma.astype(np.float64)) * eps


def aggregate_figures(
    model: Model, train_images: np.ndarray, test_images: np.ndarray, seed: int = 0,
    train_labels: np.ndarray | None = None, test_labels: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """q(z) against the prior, ready for JSON; None where a deterministic model has no such figure.

    kl_per_dimension      nats, of each latent dimension
    mutual_information, marginal_kl, mutual_information_limit     the two parts of the KL, and log N; see `rate_split`
    marginal_kl_gaussian  KL of the Gaussian with q(z)'s two moments to N(0, I)
    mmd, filled, reached  against the model's prior, or, for a deterministic one, the Gaussian fitted to its codes
    the same three with _standard_normal     against N(0, I): for a VAE the same numbers

    The labels are for a conditional model: q(z) is then the mean of q(z|x, label), of all classes together.
    """
    few, fresh = subset(train_images, IMAGES, seed), subset(test_images, IMAGES, seed)
    few_labels, labels = (None if y is None else subset(y, IMAGES, seed) for y in (train_labels, test_labels))
    z_mean, z_log_sigma = model.encode(fresh, labels)
    report: dict[str, Any] = dict.fromkeys(
        ("kl_per_dimension", "mutual_information", "marginal_kl", "mutual_information_limit")
    )
    if z_log_sigma is not None:
        split = rate_split(z_mean, z_log_sigma, seed)
        report |= {"kl_per_dimension": [float(k) for k in dimension_kl(z_mean, z_log_sigma)]}
        report |= {"mutual_information": split.mutual_information, "marginal_kl": split.marginal_kl}
        report["mutual_information_limit"] = float(np.log(split.images))
    report["marginal_kl_gaussian"] = moments(z_mean, z_log_sigma).kl_to_standard_normal()
    codes = draw_codes(model, few, seed, few_labels)
    fresh_codes = draw_codes(model, fresh[:FRESH], seed + 1, None if labels is None else labels[:FRESH])
    for name, prior in priors_of(model, few).items():
        draws = model.draw_prior(len(codes) + FRESH, seed, prior).astype(np.float64)
        known, new = draws[: len(codes)], draws[len(codes) :]
        report["mmd" + name] = mmd(fresh_codes, new) if len(fresh_codes) > 1 else None
        report["filled" + name], report["reached" + name] = overlap(codes, fresh_codes, known, new)
    return report
