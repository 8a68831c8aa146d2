"""Anomaly scores of a trained model: how badly an image is explained, and how far its code lies from normal codes.
It knows a model and the images it was trained on; thresholds and figures are its neighbours'."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from ...config import require_choice, require_int
from ...errors import DataError
from ...models import Model
from ...training.step import Feed
from ..evaluate import CHUNK, draws_of, log_mean_exp, sampled_batches
from ..latent_space import nearest

BLOCK_ROWS = 4096  # images reconstructed at a time
SMOOTHING = 0.05  # standard deviation of the smoothing, in sides of an image: 1.4 pixels of 28
TINY = 1e-12  # a distance of 0 has a logarithm then

DETERMINISTIC = ("squared_error", "relative_error", "mahalanobis", "latent_neighbour", "latent_direction", "joint")
DRAWN = ("reconstruction_probability", "neg_elbo", "importance_weighted", "kl", "input_complexity")
SCORES = (*DETERMINISTIC, *DRAWN)


class Detector:
    """Scores of images under a model that was trained on normal ones; higher is more anomalous.

    x̂ = decode(z_mean); S smooths over 5 % of the image's side; b is the background, the median normal pixel.

    squared_error               ‖x − x̂‖², pixels in [0, 1]
    relative_error              ‖S(x − x̂)‖ / ‖S(x − b)‖: without the smoothing a stroke that is off by a pixel costs as
                                much as one that should not be there (Wang, Zhang & Feng 2005: such distances of images
                                count neighbours too); without the division an image that shows little is never wrong
    mahalanobis                 (z_mean − m)ᵀ C⁻¹ (z_mean − m), m and C of the aggregate posterior of the normal images:
                                C = Cov(z_mean) + diag(E[exp(2 z_log_sigma)]) (Denouden et al. 2018, with C regular)
    latent_neighbour            distance from z_mean to the nearest code of a normal image
    latent_direction            the same between the directions z_mean / ‖z_mean‖: the length of a code says how strong
                                an image is, its direction what it shows (Sun et al. 2022, of a classifier's features).
                                Seen from 0, the prior's mean, not from m: that is what was measured to work
    joint                       log relative_error + log latent_direction: can the model make the picture, and has it
                                learnt to make it? A product has no weight to choose
    reconstruction_probability  −1/K Σ_k log p(x|z_k), z_k ~ q(z|x) (An & Cho 2015, algorithm 4)
    neg_elbo                    the same + KL(q(z|x) ‖ p(z))
    importance_weighted         −log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x), towards −log p(x) (Burda et al. 2016)
    kl                          KL(q(z|x) ‖ p(z)) alone
    input_complexity            neg_elbo − the image's compressed length in nats (Serrà et al. 2020, equation 2)

    A deterministic model has the first six only.
    """

    def __init__(self, model: Model, normal: np.ndarray, samples: int = CHUNK, seed: int = 0) -> None:
        require_int("samples", samples, 1, ", the draws of z per image")
        if len(normal) < 2:
            raise DataError(f"normal holds {len(normal)} image; pass the images that the model was trained on")
        self.model, self.samples, self.seed = model, samples, seed
        self.names = scores_of(model)
        self.codes, log_sigma = model.encode(normal)
        self.centre = self.codes.mean(axis=0, dtype=np.float64)
        covariance = np.atleast_2d(np.cov(self.codes.T.astype(np.float64)))
        if log_sigma is not None:
            covariance += np.diag(np.exp(2 * log_sigma.astype(np.float64)).mean(axis=0))
        covariance += (1e-6 * np.trace(covariance) / len(covariance) + TINY) * np.eye(len(covariance))
        self.whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        self.directions = direction(self.codes)
        self.background = float(np.median(model.as_images(normal[:1000])))

    def score(self, images: np.ndarray, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """{name: (N,) float64} for images (N, H, W, C); all scores of this model where `names` is None."""
        names = self.names if names is None else tuple(names)
        for name in names:
            require_choice("score", name, self.names)
        found = self._deterministic(images)
        if set(names) & set(DRAWN):
            found |= self._drawn(images)
        return {name: found[name] for name in names}

    def _deterministic(self, images: np.ndarray) -> dict[str, np.ndarray]:
        columns = []
        for start in range(0, len(images), BLOCK_ROWS):
            x = self.model.as_images(images[start : start + BLOCK_ROWS])
            z = self.model.encode(x)[0]
            rest = x - self.model.decode(z)
            shown = norm(smooth(x - x.dtype.type(self.background)))
            white = (z - self.centre) @ self.whiten.T
            relative = norm(smooth(rest)) / np.maximum(shown, 1e-6)
            near, like = nearest(z, self.codes)[0], nearest(direction(z), self.directions)[0]
            joint = np.log(np.maximum(relative, TINY)) + np.log(np.maximum(like, TINY))
            columns.append([np.square(norm(rest)), relative, np.square(norm(white)), near, like, joint])
        return dict(zip(DETERMINISTIC, np.concatenate(columns, axis=1), strict=True))

    def _drawn(self, images: np.ndarray) -> dict[str, np.ndarray]:
        nll, log_ratio, kl = draws(self.model, images, self.samples, self.seed)
        recon = nll.mean(axis=1)
        length = complexity(images)
        return {
            "reconstruction_probability": recon, "neg_elbo": recon + kl, "kl": kl,
            "importance_weighted": -log_mean_exp(log_ratio - nll), "input_complexity": recon + kl - length,
        }  # fmt: skip

    def heat_map(self, images: np.ndarray) -> np.ndarray:
        """(N, H, W): √ of the smoothed squared error, mean over channels: where in an image the model is wrong.

        On the scale of the pixels, so that maps of several images compare. Its squares sum to about squared_error / C.
        """
        x = self.model.as_images(images)
        squared = np.square(x - self.model.reconstruct(x)).mean(axis=3, keepdims=True)
        return np.sqrt(np.maximum(smooth(squared), 0))[..., 0]


def scores_of(model: Model) -> tuple[str, ...]:
    """The names of the scores that this model has."""
    return SCORES if model.can.analytic_kl else DETERMINISTIC


def draws(model: Model, images: np.ndarray, samples: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """nll (N, K) and log p(z_k) − log q(z_k|x) (N, K) at draws z_k ~ q(z|x), and KL(q(z|x) ‖ p(z)) (N,); float64, nats.

    The draws are those of `evaluate.importance_sampling`: addressed by place, whatever the batch size.
    """
    nll, log_ratio, kl = [], [], []
    for _, batch in sampled_batches(model, Feed(model, model.as_images(images)), seed):
        found = draws_of(model, batch, samples)
        nll.append(found[0])
        log_ratio.append(found[1])
        kl.append(model.device.get(batch.kl).sum(axis=1, dtype=np.float64))
    return np.concatenate(nll), np.concatenate(log_ratio), np.concatenate(kl)


def equal_norm(images: np.ndarray, rms: float = 1 / 7) -> np.ndarray:
    """Images (N, H, W, C) float32, each scaled until the root mean square of its pixels is `rms`, and cut off at 1.

    Every squared error and every −ELBO sums over what an image shows: one of little ink costs little, right or wrong.
    Trained and scored on such images, a model weighs them alike. An image of zeros stays as it is.
    """
    x = images.astype(np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)
    length = norm(x) / np.sqrt(x[0].size)
    scale = np.where(length > 0, rms / np.maximum(length, TINY), 1).astype(np.float32)
    return np.minimum(x * scale[:, None, None, None], np.float32(1))


def complexity(images: np.ndarray) -> np.ndarray:
    """(N,) nats: 8 ln 2 times the bytes to which zlib compresses each image, as uint8."""
    bytes_of = np.ascontiguousarray(images if images.dtype == np.uint8 else np.rint(np.clip(images, 0, 1) * 255))
    return np.array([len(zlib.compress(x.astype(np.uint8).tobytes(), 9)) for x in bytes_of]) * 8 * np.log(2)


def direction(codes: np.ndarray) -> np.ndarray:
    """codes (N, latent), each divided by its length."""
    return codes / np.maximum(norm(codes), TINY).astype(codes.dtype)[:, None]


def norm(images: np.ndarray) -> np.ndarray:
    """‖x‖ (N,) float64 over all but the first axis."""
    return np.sqrt(np.square(images, dtype=np.float64).reshape(len(images), -1).sum(axis=1))


def smooth(images: np.ndarray) -> np.ndarray:
    """Images (N, H, W, C) convolved with a Gaussian of `SMOOTHING` times the longer side; zeros outside the image."""
    H, W = images.shape[1:3]
    rows, columns = (_gaussian(n, SMOOTHING * max(H, W)).astype(images.dtype) for n in (H, W))
    across = np.einsum("nhwc,vw->nhvc", images, columns, optimize=True)
    return np.einsum("nhvc,uh->nuvc", across, rows, optimize=True)


def _gaussian(n: int, std: float) -> np.ndarray:
    """(n, n): row i weighs its neighbours; a row in the middle sums to 1."""
    distance = np.subtract.outer(np.arange(n), np.arange(n))
    reach = np.arange(-n, n + 1)
    return np.exp(-0.5 * (distance / std) ** 2) / np.exp(-0.5 * (reach / std) ** 2).sum()


__all__ = ["DETERMINISTIC", "DRAWN", "SCORES", "Detector", "complexity", "draws", "equal_norm", "scores_of", "smooth"]
