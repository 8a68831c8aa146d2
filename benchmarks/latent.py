"""Autoencoder against VAE, five seeds, 2 and 20 dimensions: every figure of the latent space, a table and a picture.

python benchmarks/latent.py [--seeds 5] [--epochs 5] [--threads 1] [--models DIR] [--out benchmarks/results/latent]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from tinyvae.config import THREAD_VARIABLES

RESULTS = Path(__file__).resolve().parent / "results" / "latent"
KINDS, DIMENSIONS = ("ae", "vae"), (2, 20)
KNOWN = 20_000  # training images that samples are compared with
CURVE = 2000  # test images behind each point of the curve
DISTANCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
ROWS = {  # figure: (is more better?, what it is); the first two are the ones to judge by
    "kept": (True, "**continuity**: codes moved by ½ standard deviation whose image keeps its label"),
    "filled_and_reached": (
        True,
        "**completeness**: draws of the prior where codes are, codes where such draws are: the smaller share",
    ),
    "filled": (True, "the first of these two shares alone"),
    "mmd": (False, "MMD² of codes and prior"),
    "continuity": (False, "distance from z to encode(decode(z)) along walks"),
    "continuity_rise": (False, "the same, its middle over its ends"),
    "unevenness": (False, "speed of the decoded image along walks, standard deviation over mean"),
    "jump": (False, "the same, largest over mean"),
    "walks_recognised": (True, "points of walks that the classifier is sure of"),
    "walks_steady": (True, "walks on which no third label is met"),
    "completeness": (True, "samples that are near a training image"),
    "completeness_local": (True, "samples as near as is usual there"),
    "recognised": (True, "samples that the classifier is sure of"),
    "classifier_frechet": (False, "classifier Fréchet distance of samples"),
    "precision": (True, "samples among true images, in features"),
    "coverage": (True, "true images with a sample among their neighbours"),
}  # fmt: skip
TWICE = ("filled", "filled_and_reached", "mmd", "completeness", "completeness_local", "recognised")
TWICE += ("classifier_frechet", "precision", "coverage")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures of all models: {"ae-20": [one dictionary per seed], …}."""
    import tinyvae
    from tinyvae.measure.classifier import train_classifier

    mnist = tinyvae.datasets.load("mnist")
    cache = None if args.models is None else Path(args.models)
    judge = train_classifier(mnist, cache=None if cache is None else cache / "classifier.npz")
    accuracy = judge.accuracy(mnist.test_images, mnist.test_labels)
    yardstick = tinyvae.measure.latent_space.measure(mnist.train_images[:KNOWN], mnist.test_images)
    figures: dict[str, Any] = {}
    for latent in args.dimensions:
        for seed in range(args.seeds):
            for kind in KINDS:
                model = trained(kind, latent, seed, args.epochs, mnist, cache)
                name = f"{kind}-{latent}-{seed}-{args.epochs}.json"
                row = kept_in(cache, name, lambda m=model: figures_of(m, judge, mnist, yardstick))
                figures.setdefault(f"{kind}-{latent}", []).append(row)
                print(f"{kind}, {latent} dimensions, seed {seed}", file=sys.stderr, flush=True)
                if latent == 2 and seed == 0:
                    figures[f"plane-{kind}"] = plane(model, judge, mnist)
    return {"epochs": args.epochs, "seeds": args.seeds, "classifier_accuracy": accuracy, "figures": figures}


def kept_in(cache: Path | None, name: str, make: Any) -> dict[str, Any]:
    """What `make` gives, from a file in `cache` where it is there: a run that was stopped goes on."""
    path = None if cache is None else cache / name
    if path is not None and path.exists():
        return json.loads(path.read_text("utf-8"))
    row = make()
    if path is not None:
        path.write_text(json.dumps(row), "utf-8")
    return row


def trained(kind: str, latent: int, seed: int, epochs: int, mnist: Any, cache: Path | None) -> Any:
    """The zoo's default model after so many epochs, from `cache` where it is there."""
    import tinyvae

    path = None if cache is None else cache / f"{kind}-{latent}-{seed}-{epochs}.safetensors"
    if path is not None and path.exists():
        return tinyvae.load(path)
    model = tinyvae.zoo.build(kind, latent_dim=latent, seed=seed)
    tinyvae.train(model, mnist, epochs=epochs)
    if path is not None:
        tinyvae.save(model, path)
    return model


