"""Metrics of a decoder and of its samples: how evenly it moves, and what a trained classifier sees in its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..config import require_int, require_number
from ..errors import DataError
from ..models import Model
from .classifier import Classifier
from .latent_space import priors_of, segments, squared_distances

QUANTILE = 0.05  # the share of true images that a yardstick leaves out
LEAST = 0.01  # the share of a set of images that shows a class, where the class counts as covered

# ---------------------------------------------------------------------------------------------- the decoder alone


@dataclass(frozen=True)
class Smoothness:
    """How a walk at constant speed through the codes moves the image. Both without units.

    unevenness: the speed's standard deviation along a walk, in its mean speed. jump: its largest speed, in its mean
    speed. Means over the walks. 0 and 1 are a decoder that cross-fades, which says nothing about what it shows.
    """

    unevenness: float
    jump: float


def smoothness(model: Model, images: np.ndarray, pairs: int = 200, steps: int = 33, seed: int = 0) -> Smoothness:
    """speed_t = ‖decode(z_{t+1}) − decode(z_t)‖, a finite difference of ‖Jacobian (b − a)‖, on segments from a to b.

    The segments join codes of `images`. Scaling the codes or the pixels changes nothing. NaN where no image moves.
    """
    walks = segments(model.encode(images)[0].astype(np.float64), pairs, steps, seed)  # (pairs, steps, latent)
    x = model.decode(walks.reshape(-1, model.latent_dim)).reshape(len(walks), steps, -1).astype(np.float64)
    speed = np.sqrt(np.square(np.diff(x, axis=1)).sum(axis=2))  # (pairs, steps − 1)
    mean = speed.mean(axis=1)
    moving = mean > 0
    if not moving.any():
        return Smoothness(float("nan"), float("nan"))
    speed = speed[moving] / mean[moving, None]
    return Smoothness(float(speed.std(axis=1).mean()), float(speed.max(axis=1).mean()))


# ---------------------------------------------------------------------------------------------- a classifier's word


class Recognised(NamedTuple):
    """What a classifier says of walks. share: of their points. profile (steps,): by place. steady: see `recognise`."""

    share: float
    profile: np.ndarray
    steady: float


def confidence_of(judge: Classifier, test_images: np.ndarray, quantile: float = QUANTILE) -> float:
    """The probability of the likeliest label that all but 5 % of true images reach: above it an image is recognised."""
    return float(np.quantile(judge.probabilities(test_images).max(axis=1), quantile))


def recognise(
    model: Model, judge: Classifier, images: np.ndarray, confidence: float, pairs: int = 500, steps: int = 11,
    seed: int = 0,
) -> Recognised:  # fmt: skip
    """Walks between codes of `images` as a classifier sees them: at how many points it is sure of what it sees.

    steady: the share of walks on which the label goes from that of one end to that of the other in a single change (or
    in none, where both ends have the same): nothing third is met on the way.
    """
    walks = segments(model.encode(images)[0].astype(np.float64), pairs, steps, seed)
    seen = judge.probabilities(model.decode(walks.reshape(-1, model.latent_dim)))
    profile = (seen.max(axis=1) >= confidence).reshape(-1, steps).mean(axis=0)
    labels = seen.argmax(axis=1).reshape(-1, steps)
    changes = (np.diff(labels, axis=1) != 0).sum(axis=1)
    return Recognised(float(profile.mean()), profile, float((changes <= 1).mean()))


def kept(model: Model, judge: Classifier, images: np.ndarray, distance: float = 0.5, seed: int = 0) -> float:
    """The share of images whose code, moved by `distance` · s in a random direction, decodes to the same label.

    Continuity as it is mostly explained: close codes, like contents. s² = Σ_latent of the codes' variance, so that the
    codes' scale does not matter; the label is the classifier's, of decode(z) and of decode(z + step).
    """
    require_number("distance", distance, 0, why=", in standard deviations of the codes")
    codes = model.encode(images)[0].astype(np.float64)
    step = np.random.Generator(np.random.Philox(seed)).standard_normal(codes.shape)
    step *= distance * np.sqrt(codes.var(axis=0).sum()) / np.sqrt(np.square(step).sum(axis=1, keepdims=True))
    before, after = (judge.probabilities(model.decode(z)).argmax(axis=1) for z in (codes, codes + step))
    return float((before == after).mean())


# ---------------------------------------------------------------------------------------------- sets of images


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖m_a − m_b‖² + tr(C_a + C_b − 2 (C_a C_b)^½) between the Gaussians with the moments of a (N, D) and b (M, D).

    Dowson & Landau 1982; on a network's features Heusel et al. 2017. The trace of the root is that of
    (R C_b R)^½, R = C_a^½, which is symmetric: two eigenvalue problems. Biased upwards, by more for fewer rows.
    """
    if min(len(a), len(b)) < 2:
        raise DataError("the Fréchet distance needs two rows at least on either side, for their covariance")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference, C_a, C_b = a.mean(axis=0) - b.mean(axis=0), np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(C_a)
    R = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    roots = np.sqrt(np.maximum(np.linalg.eigvalsh(R @ C_b @ R), 0))
    return float(max(0.0, difference @ difference + np.trace(C_a) + np.trace(C_b) - 2 * roots.sum()))


