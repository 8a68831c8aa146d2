"""Priors: the distribution of z without an image, as an object: draws, density, and a layer for training."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from ..device import Array
from ..errors import DataError, ShapeError
from ..kernels.clock import COUNTERS, SEED, Stream
from ..kernels.ops.noise import philox_normal
from .layer import Layer, Shape, Site, Twin

LOG_2PI = float(np.log(2 * np.pi))


class Prior(Layer):
    """p(z), z of shape (latent,). A subclass defines `place`, `log_density` and `moments`.

    As a layer it has no input: a model that draws z in training has it among its parts and defines `bind`.
    label: how pictures name it.
    """

    noisy = True
    label = "p(z)"

    def __init__(self, latent_dim: int) -> None:
        if latent_dim < 1:
            name = type(self).__name__
            raise ShapeError(f"{name}({latent_dim}): the latent dimension must be at least 1")
        self.latent_dim = latent_dim

    def shape(self, *in_shapes: Shape) -> Shape:
        return (self.latent_dim,)

    def describe(self) -> str:
        return str(self.latent_dim)

    def sample(self, n: int, seed: int) -> np.ndarray:
        """n draws (n, latent), float64, by Philox, stream `sample`."""
        counters = np.zeros(COUNTERS, np.uint64)
        counters[SEED] = np.uint64(seed)
        eps = np.empty((n, self.latent_dim))
        philox_normal(counters, Stream.SAMPLE, eps)
        return self.place(eps)

    def place(self, eps: np.ndarray) -> np.ndarray:
        """z (n, latent) from eps (n, latent), eps ~ N(0, I)."""
        raise NotImplementedError

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """log p(z) (n,), nats, of z (n, latent)."""
        raise NotImplementedError

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (latent,) of each dimension."""
        raise NotImplementedError

    def plane(self, n: int, u: int, v: int) -> np.ndarray:
        """n × n codes (n, n, latent) at the quantiles (i + ½) / n of dimensions u and v, the others at their mean.

        Columns go up in u, rows go down in v, as a picture is drawn.
        """
        normal = np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])
        mean, std = self.moments()
        z = np.tile(mean, (n, n, 1))
        z[:, :, u] += std[u] * normal
        z[:, :, v] += (std[v] * normal[::-1])[:, None]
        return z


class StandardNormal(Prior):
    """z ~ N(0, I), the prior of a VAE, a GAN and an adversarial autoencoder.

    As a layer: noise of a stream of its own at the clock's step. z: (B, latent).
    """

    label = "N(0, I)"

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(self.latent_dim), np.ones(self.latent_dim)

    def place(self, eps: np.ndarray) -> np.ndarray:
        return eps

    def log_density(self, z: np.ndarray) -> np.ndarray:
        return -0.5 * (z * z + LOG_2PI).sum(axis=1)

    def bind(self, site: Site) -> Twin:
        return StandardNormalTwin(self, site)


class StandardNormalTwin(Twin):
    """StandardNormal on a fixed buffer; z is fixed while the clock stands."""

    def __init__(self, layer: StandardNormal, site: Site) -> None:
        self.z = site.empty(site.rows, layer.latent_dim)
        self.counters, self.stream = site.clock.counters, site.stream()
        self.philox_normal = site.op("philox_normal")

    def forward(self, *xs: Array) -> Array:
        self.philox_normal(self.counters, self.stream, self.z)
        return self.z


class FullGaussian(Prior):
    """z ~ N(mean, covariance): fitted to an autoencoder's codes, in place of the prior that it lacks.

    mean: (latent,). covariance: (latent, latent), singular where codes lie in a plane.
    """

    label = "a Gaussian fitted to the codes"

    def __init__(self, mean: np.ndarray, covariance: np.ndarray) -> None:
        self.mean, self.covariance = np.asarray(mean, float), np.asarray(covariance, float)
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean),) * 2:
            shapes = f"{self.mean.shape} and {self.covariance.shape}"
            raise DataError(f"mean and covariance must be (latent,) and (latent, latent), got {shapes}")
        super().__init__(len(self.mean))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        return self.mean, np.sqrt(np.diag(self.covariance))

    @classmethod
    def fit(cls, codes: np.ndarray) -> FullGaussian:
        """Mean and covariance, float64, of codes (n, latent)."""
        codes = codes.astype(np.float64)
        mean = codes.mean(axis=0)
        centred = codes - mean
        return cls(mean, centred.T @ centred / len(codes))

    def place(self, eps: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(self.covariance)
        return self.mean + (eps * np.sqrt(np.maximum(values, 0))) @ vectors.T

    def log_density(self, z: np.ndarray) -> np.ndarray:
        """As in Prior; −inf everywhere where the covariance is singular."""
        sign, log_det = np.linalg.slogdet(self.covariance)
        if sign <= 0:
            return np.full(len(z), -np.inf)
        d = z - self.mean
        squared = (d * np.linalg.solve(self.covariance, d.T).T).sum(axis=1)
        return -0.5 * (squared + log_det + self.latent_dim * LOG_2PI)

    def kl_to_standard_normal(self) -> float:
        """KL(N(mean, covariance) ‖ N(0, I)) = ½ (tr C + mean² − latent − log det C), nats; infinite where singular."""
        sign, log_det = np.linalg.slogdet(self.covariance)
        if sign <= 0:
            return float("inf")
        trace, square = np.trace(self.covariance), self.mean @ self.mean
        return float(0.5 * (trace + square - self.latent_dim - log_det))
