"""The GPU's figures in words: a line for each case, training, and which bars are reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyvae.bench.job import OURS_ON_GPU, Variant
from tinyvae.bench.report import label, seconds

from .cuda_cases import BARS, Bar

Row = dict[str, Any]
Results = dict[str, Any]


def peers(row: Row, ours: str) -> dict[str, float]:
    """µs of the others that took part with as many bits."""
    tf32 = Variant.of(ours).tf32
    times = {name: t["us"] for name, t in row["times"].items() if Variant.of(name).library != OURS_ON_GPU}
    return {name: us for name, us in times.items() if Variant.of(name).tf32 == tf32}


def best(row: Row, ours: str) -> tuple[str, float] | None:
    """The fastest of them, and its µs."""
    found = peers(row, ours)
    return min(found.items(), key=lambda one: one[1]) if found else None


def rate(row: Row, us: float) -> str:
    """TFLOP/s, or TB/s where only memory counts."""
    if row["group"] == "memory":
        return f"{row['bytes'] / us / 1e6:.2f} TB/s"
    return f"{row['flops'] / us / 1e6:.1f} TFLOP/s"


def row_lines(row: Row, copy: float) -> list[str]:
    """A case: ours in each precision, beside the best peer and the other peers."""
    lines = []
    for ours in (name for name in row["times"] if Variant.of(name).library == OURS_ON_GPU):
        t, peer = row["times"][ours], best(row, ours)
        line = f"  {label(row):<38}{ours:<10}{t['us']:>10.1f} µs ±{t['spread']:>4.0%}  {rate(row, t['us']):>13}"
        if row["group"] == "memory" and copy:
            line += f"  {row['bytes'] / t['us'] * 1e6 / copy:.0%} of the copy rate"
        if peer:
            rest = [f"{n} {us:.1f}" for n, us in peers(row, ours).items() if n != peer[0]]
            line += f"  {peer[1] / t['us']:5.2f} of {peer[0]} {peer[1]:.1f}" + (f" ({', '.join(rest)})" if rest else "")
        lines.append(line)
    return lines


def reached(bar: Bar, results: Results) -> float | None:
    """What stands against a bar; None where it was not measured."""
    for row in results["rows"]:
        if label(row) == bar.name and bar.ours in row["times"]:
            us, peer = row["times"][bar.ours]["us"], best(row, bar.ours)
            if bar.copy:
                return row["bytes"] / us * 1e6 / results["copy"]
            return peer[1] / us if peer else None
    return None


def bar_lines(results: Results) -> list[str]:
    """Every bar: what it asks, what was found."""
    lines = []
    for bar in BARS:
        found = reached(bar, results)
        verdict = "not measured" if found is None else f"{found:.2f}  {'ok' if found >= bar.least else 'MISSED'}"
        against = "copy rate" if bar.copy else "PyTorch's best"
        lines.append(f"  {bar.name:<26}{bar.ours:<10} ≥ {bar.least:.2f} of {against:<15}{verdict}")
    return lines


def training_lines(training: Results) -> list[str]:
    """Seconds from the command to the last test −ELBO."""
    names = {"cold": "cuda, nothing compiled yet"}
    return [
        f"  {names.get(name, name):<38}{seconds(f['trained'])} to test −ELBO {f['neg_elbo']}, first step at "
        f"{seconds(f['first_step'])}"
        for name, f in training.items()
        if name != "epochs"
    ]


def groups(rows: Sequence[Row]) -> list[str]:
    """The groups that were measured."""
    return list(dict.fromkeys(row["group"] for row in rows))


def text(results: Results) -> str:
    """Everything, the bars last."""
    about, copy = results["machine"], results.get("copy", 0.0)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    lines = [f"{about['gpu']}; {versions}", f"copy rate {copy / 1e12:.2f} TB/s; ratio = best peer's time / ours"]
    for group in groups(results["rows"]):
        lines += [group, *(line for row in results["rows"] if row["group"] == group for line in row_lines(row, copy))]
    if "training" in results:
        lines += [f"training, {results['training']['epochs']} epochs", *training_lines(results["training"])]
    return "\n".join([*lines, *results["notes"], "bars", *bar_lines(results)])
