"""Twelve runs made to collapse, to have holes, or to be healthy, and what `tinyvae doctor` says of each.

python benchmarks/doctor.py [--seed 2] [--threads 1] [--out benchmarks/results/doctor]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tinyvae.config import THREAD_VARIABLES

RESULTS = Path(__file__).resolve().parent / "results" / "doctor"
EPOCHS = 8
# what it should be, model, data, options of the model, options of the training
RUNS: tuple[tuple[str, str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("collapsed", "vae", "mnist", {}, {"beta": 100.0}),
    ("collapsed", "conv-vae", "mnist", {}, {"beta": 50.0, "epochs": 2}),
    ("collapsed", "vae", "mnist", {"likelihood": "mse"}, {"beta": 30.0}),
    ("collapsed", "vae", "sprites", {"likelihood": "gaussian", "sigma": 5.0}, {}),
    ("holes", "vae", "mnist", {}, {"beta": 0.01}),
    ("holes", "vae", "mnist", {"latent_dim": 2}, {"beta": 0.001}),
    ("holes", "ae", "mnist", {}, {}),
    ("holes", "vae", "sprites", {"likelihood": "gaussian", "sigma": 0.01}, {}),
    ("healthy", "vae", "mnist", {}, {}),
    ("healthy", "vae", "mnist", {"latent_dim": 2}, {"epochs": 20}),
    ("healthy", "vae", "mnist", {"latent_dim": 64}, {"beta": 0.5}),
    ("healthy", "vae", "sprites", {"latent_dim": 10}, {"beta": 4.0, "epochs": 12}),
)


def data(name: str) -> Any:
    """10,000 training images, so that a run takes seconds."""
    import tinyvae

    whole = tinyvae.datasets.load(name)
    labels = whole.train_labels
    few = {"train_images": whole.train_images[:10_000], "train_labels": None if labels is None else labels[:10_000]}
    return replace(whole, **few)


def run(name: str, images: Any, options: dict[str, Any], training: dict[str, Any], seed: int) -> Any:
    """The diagnosis of one run."""
    import tinyvae
    from tinyvae.config import TrainConfig
    from tinyvae.measure.doctor.latent import examine

    options = {"latent_dim": 20, "hidden": (128,), "seed": seed} | options
    training = {"epochs": EPOCHS, "lr": 2e-3} | training
    model = tinyvae.zoo.build(name, images.image_shape, **options)
    tinyvae.train(model, images, **training)
    return examine(model, images, TrainConfig(**training))


def arguments(description: str, seed: int, results: Path) -> argparse.Namespace:
    """The command line's options; threads are limited before NumPy is imported, which reads them once."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", default=str(results), metavar="PATH", help="without ending: .json and .md are added")
    args = parser.parse_args()
    if args.threads is not None:
        os.environ |= dict.fromkeys(THREAD_VARIABLES, str(args.threads))
    return args


def write(args: argparse.Namespace, rows: list[str], results: list[dict], right: int) -> int:
    """Prints the table and writes it beside all figures; 0 if every verdict is right."""
    text = "\n".join([*rows, "", f"Right in {right} of {len(results)}, seed {args.seed}."])
    out = Path(args.out)
    out.with_suffix(".md").write_text(text + "\n", "utf-8")
    out.with_suffix(".json").write_text(json.dumps({"seed": args.seed, "runs": results}, indent=1) + "\n", "utf-8")
    print(text)
    return 0 if right == len(results) else 1


def main() -> int:
    # seeds 0 and 1 set the thresholds
    args = arguments("Does the doctor find what was done to a run?", 2, RESULTS)
    sets = {name: data(name) for name in ("mnist", "sprites")}
    rows = [
        "| made to be | run | verdict | nats of information | MMD² to N(0, I) | filled | reached | first advice |",
        "|---|---|---|---|---|---|---|---|",
    ]
    results, right = [], 0
    for expected, name, source, options, training in RUNS:
        found = run(name, sets[source], options, training, args.seed)
        right += found.verdict == expected
        said = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in (options | training).items())
        information, mmd = found.figures["mutual_information"], found.figures["mmd_standard_normal"]
        shares = [f"{found.figures[name + '_standard_normal']:.3f}" for name in ("filled", "reached")]
        cells = [expected, f"`{name}` on {source}" + (f", {said}" if said else ""), found.verdict]
        cells += ["–" if information is None else f"{information:.2f}", f"{mmd:.4f}", *shares, found.advice[0]]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], file=sys.stderr, flush=True)
        results.append({"expected": expected, "model": name, "data": source, "options": options, "training": training})
        results[-1]["diagnosis"] = found.to_json()
    return write(args, rows, results, right)


if __name__ == "__main__":
    sys.exit(main())
