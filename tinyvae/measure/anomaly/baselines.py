"""What every score has to beat: principal components and the nearest normal image, both on plain pixels.
They know images; not models."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...config import require_number
from ...datasets.dataset import subset
from ..latent_space import BLOCK_ROWS, as_rows, nearest

FIT_IMAGES = 2000  # where images have more values than this, components come from so many of them, seeded


class PCA:
    """score = ‖(x − mean) − P Pᵀ (x − mean)‖², the error of the linear autoencoder; P (pixels, q) orthonormal.

    q is the smallest number of components that holds `share` of the variance. Pearson 1901.
    """

    def __init__(self, normal: np.ndarray, share: float = 0.9, seed: int = 0) -> None:
        require_number("share", share, 0, open_=True, why=", a share of the variance")
        pixels = int(np.prod(normal.shape[1:]))
        if pixels > FIT_IMAGES:
            normal = subset(normal, FIT_IMAGES, seed)
        total = sum(x.sum(axis=0, dtype=np.float64) for x in _blocks(normal))
        self.mean = (total / len(normal)).astype(np.float32)
        variance, vectors = self._eigen(normal, pixels)
        held = np.cumsum(variance) / max(variance.sum(), 1e-30)
        q = min(int(np.searchsorted(held, share - 1e-9)) + 1, int((variance > 0).sum()))
        self.components = np.ascontiguousarray(vectors[:, :q], np.float32)  # (pixels, q)

    def _eigen(self, normal: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
        """Variances, falling, and their directions (pixels, …): of XᵀX, or from XXᵀ where that is the smaller."""
        if pixels <= len(normal):
            product = np.zeros((pixels, pixels))
            for x in _blocks(normal):
                x = x - self.mean
                product += x.T @ x
            values, vectors = np.linalg.eigh(product)
            return np.maximum(values[::-1], 0), vectors[:, ::-1]
        x = np.concatenate(list(_blocks(normal))).astype(np.float64) - self.mean
        values, vectors = np.linalg.eigh(x @ x.T)
        values, vectors = values[::-1], vectors[:, ::-1]
        keep = values > 1e-10 * max(values[0], 1e-30)
        return values[keep], x.T @ (vectors[:, keep] / np.sqrt(values[keep]))

    def score(self, images: np.ndarray) -> np.ndarray:
        """(N,) float64."""
        out = []
        for x in _blocks(images):
            x = x - self.mean
            rest = x - (x @ self.components) @ self.components.T
            out.append(np.square(rest, dtype=np.float64).sum(axis=1))
        return np.concatenate(out)


class NearestNeighbour:
    """score = min over normal images a of ‖x − a‖, pixels from 0 to 1."""

    def __init__(self, normal: np.ndarray) -> None:
        self.normal = normal

    def score(self, images: np.ndarray) -> np.ndarray:
        """(N,) float64."""
        parts = [images[start : start + BLOCK_ROWS] for start in range(0, len(images), BLOCK_ROWS)]
        return np.concatenate([nearest(part, self.normal)[0] for part in parts])


def _blocks(images: np.ndarray) -> Iterator[np.ndarray]:
    """The images as rows of float32 in [0, 1], some at a time."""
    for start in range(0, len(images), BLOCK_ROWS):
        yield as_rows(images[start : start + BLOCK_ROWS])


__all__ = ["PCA", "NearestNeighbour"]
