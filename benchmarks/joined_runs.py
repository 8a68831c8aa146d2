"""Runs of AE, VAE, GAN, VAE-GAN and adversarial AE: each trained and measured in its own process, results in files."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

LATENT = 20
COUNTED = 2000  # samples whose classes are counted; the Fréchet distance takes as many as there are test images
SHOWN = 12  # images of a row
PAIRS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))  # walks lead from the first test image of a class to that of another
STEPS = 9  # decoded points of a walk


class Kind(NamedTuple):
    """How a model is called, and which scores of its own tell anomalies."""

    title: str
    scores: tuple[str, ...]


MODELS = {
    "conv-ae": Kind("AE", ("error",)),
    "conv-vae": Kind("VAE", ("error", "neg_elbo")),
    "gan": Kind("GAN", ("discriminator",)),
    "vae-gan": Kind("VAE-GAN", ("error", "discriminator")),
    "conv-aae": Kind("AAE", ("error",)),
}
SCORES = {"error": "error", "neg_elbo": "−ELBO", "discriminator": "−logit", "nearest_neighbour": "distance"}
DATA = {"mnist": "MNIST", "fashion-mnist": "Fashion-MNIST"}
TRUE = "true"  # in a model's place: true images, what the figures come to at best
OTHER = {"mnist": "fashion-mnist", "fashion-mnist": "mnist"}


class Run(NamedTuple):
    """One training: everything that it depends on. limit: only so many images of either part, 0 for all."""

    data: str
    model: str
    seed: int
    epochs: int
    limit: int = 0

    def folder(self, work: Path) -> Path:
        """Where its files are."""
        return work / f"{self.data}-{self.model}-{self.seed}-{self.epochs}{f'-{self.limit}' if self.limit else ''}"


# ---------------------------------------------------------------------------------------------- one run


def run_one(run: Run, work: Path, anomalies: bool) -> None:
    """Trains and judges one model: figures.json and pictures.npz in its folder, and anomalies.json where asked for."""
    from tinyvae.training import trainer

    folder, data = run.folder(work), load(run.data, run.limit)
    folder.mkdir(parents=True, exist_ok=True)
    if run.model == TRUE:
        kept_in(folder / "figures.json", lambda: yardstick(run, data, work))
        return
    model = trained(run, data, folder)
    judge = judge_of(run, data, work)
    kept_in(folder / "figures.json", lambda: figures_of(model, data, judge, folder / "pictures.npz"))
    if anomalies:
        other = load(OTHER[run.data], run.limit)
        kept_in(folder / "anomalies.json", lambda: aurocs(lambda x: own_scores(run.model, model, x), data, other))
    rows = trainer.read_rows(folder / trainer.METRICS)
    print(f"{folder.name}: {sum(row['seconds'] for row in rows):.0f} s of training", file=sys.stderr, flush=True)


def load(name: str, limit: int) -> Any:
    """A data set, or the first images of either part."""
    from dataclasses import replace

    from tinyvae import datasets

    data = datasets.load(name)
    if not limit:
        return data
    return replace(
        data, train_images=data.train_images[:limit], train_labels=data.train_labels[:limit],
        test_images=data.test_images[:limit], test_labels=data.test_labels[:limit],
    )  # fmt: skip


def trained(run: Run, data: Any, folder: Path) -> Any:
    """The zoo's model after its epochs; the log and the last epoch's checkpoint are in `folder`."""
    from tinyvae import zoo
    from tinyvae.training import trainer

    if not (folder / "figures.json").exists():  # compiling is no part of the seconds: it is done before
        trainer.train(zoo.build(run.model, latent_dim=LATENT), data.train_images[:300], epochs=1, progress=False)
    model = zoo.build(run.model, latent_dim=LATENT, seed=run.seed)
    resume = (folder / trainer.CHECKPOINT).exists()
    trainer.train(model, data, epochs=run.epochs, out=folder, resume=resume)
    return model


def judge_of(run: Run, data: Any, work: Path) -> Any:
    """Our own classifier of this data set, trained once."""
    from tinyvae.measure.classifier import train_classifier

    return train_classifier(data, cache=work / f"classifier-{run.data}{f'-{run.limit}' if run.limit else ''}.npz")


def kept_in(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` gives, from the file where it is there."""
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    row = make()
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(row), "utf-8")
    temporary.replace(path)
    return row


