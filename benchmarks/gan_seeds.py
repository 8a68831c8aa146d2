"""Ten seeds each of the GAN and the VAE-GAN, beside the VAE: do all digits come, are the pictures sharp, seed by seed?

    python benchmarks/gan_seeds.py --work DIR [--seeds 10] [--epochs 10] [--jobs 2] [--threads 1]

The bars: in nine of ten seeds the GAN covers all ten classes, and in nine of ten the VAE-GAN's samples have a smaller
Fréchet distance to the test images than those of the VAE with that seed. The exit status is 1 where one is missed.
With the --work and the --epochs of benchmarks/joined.py, that script's runs are taken, and are not made again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joined_runs import COUNTED, DATA, LATENT, MODELS, SHOWN, TRUE, Run, load, options, row_of, run_all

RESULTS = Path(__file__).resolve().parent / "results" / "gan-seeds"
VAE, GAN, VAE_GAN = NAMES = ("conv-vae", "gan", "vae-gan")
BAR = 0.9  # of the seeds


def verdicts(figures: dict[str, list[dict[str, Any]]]) -> dict[str, list[bool]]:
    """{what was asked: the answer of each seed}; the first two have a bar."""

    def all_classes(name: str) -> list[bool]:
        return [row["classes"] == len(row["shares"]) for row in figures[name]]

    better = [mine["frechet"] < vae["frechet"] for mine, vae in zip(figures[VAE_GAN], figures[VAE], strict=True)]
    return {
        "GAN covers all classes": all_classes(GAN),
        "VAE-GAN's Fréchet distance is better than the VAE's": better,
        "VAE-GAN covers all classes": all_classes(VAE_GAN),
    }


def passed(asked: dict[str, list[bool]]) -> bool:
    """Whether both bars are met."""
    return all(sum(answers) >= BAR * len(answers) for answers in list(asked.values())[:2])


def text(found: dict[str, Any]) -> str:
    """The report: a line for each seed, and what was asked."""
    figures, true = found["figures"], found[TRUE]
    head = ["seed", "VAE: Fréchet"]
    for name in (GAN, VAE_GAN):
        title = MODELS[name].title
        head += [f"{title}: Fréchet", "classes covered", "smallest share", "recognised", "D(x)", "D(G(z))"]
    lines = [_line(head), "|" + "---|" * len(head)]
    for seed in range(found["seeds"]):
        cells = [str(seed), f"{figures[VAE][seed]['frechet']:.1f}"]
        for name in (GAN, VAE_GAN):
            row = figures[name][seed]
            shares, end = row["shares"], row["train"]
            cells += [f"{row['frechet']:.1f}", f"{row['classes']} of {len(shares)}", f"{100 * min(shares):.1f} %"]
            cells += [f"{100 * sum(shares):.0f} %", f"{end['d_real']:.2f}", f"{end['d_fake']:.2f}"]
        lines.append(_line(cells))
    answers = [f"- {asked}: {sum(a)} of {len(a)} seeds" for asked, a in verdicts(figures).items()]
    table = "\n".join([*lines, "", *answers])
    return f"""# Seed by seed: GAN and VAE-GAN

MNIST, {found["epochs"]} epochs, {LATENT} dimensions, the zoo's `gan` and `vae-gan` beside `conv-vae`.

{table}

Fréchet: of as many samples as there are test images, in the features of our own classifier; 0 is the best, training \
images have {true["frechet"]:.1f}. Classes: of {COUNTED:,} samples, a class is covered where 1 % of all of them are \
recognised as it, with the confidence that 95 % of the test images reach. D(x), D(G(z)): geometric means over the last \
epoch.

`{found["command"]}`
"""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def draw(runs: Sequence[Run], work: Path, out: Path) -> None:
    """The contact sheet of one model: a strip of samples for each seed, all of the same z."""
    import numpy as np

    from tinyvae.pictures.canvas import Block, mosaic, sheet
    from tinyvae.pictures.plots import WIDE_GAP

    first = runs[0]
    true = load(first.data, first.limit).train_images[:SHOWN] / 255
    rows = [np.load(run.folder(work) / "pictures.npz")["samples"] for run in runs]
    names = ["training images", *(f"seed {run.seed}" for run in runs)]
    title = f"{MODELS[first.model].title}: samples of {len(runs)} seeds"
    note = f"{DATA[first.data]}, {LATENT} dimensions, {first.epochs} epochs"
    block = Block(mosaic([true, *rows], [0, WIDE_GAP], side=2 * true.shape[1]), "", names)
    sheet([block], f"{out}-{first.model}.png", title, note)


def main() -> int:
    """All runs that are missing, then the table and a sheet for each model."""
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default 1)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="without ending: .json, .md and pictures are added")
    args = parser.parse_args()
    true = Run("mnist", TRUE, 0, 0, args.limit)
    run_all([true], args.work, args.threads)  # first, as it trains the classifier
    runs = {name: [Run("mnist", name, s, args.epochs, args.limit) for s in range(args.seeds)] for name in NAMES}
    run_all(
        [run for of_seed in zip(*runs.values(), strict=True) for run in of_seed], args.work, args.threads, args.jobs
    )
    found = {
        "command": f"python benchmarks/gan_seeds.py --work DIR --seeds {args.seeds} --epochs {args.epochs}",
        "seeds": args.seeds, "epochs": args.epochs, TRUE: row_of(true, args.work),
        "figures": {name: [row_of(run, args.work) for run in those] for name, those in runs.items()},
    }  # fmt: skip
    for those in runs.values():
        draw(those, args.work, args.out)
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(text(found), "utf-8")
    print(text(found))
    return 0 if passed(verdicts(found["figures"])) else 1


if __name__ == "__main__":
    sys.exit(main())
