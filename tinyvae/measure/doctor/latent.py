"""What is wrong with a latent space, in words: has the posterior collapsed, has the space holes, and what to change.
The figures are measured in aggregate.py and latent_space.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...config import ModelConfig, TrainConfig
from ...datasets import Dataset
from ...models import Model
from ...training.signs import Rows
from ..aggregate import aggregate_figures
from ..latent_space import active_units, labels_for
from .diagnosis import HEALTHY, Diagnosis
from .game import examine_codes, examine_game

COLLAPSED, HOLES = "collapsed", "holes"
# Set on seeds 0 and 1 of benchmarks/doctor.py, between what was made ill and what was not, and tried on others.
LEAST_INFORMATION = 1.0  # nats: a code tells fewer than e groups of images apart
MOST_MMD = 0.15
LEAST_SHARE = 0.25  # of prior draws that have a code near, and of codes that have a draw near
USED = 0.1  # nats of KL, mean over the images, from which a dimension counts as used


def examine(model: Model, data: Dataset, train: TrainConfig | None = None, seed: int = 0, rows: Rows = ()) -> Diagnosis:
    """The diagnosis of a model on the data that it was trained on: of its latent space, of its game, or of both.

    train: how it was trained, for the advice; None: defaults. rows: the log, where two players are in it.
    """
    if not model.can.codes:
        return examine_game(model, data, train, rows, seed)
    latent = examine_latent(model, data, train, seed)
    if model.can.game == "codes":
        return examine_codes(latent, model, train, rows)
    if model.can.game == "images":
        return latent & examine_game(model, data, train, rows, seed)
    return latent


def examine_latent(model: Model, data: Dataset, train: TrainConfig | None = None, seed: int = 0) -> Diagnosis:
    """The diagnosis of a latent space: has the posterior collapsed, has the space holes."""
    labels = labels_for(model, data)
    figures = aggregate_figures(model, data.train_images, data.test_images, seed, *labels)
    figures["latent_dim"] = model.latent_dim
    used = active_units(model, data.test_images, labels=labels[1]) if model.can.posterior else None
    figures["active_units"] = used
    return diagnose(figures, model.config or ModelConfig(latent_dim=model.latent_dim), train or TrainConfig())


def diagnose(figures: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> Diagnosis:
    """The verdict from `aggregate_figures`, latent_dim and active_units alone; the two configurations give the advice.

    Collapsed: codes and images share less than a nat. Holes: N(0, I), from which new images are drawn, and the codes,
    which are what the decoder was trained on, are different places: by the MMD, or as hardly any draw has a code near,
    or hardly any code a draw.
    """
    shares = figures["filled_standard_normal"], figures["reached_standard_normal"]
    if figures["kl_per_dimension"] is not None and figures["mutual_information"] < LEAST_INFORMATION:
        verdict = COLLAPSED
    elif figures["mmd_standard_normal"] > MOST_MMD or min(shares) < LEAST_SHARE:
        verdict = HOLES
    else:
        verdict = HEALTHY
    why, advice = {COLLAPSED: _collapsed, HOLES: _holes, HEALTHY: _healthy}[verdict](figures, model, train)
    return Diagnosis(verdict, why, tuple(_findings(figures)), tuple(advice), figures)


def _findings(f: Mapping[str, Any]) -> list[str]:
    lines = []
    if f["kl_per_dimension"] is not None:
        kl, used, information = f["kl_per_dimension"], _used(f), f["mutual_information"]
        limit = f["mutual_information_limit"]
        more = ", all that so many images can show" if information > 0.9 * limit else ""
        lines.append(f"KL {sum(kl):.2f} nats per image, in {used} of {len(kl)} dimensions ({USED:g} nats or more each)")
        lines.append(f"active units {f['active_units']} of {f['latent_dim']}")
        lines.append(f"codes tell {information:.2f} of at most {limit:.2f} nats about which image they are of{more}")
    lines.append(f"MMD² of codes and N(0, I) {f['mmd_standard_normal']:.4f}; holes above {MOST_MMD:g}")
    filled, reached = f["filled_standard_normal"], f["reached_standard_normal"]
    shares = f"{100 * filled:.0f} % of draws from N(0, I) have a code near, {100 * reached:.0f} % of codes such a draw"
    lines.append(f"{shares}; 95 % at best, holes below {100 * LEAST_SHARE:.0f} %")
    return lines


def _used(f: Mapping[str, Any]) -> int:
    return sum(k >= USED for k in f["kl_per_dimension"])


def _collapsed(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> tuple[str, list[str]]:
    why = "the codes say nothing about the images, the decoder works without them (posterior collapse)"
    advice = []
    if train.beta > 1:
        advice.append(f"beta is {train.beta:g}: train with --beta 1, or lower")
    if model.likelihood == "gaussian" and model.sigma > 0.3:
        advice.append(f"sigma is {model.sigma:g}, which calls the pictures noise: try --sigma 0.1")
    if model.likelihood == "mse":
        advice.append("mse stands for sigma 1, which calls the pictures noise: try --likelihood gaussian --sigma 0.1")
    if train.warmup == 0:
        warmup = max(1, train.epochs // 3)
        advice.append(
            f"let the KL weight grow from 0, so that the codes are in use before they cost: --warmup {warmup}"
        )
    if model.model == "vae-gan":  # whose KL divergence stands in no bound, and whose players have rates of their own
        return why, [*advice, f"weigh the KL less: --beta {min(train.beta, 1) / 10:g}"]
    advice.append("keep some nats per dimension free of charge: --free-bits 0.5")
    advice.append("a weaker decoder cannot do without codes: a smaller --hidden")
    if train.beta <= 1:
        advice.append(f"if the loss did not fall at all: a smaller --lr than {train.lr or 1e-3:g}")
    return why, advice


def _holes(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> tuple[str, list[str]]:
    why = "new images are drawn where the decoder was never trained, as the codes do not lie like N(0, I)"
    advice = []
    if f["kl_per_dimension"] is None:
        kind = "conv-vae" if model.model.startswith("conv") else "vae"
        advice.append(f"an autoencoder's codes are not told where to lie: train --model {kind}")
        advice.append(
            "or draw from a Gaussian fitted to the codes, as tinyvae sample does: "
            f"{100 * f['filled']:.0f} % of its draws have a code near"
        )
        return why, advice
    if train.beta < 1:
        advice.append(f"beta is {train.beta:g}: train with a larger one, up to --beta 1")
    if model.likelihood == "gaussian" and model.sigma < 0.1:
        larger = min(0.3, 5 * model.sigma)
        advice.append(f"sigma is {model.sigma:g}, beside which the KL hardly counts: try --sigma {larger:.2g}")
    if train.warmup >= train.epochs:
        advice.append(
            f"the KL weight never reached beta: --warmup {max(1, train.epochs // 3)} of {train.epochs} epochs"
        )
    if train.beta >= 1:
        advice.append(f"weigh the KL more: --beta {2 * train.beta:g}")
    advice.append(f"train longer than {train.epochs} epochs, or on more images")
    if _used(f) == f["latent_dim"] and f["latent_dim"] > 2:
        advice.append(f"fewer dimensions leave less room for holes: --latent-dim {max(2, f['latent_dim'] // 2)}")
    return why, advice


def _healthy(f: Mapping[str, Any], model: ModelConfig, train: TrainConfig) -> tuple[str, list[str]]:
    why = "the codes carry information and lie where the prior draws"
    if f["kl_per_dimension"] is None:
        return "the codes happen to lie like N(0, I)", ["a VAE would see to it: --model vae"]
    spare = f["latent_dim"] - _used(f)
    if spare:
        return why, [
            f"{spare} of {f['latent_dim']} dimensions are hardly used; --latent-dim {max(1, _used(f))} will do"
        ]
    if f["mutual_information"] > 0.9 * f["mutual_information_limit"]:
        return why, ["all dimensions are in use: a larger --latent-dim may reconstruct better"]
    return why, [f"all dimensions are in use: a larger --latent-dim than {f['latent_dim']} would carry more"]
