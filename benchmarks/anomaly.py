"""Anomalies by the two protocols of the field, on MNIST or Fashion-MNIST: one class left out, one against the rest.
A file for each class is kept in --work: a stopped run goes on, and a model added to the table below is trained alone.
--report makes the tables of what every class has."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results"
VALIDATION = 0.1  # share of the training images that no model sees: they choose the score
VALIDATED = 2000  # of them at most so many, half of them anomalies
SEEDS, RATES = 20, (0.01, 0.05)


class Setting(NamedTuple):
    """How a model is made and trained."""

    latent_dim: int
    hidden: tuple[int, ...]
    likelihood: str
    sigma: float
    epochs: int
    lr: float
    equal_norm: bool


MODELS: dict[str, dict[str, Setting]] = {
    "only": {"z = 20": Setting(20, (400,), "gaussian", 0.2, 25, 1e-3, False)},
    "leave-out": {
        "z = 2, equal norm": Setting(2, (400,), "gaussian", 0.05, 8, 2e-3, True),
        "z = 2, equal norm, 512-256": Setting(2, (512, 256), "gaussian", 0.05, 12, 2e-3, True),
        "z = 32, equal norm": Setting(32, (400,), "gaussian", 0.08, 5, 2e-3, True),
    },
}
TITLES = {"only": "One class against the rest", "leave-out": "One class left out"}
PUBLISHED = {
    "only": "Published, mean over the digits: 1-NN .975.",
    "leave-out": "Published, −ELBO, mean over the digits: .855 at z = 2, .718 at z = 32 (Tonnaer, thesis, table 3.3), "
    "of images as they are.\n"
    "The network 784-512-256-2 was added after the test figures of the smaller one had been seen.",
}


def main() -> None:
    """Options in, files out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist", choices=("mnist", "fashion-mnist"))
    parser.add_argument("--protocol", default="only", choices=tuple(MODELS))
    parser.add_argument("--classes", default="0,1,2,3,4,5,6,7,8,9")
    parser.add_argument("--work", type=Path, default=Path("runs/anomaly-benchmark"), help="a file for each class")
    parser.add_argument("--threads", default="1")
    parser.add_argument("--report", action="store_true", help="write results/anomaly.json and .md, and train nothing")
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = options.threads
    options.work.mkdir(parents=True, exist_ok=True)
    if options.report:
        report(options.work)
        return
    for label in map(int, options.classes.split(",")):
        path = options.work / f"{options.data}_{options.protocol}_{label}.json"
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if missing := [m for m in MODELS[options.protocol] if m not in found.get("alarms", {})]:
            found = one_class(options.data, options.protocol, label, found, missing)
            temporary = path.with_suffix(".part")
            temporary.write_text(json.dumps(found, indent=1), "utf-8")
            temporary.replace(path)
        print(path, file=sys.stderr, flush=True)