def figures_of(model: Any, data: Any, judge: Any, pictures: Path) -> dict[str, Any]:
    """Samples, and reconstructions where there is an encoder, beside the test images.

    An autoencoder has no prior: its samples are of the Gaussian fitted to its codes.
    """
    import numpy as np

    from tinyvae.measure import classifier_metrics, evaluate

    test, prior = data.test_images, model.prior or evaluate.fit_prior(model, data.train_images)
    drawn = model.sample(len(test), 0, prior)
    row = {"parameters": model.table.count(), **seen_in(drawn, data, judge)}
    shown = {"samples": drawn[:SHOWN]}
    if model.can.codes:
        again = model.reconstruct(test)
        row["rmse"] = evaluate.rmse(model, test)
        row["frechet_again"] = classifier_metrics.classifier_frechet(judge, test, again)
        first = [np.flatnonzero(data.test_labels == label)[0] for pair in PAIRS for label in pair]
        shown |= {
            "reconstructions": again[:SHOWN],
            "walks": model.interpolate(test[first[::2]], test[first[1::2]], STEPS),
        }
    np.savez_compressed(pictures, **shown)
    return row


def seen_in(images: Any, data: Any, judge: Any) -> dict[str, Any]:
    """What the classifier sees in images, beside the test images."""
    from tinyvae.measure import classifier_metrics

    test = data.test_images
    confidence = classifier_metrics.confidence_of(judge, test)
    classes = classifier_metrics.classes_covered(judge, images[:COUNTED], confidence)
    true, made = judge.encode(test)[0], judge.encode(images)[0]
    near = classifier_metrics.coverage(true[:COUNTED], made[:COUNTED])
    return {
        "frechet": classifier_metrics.frechet_distance(true, made),
        "classes": classes.covered, "shares": classes.shares.tolist(),
        "precision": near.precision, "coverage": near.coverage, "confidence": confidence,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- anomalies


def spliced(images: Any, labels: Any, seed: int = 0) -> Any:
    """The upper half of each image on the lower half of one of another class: every pixel is of a true image."""
    import numpy as np

    rng = np.random.Generator(np.random.Philox(seed))
    other = rng.permutation(len(images))
    while (same := labels[other] == labels).any():
        other[same] = rng.integers(len(images), size=same.sum())
    middle = images.shape[1] // 2
    return np.concatenate([images[:, :middle], images[other, middle:]], axis=1)


def own_scores(name: str, model: Any, images: Any) -> dict[str, Any]:
    """{score: (N,)}, higher is more anomalous. error: ‖x − x̂‖² in pixels. discriminator: −logit of D(x)."""
    import numpy as np

    from tinyvae.measure.anomaly.detector import draws

    found = {}
    for score in MODELS[name].scores:
        if score == "error":
            x = model.as_images(images)
            found[score] = np.square(x - model.reconstruct(x)).reshape(len(x), -1).sum(axis=1, dtype=np.float64)
        elif score == "neg_elbo":
            nll, _, kl = draws(model, images, 16)
            found[score] = nll.mean(axis=1) + kl
        else:
            found[score] = -model.judge(images).astype(np.float64)
    return found


def aurocs(scores_of: Callable[[Any], dict[str, Any]], data: Any, other: Any) -> dict[str, Any]:
    """{kind of anomaly: {score: AUROC}}: all test images beside as many spliced ones, and beside another data set's."""
    import numpy as np

    from tinyvae.measure.anomaly import auroc

    normal, found = scores_of(data.test_images), {}
    kinds = {"spliced": spliced(data.test_images, data.test_labels), "other": other.test_images}
    for kind, images in kinds.items():
        anomalous = np.arange(len(data.test_images) + len(images)) >= len(data.test_images)
        found[kind] = {s: auroc(np.append(normal[s], v), anomalous) for s, v in scores_of(images).items()}
    return found


def yardstick(run: Run, data: Any, work: Path) -> dict[str, Any]:
    """The same figures with training images in the samples' place, and the AUROCs of nearest neighbours in pixels."""
    from tinyvae.measure.anomaly import NearestNeighbour

    judge, near = judge_of(run, data, work), NearestNeighbour(data.train_images)
    row = {"accuracy": judge.accuracy(data.test_images, data.test_labels)}
    row |= seen_in(data.train_images[: len(data.test_images)], data, judge)
    return row | aurocs(lambda x: {"nearest_neighbour": near.score(x)}, data, load(OTHER[run.data], run.limit))


# ---------------------------------------------------------------------------------------------- all runs


def run_all(runs: Sequence[Run], work: Path, threads: int, jobs: int = 1, anomalies: bool = False) -> None:
    """Each run in a process of its own, `jobs` at a time; those that are done take a second or two."""
    from tinyvae.config import THREAD_VARIABLES

    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))

    def start(run: Run) -> None:
        folder = run.folder(work)
        if all((folder / f"{name}.json").exists() for name in ("figures", *(["anomalies"] if anomalies else []))):
            return
        command = [sys.executable, str(Path(__file__).resolve()), str(work), *map(str, run)]
        subprocess.run([*command, *(["--anomalies"] if anomalies else [])], env=environment, check=True)

    work.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(start, runs))


