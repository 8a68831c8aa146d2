"""Figures in words: the table on the terminal, the short one in the README, the file of all figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .job import OURS
from .startup import BAR

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
LIBRARIES = {"NumPy": ("numpy",), "PyTorch": ("torch",), "JAX": ("jax",)}

Row = dict[str, Any]
Results = dict[str, Any]


# ---------------------------------------------------------------------------------------------- figures


def best(row: Row, prefixes: tuple[str, ...] = ("",)) -> tuple[str, float] | None:
    """The fastest peer whose name begins so, and its µs; None where there is none."""
    peers = [(t["us"], name) for name, t in row["times"].items() if name != OURS and name.startswith(prefixes)]
    return (min(peers)[1], min(peers)[0]) if peers else None


def ratio(row: Row, prefixes: tuple[str, ...] = ("",)) -> float | None:
    """The fastest such peer's time / ours: above 1 we lead."""
    peer = best(row, prefixes)
    return peer[1] / row["times"][OURS]["us"] if peer else None


def label(row: Row) -> str:
    """The case in a few words."""
    return row["name"] if row["use"] in ("call", "step") else f"{row['name']} {row['use']}"


def geometric(rows: Sequence[Row], prefixes: tuple[str, ...]) -> tuple[float, float, str] | None:
    """Geometric mean of the ratios, the worst ratio, and its case; None where no row has such a peer."""
    found = [(r, label(row)) for row in rows if (r := ratio(row, prefixes)) is not None]
    if not found:
        return None
    worst = min(found)
    return math.exp(sum(math.log(r) for r, _ in found) / len(found)), worst[0], worst[1]


def rate(results: Results, dtype: str, threads: int, name: str) -> float | None:
    """The machine's measured rate: "fma" in operations, "copy" in bytes, per second."""
    value = results.get("rates", {}).get(dtype, {}).get(str(threads), {}).get(name)
    return None if value is None else float(value)


def select(results: Results, group: str, dtype: str, threads: int) -> list[Row]:
    """Rows of a group."""
    return [r for r in results["rows"] if (r["group"], r["dtype"], r["threads"]) == (group, dtype, threads)]


def thread_counts(results: Results) -> list[int]:
    """Thread counts that were measured, in order."""
    return sorted({r["threads"] for r in results["rows"]})


# ---------------------------------------------------------------------------------------------- the long table


def text(results: Results) -> str:
    """Everything, for a terminal."""
    lines = [heading(results), ""]
    for dtype in dict.fromkeys(r["dtype"] for r in results["rows"]):
        for group in dict.fromkeys(r["group"] for r in results["rows"]):
            for threads in thread_counts(results):
                rows = select(results, group, dtype, threads)
                lines += [*group_lines(results, group, dtype, threads, rows), ""] if rows else []
    if results.get("startup"):
        lines += [*startup_lines(results["startup"]), ""]
    return "\n".join([*lines, *results.get("notes", [])]).rstrip()


