"""Points and curves: codes by label, and the log of a training run.
It knows codes and logged rows; sheets of images are plots'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..config import require_int
from ..errors import DataError
from ..models import Model
from .canvas import (
    BLACK,
    BLUE,
    DPI,
    GREEN,
    GREY,
    NOTE,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    TITLE,
    YELLOW,
    PathLike,
    describe,
    new_figure,
    save,
    style,
)

SCATTER_POINTS = 5000
# Okabe-Ito, then a grey and a brown that differ from all eight in lightness; each class has a marker of its own too
CLASS_COLORS = (BLUE, ORANGE, GREEN, RED, SKY, PURPLE, BLACK, "#999999", "#7A4B1E", YELLOW)
CLASS_MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")
MANY_CLASSES = 30  # more different labels than this are shown as numbers, by a colour scale

# ---------------------------------------------------------------------------------------------- codes


def latent_scatter(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray | None,
    path: PathLike,
    names: Sequence[str] | None = None,
    limit: int = SCATTER_POINTS,
) -> Path:
    """The codes z_mean of the first `limit` images as points, one colour and marker per label.

    With more than two latent dimensions: their first two principal components. labels: whole numbers (N,), or None.
    names: one per class. A VAE's prior is drawn as the two circles that hold half and 95 % of it. A conditional model
    is told the labels.
    """
    require_int("limit", limit, 1)
    told = labels[:limit] if model.can.labels and labels is not None else None
    codes = model.encode(images[:limit], told)[0].astype(np.float64)
    if not len(codes):
        raise DataError("images holds no image whose code could be shown; pass at least one")
    if labels is not None:
        labels = _check_labels(np.asarray(labels)[:limit], len(codes), names)
    points, axis_names, origin = _to_plane(codes, "z_mean" if model.can.posterior else "z")
    if model.latent_dim == 1 and labels is not None:  # one strip per class
        points[:, 1] = 0.8 * points[:, 1] + np.unique(labels, return_inverse=True)[1]
    with style():
        figure = new_figure(1150, 1000, layout="constrained")
        axes = figure.add_subplot()
        if model.can.posterior and model.latent_dim > 1:
            _prior_circles(axes, origin)
        _draw_classes(figure, axes, points, labels, names)
        axes.set_xlabel(axis_names[0])
        axes.set_ylabel(axis_names[1])
        if model.latent_dim > 1:
            axes.set_aspect("equal", adjustable="datalim")
        else:
            axes.set_yticks([])
        of = "" if labels is None else " by label"
        _heading(axes, f"Codes of {len(codes):,} images{of}", describe(model))
        return save(figure, path)


def _check_labels(labels: np.ndarray, count: int, names: Sequence[str] | None) -> np.ndarray:
    if labels.shape != (count,):
        raise DataError(f"labels has shape {labels.shape} for {count} images; pass one label per image")
    if names is not None and not all(0 <= label < len(names) for label in np.unique(labels)):
        raise DataError(f"names holds {len(names)} names, for labels from {labels.min()} to {labels.max()}")
    return labels


def _heading(axes: Axes, title: str, note: str) -> None:
    axes.set_title(title, fontsize=TITLE.size, pad=18)
    axes.text(0, 1.004, note, transform=axes.transAxes, va="bottom", fontsize=NOTE.size, color=GREY)


def _to_plane(codes: np.ndarray, z: str) -> tuple[np.ndarray, tuple[str, str], np.ndarray]:
    """Points (N, 2), what their axes are, and where in the plane z = 0 lies."""
    N, latent = codes.shape
    if latent == 2:
        return codes, (f"{z}[0]", f"{z}[1]"), np.zeros(2)
    if latent == 1:  # spread over the height, evenly and in no order that means anything
        return np.stack([codes[:, 0], (np.arange(N) * 0.6180339887) % 1], axis=1), (f"{z}[0]", ""), np.zeros(2)
    centre = codes.mean(axis=0)
    values, vectors = np.linalg.eigh((codes - centre).T @ (codes - centre) / N)
    axes = vectors[:, ::-1][:, :2]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])  # eigenvectors come with either sign
    share = values[::-1][:2] / max(values.sum(), 1e-30)
    first, second = (
        f"{name} principal component of {z} ({100 * s:.0f} % of its variance)"
        for name, s in zip(("first", "second"), share, strict=True)
    )
    return (codes - centre) @ axes, (first, second), -centre @ axes


def _prior_circles(axes: Axes, origin: np.ndarray) -> None:
    """A share p of N(0, I) in the plane lies within √(−2 ln(1 − p)) of its centre."""
    angle = np.linspace(0, 2 * np.pi, 200)
    for share, name in ((0.5, "50 % of the prior"), (0.95, "95 % of the prior")):
        radius = np.sqrt(-2 * np.log(1 - share))
        axes.plot(
            origin[0] + radius * np.cos(angle), origin[1] + radius * np.sin(angle), "--", color=GREY, lw=1, zorder=3
        )
        axes.annotate(
            name, (origin[0], origin[1] + radius), (0, 2), textcoords="offset points", ha="center", fontsize=8,
            color=GREY, zorder=4, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip


def _draw_classes(
    figure: Figure, axes: Axes, points: np.ndarray, labels: np.ndarray | None, names: Sequence[str] | None
) -> None:
    size = float(np.clip(30_000 / len(points), 8, 40))
    if labels is None:
        axes.scatter(points[:, 0], points[:, 1], size, color=BLUE, alpha=0.5, linewidths=0)
        return
    classes = np.unique(labels)
    if len(classes) > MANY_CLASSES:
        dots = axes.scatter(points[:, 0], points[:, 1], size, c=labels, cmap="viridis", alpha=0.7, linewidths=0)
        figure.colorbar(dots, ax=axes, label="label", shrink=0.6)
        return
    middles = []
    words = [str(label) if names is None else str(names[int(label)]) for label in classes]
    for i, label in enumerate(classes):
        x, y = points[labels == label].T
        color, marker = CLASS_COLORS[i % 10], CLASS_MARKERS[(i + i // 10) % 10]
        axes.scatter(x, y, size, color=color, marker=marker, alpha=0.6, linewidths=0, label=words[i])
        middles.append((np.median(x), np.median(y)))
    span = max(axes.dataLim.width, axes.dataLim.height)
    for i, (x, y) in enumerate(_apart(np.array(middles), 0.045 * span)):
        box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": CLASS_COLORS[i % 10], "linewidth": 2}
        axes.text(x, y, words[i], fontsize=10, fontweight="bold", ha="center", va="center", zorder=5, bbox=box)
    legend = axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="label")
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set(alpha=1, sizes=[45])


def _apart(places: np.ndarray, distance: float) -> np.ndarray:
    """The places (n, 2), those nearer than `distance` pushed apart, so that labels there can be read."""
    places = places.astype(np.float64)
    for _ in range(100):
        moved = False
        for i, j in combinations(range(len(places)), 2):
            gap = places[j] - places[i]
            length = float(np.hypot(*gap))
            if length < 0.999 * distance:
                step = (gap / length if length > 0 else np.array([1.0, 0.0])) * (distance - length) / 2
                places[i], places[j], moved = places[i] - step, places[j] + step, True
        if not moved:
            break
    return places


# ---------------------------------------------------------------------------------------------- training


FIGURE_TITLES = {
    "loss": "loss", "neg_elbo": "−ELBO", "recon": "reconstruction", "kl": "KL divergence", "rmse": "RMSE",
    "loss_d": "the discriminator's loss", "loss_g": "the generator's loss", "d_real": "D of true ones",
    "d_recon": "D of reconstructions", "d_fake": "D of made ones",
}  # fmt: skip
FIGURE_COLORS = {
    "loss": BLACK, "neg_elbo": PURPLE, "recon": BLUE, "kl": RED, "rmse": GREEN, "loss_d": BLUE, "loss_g": RED,
    "d_real": BLUE, "d_recon": GREEN, "d_fake": RED,
}  # fmt: skip
UNITS = {"rmse": "pixels, 0 to 1"} | dict.fromkeys(("d_real", "d_recon", "d_fake"), "geometric mean")
PART_WORDS = {
    "train": "dashed: training, mean over the epoch",
    "validation": "dotted: validation, at its end",
    "test": "solid: test, at its end",
}
LABEL_PIXELS = 20
PART_LINES = {"train": (0, (4, 2)), "validation": (0, (1, 1.5)), "test": "-"}


def loss_curves(rows: Sequence[Mapping[str, Any]], path: PathLike) -> Path:
    """The loss and its parts by epoch, from rows of a log: train dashed, validation dotted, test solid.

    A row is {"epoch", "train": {"loss", "recon", …}, "test": {the same}, …}; of two for one epoch the later counts.
    Figures equal to the loss in every row are drawn once. `train` is a mean over the epoch while the model learned.
    """
    if not len(rows):
        raise DataError("rows holds no epoch to draw; train for at least one")
    log = [row for _, row in sorted({int(r["epoch"]): r for r in rows}.items())]
    parts = [p for p in PART_LINES if any(p in r for r in log)]
    if not parts or not any(len(r[p]) for r in log for p in parts if p in r):
        raise DataError(
            f"rows hold no figures under {', '.join(map(repr, PART_LINES))}; are these rows of metrics.jsonl?"
        )
    figures = _different(log, parts)
    with style():
        columns = 2 if len(figures) in (2, 4) else min(3, len(figures))
        lines = -(-len(figures) // columns)
        figure = new_figure(max(760, 540 * columns), 120 + 480 * lines, layout="constrained")
        panels = [figure.add_subplot(lines, columns, i + 1) for i in range(len(figures))]
        for axes, name in zip(panels, figures, strict=True):
            _curves(axes, log, parts, name)
        epochs = f"{log[-1]['epoch']} epoch" + ("s" if log[-1]["epoch"] != 1 else "")
        figure.suptitle(f"Training, {epochs}", x=0.01, ha="left", fontsize=TITLE.size, fontweight="bold")
        words = " · ".join(PART_WORDS[part] for part in parts)
        figure.supxlabel(words, x=0.01, ha="left", fontsize=NOTE.size, color=GREY)
        figure.draw_without_rendering()  # fixes the axes, so that labels can be kept apart in pixels
        for axes, name in zip(panels, figures, strict=True):
            _label_ends(axes, log, parts, name)
        return save(figure, path)


def _different(log: Sequence[Mapping[str, Any]], parts: Sequence[str]) -> list[str]:
    """The names of the figures, without those that say the same as the loss."""
    first = next(r[p] for r in log for p in parts if p in r)

    def column(name: str) -> np.ndarray:
        return np.array([r[p].get(name, np.nan) for r in log for p in parts if p in r], float)

    same = {n for n in first if np.allclose(column(n), column("loss"), rtol=1e-6, equal_nan=True)} - {"loss"}
    return [name for name in first if name not in same]


def _curve(log: Sequence[Mapping[str, Any]], part: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    epochs = np.array([r["epoch"] for r in log if part in r], float)
    return epochs, np.array([r[part].get(name, np.nan) for r in log if part in r], float)


def _curves(axes: Axes, log: Sequence[Mapping[str, Any]], parts: Sequence[str], name: str) -> None:
    for part in parts:
        epochs, values = _curve(log, part, name)
        marker = "o" if len(epochs) <= 15 else None
        color = FIGURE_COLORS.get(name, ORANGE)
        axes.plot(epochs, values, linestyle=PART_LINES[part], color=color, marker=marker, markersize=4)
    axes.set_title(FIGURE_TITLES.get(name, name))
    axes.set_xlabel("epoch")
    axes.set_ylabel(UNITS.get(name, "nats per image" if name in FIGURE_TITLES else ""))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    first, last = float(log[0]["epoch"]), float(log[-1]["epoch"])
    margin = 0.04 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)


def _label_ends(axes: Axes, log: Sequence[Mapping[str, Any]], parts: Sequence[str], name: str) -> None:
    """Part and last value right of each line's end, moved apart where they would cover each other."""
    ends = []
    for part in parts:
        epochs, values = _curve(log, part, name)
        if np.isfinite(values).any():
            last = np.flatnonzero(np.isfinite(values))[-1]
            height = axes.transData.transform((epochs[last], values[last]))[1]
            ends.append((height, epochs[last], values[last], f"{part} {values[last]:.4g}".replace("-", "−")))
    ends.sort()
    heights = [height for height, *_ in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + LABEL_PIXELS)
    lift = (sum(heights) - sum(height for height, *_ in ends)) / max(1, len(ends))  # apart to both sides, not up only
    for wanted, (height, x, y, text) in zip(heights, ends, strict=True):
        shift = (wanted - lift - height) * 72 / DPI
        axes.annotate(
            text, (x, y), (7, shift), textcoords="offset points", va="center", fontsize=8,
            color=FIGURE_COLORS.get(name, ORANGE), annotation_clip=False,
        )  # fmt: skip
