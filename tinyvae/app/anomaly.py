"""What `tinyvae anomaly` does: data, a model trained on normal images or an opened run, table, threshold and pictures.
It knows where things come from and go to; scores and figures are anomaly's, pictures plots'."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import datasets
from ..config import DEFAULT_DEVICE, require_choice, require_int
from ..datasets import Dataset
from ..datasets.dataset import shuffled
from ..datasets.pictures import list_pictures, read_pictures
from ..errors import ConfigError, DataError
from ..measure import anomaly
from ..measure.anomaly import Case, Detector, conformal, protocols
from ..measure.anomaly.detector import scores_of
from ..models import Model, zoo
from ..pictures import plots
from ..training import trainer
from .run import open_run, write_json

SEEN = 150_000  # images that training shows to the model unless --epochs says otherwise
LEAST_EPOCHS = 8
LIKELIHOOD, SIGMA = "gaussian", 0.2  # where a model has a likelihood of images, unless --likelihood says otherwise
HELD_OUT = 0.2  # share of a folder's good pictures that calibrate the threshold

Say = Callable[[str], None]


@dataclass
class Job:
    """What is asked for: the options, the data, and the model of a run where one was named."""

    options: Mapping[str, Any]
    data: Dataset
    model: Model | None
    say: Say

    def folder(self, name: str) -> Path:
        """Where everything goes: --out, or runs/anomaly-DATA-NAME."""
        out = self.options["out"]
        path = Path("runs") / f"anomaly-{Path(self.data.name).stem}-{name}" if out is None else Path(out)
        trainer.make_folder(path)
        return path

    def train(self, normal: np.ndarray, held: np.ndarray) -> Model:
        """The run's model, or one of --model trained on `normal`; `held` is shown in the log only."""
        if self.model is not None:
            check_score(self.model, self.options["score"])
            return self.model
        o = self.options
        shape = tuple(int(n) for n in normal.shape[1:])
        scored = {name: o[name] for name in ("likelihood", "sigma") if o[name] not in (None, "")}
        if o["model"] in zoo.SCORING:
            scored = {"likelihood": LIKELIHOOD, "sigma": SIGMA} | scored
        model = zoo.build(
            o["model"], (shape[0], shape[1], shape[2]), o["latent_dim"], o["hidden"], device=o["device"],
            seed=o["seed"], **scored,
        )  # fmt: skip
        check_score(model, o["score"])
        epochs = o["epochs"] or max(LEAST_EPOCHS, -(-SEEN // len(normal)))
        self.say(f"{o['model']} on {len(normal):,} normal images, {epochs} epochs, {model.table.count():,} parameters")
        progress = None if epochs <= 50 else False
        data = datasets.as_dataset(normal, test_images=held)
        trainer.train(model, data, epochs=epochs, schedule="cosine", progress=progress)
        return model


def run(options: Mapping[str, Any], say: Say) -> str:
    """`tinyvae anomaly`: what it prints. Exactly one of --leave-out, --only and --rank says what is asked."""
    asked = [name for name in ("leave_out", "only", "rank") if options[name] is not None]
    if len(asked) != 1:
        raise ConfigError("use one of --leave-out CLASS, --only CLASS and --rank FOLDER")
    require_choice("score", options["score"], anomaly.SCORES)
    require_int("show", options["show"], 1, ", the number of pictures on the sheet")
    if options["epochs"] is not None:
        require_int("epochs", options["epochs"], 1)
    conformal.alarms_among(1, options["false_alarms"])
    job = open_job(options, say)
    if options["rank"] is not None:
        return rank(job, Path(options["rank"]))
    case_of = anomaly.leave_one_out if asked[0] == "leave_out" else anomaly.one_against_rest
    label = anomaly.class_of(job.data, options[asked[0]])
    return judge(job, case_of(job.data, label), f"{asked[0].replace('_', '-')}-{label}")


def open_job(options: Mapping[str, Any], say: Say) -> Job:
    """Finds the data: the run's, or --data."""
    if options["run"] is not None:
        if options["rank"] is None or options["data"] is not None:
            raise ConfigError("a RUN brings its own images, of all classes: use it with --rank alone, without --data")
        opened = open_run(Path(options["run"]), options["device"])
        return Job(options, opened.data, opened.model, say)
    if options["rank"] is not None and options["data"] is None:
        raise ConfigError("--rank needs good pictures to compare with: add --data FOLDER, or name a RUN")
    data = datasets.load(options["data"] or "mnist", image_size=options["image_size"], holdout=HELD_OUT)
    return Job({**options, "device": options["device"] or DEFAULT_DEVICE}, data, None, say)


# ---------------------------------------------------------------------------------------------- labelled data


def judge(job: Job, case: Case, name: str) -> str:
    """One protocol on one class: every score's AUROC and AUPR beside the baselines, and a threshold that is tried."""
    chosen, alpha = job.options["score"], job.options["false_alarms"]
    model = job.train(case.normal, case.test[~case.anomalous][:1000])
    detector = Detector(model, case.normal)
    job.say(f"scoring {len(case.test):,} test images")
    scores = detector.score(case.test) | anomaly.baseline_scores(case.normal, case.test)
    figures = anomaly.judge(scores, case.anomalous)
    folder = job.folder(name)
    alarms = try_threshold(scores[chosen][~case.anomalous], alpha, job.options["seed"])
    write_json(folder / "anomaly.json", {"case": case.name, "score": chosen, "figures": figures, "alarms": alarms})
    worst = np.argsort(-scores[chosen], kind="stable")[: job.options["show"]]
    title = f"{job.data.name}, {case.name} normal: the highest scores of {len(case.test):,} test images"
    sheet = picture(detector, case.test[worst], folder, title, chosen)
    count = f"{len(case.normal):,} normal training images; {len(case.test):,} test images"
    head = f"{job.data.name}, {case.name} normal: {count}, {case.anomalous.sum():,} of them anomalies"
    return "\n".join([head, protocols.table(figures, chosen), describe(alarms, chosen), str(sheet)])


def try_threshold(normal: np.ndarray, alpha: float, seed: int = 0) -> dict[str, Any]:
    """Half of the normal test images, shuffled, give the threshold; the other half counts its false alarms."""
    order = shuffled(len(normal), seed)
    calibration, fresh = normal[order[: len(normal) // 2]], normal[order[len(normal) // 2 :]]
    low, high = anomaly.false_alarm_interval(len(calibration), len(fresh), alpha)
    return {
        "alpha": alpha, "threshold": anomaly.threshold(calibration, alpha), "calibration": len(calibration),
        "fresh": len(fresh), "alarms": int((anomaly.p_values(calibration, fresh) <= alpha).sum()),
        "low": low, "high": high,
    }  # fmt: skip


def describe(a: Mapping[str, Any], chosen: str) -> str:
    """Two lines about a threshold and the false alarms that it gave."""
    rate = 100 * a["alarms"] / a["fresh"]
    return (
        f"threshold of {chosen} for a stated {100 * a['alpha']:g} % of false alarms: {a['threshold']:.4g}, from "
        f"{a['calibration']:,} normal images\n"
        f"on {a['fresh']:,} other normal images: {a['alarms']} false alarms, {rate:.2f} %; chance allows {a['low']} to "
        f"{a['high']} in 99.9 % of cases"
    )


# ---------------------------------------------------------------------------------------------- a folder of pictures


def rank(job: Job, folder: Path) -> str:
    """Pictures of `folder` in the order of their scores, with p-values against held-out good pictures."""
    chosen, alpha = job.options["score"], job.options["false_alarms"]
    good, held = job.data.train_images, job.data.test_images
    files = list_pictures(folder).files
    images = read_pictures(files, (good.shape[1], good.shape[2]), good.shape[3] == 3)
    if good.dtype != np.uint8:
        raise DataError(f"{job.data.name} holds {good.dtype} images; pictures are ranked against pictures of 8 bits")
    detector = Detector(job.train(good, held), good)
    together = np.concatenate([held, images])
    scores = detector.score(together, [chosen]) | anomaly.baseline_scores(good, together)
    p = {name: anomaly.p_values(s[: len(held)], s[len(held) :]) for name, s in scores.items()}
    order = np.argsort(-scores[chosen][len(held) :], kind="stable")
    names = [str(f.relative_to(folder)) for f in files]
    out = job.folder("ranking")
    rows = [(names[i], float(scores[chosen][len(held) + i]), *(float(p[name][i]) for name in p)) for i in order]
    header = ("picture", chosen, *(f"p_{name}" for name in p))
    write_csv(out / "ranking.csv", header, rows)
    worst = order[: job.options["show"]]
    title = f"{folder.name}: the {len(worst)} highest scores of {len(images):,} pictures"
    sheet = picture(detector, images[worst], out, title, chosen)
    alarms = int((p[chosen] <= alpha).sum())
    lines = [f"{alarms} of {len(images)} pictures raise an alarm at a stated {100 * alpha:g} % of false alarms"]
    lines.append(f"calibrated on {len(held)} good pictures that the model was not trained on")
    if not conformal.alarms_among(len(held), alpha):
        least = 100 / (len(held) + 1)
        lines[1] += f"; so few cannot support a rate below {least:.1f} %: give more, or --false-alarms"
    lines += ranking_table(header, rows[: job.options["show"]])
    return "\n".join([*lines, str(out / "ranking.csv"), str(sheet)])


def ranking_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    """The rows as aligned text."""
    cells = [header, *((str(row[0]), f"{row[1]:.4g}", *(f"{p:.4f}" for p in row[2:])) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(f"{text:<{w}}" for text, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table for spreadsheets."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    path.write_text(text.getvalue(), "utf-8")


# ---------------------------------------------------------------------------------------------- both


def check_score(model: Model, chosen: str) -> None:
    """A ConfigError where this model has no such score, or none at all."""
    if not model.can.codes:
        raise ConfigError(
            f"every score compares a picture with its reconstruction, and {type(model).__name__} makes none; "
            "use another model, such as vae or vae-gan"
        )
    if model.can.labels:
        raise ConfigError(
            f"{type(model).__name__} must be told the class of a picture, which is what nobody knows of an anomaly; "
            "use another model"
        )
    if chosen not in scores_of(model):
        raise ConfigError(f"score={chosen!r} needs a Gaussian q(z|x); this model has {', '.join(scores_of(model))}")


def picture(detector: Detector, images: np.ndarray, folder: Path, title: str, chosen: str) -> Path:
    """The sheet of the worst images above their heat maps."""
    note = f"{plots.describe(detector.model)} · score {chosen} · below each image where the model is wrong"
    return plots.anomalies(images, detector.heat_map(images), folder / "anomalies.png", title, note)


__all__ = ["run", "try_threshold"]