def one_class(name: str, protocol: str, label: int, found: dict[str, Any], missing: list[str]) -> dict[str, Any]:
    """What was found about one class, and what was missing: baselines; models' scores and alarms."""
    import numpy as np

    from tinyvae import datasets
    from tinyvae.app.anomaly import try_threshold
    from tinyvae.measure import anomaly

    start, data = time.process_time(), datasets.load(name)
    case = (anomaly.one_against_rest if protocol == "only" else anomaly.leave_one_out)(data, label)
    order = np.random.Generator(np.random.Philox(0)).permutation(len(data.train_images))
    cut, normal = round(len(order) * (1 - VALIDATION)), (data.train_labels == label) == (protocol == "only")
    fit, held = order[:cut][normal[order[:cut]]], order[cut:]
    held = np.concatenate([held[normal[held] == kind][: VALIDATED // 2] for kind in (True, False)])
    figures, validation, alarms = (dict(found.get(key, {})) for key in ("figures", "validation", "alarms"))
    if not found:
        figures |= anomaly.judge(anomaly.baseline_scores(case.normal, case.test), case.anomalous)
    for model_name in missing:
        setting = MODELS[protocol][model_name]
        detector, view = fitted(data.train_images[fit], setting, data.train_images[held[:500]])
        scores = detector.score(view(case.test))
        figures |= {f"{model_name}: {s}": row for s, row in anomaly.judge(scores, case.anomalous).items()}
        seen = anomaly.judge(detector.score(view(data.train_images[held])), ~normal[held])
        validation |= {f"{model_name}: {s}": row["auroc"] for s, row in seen.items()}
        fresh = scores["joint"][~case.anomalous]
        alarms[model_name] = [try_threshold(fresh, rate, seed) for rate in RATES for seed in range(SEEDS)]
    return {
        "data": name, "protocol": protocol, "class": label, "figures": figures, "validation": validation,
        "alarms": alarms, "fitted_on": len(fit),
        "cpu_seconds": round(found.get("cpu_seconds", 0) + time.process_time() - start, 1),
    }  # fmt: skip


def fitted(normal: Any, setting: Setting, shown: Any) -> tuple[Any, Callable[[Any], Any]]:
    """A detector whose model was trained on `normal`, and the function that makes an image what that model takes."""
    from tinyvae import datasets, zoo
    from tinyvae.measure import anomaly
    from tinyvae.training import trainer

    view = anomaly.equal_norm if setting.equal_norm else lambda x: x
    shape, s = tuple(normal.shape[1:]), setting
    model = zoo.build("vae", shape, s.latent_dim, s.hidden, s.likelihood, s.sigma)
    data = datasets.as_dataset(view(normal), test_images=view(shown))
    trainer.train(model, data, epochs=s.epochs, schedule="cosine", lr=s.lr, progress=False)
    return anomaly.Detector(model, view(normal)), view


# ---------------------------------------------------------------------------------------------- report


def report(work: Path) -> None:
    """Tables of everything in `work`."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in sorted(work.glob("*.json")):
        row = json.loads(path.read_text("utf-8"))
        groups.setdefault((row["data"], row["protocol"]), []).append(row)
    summaries, text = [], ["# Anomalies\n", "`benchmarks/anomaly.py` made these tables.\n"]
    for (data, protocol), rows in sorted(groups.items(), reverse=True):
        summary = summarise(rows)
        summaries.append({"data": data, "protocol": protocol, **summary, "classes": rows})
        text += section(data, protocol, rows, summary)
    settings = {p: {m: s._asdict() for m, s in models.items()} for p, models in MODELS.items()}
    content = json.dumps({"models": settings, "groups": summaries}).replace('{"data"', '\n{"data"')  # a class to a line
    (RESULTS / "anomaly.json").write_text(content + "\n", "utf-8")
    (RESULTS / "anomaly.md").write_text("\n".join(text).rstrip() + "\n", "utf-8")


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the classes, the score that the other classes' validation images choose for each, and the alarms."""
    kinds = ("auroc", "aupr")
    names = set.intersection(*(set(r["figures"]) for r in rows))
    means = {n: {f: mean(r["figures"][n][f] for r in rows) for f in kinds} for n in sorted(names)}
    chosen = {}
    for row in rows:
        others = [r for r in rows if r is not row] or rows
        on_others = {n: mean(r["validation"][n] for r in others) for n in sorted(names & set(row["validation"]))}
        chosen[row["class"]] = max(on_others, key=lambda n: on_others[n])
    best = {f: mean(r["figures"][chosen[r["class"]]][f] for r in rows) for f in kinds}
    tried = [a for r in rows for runs in r["alarms"].values() for a in runs]
    alarms = {}
    for rate in RATES:
        those = [a for a in tried if a["alpha"] == rate]
        inside = sum(a["low"] <= a["alarms"] <= a["high"] for a in those)
        found = mean(a["alarms"] / a["fresh"] for a in those)
        alarms[f"{rate:g}"] = {"tried": len(those), "inside": inside, "mean_rate": found}
    return {"mean": means, "chosen": chosen, "best": best, "alarms": alarms}


def mean(values: Iterable[float]) -> float:
    """The mean of some numbers."""
    values = list(values)
    return sum(values) / len(values)


def section(data: str, protocol: str, rows: list[dict[str, Any]], summary: dict[str, Any]) -> list[str]:
    """One protocol as markdown: each score by class, the means, the choice and the false alarms."""
    head = ["score", *(str(r["class"]) for r in rows), "mean AUROC", "mean AUPR"]
    lines = [f"## {TITLES[protocol]}: {data}\n", "AUROC on the whole test part, for each class, and means.\n"]
    lines += [line(head), "|" + "---|" * len(head)]
    for name in sorted(summary["mean"], key=lambda n: -summary["mean"][n]["auroc"]):
        lines.append(line([name, *row_of(rows, [name] * len(rows)), *numbers(summary["mean"][name])]))
    chosen = [summary["chosen"][r["class"]] for r in rows]
    bold = [f"**{text}**" for text in ("chosen on validation images", *numbers(summary["best"]))]
    lines.append(line([bold[0], *row_of(rows, chosen), *bold[1:]]))
    lines.append(
        f"\nChosen for each class: the score with the best mean AUROC on the *other* classes' problems, on "
        f"{VALIDATION:.0%} of the training images,\nwhich no model saw; never on test images. It was "
        f"{' or '.join(f'`{n}`' for n in sorted(set(chosen)))}."
    )
    if data == "mnist":
        lines.append(PUBLISHED[protocol])
    for rate, a in summary["alarms"].items():
        lines.append(
            f"\nThreshold of `joint` at a stated {100 * float(rate):g} % of false alarms, calibration and test drawn "
            f"from one shuffled pool of normal test images,\n{SEEDS} seeds for each class and model: {a['inside']} of "
            f"{a['tried']} inside the central 99.9 % of the beta-binomial, mean rate {100 * a['mean_rate']:.2f} %."
        )
    return [*lines, f"\n{sum(r['cpu_seconds'] for r in rows) / 60:.0f} minutes of one core.\n"]


def row_of(rows: list[dict[str, Any]], names: list[str]) -> list[str]:
    """The AUROC of one score for each class."""
    return [f"{row['figures'][name]['auroc']:.3f}" for row, name in zip(rows, names, strict=True)]


def numbers(figures: dict[str, float]) -> list[str]:
    """Two means as text."""
    return [f"{figures[name]:.4f}" for name in ("auroc", "aupr")]


def line(cells: list[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
