"""AE, VAE, GAN, VAE-GAN and adversarial AE side by side: one latent dimension, one number of epochs, one set of judges.

    python benchmarks/joined.py --work DIR [--data mnist fashion-mnist] [--epochs 10] [--threads 1] [--readme]

Each run is trained and judged in a process of its own, one after the other, and leaves its files in --work: what is
there is not made again, and a run that was stopped goes on after its last epoch. --limit N is a trial of seconds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from joined_runs import (
    COUNTED,
    DATA,
    LATENT,
    MODELS,
    PAIRS,
    SCORES,
    SHOWN,
    STEPS,
    TRUE,
    Run,
    load,
    options,
    row_of,
    run_all,
    time_all,
)

if TYPE_CHECKING:
    from tinyvae.pictures.canvas import Block

RESULTS = Path(__file__).resolve().parent / "results" / "joined"
README = Path(__file__).resolve().parent.parent / "README.md"
SIDE = 56  # pixels of a tile
BEGIN, END = "<!-- joined:begin -->", "<!-- joined:end -->"


# ---------------------------------------------------------------------------------------------- the table


def number(key: str, form: str) -> Callable[[dict[str, Any]], str]:
    """A figure as text; a dash where a model has none."""
    return lambda row: format(row[key], form) if key in row else "–"


def areas(kind: str) -> Callable[[dict[str, Any]], str]:
    """The AUROC of each of the model's scores."""
    return lambda row: ", ".join(f"{SCORES[score]} {value:.3f}" for score, value in row[kind].items())


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "parameters": number("parameters", ",d"),
    "rmse": number("rmse", ".3f"),
    "Fréchet, reconstructions": number("frechet_again", ".1f"),
    "Fréchet, samples": number("frechet", ".1f"),
    "classes covered": lambda row: f"{row['classes']} of {len(row['shares'])}",
    "smallest share": lambda row: f"{100 * min(row['shares']):.1f} %",
    "recognised": lambda row: f"{100 * sum(row['shares']):.0f} %",
    "precision": number("precision", ".3f"),
    "coverage": number("coverage", ".3f"),
    "AUROC, spliced halves": areas("spliced"),
    "AUROC, the other data": areas("other"),
    "seconds": number("seconds", ".0f"),
}
IN_README = [c for c in COLUMNS if c not in ("parameters", "smallest share", "precision")]