def heading(results: Results) -> str:
    """Machine and versions."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''}"
    return f"{machine['cpu']}, {cores}, {machine['system']}, vectors {machine['vectors']}; {versions}"


def group_lines(results: Results, group: str, dtype: str, threads: int, rows: Sequence[Row]) -> list[str]:
    """One group at one number of threads: a line per case, then means and worst cases."""
    fma, memory = (rate(results, dtype, threads, name) for name in ("fma", "copy"))
    peers = list(dict.fromkeys(name for row in rows for name in row["times"] if name != OURS))
    roofs = f"multiply-add {fma / 1e9:.0f} GFLOP/s, copy {memory / 1e9:.1f} GB/s" if fma and memory else "no rates"
    title = f"{group}, {dtype}, {threads} thread{'s' if threads > 1 else ''}: {roofs}; ratio = peer's time / ours"
    width = max(len(label(row)) for row in rows) + 2
    widths = [max(18, len(peer) + 2) for peer in peers]
    head = f"{'case':<{width}}{'µs':>10}{'±':>6}{'GFLOP/s':>9}{'peak':>6}{'GB/s':>8}"
    lines = [title, head + "".join(f"{p:>{w}}" for p, w in zip(peers, widths, strict=True))]
    for row in rows:
        ours, cells = row["times"][OURS], []
        flops, moved = row["flops"] / ours["us"] / 1e3, row["bytes"] / ours["us"] / 1e3
        for peer, w in zip(peers, widths, strict=True):
            t = row["times"].get(peer)
            cells.append(f"{t['us']:.1f} {t['us'] / ours['us']:6.2f}×".rjust(w) if t else "–".rjust(w))
        share, gbytes = f"{flops * 1e9 / fma:.0%}" if fma else "–", f"{moved:.1f}" if moved else "–"
        figures = f"{ours['us']:>10.1f}{ours['spread']:>6.0%}{flops:>9.1f}{share:>6}{gbytes:>8}"
        lines.append(f"{label(row):<{width}}{figures}" + "".join(cells))
    return lines + mean_lines(rows) + floor_lines(rows, fma)


def mean_lines(rows: Sequence[Row]) -> list[str]:
    """Geometric mean and worst case against each library."""
    lines = []
    for library, prefixes in LIBRARIES.items():
        if found := geometric(rows, prefixes):
            lines.append(f"against {library}: geometric mean {found[0]:.2f}, worst {found[1]:.2f} ({found[2]})")
    return lines


def floor_lines(rows: Sequence[Row], fma: float | None) -> list[str]:
    """For training steps: the time that their products would take at the measured rate, and the best peer."""
    lines = []
    for row in rows:
        peer = best(row)
        if row["use"] == "step" and fma and peer:
            ours, floor = row["times"][OURS]["us"] / 1e3, row["flops"] / fma * 1e3
            lines.append(
                f"{row['name']}: {ours:.2f} ms; best peer {peer[0]} {peer[1] / 1e3:.2f} ms, ratio "
                f"{peer[1] / 1e3 / ours:.2f}; floor of its products {floor:.2f} ms"
            )
    return lines


def seconds(value: float | None) -> str:
    """Seconds, or a dash."""
    return "–" if value is None else f"{value:.2f} s"


def mebibytes(value: float | None) -> str:
    """Memory, or a dash."""
    return "–" if value is None else f"{value / 2**20:.0f} MiB"


def startup_lines(startup: Results) -> list[str]:
    """Start-up, memory, and the time to the bar."""
    lines = [f"start-up of tinyvae train --device numba, {startup['threads']} threads"]
    for part in ("cold", "warm"):
        f = startup[part]
        lines.append(
            f"  {part} cache: first line {seconds(f['first_line'])}, training begun {seconds(f['first_step'])}"
        )
    sides = [("tinyvae", startup)]
    sides += [(name, startup[name]) for name in ("torch", "torch-compiled") if name in startup]
    for name, side in sides:
        whole = side["whole"]
        reached = f"after {whole['to_bar_epochs']} epochs" if whole["to_bar"] else f"not in {startup['epochs']} epochs"
        lines.append(
            f"  {name}: peak memory of one epoch {mebibytes(side['warm']['peak_bytes'])}, "
            f"test −ELBO ≤ {BAR:g} {reached}, {seconds(whole['to_bar'])} (last {whole['neg_elbo']})"
        )
    return lines


# ---------------------------------------------------------------------------------------------- the short table


def table(results: Results) -> str:
    """The README's block, without its markers: one line per figure that counts, a column per number of threads."""
    counts = thread_counts(results)
    heads = [f"{n} thread{'s' if n > 1 else ''}" for n in counts]
    lines = [f"| {' | '.join(['float32; ratio = peer’s time / ours, above 1 tinyvae leads', *heads])} |"]
    lines.append("|---" * (1 + len(counts)) + "|")
    for name, group, prefixes, keep in SUMMARIES:
        cells = [_summary([r for r in select(results, group, "float32", n) if keep in r["name"]], prefixes)
                 for n in counts]  # fmt: skip
        lines += _line(name, cells)
    lines += _line("1024³, share of the measured multiply-add rate", [_share(results, n) for n in counts])
    for name, model in STEPS.items():
        cells = [_step([r for r in results["rows"] if (r["name"], r["dtype"], r["threads"]) == (name, "float32", n)])
                 for n in counts]  # fmt: skip
        lines += _line(f"{model}, one training step, batch 128", cells)
    lines += ["", f"{heading(results)}."]
    how = "medians of interleaved calls, each library in processes of its own, every result verified first."
    lines += [f"`{results['command']}`: {how}"]
    if results.get("startup"):
        lines += ["", *_startup_table(results["startup"])]
    return "\n".join(lines)


