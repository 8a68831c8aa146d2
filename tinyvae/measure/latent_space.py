"""The latent space as a place: units in use, a fitted prior, continuity between codes, completeness of the prior.
It knows a model's public methods only; likelihoods are evaluate's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..config import require_int
from ..datasets import Dataset
from ..datasets.dataset import shuffled, subset
from ..errors import DataError
from ..layers.priors import FullGaussian, Prior, StandardNormal
from ..models import Model

BLOCK_ROWS = 4096  # images held as floats at a time while distances are taken


def latent_report(model: Model, dataset: Dataset, seed: int = 0) -> dict[str, Any]:
    """The latent space of a VAE or AE on a data set, ready for JSON; the test images are its codes.

    latent_dim            latent dimensions
    active_units          those in use; None for a deterministic model, whose codes have no scale
    code_std              standard deviation of each dimension of z_mean
    continuity            how far from z encode(decode(z)) is between codes; continuity_profile: by the place between
    completeness, completeness_local     the share of prior samples that pass for images, by two yardsticks
    completeness_standard_normal, completeness_local_standard_normal     the same two with N(0, I) as the prior: for a
                          VAE, whose prior that is, the same numbers; for an AE what its fitted Gaussian is worth
    completeness_distance, completeness_ratio     the two yardsticks
    """
    labels = labels_for(model, dataset)[1]
    active = active_units(model, dataset.test_images, labels=labels) if model.can.posterior else None
    report = {"latent_dim": model.latent_dim, "active_units": active}
    return report | latent_figures(model, dataset.train_images, dataset.test_images, seed, labels)


def labels_for(model: Model, data: Dataset) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The labels of the training and of the test images for a conditional model; (None, None) for any other."""
    return (data.train_labels, data.test_labels) if model.can.labels else (None, None)


def latent_figures(
    model: Model, train_images: np.ndarray, test_images: np.ndarray, seed: int = 0, labels: np.ndarray | None = None
) -> dict[str, Any]:
    """`latent_report` without what `evaluate` has already. labels: the test images', for a conditional model, whose
    prior samples take the classes in turn."""
    profile = np.array([np.nan])
    if len(test_images) > 1:
        profile = continuity_profile(model, test_images, seed=seed, labels=labels)
    missing = bool(np.isnan(profile).any())
    yardstick = measure(train_images, test_images, seed=seed)
    shares = completeness_shares(model, train_images, test_images, seed=seed, yardstick=yardstick)
    standard = shares
    if model.prior is None:
        normal = StandardNormal(model.latent_dim)
        standard = completeness_shares(model, train_images, test_images, seed=seed, prior=normal, yardstick=yardstick)
    return {
        "code_std": [float(s) for s in model.encode(test_images, labels)[0].std(axis=0, dtype=np.float64)],
        "continuity": None if missing else float(profile.mean()),
        "continuity_profile": None if missing else [float(v) for v in profile],
        "completeness": shares.near,
        "completeness_local": shares.local,
        "completeness_standard_normal": standard.near,
        "completeness_local_standard_normal": standard.local,
        "completeness_distance": yardstick.distance,
        "completeness_ratio": yardstick.ratio,
    }


def active_units(model: Model, images: np.ndarray, threshold: float = 0.01, labels: np.ndarray | None = None) -> int:
    """The number of latent dimensions u with Var_x(E_q[u|x]) > threshold, E_q[u|x] = z_mean.

    Burda, Grosse & Salakhutdinov 2016, section 5.2. An unused dimension has z_mean ≈ 0 for every image.
    labels: those of the images, for a conditional model.
    """
    codes = model.encode(images, labels)[0]
    return int((codes.var(axis=0, dtype=np.float64) > threshold).sum())


def fit_prior(model: Model, images: np.ndarray) -> FullGaussian:
    """The Gaussian with the mean and the covariance of the codes of `images`, to sample from.

    What an autoencoder has instead of a prior; `model.sample(n, prior=fit_prior(model, images))`.
    """
    return FullGaussian.fit(model.encode(images)[0])


