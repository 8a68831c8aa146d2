"""Signs that a game of two players fails, in figures: from the log, and from samples beside images.
What follows from them, and what to change, is in game.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...datasets.dataset import shuffled
from ...errors import DataError
from ...models import Model
from ...training.signs import Rows, geometric, swing
from ..classifier_metrics import coverage
from ..latent_space import squared_distances

# Set on seeds 0 to 2 of benchmarks/gan_doctor.py, between what was made ill and what was not, and tried on others.
LEAST_TOLD = 0.05  # by which a discriminator that tells anything believes images more than drawn ones
MOST_SWING = 0.7  # of −log d_fake from epoch to epoch, as a share of its level: good runs had up to 0.47
LEAST_NEAREST = 0.4  # nearest neighbours among samples, their median distance as a share of the images'
LEAST_COVERAGE = 0.15  # of images that have a sample among their neighbours,
LEAST_NEAR_COVERAGE = 0.5  # and of these where samples are nearer to each other than LEAST_NEAREST says
LEAST_CONTRAST = 0.6  # of samples, as a share of the images'
LEAST_CLASS = 0.1  # samples of a class, as a share of what is its share of the images
SAMPLES = 1000


def recent(rows: Rows) -> Rows:
    """The last third of the epochs, three at least: how the game stands now."""
    return rows[-max(3, len(rows) // 3) :]


def game_figures(rows: Rows) -> dict[str, Any]:
    """How the game stood in the last third of the epochs, ready for JSON.

    d_real, d_fake     geometric means: what the discriminator gives for images and for drawn ones
    top_fake           the largest d_fake of these epochs
    most_fake          the largest of any epoch but the first, in which nobody can do anything yet: whether the
                       generator ever had its turn
    swing              see `swing`
    """
    now, fakes = recent(rows), [row["train"]["d_fake"] for row in rows]
    figures: dict[str, Any] = {name: geometric(now, name) for name in ("d_real", "d_fake")}
    figures |= {"top_fake": max(fakes[-len(now) :]), "most_fake": max(fakes[1:] or fakes)}
    return figures | {"swing": swing(rows)}


def swings(game: Mapping[str, Any]) -> bool:
    """Whether the losses have no level."""
    return game["swing"] is not None and bool(game["swing"] > MOST_SWING)


def too_weak(game: Mapping[str, Any]) -> bool:
    """Whether the discriminator does not tell images from drawn ones: the end of a good game, or no game at all."""
    return bool(game["d_fake"] > game["d_real"] - LEAST_TOLD)


# ---------------------------------------------------------------------------------------------- samples


def sample_figures(samples: np.ndarray, images: np.ndarray) -> dict[str, Any]:
    """Samples (N, H, W, C) beside as many true images, in pixels, ready for JSON.

    spread       Σ_pixels of the samples' variance over that of the images
    contrast     mean over the samples of the variance of a sample's own pixels, over that of the images: a generator
                 that has learned little yet draws grey or blurred pictures, and these are alike too
    nearest      median distance from a sample to the nearest other one, over the same among the images; None where
                 most images are there twice
    precision    share of samples that lie among the images, by balls to their fifth neighbours: see `coverage`
    coverage     share of images that have a sample in their ball; 0.97 of perfect samples, as many as images
    """
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (samples, images))
    if min(len(a), len(b)) < 2:
        raise DataError("samples and images must be two at least on either side, to have neighbours")
    k = min(5, len(b) - 1)
    found, near = coverage(b, a, k), nearest_other(b)
    return {
        "spread": float(a.var(axis=0).sum() / max(b.var(axis=0).sum(), 1e-12)),
        "contrast": float(a.var(axis=1).mean() / max(b.var(axis=1).mean(), 1e-12)),
        "nearest": nearest_other(a) / near if near > 1e-3 else None,
        "precision": found.precision,
        "coverage": found.coverage,
    }


def drawn_figures(model: Model, images: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """`sample_figures` of as many samples of the model as there are images, a thousand at most."""
    order = shuffled(len(images), seed)[:SAMPLES]
    return sample_figures(model.sample(len(order), seed), model.as_images(images[order]))


def nearest_other(x: np.ndarray) -> float:
    """The median over the rows of x (N, D) of the distance to the nearest other row."""
    distance = squared_distances(x, x)
    np.fill_diagonal(distance, np.inf)
    return float(np.sqrt(np.maximum(np.median(distance.min(axis=1)), 0)))


def missing_classes(seen: np.ndarray, labels: np.ndarray) -> list[int]:
    """The labels (M,) of which hardly any are `seen` (N,) in samples: less than a tenth of their share."""
    classes, counts = np.unique(labels, return_counts=True)
    shares = [float((seen == c).mean()) for c in classes]
    return [int(c) for c, n, s in zip(classes, counts, shares, strict=True) if s < LEAST_CLASS * float(n) / len(labels)]
