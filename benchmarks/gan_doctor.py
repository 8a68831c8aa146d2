"""Runs of two players made ill on purpose, or not, and what `tinyvae doctor` says of each.

python benchmarks/gan_doctor.py [--seed 3] [--threads 1] [--out benchmarks/results/gan_doctor]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from doctor import arguments, write
from tinyvae.config import Adam, TrainConfig

RESULTS = Path(__file__).resolve().parent / "results" / "gan_doctor"
STRONG, WEAK, COLLAPSE = "discriminator-too-strong", "discriminator-too-weak", "mode-collapse"
BEHIND, HEALTHY = "generator-not-learning", "healthy"
FIGURES = ("d_real", "d_fake", "top_fake", "most_fake", "swing", "contrast", "nearest", "precision", "coverage")


@dataclass(frozen=True)
class Run:
    """expected: the verdict. adams: of the discriminator and of the other players; None for the model's own."""

    expected: str
    model: str
    training: dict[str, Any]
    adams: tuple[Adam, Adam] | None = None

    def __str__(self) -> str:
        said = [f"{k.replace('_', ' ')} {v:g}" for k, v in self.training.items()]
        if self.adams is not None:
            own, other = self.adams
            said.append(f"lr {own.lr:g} and {other.lr:g}")
            said += [f"beta1 {own.beta1:g}"] if own.beta1 != 0.5 else []
        return f"`{self.model}`, " + ", ".join(said)


def adams(own: float, other: float, beta1: float = 0.5) -> tuple[Adam, Adam]:
    return Adam(own, beta1), Adam(other, beta1)


RUNS = (
    Run(STRONG, "dense-gan", {"epochs": 30}, adams(4e-3, 2e-4)),
    Run(STRONG, "dense-gan", {"epochs": 15}, adams(2e-2, 2e-4)),
    Run(STRONG, "dense-gan", {"epochs": 15}, adams(2e-4, 2e-6)),
    Run(STRONG, "dense-gan", {"epochs": 20}, adams(1e-3, 1e-3, beta1=0.9)),
    Run(WEAK, "dense-gan", {"epochs": 15}, adams(2e-7, 2e-4)),
    Run(COLLAPSE, "dense-gan", {"epochs": 30}, adams(2e-4, 4e-3)),
    Run(COLLAPSE, "dense-gan", {"epochs": 30}, adams(2e-4, 1e-2)),
    Run(STRONG, "dense-gan", {"epochs": 30, "lr": 4e-3}),
    Run(STRONG, "dense-gan", {"epochs": 20, "lr": 1e-2}),
    Run(BEHIND, "dense-gan", {"epochs": 15, "lr": 2e-6}),
    Run(HEALTHY, "dense-gan", {"epochs": 40, "lr": 2e-4}),
    Run(HEALTHY, "dense-gan", {"epochs": 30, "lr": 6e-4}),
    Run(HEALTHY, "dense-gan", {"epochs": 20, "lr": 2e-4, "batch_size": 32}),
    Run(HEALTHY, "gan", {"epochs": 8, "batch_size": 64}),
)


def data() -> Any:
    """10,000 training and 1,000 test images, so that an epoch takes a second."""
    import tinyvae

    whole = tinyvae.datasets.load("mnist")
    few = {f"train_{name}": getattr(whole, f"train_{name}")[:10_000] for name in ("images", "labels")}
    few |= {f"test_{name}": getattr(whole, f"test_{name}")[:1000] for name in ("images", "labels")}
    return replace(whole, **few)


def run(ill: Run, images: Any, seed: int) -> Any:
    """The diagnosis of one run, and the epoch after which training warned, or None."""
    import tinyvae
    from tinyvae.measure.doctor.latent import examine
    from tinyvae.training.signs import warning

    model = tinyvae.zoo.build(ill.model, images.image_shape, latent_dim=20, seed=seed)
    if ill.adams is not None:
        own = [ill.adams[player.name != "discriminator"] for player in model.players]
        model.players = tuple(replace(p, optimizer=adam) for p, adam in zip(model.players, own, strict=True))
    rows = tinyvae.train(model, images, **ill.training)
    told = next((epoch for epoch in range(1, len(rows) + 1) if warning(rows[:epoch])), None)
    return examine(model, images, TrainConfig(**ill.training), rows=rows), told


def main() -> int:
    # seeds 0 to 2 set the thresholds
    args = arguments("Does the doctor find what was done to a game of two players?", 3, RESULTS)
    images = data()
    heads = ["made to be", "run", "verdict", *(name.replace("_", " ") for name in FIGURES), "warned", "first advice"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    results, right = [], 0
    for ill in RUNS:
        found, told = run(ill, images, args.seed)
        right += found.verdict == ill.expected
        figures = [found.figures.get(name) for name in FIGURES]
        cells = [ill.expected, str(ill), found.verdict, *("–" if v is None else f"{v:.3f}" for v in figures)]
        cells.append("–" if told is None else f"epoch {told}")
        rows.append(f"| {' | '.join([*cells, found.advice[0]])} |")
        print(rows[-1], file=sys.stderr, flush=True)
        results.append({"expected": ill.expected, "run": str(ill), "warned": told, "diagnosis": found.to_json()})
    return write(args, rows, results, right)


if __name__ == "__main__":
    sys.exit(main())