def table(found: dict[str, Any], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """Markdown: a table for each data set, a line for each model."""
    lines = []
    for data, rows in found["figures"].items():
        lines += [f"| {DATA[data]} | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
        for name, row in rows.items():
            title = "true images" if name == TRUE else f"{MODELS[name].title}, `{name}`"
            lines.append(f"| {title} | " + " | ".join(COLUMNS[column](row) for column in columns) + " |")
        lines.append("")
    return "\n".join(lines)


def text(found: dict[str, Any]) -> str:
    """The whole report: what was done, the tables, what the columns are."""
    right = " and ".join(f"{100 * rows[TRUE]['accuracy']:.2f} % of {DATA[d]}'s" for d, rows in found["figures"].items())
    return f"""# AE, VAE, GAN, VAE-GAN and adversarial AE side by side

Seed {found["seed"]}, {LATENT} dimensions, {found["epochs"]} epochs each, {found["threads"]} thread(s) of \
{found["machine"]}. Each training has a process of its own. Seconds: of its steps alone, timed by themselves \
afterwards, the median of 60 times their number.

{table(found)}
- rmse: of reconstructions of the test images, pixels from 0 to 1.
- Fréchet: the distance in the features of our own classifier to the test images, of as many images; no published FID \
compares with it. The classifier is right on {right} test images.
- Classes: of {COUNTED:,} samples, a class is covered where 1 % of all of them are recognised as it, with the \
confidence that 95 % of the test images reach. The smallest of these shares, and their sum.
- Precision: samples among true images; coverage: true images with a sample among their neighbours; in features, k = 5.
- The AE has no prior: its samples are of the Gaussian fitted to its codes.
- AUROC: the models have seen whole training images only. All test images stand beside anomalies: the upper half of \
each on the lower half of one of another class, or the test images of the other data set (for MNIST Fashion-MNIST, and \
the other way round). error: squared, in pixels; −logit: the discriminator's; −ELBO: 16 draws.
- True images: training images in the samples' place, and the distance in pixels to the nearest of 60,000 of them.

`{found["command"]}`
"""


# ---------------------------------------------------------------------------------------------- pictures


def draw(data: str, runs: Sequence[Run], work: Path, out: Path) -> None:
    """Two pictures: samples and reconstructions, a row for each model; and the same walks through each latent space."""
    import numpy as np

    from tinyvae.pictures.canvas import Block, mosaic, sheet
    from tinyvae.pictures.plots import WIDE_GAP

    images = load(data, runs[0].limit)
    pictures = {MODELS[r.model].title: np.load(r.folder(work) / "pictures.npz") for r in runs}
    rows = {"training images": images.train_images[:SHOWN] / 255}
    again = {"test images": images.test_images[:SHOWN] / 255}
    rows |= {title: p["samples"] for title, p in pictures.items()}
    again |= {title: p["reconstructions"] for title, p in pictures.items() if "reconstructions" in p}
    blocks = [
        Block(mosaic(list(named.values()), [0, WIDE_GAP], side=SIDE), heading, list(named))
        for heading, named in (("samples", rows), ("reconstructions", again))
    ]
    note = f"{DATA[data]}, {LATENT} dimensions, {runs[0].epochs} epochs"
    sheet(blocks, f"{out}-{data}.png", "Side by side", note)
    walks = {title: p["walks"] for title, p in pictures.items() if "walks" in p}
    if walks:
        title = "The same walks through each latent space"
        sheet([walks_of(walks, images)], f"{out}-{data}-walks.png", title, f"{note}; test images at the ends")


def walks_of(walks: dict[str, Any], images: Any) -> Block:
    """For each pair of test images a row of each model: the one, the decoded points between their codes, the other."""
    import numpy as np

    from tinyvae.pictures.canvas import GAP, Block, mosaic
    from tinyvae.pictures.plots import WIDE_GAP

    first = {label: np.flatnonzero(images.test_labels == label)[:1] for pair in PAIRS for label in pair}
    rows, gaps = [], []
    for i, ends in enumerate(PAIRS):
        a, b = (images.test_images[first[label]] / 255 for label in ends)
        rows += [np.concatenate([a, strips[i], b]) for strips in walks.values()]
        gaps += [WIDE_GAP if i else 0, *([GAP] * (len(walks) - 1))]
    columns = [0, WIDE_GAP, *([GAP] * (STEPS - 1)), WIDE_GAP]
    return Block(mosaic(rows, gaps, columns, SIDE), "", list(walks) * len(PAIRS))


def put_in_readme(found: dict[str, Any], readme: Path = README) -> None:
    """The short tables and the pictures between the README's markers."""
    page = readme.read_text("utf-8")
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    pictures = [
        f"![{words}, {DATA[data]}](benchmarks/results/{RESULTS.name}-{data}{ending}.png)\n"
        for data in found["figures"]
        for ending, words in (("", "Samples and reconstructions"), ("-walks", "The same walks through latent spaces"))
    ]
    more = "[All figures](benchmarks/results/joined.md); [seed by seed](benchmarks/results/gan-seeds.md).\n"
    middle = "\n".join([table(found, IN_README), *pictures, more])
    readme.write_text(f"{page[:start]}\n{middle}{page[end:]}", "utf-8")


def main() -> int:
    """All runs that are missing; then the tables and pictures of those that --data and --models name."""
    parser = options(__doc__)
    parser.add_argument("--data", nargs="+", default=list(DATA), choices=list(DATA))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="without ending: .json, .md and pictures are added")
    parser.add_argument("--readme", action="store_true", help="put the tables into the README, too")
    args = parser.parse_args()
    from tinyvae.bench.host import cpu_name

    figures = {}
    for data in args.data:
        runs = [Run(data, model, args.seed, args.epochs, args.limit) for model in args.models]
        true = Run(data, TRUE, 0, 0, args.limit)
        run_all([true], args.work, args.threads)  # first, as it trains the classifier
        run_all(runs, args.work, args.threads, anomalies=True)
        time_all(runs, args.work, args.threads)
        draw(data, runs, args.work, args.out)
        figures[data] = {run.model: row_of(run, args.work) for run in (*runs, true)}
    found = {
        "command": f"python benchmarks/joined.py --work DIR --epochs {args.epochs} --threads {args.threads}",
        "machine": cpu_name(), "seed": args.seed, "epochs": args.epochs, "threads": args.threads, "figures": figures,
    }  # fmt: skip
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(text(found), "utf-8")
    print(text(found))
    if args.readme:
        put_in_readme(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