STEPS = {
    "dense step": "dense VAE", "conv step": "conv VAE", "GAN step": "GAN", "VAE-GAN step": "VAE-GAN", "AAE step": "AAE",
}  # fmt: skip
SUMMARIES = (
    ("products of the two VAEs and 512³, 1024³, against PyTorch", "products", ("torch",), ""),
    ("the same against NumPy", "products", ("numpy",), ""),
    ("convolutions, against PyTorch in its better layout", "convs", ("torch",), ""),
    ("ops at model size, against the NumPy column", "ops", ("numpy",), ""),
)


def _line(name: str, cells: Iterable[str]) -> list[str]:
    cells = list(cells)
    return [f"| {' | '.join([name, *cells])} |"] if any(cell != "–" for cell in cells) else []


def _summary(rows: Sequence[Row], prefixes: tuple[str, ...]) -> str:
    found = geometric(rows, prefixes)
    return f"{found[0]:.2f}, worst {found[1]:.2f} ({found[2]})" if found else "–"


def _share(results: Results, threads: int) -> str:
    fma = rate(results, "float32", threads, "fma")
    rows = [r for r in select(results, "products", "float32", threads) if r["name"] == "1024×1024×1024"]
    if not fma or not rows:
        return "–"
    return ", ".join(f"{r['flops'] / (r['times'][OURS]['us'] * 1e-6) / fma:.0%} {r['use']}" for r in rows)


def _step(rows: Sequence[Row]) -> str:
    peer = best(rows[0]) if rows else None
    if not peer:
        return "–"
    ours = rows[0]["times"][OURS]["us"] / 1e3
    return f"{peer[1] / 1e3 / ours:.2f}: {ours:.2f} ms, best peer {peer[1] / 1e3:.2f} ms ({peer[0]})"


def _startup_table(startup: Results) -> list[str]:
    peers = [name for name in ("torch", "torch-compiled") if name in startup]
    sides = [startup, *(startup[name] for name in peers)]
    lines = [f"| `tinyvae train`, {startup['threads']} threads | {' | '.join(['tinyvae', *peers])} |"]
    lines.append("|---" * (1 + len(sides)) + "|")
    dashes = ["–"] * len(peers)
    for part in ("cold", "warm"):
        f = startup[part]
        cell = f"{seconds(f['first_line'])}, {seconds(f['first_step'])}"
        lines += _line(f"first line and training begun, {part} cache", [cell, *dashes])
    lines += _line("peak memory of one epoch", [mebibytes(s["warm"]["peak_bytes"]) for s in sides])
    lines += _line(f"to a test −ELBO of {BAR:g}, caches warm", [seconds(s["whole"]["to_bar"]) for s in sides])
    return lines


# ---------------------------------------------------------------------------------------------- files


def rewrite(path: Path, block: str) -> None:
    """Puts the block between the markers of a file, which must be there once each and in order."""
    whole = path.read_text("utf-8")
    if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
        raise ConfigError(f"{path} must hold the lines {BEGIN} and {END} once each, in this order; add them")
    before, rest = whole.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{block}\n{END}{rest.split(END)[1]}", "utf-8")


def read(path: Path) -> Results:
    """Figures of an earlier run."""
    try:
        found: Results = dict(json.loads(path.read_text("utf-8")))
        missing = {"machine", "command", "rates", "rows"} - set(found)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is not a file of benchmark figures: {error}") from None
    if missing:
        raise ConfigError(f"{path} is not a file of benchmark figures: {', '.join(sorted(missing))} missing")
    return found


def merge(old: Results, new: Results) -> Results:
    """Old figures with those that were measured again replaced."""

    def key(row: Row) -> tuple[Any, ...]:
        return row["group"], row["name"], row["use"], row["dtype"], row["threads"]

    again = {key(row) for row in new["rows"]}
    rates = {d: {**old["rates"].get(d, {}), **new["rates"].get(d, {})} for d in {**old["rates"], **new["rates"]}}
    rows = [row for row in old["rows"] if key(row) not in again] + new["rows"]
    startup = new.get("startup") or old.get("startup")
    return {**old, **new, "rates": rates, "rows": rows, "startup": startup}
