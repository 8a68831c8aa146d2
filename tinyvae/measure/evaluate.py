"""How good a trained model is, in figures: ELBO, importance-sampled likelihood, and those of the latent space.
It knows models and images; not training, files or pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..config import BINARIZE, require_choice, require_int
from ..datasets import Dataset
from ..errors import ConfigError, DataError
from ..kernels.clock import CURSOR, ROW, SEED, STEP
from ..models import Batch, Model
from ..training.step import Feed, evaluate_pass
from .aggregate import aggregate_figures
from .doctor.signs import drawn_figures
from .latent_space import (
    active_units,
    completeness,
    completeness_shares,
    continuity,
    fit_prior,
    labels_for,
    latent_figures,
    latent_report,
)

Progress = Callable[[int, int], None]  # images done, images in all

CHUNK = 16  # importance samples drawn at a time; part of the noise's address, so not an option
FIRST_STEP = 2**31  # steps of the importance samples start here: training, which counts from 1, never draws there
BATCH_PIXELS = 2**21  # decoder outputs held at a time
BLOCK_ROWS = 4096  # images reconstructed at a time

# ---------------------------------------------------------------------------------------------- all figures at once


def evaluate(
    model: Model,
    images: np.ndarray,
    samples: int = 0,
    train_images: np.ndarray | None = None,
    binarize: str = "none",
    nll_images: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    labels: np.ndarray | None = None,
    train_labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Every figure of a model on `images`, ready for JSON. Nats are per image; None where a figure has no meaning.

    neg_elbo, recon, kl   nats, the function that training uses: one draw of z per image at the fixed evaluation noise
    rmse                  root of the mean squared error of `reconstruct`, per pixel, pixels in [0, 1]
    nll, nll_stderr       importance-sampled −log p(x) with `samples` draws, and its standard error over the images
    nll_mc_error          what of that error is due to the draws; see `importance_sampling`, also for the bias
    posterior_gap         neg_elbo − nll on the same images: an estimate of KL(q(z|x) ‖ p(z|x)), nats
    effective_samples     mean over the images of the number of draws that count
    images, nll_images, samples, latent_dim: how many of each
    active_units          latent dimensions in use
    loss_d, d_real, …     a game's own figures, where there are two players, and those of `drawn_figures`

    samples = 0 leaves the nll out. nll_images: only the first so many images are importance-sampled, None for all.
    train_images: adds those of `latent_report` and `aggregate_figures`, which take the images' pixels as they are.
    binarize: as in training; "static" and "dynamic" both draw once.
    seed: of importance samples, segments and prior samples; never of the binarisation.
    labels, train_labels: those of the images, for a conditional model; its bound and its nll are of log p(x | label).
    A deterministic model has no bound, no KL, no likelihood of x and no scale for its codes: these figures are None.
    """
    require_int("samples", samples, 0, ", the number of importance samples")
    seen = binarized(model, images, binarize)
    figures = evaluate_pass(model, Feed(model, seen, labels=labels))
    report: dict[str, Any] = {name: figures.get(name) for name in ("neg_elbo", "recon", "kl")}
    report |= dict.fromkeys(("nll", "nll_stderr", "nll_mc_error", "nll_images", "posterior_gap", "effective_samples"))
    report |= {"samples": samples, "images": len(seen), "latent_dim": model.latent_dim}
    if model.can.game:
        report |= {name: figures[name] for name in model.figure_names if name not in report}
        report |= drawn_figures(model, seen, seed)
    if not model.can.codes:
        return report | {"active_units": None, "rmse": None}
    if samples and model.can.bound:
        if nll_images is not None:
            require_int("nll_images", nll_images, 1)
        some = None if labels is None else labels[:nll_images]
        chosen = importance_sampling(model, seen[:nll_images], samples, seed, progress, labels=some)
        report |= {"nll": float(chosen.nll.mean()), "nll_stderr": _standard_error(chosen.nll)}
        report |= {"nll_mc_error": chosen.mean_mc_error(), "nll_images": len(chosen.nll)}
        report["posterior_gap"] = float((chosen.neg_elbo - chosen.nll).mean())
        report["effective_samples"] = float(chosen.effective_samples.mean())
    report["active_units"] = active_units(model, seen, labels=labels) if model.can.posterior else None
    report["rmse"] = rmse(model, seen, labels)
    if train_images is not None:
        grey, known = binarized(model, images, "none"), binarized(model, train_images, "none")
        report |= latent_figures(model, known, grey, seed, labels)
        report |= aggregate_figures(model, known, grey, seed, train_labels, labels)
    return report


