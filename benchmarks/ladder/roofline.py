"""The ladder as a roofline: how fast each rung is, over how much arithmetic it makes of each byte it loads and stores
(Williams, Waterman and Patterson 2009; bytes counted at the core, as Ilic, Pratas and Sousa do, 2014).
"""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

X = 0.035, 40.0  # flop per byte
GAP = 0.135  # between the numbers of neighbours, in decades of GFLOP/s
BLUE, GREY, DARK = "#0072B2", "#8A8A8A", "#222222"
WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}


def spread(heights: list[float], gap: float) -> list[float]:
    """Heights moved apart to at least `gap`, in the same order and about the same middle; given in rising order."""
    groups = [[h, [h]] for h in heights]  # [middle, members]; groups that touch become one
    at = 0
    while at + 1 < len(groups):
        (low, below), (high, above) = groups[at], groups[at + 1]
        if high - low < gap * (len(below) + len(above)) / 2:
            members = below + above
            groups[at : at + 2] = [[sum(members) / len(members), members]]
            at = max(at - 1, 0)
        else:
            at += 1
    return [middle + gap * (i - (len(m) - 1) / 2) for middle, m in groups for i in range(len(m))]


def draw(figures: dict, path: Path) -> None:
    """The first number of threads of climb.py's figures of one size."""
    count, measured = next(iter(figures["threads"].items()))
    figure = Figure(figsize=(10, 7), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xscale="log", yscale="log", xlim=X, ylim=(0.003, 4 * measured["peak"]))
    axes.set_xlabel("flop per byte that the inner loop loads or stores")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(
        f"The ladder, {figures['size']} × {figures['size']} × {figures['size']}, float32, "
        f"{count} thread{'s' if count != '1' else ''}"
    )
    ticks = [2.0**e for e in range(-4, 6)]
    axes.set_xticks(ticks, [f"1/{round(1 / t)}" if t < 1 else f"{t:.0f}" for t in ticks])
    axes.set_xticks([], minor=True)
    ticks = [10.0**e for e in range(-2, 3)]
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    figure.draw_without_rendering()  # the slopes of names on screen need the final layout
    roofs(axes, measured)
    points(axes, figures, measured)
    figure.savefig(path)


def roofs(axes, measured: dict) -> None:
    """The peak, one slanted roof for each place that numbers come from, and NumPy's rate as a line."""
    peak, numpy = measured["peak"], measured["rungs"]["NumPy"]
    slowest = min(measured["bytes"].values())
    axes.plot([peak / max(measured["bytes"].values()), X[1]], [peak, peak], color=DARK, linewidth=1.6)
    axes.text(X[1] / 1.05, peak * 1.06, f"multiply-adds in registers: {peak:.0f} GFLOP/s", ha="right", va="bottom")
    axes.plot([peak / slowest, X[1]], [numpy, numpy], color=GREY, linewidth=1.0, linestyle="--")
    axes.text(X[1] / 1.05, numpy / 1.06, f"NumPy: {numpy:.0f}", ha="right", va="top", color="#555555")
    for place, (name, rate) in enumerate(measured["bytes"].items()):
        x = [X[0], peak / rate]
        axes.plot(x, [rate * v for v in x], color=DARK, linewidth=1.2)
        (x0, y0), (x1, y1) = axes.transData.transform([(1, 1), (10, 10)])
        angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
        start, below = X[0] * 1.08, place == 1  # the two caches' roofs lie close together: a name on either side
        axes.text(
            start, rate * start * (1 / 1.08 if below else 1.06), f"{name}: {rate:.0f} GB/s", rotation=angle,
            rotation_mode="anchor", ha="left", va="top" if below else "bottom", fontsize=9,
        )  # fmt: skip


def points(axes, figures: dict, measured: dict) -> None:
    """The rungs, each with its number; numbers of the same flop per byte are moved apart. Names stand in the corner."""
    columns: dict[float, list[tuple[float, str]]] = {}
    names = []
    for name, about in figures["rungs"].items():
        short, rate = name.lstrip("0").split("_")[0], measured["rungs"][name]
        size = "" if about["size"] == figures["size"] else f" (at {about['size']})"
        names.append(f"{short:>2}  {name[3:].replace('_', ' ').replace('python', 'Python') + size:<24}{rate:>8.3g}")
        columns.setdefault(about["flop_per_byte"], []).append((rate, short))
    for x, column in columns.items():
        column.sort()
        places = spread([math.log10(rate) for rate, _ in column], GAP)
        down = max(0.0, places[-1] - math.log10(measured["peak"]) + GAP / 2)  # the roof keeps its line to itself
        for (rate, short), place in zip(column, places, strict=True):
            axes.plot([x], [rate], "o", color=BLUE, markersize=7, zorder=4)
            axes.annotate(
                short, (x, rate), (x * 1.17, 10 ** (place - down)), va="center", ha="left", zorder=3, bbox=WHITE,
                arrowprops={"arrowstyle": "-", "color": BLUE, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
            )  # fmt: skip
    legend = "\n".join([f"{'rung':<28}{'GFLOP/s':>8}", *names])
    axes.text(
        0.98, 0.03, legend, transform=axes.transAxes, ha="right", va="bottom", family="monospace", linespacing=1.35,
        bbox=WHITE | {"edgecolor": "#CCCCCC", "pad": 6.0}, zorder=5,
    )  # fmt: skip
