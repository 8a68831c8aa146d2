"""The two protocols of the field on labelled data: leave one class out, and one class against the rest.
They know images, labels and scores; models are trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...datasets import Dataset
from ...errors import ConfigError, DataError
from .baselines import PCA, NearestNeighbour
from .figures import aupr, auroc

BASELINES = ("pca", "nearest_neighbour")


@dataclass(frozen=True)
class Case:
    """Normal images to fit on, and test images of which `anomalous` (N,) says which do not belong."""

    name: str
    normal: np.ndarray
    test: np.ndarray
    anomalous: np.ndarray


def leave_one_out(data: Dataset, label: int) -> Case:
    """All classes but one are normal; the one left out is the anomaly. The whole test part is judged."""
    train, test = _labels(data, label)
    return Case(
        f"all but {class_name(data, label)}", data.train_images[train != label], data.test_images, test == label
    )


def one_against_rest(data: Dataset, label: int) -> Case:
    """One class is normal, all others are anomalies. The whole test part is judged."""
    train, test = _labels(data, label)
    return Case(f"only {class_name(data, label)}", data.train_images[train == label], data.test_images, test != label)


def class_name(data: Dataset, label: int) -> str:
    """The class as people call it."""
    return str(label) if data.label_names is None else data.label_names[label]


def class_of(data: Dataset, text: str) -> int:
    """The label that `text` means, a class's number or its name; a ConfigError lists what there is."""
    if data.train_labels is None:
        raise ConfigError(f"{data.name} has no labels; put each class's pictures into a sub-folder of its own")
    classes = [int(c) for c in np.unique(data.train_labels)]
    names = {class_name(data, c): c for c in classes} | {str(c): c for c in classes}
    if text not in names:
        known = ", ".join(class_name(data, c) for c in classes[:20])
        raise ConfigError(f"{data.name} has no class {text!r}; its classes are {known}")
    return names[text]


def judge(scores: Mapping[str, np.ndarray], anomalous: np.ndarray) -> dict[str, dict[str, float]]:
    """{name: {"auroc", "aupr"}} of several scores (N,) of the same images."""
    return {name: {"auroc": auroc(s, anomalous), "aupr": aupr(s, anomalous)} for name, s in scores.items()}


def baseline_scores(normal: np.ndarray, images: np.ndarray) -> dict[str, np.ndarray]:
    """The baselines' scores (N,) of `images`, each fitted on `normal`."""
    return dict(zip(BASELINES, (PCA(normal).score(images), NearestNeighbour(normal).score(images)), strict=True))


def table(figures: Mapping[str, Mapping[str, float]], chosen: str) -> str:
    """Lines of name, AUROC and AUPR, the best AUROC first; the score in use has a star."""
    width = max(map(len, figures)) + 2
    lines = [f"{'score':<{width}}AUROC   AUPR"]
    for name, row in sorted(figures.items(), key=lambda item: -item[1]["auroc"]):
        lines.append(f"{name + (' *' if name == chosen else ''):<{width}}{row['auroc']:.4f}  {row['aupr']:.4f}")
    return "\n".join(lines)


def _labels(data: Dataset, label: int) -> tuple[np.ndarray, np.ndarray]:
    if data.train_labels is None or data.test_labels is None:
        raise DataError(f"{data.name} has no labels, so no class can be the anomaly")
    for part, labels in (("training", data.train_labels), ("test", data.test_labels)):
        inside = int((labels == label).sum())
        if not 0 < inside < len(labels):
            raise DataError(f"class {label} holds {inside} of {len(labels)} {part} images; it needs some, and not all")
    return data.train_labels, data.test_labels


__all__ = [
    "BASELINES", "Case", "baseline_scores", "class_name", "class_of", "judge", "leave_one_out", "one_against_rest",
    "table",
]  # fmt: skip