def figures_of(model: Any, judge: Any, mnist: Any, yardstick: Any) -> dict[str, Any]:
    """Everything that the package measures, with N(0, I) as a second prior for the autoencoder."""
    import numpy as np

    from tinyvae.measure import aggregate, classifier_metrics, latent_space

    train, test = mnist.train_images, mnist.test_images
    profile = latent_space.continuity_profile(model, test)
    figures = aggregate.aggregate_figures(model, train, test)
    figures |= classifier_metrics.judge_report(model, judge, train, test)
    figures |= {
        "continuity": profile.mean(),
        "continuity_rise": 2 * profile[len(profile) // 2] / (profile[0] + profile[-1]),
    }
    figures["kept_at"] = [classifier_metrics.kept(model, judge, test[:CURVE], d) for d in DISTANCES]
    standard = np.zeros(model.latent_dim), np.eye(model.latent_dim)
    for name, prior in (("", None), ("_standard_normal", standard)):
        if name == "" or "latent" not in model.parts:  # a VAE's prior is N(0, I)
            shares = latent_space.completeness_shares(model, train[:KNOWN], test, prior=prior, yardstick=yardstick)
        figures |= {f"completeness{name}": shares.near, f"completeness_local{name}": shares.local}
        figures[f"filled_and_reached{name}"] = min(figures[f"filled{name}"], figures[f"reached{name}"])
    return {k: float(v) if isinstance(v, np.floating) else v for k, v in figures.items()}


def plane(model: Any, judge: Any, mnist: Any, n: int = 160) -> dict[str, Any]:
    """A plane of two dimensions: what the classifier sees at each point, some codes, and 400 draws of the prior."""
    import numpy as np

    from tinyvae.measure import aggregate, latent_space

    prior = model.prior or latent_space.fit_prior(model, mnist.train_images)
    mean, covariance = prior or (np.zeros(2), np.eye(2))
    side = 3 * np.sqrt(np.diag(covariance))
    grid = [np.linspace(m - s, m + s, n) for m, s in zip(mean, side, strict=True)]
    z = np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 2)
    seen = judge.probabilities(model.decode(z))
    codes = aggregate.draw_codes(model, mnist.train_images[:5000])
    fresh = aggregate.draw_codes(model, mnist.test_images[:2000], 1)
    draws = model.draw_prior(400, 0, prior).astype(float)
    near = np.quantile(latent_space.nearest(fresh, codes)[0], 0.95)
    return {
        "extent": [float(e) for g in grid for e in (g[0], g[-1])], "label": seen.argmax(1).reshape(n, n),
        "sure": seen.max(1).reshape(n, n), "codes": fresh[:1000], "draws": draws,
        "empty": latent_space.nearest(draws, codes)[0] > near,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- shown


def wins(figures: dict[str, Any], name: str, latent: int, more: bool, suffix: str) -> str:
    """In how many seeds the VAE is better."""
    ae = [f[name + suffix] for f in figures[f"ae-{latent}"]]
    vae = [f[name] for f in figures[f"vae-{latent}"]]
    better = sum((v > a) if more else (v < a) for a, v in zip(ae, vae, strict=True))
    return f"{better} of {len(vae)}"


def table(result: dict[str, Any]) -> str:
    """Markdown: the mean over the seeds, and in how many of them the VAE is better."""
    figures, lines = result["figures"], []
    for latent in DIMENSIONS:
        lines += [
            f"| {latent} dimensions | VAE | AE, Gaussian fitted to its codes | VAE better | AE, N(0, I) | VAE better |"
        ]
        lines += ["|---|---|---|---|---|---|"]
        for name, (more, words) in ROWS.items():
            cells = [_mean(figures[f"vae-{latent}"], name), _mean(figures[f"ae-{latent}"], name)]
            cells.append(wins(figures, name, latent, more, ""))
            twice = name in TWICE
            cells.append(_mean(figures[f"ae-{latent}"], name + "_standard_normal") if twice else "")
            cells.append(wins(figures, name, latent, more, "_standard_normal") if twice else "")
            lines.append(f"| {words}, {'more' if more else 'less'} is better | {' | '.join(cells)} |")
        lines.append("")
    head = f"Means over {result['seeds']} seeds, {result['epochs']} epochs on MNIST, the zoo's `ae` and `vae`. "
    head += f"The classifier is right on {100 * result['classifier_accuracy']:.2f} % of the test images."
    return "\n".join([head, "", *lines])


def _mean(rows: list[dict[str, Any]], name: str) -> str:
    mean = sum(row[name] for row in rows) / len(rows)
    return f"{mean:.0f}" if abs(mean) >= 100 else f"{mean:.3f}"


def draw(result: dict[str, Any], path: Path) -> None:
    """Both planes of seed 0, and what becomes of the label as a code is moved."""
    import numpy as np

    from tinyvae.pictures.canvas import BLUE, ORANGE, new_figure, save, style
    from tinyvae.pictures.charts import CLASS_COLORS

    figures, colors = result["figures"], {"ae": ORANGE, "vae": BLUE}
    with style():
        figure = new_figure(1900, 700, layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, kind in zip(axes, KINDS, strict=False):
            p = figures[f"plane-{kind}"]
            rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in CLASS_COLORS])[p["label"]]
            paint = 1 - (1 - rgb) * np.where(p["sure"] > 0.95, 0.65, 0.15)[:, :, None]
            axis.imshow(paint, origin="lower", extent=p["extent"], aspect="auto", interpolation="nearest")
            axis.scatter(*p["codes"].T, s=1.5, color="white", lw=0)
            for chosen, color, mark in ((~p["empty"], "black", "."), (p["empty"], "red", "x")):
                axis.scatter(*p["draws"][chosen].T, s=14, color=color, marker=mark, lw=0.8)
            axis.grid(False)
            axis.set(xlim=p["extent"][:2], ylim=p["extent"][2:], xlabel="z[0]", ylabel="z[1]")
            prior = "its fitted Gaussian" if kind == "ae" else "N(0, I)"
            share = f"{100 * p['empty'].mean():.0f} % of draws (×) where no code is"
            axis.set_title(f"{kind.upper()}, prior {prior}:\n{share}", fontsize=9)
        for latent, line in zip(DIMENSIONS, ("--", "-"), strict=True):
            for kind in KINDS:
                kept = np.array([row["kept_at"] for row in figures[f"{kind}-{latent}"]])
                axes[2].fill_between(DISTANCES, kept.min(0), kept.max(0), color=colors[kind], alpha=0.25, lw=0)
                label = f"{kind.upper()}, {latent} dimensions"
                axes[2].plot(DISTANCES, kept.mean(0), line, color=colors[kind], label=label)
        axes[2].set(xlabel="distance that a code is moved, standard deviations", ylabel="share", ylim=(0, 1))
        axes[2].set_title(f"images that keep their label\nas their code is moved, {result['seeds']} seeds", fontsize=9)
        axes[2].legend()
        save(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="Autoencoder against VAE: figures of the latent space.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--dimensions", type=int, nargs="+", default=DIMENSIONS, choices=DIMENSIONS)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--models", default=None, metavar="DIR", help="keep trained models there, and take them from there"
    )
    parser.add_argument(
        "--out", default=str(RESULTS), metavar="PATH", help="without ending: .json, .md and .png are added"
    )
    args = parser.parse_args()
    if args.threads is not None:  # before NumPy is imported, which reads them once
        os.environ |= dict.fromkeys(THREAD_VARIABLES, str(args.threads))
    if args.models is not None:
        Path(args.models).mkdir(parents=True, exist_ok=True)
    result = measure(args)
    if len(args.dimensions) < len(DIMENSIONS):  # the rest is measured elsewhere; --models keeps what is done here
        return 0
    out = Path(args.out)
    draw(result, out.with_suffix(".png"))
    result["figures"] = {k: v for k, v in result["figures"].items() if not k.startswith("plane")}
    out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    text = table(result)
    out.with_suffix(".md").write_text(text + "\n", "utf-8")
    print(text)
    figures = result["figures"]
    judged = ("kept", ""), ("filled_and_reached", ""), ("filled_and_reached", "_standard_normal")
    bars = [wins(figures, name, 20, True, suffix) for name, suffix in judged]  # 20: the zoo's default
    return 0 if all(bar == f"{args.seeds} of {args.seeds}" for bar in bars) else 1


if __name__ == "__main__":
    sys.exit(main())
