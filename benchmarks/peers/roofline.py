"""The roofline picture: what the machine allows at each arithmetic intensity, and how near every case comes.

Williams, Waterman & Patterson 2009: a kernel of so many operations per byte runs no faster than
min(multiply-add rate, intensity · copy rate).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.bench.job import OURS
from tinyvae.bench.report import Results, rate, thread_counts
from tinyvae.errors import DataError
from tinyvae.pictures.canvas import BLUE, GREEN, GREY, NOTE, ORANGE, TITLE, new_figure, save, style

MARKS = {"products": (BLUE, "o"), "convs": (ORANGE, "s"), "ops": (GREEN, "^")}
NAMES = {"products": "products", "convs": "convolutions", "ops": "ops at model size"}
LEAST_FLOPS = 1000  # a call that does less is all overhead, and would stretch the axes
LINE = 11  # points between two labels


def points(results: Results, dtype: str, threads: int) -> list[dict[str, Any]]:
    """{"x": operations per byte, "y": operations per second, "group", "label"} of every case that is worth a point.

    Ops without a name there: products and convolutions have points enough, and are told apart by their colour.
    """
    rows = [r for r in results["rows"] if r["bytes"] and (r["dtype"], r["threads"]) == (dtype, threads)]
    return [
        {
            "x": row["flops"] / row["bytes"],
            "y": row["flops"] / (row["times"][OURS]["us"] * 1e-6),
            "group": row["group"],
            "label": "" if row["use"] != "call" or row["name"].startswith(("dense", "conv2d")) else row["name"],
        }
        for row in rows
        if row["flops"] >= LEAST_FLOPS
    ]


def draw_roofline(results: Results, path: Path, dtype: str | None = None) -> Path:
    """One panel per number of threads; returns the path of the PNG."""
    dtypes = [r["dtype"] for r in results["rows"]]
    dtype = dtype or ("float32" if "float32" in dtypes else "float64")
    counts = [n for n in thread_counts(results) if rate(results, dtype, n, "fma") and points(results, dtype, n)]
    if not counts:
        raise DataError("there are no figures to draw; measure products, convs or ops first")
    with style():
        figure = new_figure(1100 * len(counts), 1000, layout="constrained")
        panels = [figure.add_subplot(1, len(counts), i + 1) for i in range(len(counts))]
        for axes, threads in zip(panels, counts, strict=True):
            _panel(axes, results, dtype, threads)
        figure.suptitle(f"Roofline, {dtype}", x=0.01, ha="left", fontsize=TITLE.size, fontweight="bold")
        figure.supxlabel(f"{results['machine']['cpu']}: both roofs measured in the same run. Above the slope: the "
                         "operands fit a cache.", x=0.01, ha="left", fontsize=NOTE.size, color=GREY)  # fmt: skip
        figure.draw_without_rendering()  # fixes the axes, so that labels can be kept apart in pixels
        for axes, threads in zip(panels, counts, strict=True):
            _label(axes, points(results, dtype, threads))
        return save(figure, path)


def _panel(axes: Any, results: Results, dtype: str, threads: int) -> None:
    fma, copy = (rate(results, dtype, threads, name) or 1.0 for name in ("fma", "copy"))
    found = points(results, dtype, threads)
    xs, ys = np.array([p["x"] for p in found]), np.array([p["y"] for p in found])
    left, right = xs.min() / 2, max(xs.max(), fma / copy) * 4
    x = np.geomspace(left, right, 200)
    axes.plot(x, np.minimum(fma, x * copy) / 1e9, color=GREY, lw=1.5)
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(ys.min() / 2e9, max(fma, ys.max()) * 2.5 / 1e9))
    for group, (color, marker) in MARKS.items():
        here = np.array([p["group"] == group for p in found])
        if here.any():
            axes.plot(xs[here], ys[here] / 1e9, marker, color=color, ms=5, alpha=0.8, label=NAMES[group])
    axes.annotate(f"multiply-add {fma / 1e9:.0f} GFLOP/s", (right, fma / 1e9), (-4, 4), textcoords="offset points",
                  ha="right", color=GREY, fontsize=8)  # fmt: skip
    at = left * 2
    axes.annotate(f"copy {copy / 1e9:.1f} GB/s", (at, at * copy / 1e9), (4, -12), textcoords="offset points",
                  color=GREY, fontsize=8)  # fmt: skip
    axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}")
    axes.set_xlabel("operations per byte of operands")
    axes.set_ylabel("GFLOP/s")
    axes.legend(loc="lower right")


def _label(axes: Any, found: list[dict[str, Any]]) -> None:
    """Names right of the ops' points, pushed up or down until none covers another."""
    named = sorted((p for p in found if p["label"]), key=lambda p: p["y"])
    placed: list[tuple[float, float, float]] = []  # left, right, height of labels, in pixels
    per_point = axes.figure.dpi / 72
    for p in named:
        x, y = axes.transData.transform((p["x"], p["y"] / 1e9))
        start, width = x + 6 * per_point, 4.8 * len(p["label"]) * per_point
        for shift in _outwards():
            height = y + shift * per_point
            clash = any(
                start < b and a < start + width and abs(height - h) < 0.8 * LINE * per_point for a, b, h in placed
            )
            if not clash:
                break
        placed.append((start, start + width, height))
        axes.annotate(
            p["label"], (p["x"], p["y"] / 1e9), (6, shift), textcoords="offset points", va="center", fontsize=7,
            color=GREY, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4} if shift else None,
        )  # fmt: skip


def _outwards() -> list[float]:
    """0, a line up, a line down, two up, …"""
    return [0.0, *(sign * step * LINE / 2 for step in range(1, 60) for sign in (1, -1))]