def priors_of(model: Model, images: np.ndarray) -> dict[str, Prior]:
    """The priors that figures are given for, by what is added to a figure's name.

    "": the model's, or the one fitted to the codes of `images` where it has none. "_standard_normal": N(0, I).
    """
    return {"": model.prior or fit_prior(model, images), "_standard_normal": StandardNormal(model.latent_dim)}


def continuity(
    model: Model, images: np.ndarray, pairs: int = 500, steps: int = 11, seed: int = 0,
    labels: np.ndarray | None = None,
) -> float:  # fmt: skip
    """Mean of ‖z − encode(decode(z))‖ / s over points z on straight segments between codes; 0 is perfect.

    s² = Σ_latent of the codes' variance, so 1 is the typical distance of a code from the centre: a decoded point that
    comes back as some other image's code. `pairs` seeded pairs of different images (as many as there are images at
    most), `steps` points on each, ends included. NaN where all images have one code.
    labels: those of the images, for a conditional model. It walks between images of one class and is told that class
    all the way: between two classes the label would have to jump somewhere.
    """
    return float(continuity_profile(model, images, pairs, steps, seed, labels).mean())


def continuity_profile(
    model: Model, images: np.ndarray, pairs: int = 500, steps: int = 11, seed: int = 0,
    labels: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """`continuity` (steps,) by the place on the segment, from one code to the other.

    The ends show how exactly codes come back at all, which costs a VAE more, as its decoder has to work with noise. The
    rise towards the middle shows what lies between codes: in an autoencoder places that no image maps to, and what is
    decoded there is encoded elsewhere.
    """
    codes = model.encode(images, labels)[0].astype(np.float64)
    walks = segments(codes, pairs, steps, seed, labels)
    told = None if labels is None else np.repeat(labels[_ends(len(codes), seed, labels)[0][:pairs]], steps)
    scale = np.sqrt(codes.var(axis=0).sum())
    if scale == 0:
        return np.full(steps, np.nan)
    z = walks.reshape(-1, codes.shape[1])  # (pairs·steps, latent)
    back = model.encode(model.decode(z, told), told)[0]
    return np.sqrt(np.square(z - back).sum(axis=1)).reshape(-1, steps).mean(axis=0) / scale


def segments(codes: np.ndarray, pairs: int, steps: int, seed: int = 0, labels: np.ndarray | None = None) -> np.ndarray:
    """Codes (pairs, steps, latent) on straight segments between seeded pairs of different codes, both ends included.

    labels (N,): both ends have one label then; the only code of its class is joined to itself.
    """
    require_int("pairs", pairs, 1)
    require_int("steps", steps, 2, ", as both ends are included")
    if len(codes) < 2:
        raise DataError("continuity needs at least two images, to join their codes")
    a, b = (codes[end[:pairs], None] for end in _ends(len(codes), seed, labels))
    t = np.linspace(0, 1, steps)[:, None]
    return (1 - t) * a + t * b


def _ends(count: int, seed: int, labels: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Where segments start and end, two seeded orders (N,): each code is followed by the next one of its label."""
    start = shuffled(count, seed)
    end, own = np.empty_like(start), np.zeros(count, int) if labels is None else labels[start]
    for label in np.unique(own):
        end[own == label] = np.roll(start[own == label], -1)
    return start, end


def completeness(
    model: Model, train_images: np.ndarray, test_images: np.ndarray, samples: int = 1000, seed: int = 0,
    prior: Prior | None = None,
) -> float:  # fmt: skip
    """The share of prior samples, decoded, whose nearest training image is as near as 95 % of the test images have one.

    `completeness_shares` says it in full, and has a second yardstick that faint images do not pass.
    """
    return completeness_shares(model, train_images, test_images, samples, seed, prior).near


@dataclass(frozen=True)
class Yardstick:
    """What 95 % of the test images stay below: distance to a training image, and ratio of two distances (`novelty`)."""

    distance: float
    ratio: float


class Shares(NamedTuple):
    """Two shares of prior samples, 1 is perfect. near: a training image is near. local: as near as is usual there."""

    near: float
    local: float


def completeness_shares(
    model: Model,
    train_images: np.ndarray,
    test_images: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
    prior: Prior | None = None,
    yardstick: Yardstick | None = None,
) -> Shares:
    """The share of prior samples, decoded, that are no farther from the training images than 95 % of the test images.

    prior: None for the model's, or for a deterministic model the Gaussian fitted to the codes of the training
    images. yardstick: None for `measure`.
    `near` compares distances. A blurred image lies nearer to others than a sharp one, and an almost empty one nearer
    still, so faint nonsense passes. `local` compares ratios: the image that faint nonsense is nearest to has a much
    nearer neighbour of its own. Both find samples that are like no image, not samples that are too much alike.
    """
    require_int("samples", samples, 1)
    if yardstick is None:
        yardstick = measure(train_images, test_images, seed=seed)
    if prior is None and model.prior is None:
        prior = fit_prior(model, train_images)
    distance, ratio = novelty(model.sample(samples, seed, prior), train_images)
    return Shares(float((distance <= yardstick.distance).mean()), float((ratio <= yardstick.ratio).mean()))


def measure(
    train_images: np.ndarray, test_images: np.ndarray, quantile: float = 0.95, limit: int = 1000, seed: int = 0
) -> Yardstick:
    """The quantile of the test images' distances and ratios, of a seeded choice where there are more than `limit`."""
    distance, ratio = novelty(subset(test_images, limit, seed), train_images)  # all would take ten times as long
    return Yardstick(float(np.quantile(distance, quantile)), float(np.quantile(ratio, quantile)))


def novelty(images: np.ndarray, train_images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two (N,): d(x, a), a the training image nearest to x, and d(x, a) / d(a, b), b the one nearest to a.

    Tax & Duin 1998, the nearest neighbour method: the ratio is about 1 where x lies among its like, whether images
    there are close together or far apart. Of a single training image the ratio is taken as d itself.
    """
    distance, place = nearest(images, train_images)
    if len(train_images) < 2:
        return distance, distance
    own, _ = nearest(train_images[place], train_images, skip=place)
    return distance, distance / np.maximum(own, 1e-6)  # an image may be there twice


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """‖a_n − b_m‖² (N, M) of the rows of a (N, D) and b (M, D), as ‖a‖² + ‖b‖² − 2 a·b, so 0 may come out as −1e-16."""
    return np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1) - 2 * a @ b.T


def nearest(
    images: np.ndarray, train_images: np.ndarray, skip: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The Euclidean distance (N,) from each image to its nearest training image, and that image's place (N,).

    Pixels count from 0 to 1. skip (N,): for each image, the place of a training image that does not count.
    ‖a − b‖² = ‖a‖² + ‖b‖² − 2 a·b finds the neighbour by blocked products in float32; the distance is then taken
    directly, as the difference of large squares would spoil small ones.
    """
    a = as_rows(images)
    if a.shape[1] != int(np.prod(train_images.shape[1:])):
        raise DataError(f"images of {a.shape[1]} values cannot be compared with training images {train_images.shape}")
    rows = np.arange(len(a))
    best, place = np.full(len(a), np.inf, np.float32), np.zeros(len(a), np.int64)
    for start in range(0, len(train_images), BLOCK_ROWS):
        b = as_rows(train_images[start : start + BLOCK_ROWS])
        squared = a @ b.T  # (N, block)
        squared *= -2
        squared += np.einsum("ij,ij->i", b, b)  # ‖a‖² is the same for all b: not needed to find the least
        if skip is not None:
            here = (skip >= start) & (skip < start + len(b))
            squared[rows[here], skip[here] - start] = np.inf
        column = squared.argmin(axis=1)
        least = squared[rows, column]
        closer = least < best
        best[closer], place[closer] = least[closer], start + column[closer]
    distance = np.empty(len(a))
    for start in range(0, len(a), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        difference = a[part].astype(np.float64) - as_rows(train_images[place[part]])
        distance[part] = np.sqrt(np.square(difference).sum(axis=1))
    return distance, place


def as_rows(images: np.ndarray) -> np.ndarray:
    """(N, pixels) float32 in [0, 1]."""
    scale = np.float32(255 if images.dtype == np.uint8 else 1)
    return images.reshape(len(images), -1).astype(np.float32) / scale