def full_report(
    model: Model,
    data: Dataset,
    samples: int = 100,
    nll_images: int | None = 1000,
    binarize: str = "none",
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """`evaluate` on a data set's test images, figures of the latent space included. `say` takes lines for people."""
    told = 0

    def progress(done: int, total: int) -> None:
        nonlocal told
        if say is not None and 10 * done // total > told:
            told = 10 * done // total
            say(f"importance sampling: {done} of {total} images")

    train_labels, labels = labels_for(model, data)
    return evaluate(
        model, data.test_images, samples, data.train_images, binarize, nll_images,
        progress=progress, labels=labels, train_labels=train_labels,
    )  # fmt: skip


def binarized(model: Model, images: np.ndarray, binarize: str) -> np.ndarray:
    """The images (N, H, W, C) as the model sees them in evaluation: each pixel drawn once where `binarize` says so.

    Float images may have any finite values, as real-valued data have; a DataError says what does not fit the model.
    """
    require_choice("binarize", binarize, BINARIZE)
    images = np.asarray(images)
    if not len(images):
        raise DataError("images holds no image; pass at least one")
    if images.dtype == np.uint8:
        model.as_images(images[:1])  # only its checks are wanted: 60,000 images as floats would be 200 MB
        images = images.reshape(-1, *model.image_shape)
    else:
        images = model.as_images(images)
    if binarize == "none":
        return images
    unread = np.zeros(len(images), int)  # only pixels are drawn here, but a conditional model's feed wants labels
    feed, out = Feed(model, images, binarize, True, unread), np.empty(images.shape, np.uint8)
    for start, batch in _batches(model, feed, samples=1):
        out[start : start + batch.rows] = model.device.get(batch.x) * 255
    return out


def rmse(model: Model, images: np.ndarray, labels: np.ndarray | None = None) -> float:
    """√(mean over images and pixels of (x − reconstruct(x))²), pixels in [0, 1].

    z is z_mean here; the training log's rmse has the noise of z in it and is larger. labels: for a conditional model.
    """
    total = 0.0
    for start in range(0, len(images), BLOCK_ROWS):
        x, told = images[start : start + BLOCK_ROWS], None if labels is None else labels[start : start + BLOCK_ROWS]
        total += float(np.square(model.as_images(x) - model.reconstruct(x, told), dtype=np.float64).sum())
    return float(np.sqrt(total / images.size))


def _batches(model: Model, feed: Feed, samples: int, most: int = 2**31) -> Iterator[tuple[int, Batch]]:
    """(start, batch) over a feed, each batch filled, at the same noise address whatever the batch size."""
    pixels = int(np.prod(model.image_shape)) * samples
    size = min(feed.count, most, max(1, BATCH_PIXELS // pixels))
    for start in range(0, feed.count, size):
        batch = model.batch("evaluate", min(size, feed.count - start), samples)
        model.eval_clock.set(cursor=start, row=start * samples)
        feed.fill(batch)
        yield start, batch


def _standard_error(values: np.ndarray) -> float | None:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


# ---------------------------------------------------------------------------------------------- likelihood


@dataclass(frozen=True)
class ImportanceSample:
    """What K importance samples say about each image; all (N,) float64, nats but for effective_samples.

    nll: −log (1/K Σ w). neg_elbo: −1/K Σ log w. mc_error: standard error of nll due to the draws, NaN for K = 1.
    effective_samples: (Σ w)² / Σ w², from 1 (a single draw carries all the weight) to K.
    """

    nll: np.ndarray
    neg_elbo: np.ndarray
    mc_error: np.ndarray
    effective_samples: np.ndarray

    def mean_mc_error(self) -> float | None:
        """The standard error, due to the draws, of the mean of nll: √(Σ mc_error²) / N; None for K = 1."""
        error = float(np.sqrt(np.square(self.mc_error).sum()) / len(self.mc_error))
        return None if np.isnan(error) else error


def importance_sampling(
    model: Model,
    images: np.ndarray,
    samples: int,
    seed: int = 0,
    progress: Progress | None = None,
    common: bool = False,
    labels: np.ndarray | None = None,
) -> ImportanceSample:
    """log p(x) ≈ log 1/K Σ_k w_k,  w_k = p(x|z_k) p(z_k) / q(z_k|x),  z_k ~ q(z|x).

    Burda, Grosse & Salakhutdinov 2016, equation 8. Weights stay logarithms, in float64, until their largest is divided
    out. In expectation nll is never below −log p(x) and falls towards it as K grows; the excess is about half of
    mc_error², which is the delta method's Var(w) / (K · mean(w)²). It is no error bar: where effective_samples is near
    1, the draws have missed where the mass is, and both are too small.
    Draw k of image n is the same for every K ≥ k and every batch size (up to rounding): noise is addressed by place.
    common: every image gets the draws of the first, so that its figure is its own, whatever images stand around it;
    one image at a time, which is slower.
    labels: those of the images, for a conditional model: p and q are given the label then, and so is the estimate.
    """
    require_int("samples", samples, 1, ", the number of importance samples")
    if not model.can.bound:
        raise ConfigError(
            f"{type(model).__name__} has no Gaussian q(z|x) to draw importance samples from; use samples=0"
        )
    feed = Feed(model, binarized(model, images, "none"), labels=labels)
    columns = np.empty((4, feed.count))
    for start, batch in sampled_batches(model, feed, seed, common):
        columns[:, start : start + batch.rows] = _summary(_log_weights(model, batch, samples))
        if progress is not None:
            progress(start + batch.rows, feed.count)
    return ImportanceSample(*columns)


def sampled_batches(model: Model, feed: Feed, seed: int, common: bool = False) -> Iterator[tuple[int, Batch]]:
    """(start, batch) over a feed with CHUNK rows per image, the noise addressed for `draws_of`; see `common` above."""
    clock = model.eval_clock
    before = clock.get()
    try:
        for start, batch in _batches(model, feed, CHUNK, 1 if common else feed.count):
            clock.set(seed=seed, row=0 if common else start * CHUNK)
            yield start, batch
    finally:
        clock.set(step=before[STEP], cursor=before[CURSOR], row=before[ROW], seed=before[SEED])


def draws_of(model: Model, batch: Batch, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """−log p(x|z_k) and log p(z_k) − log q(z_k|x), both (B, K) float64, for the images in batch.x.

    K draws z_k ~ q(z|x), CHUNK at a time; the encoder runs once.
    With z = z_mean + exp(z_log_sigma) · eps: log p(z) − log q(z|x) = Σ_latent z_log_sigma + ½ eps² − ½ z².
    """
    twins, get = batch.twins, model.device.get
    h = model.encoded(batch)
    log_sigma = get(h)[:, model.latent_dim :].sum(axis=1, dtype=np.float64)  # (B,)
    nll, log_ratio = np.empty((2, batch.rows, -(-samples // CHUNK) * CHUNK))
    for first in range(0, samples, CHUNK):
        model.eval_clock.set(step=FIRST_STEP + first // CHUNK)
        z = twins["latent"].forward(h)
        cost = get(twins["likelihood"].forward(model.decoded(batch, z), batch.x))
        eps, z = get(twins["latent"].eps).astype(np.float64), get(z).astype(np.float64)
        density = 0.5 * (eps * eps - z * z).sum(axis=1)  # (B·CHUNK,)
        nll[:, first : first + CHUNK] = cost.reshape(batch.rows, CHUNK)
        log_ratio[:, first : first + CHUNK] = density.reshape(batch.rows, CHUNK) + log_sigma[:, None]
    return nll[:, :samples], log_ratio[:, :samples]


def _log_weights(model: Model, batch: Batch, samples: int) -> np.ndarray:
    """log w (B, K) float64 for the images in batch.x."""
    nll, log_ratio = draws_of(model, batch, samples)
    return log_ratio - nll


def _summary(log_w: np.ndarray) -> tuple[np.ndarray, ...]:
    """The four columns of an ImportanceSample from log w (B, K)."""
    K = log_w.shape[1]
    log_mean = log_mean_exp(log_w)
    share = np.exp(2 * log_mean - log_mean_exp(2 * log_w))  # effective share of the draws, in [1/K, 1]
    # Var(mean of w) / mean(w)², unbiased variance
    variance = np.maximum(1 / share - 1, 0) / (K - 1) if K > 1 else np.full(len(log_w), np.nan)
    return -log_mean, -log_w.mean(axis=1), np.sqrt(variance), share * K


def log_mean_exp(values: np.ndarray) -> np.ndarray:
    """log of the mean of exp(values) over the last axis, exact for values of any size."""
    values = np.asarray(values, np.float64)
    largest = values.max(axis=-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)  # where all are −inf, −inf − −inf would be NaN
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - largest).mean(axis=-1)) + largest[..., 0]


__all__ = [
    "ImportanceSample", "active_units", "binarized", "completeness", "completeness_shares", "continuity", "evaluate",
    "fit_prior", "full_report", "importance_sampling", "latent_report", "log_mean_exp", "rmse",
]  # fmt: skip
