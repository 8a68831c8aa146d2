"""What is wrong with a game of two players, in words: who wins too much, what the samples lack, and what to change.
The figures are measured in signs.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...config import DEFAULT_DEVICE, ModelConfig, TrainConfig
from ...datasets import Dataset
from ...datasets.dataset import shuffled
from ...models import Model
from ...models.adversarial import PLAYER_ADAM, has_spectral
from ...training.signs import MOST_BEATEN, Rows, too_strong
from ..classifier import CPU, Classifier
from ..evaluate import binarized
from .diagnosis import HEALTHY, Diagnosis
from .signs import (
    LEAST_CONTRAST,
    LEAST_COVERAGE,
    LEAST_NEAR_COVERAGE,
    LEAST_NEAREST,
    MOST_SWING,
    SAMPLES,
    drawn_figures,
    game_figures,
    missing_classes,
    swings,
    too_weak,
)

TOO_STRONG, TOO_WEAK = "discriminator-too-strong", "discriminator-too-weak"
COLLAPSE, OSCILLATION, BEHIND = "mode-collapse", "oscillation", "generator-not-learning"
JUDGED_BY = 3000  # images that the classifier is trained on
LEAST_RIGHT = 0.8  # a classifier that is right less often is not asked
NEVER = 0.1  # a generator whose images were never believed more than this had no turn yet
FEW = 5  # epochs, in which many a good run is not far yet
LEAST_PRECISION = 0.2  # of samples among the images; fewer are unlike them


def examine_game(
    model: Model, data: Dataset, train: TrainConfig | None = None, rows: Rows = (), seed: int = 0
) -> Diagnosis:
    """The diagnosis of a model that draws images from noise, by its log and by its samples beside test images."""
    train = train or TrainConfig()
    figures = _game(rows) | drawn_figures(model, binarized(model, data.test_images, train.binarize), seed)
    figures |= classes_drawn(model, data, seed) | _rates(model, train)
    return diagnose_game(figures, model.config or ModelConfig(model="", latent_dim=model.latent_dim), train)


def examine_codes(latent: Diagnosis, model: Model, train: TrainConfig | None = None, rows: Rows = ()) -> Diagnosis:
    """The diagnosis of an adversarial autoencoder, whose discriminator tells codes from draws of N(0, I).

    latent: what was found of its codes, for whose sake alone the game is played.
    """
    train = train or TrainConfig()
    f = _game(rows) | _rates(model, train)
    beaten, uneasy = (f["d_fake"] is not None and sign(f) for sign in (too_strong, swings))
    why, advice = "the discriminator keeps the codes where N(0, I) draws", []
    if beaten or uneasy:
        why = "the discriminator always tells codes from draws of N(0, I)" if beaten else WHY[OSCILLATION]
        advice.append(f"smaller steps, so that neither player runs ahead: --lr {f['lr_discriminator'] / 4:.2g}")
    if latent.verdict != HEALTHY:
        why = latent.why
        advice.append(f"weigh the game more against the reconstructions: --gamma {2 * model.gamma:g}")
        advice.append(f"train longer than {train.epochs} epochs: --epochs {2 * train.epochs}")
    found = [latent.verdict] * (latent.verdict != HEALTHY) + [TOO_STRONG] * beaten + [OSCILLATION] * uneasy
    findings = latent.findings + tuple(_played(f, "codes", "draws from N(0, I)"))
    advice = advice or ["a larger --latent-dim may reconstruct better"]
    return Diagnosis(" and ".join(found) or HEALTHY, why, findings, tuple(advice), {**latent.figures, **f})


def _game(rows: Rows) -> dict[str, Any]:
    return game_figures(rows) if rows else dict.fromkeys(("d_real", "d_fake", "top_fake", "most_fake", "swing"))


def _rates(model: Model, train: TrainConfig) -> dict[str, Any]:
    """The learning rates of the discriminator and of the quickest other player."""
    rates = {p.name: train.lr or p.optimizer.lr for p in model.players}
    own = rates.pop("discriminator")
    return {"lr_discriminator": own, "lr_generator": max(rates.values())}


def classes_drawn(model: Model, data: Dataset, seed: int = 0) -> dict[str, Any]:
    """{"classes", "missing"}: how many labels there are, and those that our own classifier sees in hardly any sample.

    None for both where there are no labels, or where the classifier cannot tell them.
    """
    unknown = {"classes": None, "missing": None}
    if data.train_labels is None or data.test_labels is None or len(np.unique(data.train_labels)) < 2:
        return unknown
    order = shuffled(len(data.train_images), seed)[:JUDGED_BY]
    images, labels = data.train_images[order], data.train_labels[order]
    device = model.device.name if model.device.name in CPU else DEFAULT_DEVICE
    judge = Classifier(data.image_shape, int(labels.max()) + 1, device=device, seed=seed).fit(images, labels, epochs=4)
    if judge.accuracy(data.test_images[:SAMPLES], data.test_labels[:SAMPLES]) < LEAST_RIGHT:
        return unknown
    seen = judge.probabilities(model.sample(SAMPLES, seed)).argmax(axis=1)
    return {"classes": len(np.unique(labels)), "missing": missing_classes(seen, labels)}


def diagnose_game(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> Diagnosis:
    """The verdict from `game_figures`, `sample_figures`, `classes_drawn` and the learning rates alone.

    A discriminator that tells nothing is too weak where the samples are bad: where they are good the game is over. One
    that is right about every image is too strong, unless the generator had its turn and lost it as its samples became
    alike, which is what a collapse looks like in the log. Samples that are alike as they show hardly anything yet are
    no collapse.
    """
    played = f["d_fake"] is not None
    strong, weak, uneasy = (played and sign(f) for sign in (too_strong, too_weak, swings))
    if weak and (alike(f) or unlike(f)):
        verdict = TOO_WEAK
    elif strong and (f["most_fake"] < NEVER or not alike(f)):
        verdict = TOO_STRONG
    elif uneasy:
        verdict = OSCILLATION
    elif alike(f):
        verdict = BEHIND if f["contrast"] < LEAST_CONTRAST else COLLAPSE
    else:
        verdict = BEHIND if unlike(f) else HEALTHY
    advice = ADVICE[verdict](f, model, train)
    return Diagnosis(verdict, WHY[verdict], tuple(_findings(f)), tuple(advice), f)


def alike(f: Mapping[str, Any]) -> bool:
    """Whether samples show less than the images do: near each other, in few places among them, without some classes."""
    narrow = f["precision"] >= 0.5 and f["coverage"] < LEAST_COVERAGE
    near = f["nearest"] is not None and f["nearest"] < LEAST_NEAREST
    return bool(narrow or (near and f["coverage"] < LEAST_NEAR_COVERAGE) or f["missing"])


def unlike(f: Mapping[str, Any]) -> bool:
    """Whether hardly any sample lies among the images."""
    return bool(f["precision"] < LEAST_PRECISION)


WHY = {
    TOO_STRONG: "the discriminator is right about nearly every image, so its gradient tells the generator nothing",
    TOO_WEAK: "the discriminator does not tell images from samples, though the samples are bad, so nobody learns",
    COLLAPSE: "the samples show less than the images do: many z give the same picture",
    OSCILLATION: "the losses have no level: each player undoes what the other has learned, and the last epoch decides",
    BEHIND: "nobody wins, but what the generator draws is not yet like the images",
    HEALTHY: "neither player wins, and the samples are as varied as the images",
}


def _played(f: Mapping[str, Any], drawn: str = "samples", true: str = "images") -> list[str]:
    lines = []
    if f["d_fake"] is not None:
        most = f"of late at most {f['top_fake']:.3f}, ever at most {f['most_fake']:.3f}"
        lines.append(
            f"the discriminator gives {true} {f['d_real']:.3f} and {drawn} {f['d_fake']:.3f}, {most}; "
            f"too strong where these stay below {MOST_BEATEN:g}"
        )
    if f["swing"] is not None:
        lines.append(
            f"−log d_fake goes up and down by {100 * f['swing']:.0f} % of its level from epoch to epoch; "
            f"oscillation above {100 * MOST_SWING:.0f} %"
        )
    return lines


def _findings(f: Mapping[str, Any]) -> list[str]:
    lines = _played(f)
    if f["nearest"] is not None:
        times = f"{f['nearest']:.2f} times as far from each other as images are"
        lines.append(f"samples are {times}; alike below {LEAST_NEAREST:g}")
    lines.append(
        f"{100 * f['precision']:.0f} % of samples lie among the images, {100 * f['coverage']:.0f} % of images have a "
        f"sample near; 97 % at best, alike below {100 * LEAST_COVERAGE:.0f} %"
    )
    if f["classes"] is not None:
        without = f", not {', '.join(map(str, f['missing']))}" if f["missing"] else ""
        lines.append(f"our classifier sees {f['classes'] - len(f['missing'])} of {f['classes']} classes{without}")
    return lines


# ---------------------------------------------------------------------------------------------- what to change


def _strong(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> list[str]:
    return [
        *_unequal(f),
        *_held_back(model),
        *_convolutions(model),
        f"smaller steps: --lr {f['lr_discriminator'] / 4:.2g}",
        "more images, which the discriminator cannot learn by heart",
    ]


def _weak(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> list[str]:
    larger = "a discriminator that sees more: a larger --hidden"
    return [*_unequal(f), f"larger steps: --lr {4 * f['lr_discriminator']:.2g}", *_convolutions(model), larger]


def _collapse(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> list[str]:
    advice = [*_unequal(f), f"smaller steps: --lr {f['lr_generator'] / 4:.2g}", *_convolutions(model)]
    if model.latent_dim < 8:
        advice.append(f"z has {model.latent_dim} numbers to tell pictures apart by: --latent-dim 20")
    if train.epochs < FEW:
        advice.insert(0, f"{train.epochs} epochs may be too few to tell: --epochs {2 * FEW}")
    advice.append(f"more images to compare in a step: --batch-size {2 * train.batch_size}")
    return advice + ["a model whose loss counts every image: --model vae-gan"] * (model.model != "vae-gan")


def _oscillation(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> list[str]:
    advice = [*_unequal(f), f"smaller steps: --lr {max(f['lr_discriminator'], f['lr_generator']) / 4:.2g}"]
    if train.schedule == "constant":
        advice.append("steps that shrink to 0, so that the game comes to rest: --schedule cosine")
    return [*advice, f"steps with less noise: --batch-size {2 * train.batch_size}", *_convolutions(model)]


def _behind(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> list[str]:
    longer = f"train longer than {train.epochs} epochs: --epochs {3 * train.epochs}"
    return [longer, f"larger steps: --lr {2 * f['lr_generator']:.2g}", *_convolutions(model)]


def _healthy(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> list[str]:
    return [*_convolutions(model), f"more epochs than {train.epochs} may draw better: --epochs {2 * train.epochs}"]


def _unequal(f: Mapping[str, Any]) -> list[str]:
    """Where the players' learning rates are far apart, that comes first: `tinyvae train --lr` gives both the same."""
    own, other = f["lr_discriminator"], f["lr_generator"]
    if max(own, other) < 4 * min(own, other):
        return []
    usual = min(own, other, key=lambda lr: abs(np.log(lr / PLAYER_ADAM.lr)))
    return [f"the discriminator's learning rate is {own:g}, the generator's {other:g}: --lr {usual:g} for both"]


def _held_back(model: ModelConfig) -> list[str]:
    return [] if has_spectral(model) else ["a discriminator that cannot run away: --spectral"]


def _convolutions(model: ModelConfig) -> list[str]:
    return ["convolutions, which draw with fewer weights: --model gan"] if model.model == "dense-gan" else []


ADVICE = {
    TOO_STRONG: _strong, TOO_WEAK: _weak, COLLAPSE: _collapse, OSCILLATION: _oscillation, BEHIND: _behind,
    HEALTHY: _healthy,
}  # fmt: skip