def classifier_frechet(judge: Classifier, images: np.ndarray, others: np.ndarray) -> float:
    """The classifier Fréchet distance: between the features that our own small classifier makes of two sets of images.

    Its scale is this classifier's: figures of two classifiers, or published FID, which uses Inception's features, are
    other quantities and must not be compared with it.
    """
    return frechet_distance(judge.encode(images)[0], judge.encode(others)[0])


class Classes(NamedTuple):
    """What a set of images shows. covered: how many classes. shares (classes,): of all images, those of each class."""

    covered: int
    shares: np.ndarray


def classes_covered(judge: Classifier, images: np.ndarray, confidence: float, least: float = LEAST) -> Classes:
    """A class is covered where at least `least` of all the images (N, H, W, C) are recognised as of that class.

    share_c = share of the images whose likeliest label is c and has a probability of `confidence` or more; see
    `confidence_of`. An image of which the classifier is less sure counts for no class, so the shares sum to that of
    the recognised ones. It says which classes are drawn at all; that each is drawn in all its forms, `coverage` says.
    """
    if not len(images):
        raise DataError("images holds no image; pass at least one")
    seen = judge.probabilities(images)
    sure = seen.max(axis=1) >= confidence
    shares = np.bincount(seen.argmax(axis=1)[sure], minlength=seen.shape[1]) / len(images)
    return Classes(int((shares >= least).sum()), shares)


class Covered(NamedTuple):
    """precision: samples that lie among the images. coverage: images that have a sample among their neighbours."""

    precision: float
    coverage: float


def coverage(features: np.ndarray, samples: np.ndarray, k: int = 5) -> Covered:
    """Two shares, by balls around each image's features that reach to its k-th neighbour among the images.

    precision: of the samples (M, D) that lie in some ball (Kynkäänniemi et al. 2019). coverage: of the
    images (N, D) whose ball holds a sample (Naeem et al. 2020): a model that always draws the same perfect
    image has the precision 1 and covers next to nothing.
    """
    require_int("k", k, 1, ", the neighbour that a ball reaches to")
    if len(features) <= k:
        raise DataError(f"k={k} needs more images than {len(features)}; use a smaller k")
    a, b = np.asarray(features, np.float64), np.asarray(samples, np.float64)
    own = squared_distances(a, a)
    radius = np.partition(own, k, axis=1)[:, k]  # place 0 is the image itself
    inside = squared_distances(a, b) <= radius[:, None]  # (N, M)
    return Covered(float(inside.any(axis=0).mean()), float(inside.any(axis=1).mean()))


# ---------------------------------------------------------------------------------------------- all of them


def judge_report(
    model: Model,
    judge: Classifier,
    train_images: np.ndarray,
    test_images: np.ndarray,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """These metrics of a model, ready for JSON. Samples are of the model's prior; of a deterministic model's
    fitted Gaussian, and again, with _standard_normal behind the name, of N(0, I).

    unevenness, jump      see `Smoothness`
    kept                  see `kept`, at half a standard deviation
    walks_recognised, walks_steady     see `recognise`
    recognised            share of samples of whose label the classifier is as sure as of 95 % of true images
    classifier_frechet    samples against test images
    precision, coverage   see `coverage`, of at most `samples` test images
    """
    require_int("samples", samples, 2)
    confidence = confidence_of(judge, test_images)
    walks, smooth = (
        recognise(model, judge, test_images, confidence, seed=seed),
        smoothness(model, test_images, seed=seed),
    )
    report: dict[str, Any] = {"unevenness": smooth.unevenness, "jump": smooth.jump}
    report |= {"kept": kept(model, judge, test_images, seed=seed), "confidence": confidence}
    report |= {"walks_recognised": walks.share, "walks_steady": walks.steady}
    true = judge.encode(test_images)[0]
    for name, prior in priors_of(model, train_images).items():
        drawn = model.sample(samples, seed, prior)
        features = judge.encode(drawn)[0]
        report["recognised" + name] = float((judge.probabilities(drawn).max(axis=1) >= confidence).mean())
        report["classifier_frechet" + name] = frechet_distance(features, true)
        report["precision" + name], report["coverage" + name] = coverage(true[:samples], features)
    return report