def step_seconds(run: Run, warm: int = 20, count: int = 60) -> dict[str, Any]:
    """The median time of a training step, and what all steps of the run come to at that."""
    import time

    import numpy as np

    from tinyvae import zoo
    from tinyvae.config import TrainConfig
    from tinyvae.training.step import Feed, Step

    feed = Feed(model := zoo.build(run.model, latent_dim=LATENT), load(run.data, run.limit).train_images)
    step, times = Step(model, feed, TrainConfig()), []
    for _ in range(warm + count):
        start = time.perf_counter()
        step.run()
        times.append(time.perf_counter() - start)
    each = float(np.median(times[warm:]))
    return {"step": each, "seconds": each * step.per_epoch * run.epochs}


def time_all(runs: Sequence[Run], work: Path, threads: int) -> None:
    """seconds.json in the folder of each run: one after the other, with the machine to themselves."""
    from tinyvae.config import THREAD_VARIABLES

    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
    for run in runs:
        if not (run.folder(work) / "seconds.json").exists():
            command = [sys.executable, str(Path(__file__).resolve()), str(work), *map(str, run), "--time"]
            subprocess.run(command, env=environment, check=True)


def row_of(run: Run, work: Path) -> dict[str, Any]:
    """Everything that is known of a run: figures, anomalies, the log's last epoch, the seconds of its steps."""
    from tinyvae.training import trainer

    folder = run.folder(work)
    row = json.loads((folder / "figures.json").read_text("utf-8"))
    if (folder / "anomalies.json").exists():
        row |= json.loads((folder / "anomalies.json").read_text("utf-8"))
    if rows := trainer.read_rows(folder / trainer.METRICS):
        row |= {"train": rows[-1]["train"], "test": rows[-1]["test"]}
    if (folder / "seconds.json").exists():
        row["seconds"] = json.loads((folder / "seconds.json").read_text("utf-8"))["seconds"]
    return row


def options(description: str | None) -> argparse.ArgumentParser:
    """What the scripts that compare runs have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1, help="of each run (default 1)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="a trial on the first N images")
    return parser


if __name__ == "__main__":  # one run, in the process that run_all started for it
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("run", nargs=5)
    parser.add_argument("--anomalies", action="store_true")
    parser.add_argument("--time", action="store_true")
    given = parser.parse_args()
    chosen = Run(*given.run[:2], *map(int, given.run[2:]))
    if given.time:
        kept_in(chosen.folder(given.work) / "seconds.json", lambda: step_seconds(chosen))
    else:
        run_one(chosen, given.work, given.anomalies)
