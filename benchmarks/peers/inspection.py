"""`tinyvae bench --cuda-code`: every kernel of the CUDA column compiled without a GPU and checked, as a table."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tinyvae.device import toolkit

NEEDED = ("libnvvm", "libdevice", "ptxas")
PROCESSES = 2
NOTABLE = (
    "FFMA", "DFMA", "HMMA", "DMMA", "LDG.128", "LDG.64", "LDG", "LDGSTS", "LDS.128", "LDS.64", "LDS", "STG.128",
    "STG.64", "STG", "STS.128", "STS.64", "STS", "SHFL", "BAR", "MUFU",
)  # fmt: skip

Say = Callable[[str], None]
Row = dict[str, Any]
Results = dict[str, Any]


def why_not(tools: Mapping[str, Path]) -> str:
    """What keeps kernels from being compiled here; "" where nothing does."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        return "NUMBA_ENABLE_CUDASIM is set: the simulator compiles nothing"
    missing = ", ".join(part for part in NEEDED if part not in tools)
    return f"{missing} not found: pip install 'tinyvae[cuda-code]', or a CUDA toolkit" if missing else ""


def run(json_file: Path | None, say: Say) -> tuple[str, bool]:
    """Inspects the column, writes figures and table where asked for; what to print, and whether nothing is wrong."""
    with tempfile.TemporaryDirectory(prefix="tinyvae-cuda-") as folder:
        tools = toolkit.gather(Path(folder))
        reason = why_not(tools)
        if reason:
            return f"CUDA code: not run, {reason}", True
        results = inspect(tools, say)
    if json_file:
        json_file.write_text(as_json(results), "utf-8")
        json_file.with_suffix(".md").write_text(markdown(results), "utf-8")
    return text(results), not any(row["faults"] for row in results["rows"]) and not results["never launched"]


def inspect(tools: Mapping[str, Path], say: Say) -> Results:
    """All rows, and what they were made with."""
    from . import cuda_code

    found = cuda_code.launches()
    rows: list[Row] = []
    # in processes of their own, which have Numba and the column to themselves; each finds the same launches again
    with ProcessPoolExecutor(PROCESSES, get_context("spawn")) as pool:
        for i, made in enumerate(pool.map(partial(inspect_one, tools), range(len(found)))):
            rows += made
            if (i + 1) % 20 == 0:
                say(f"{i + 1} of {len(found)} kernels compiled")
    rows.sort(key=lambda row: (row["kernel"], row["for"], row["arguments"], -float(row["capability"])))
    return {
        "versions": versions(tools), "rows": rows, "never launched": cuda_code.never_launched(found),
        "instructions from": "nvdisasm" if "nvdisasm" in tools else "PTX",
    }  # fmt: skip


def inspect_one(tools: Mapping[str, Path], index: int) -> list[Row]:
    """One launched kernel at each capability."""
    from . import cuda_code

    one = cuda_code.launches()[index]
    rows: list[Row] = [
        {
            "kernel": one.name, "for": one.dtype, "capability": f"{cc[0]}.{cc[1]}", "ops": one.ops,
            "arguments": ", ".join(map(str, one.types)), "threads": one.threads,
        }
        for cc in cuda_code.CAPABILITIES
    ]  # fmt: skip
    try:
        for row, cc in zip(rows, cuda_code.CAPABILITIES, strict=True):
            code = cuda_code.assemble(one, cc, tools)
            row |= {**code, "faults": cuda_code.faults(one, code)}
    except Exception as error:  # whatever a compiler throws is a fault of the kernel
        first = (str(error).strip().splitlines() or [""])[0]
        for row in rows:
            row.setdefault("faults", [f"does not compile: {type(error).__name__}: {first}"])
    return rows


def versions(tools: Mapping[str, Path]) -> dict[str, str]:
    """Who compiled."""
    from .cuda_code import command

    release = re.search(r"release ([\d.]+), V([\d.]+)", command([tools["ptxas"], "--version"]).stdout)
    return {"Numba": metadata.version("numba"), "ptxas": release[2] if release else "unknown"}


# ---------------------------------------------------------------------------------------------- in words


def heading(row: Row) -> str:
    """Kernel, dtype and capability."""
    return f"{row['kernel']}, {row['for']}, {row['capability']}"


def notable(found: Mapping[str, int]) -> dict[str, int]:
    """The instructions that tell how a kernel was meant, their variants together."""
    counts: dict[str, int] = {}
    for name, count in found.items():
        parts = name.split(".")
        wide = next((w for w in ("128", "64") if w in parts[1:]), "")
        for key in (f"{parts[0]}.{wide}", parts[0]):
            if key in NOTABLE:
                counts[key] = counts.get(key, 0) + count
                break
    return {key: counts[key] for key in NOTABLE if key in counts}


def pairs(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of one kernel at one set of types, together."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row["kernel"], row["for"], row["arguments"]), []).append(row)
    return list(found.values())


def cells(rows: Sequence[Row]) -> list[str]:
    """A line of the table: a kernel, its figures at each capability where they differ."""

    def each(figure: Callable[[Row], Any]) -> str:
        return " / ".join(dict.fromkeys(str(figure(row)) if "registers" in row else "–" for row in rows))

    first = rows[0]
    some = ", ".join(f"{count} {name}" for name, count in notable(first.get("instructions", {})).items())
    figures = [each(lambda row, key=key: row[key]) for key in ("registers", "stack", "spilled", "shared")]  # type: ignore[misc]
    count = str(sum(first.get("instructions", {}).values()) or "–")
    return [first["kernel"], first["for"], str(first["threads"]), *figures, count, some, ", ".join(first["ops"])]


HEADS = ["kernel", "for", "threads", "registers", "stack", "spilled", "shared", "instructions", "of them", "ops"]


def table(results: Results) -> list[list[str]]:
    """Heads and lines."""
    return [HEADS, *map(cells, pairs(results["rows"]))]


def summary(results: Results) -> list[str]:
    """What was made, by whom, and every fault."""
    rows, made_by = results["rows"], ", ".join(f"{k} {v}" for k, v in results["versions"].items())
    wrong = [f"{heading(row)}: {fault}" for row in rows for fault in row["faults"]]
    wrong += [f"{name}: no case launches it" for name in results["never launched"]]
    kernels, capabilities = (
        len({row["kernel"] for row in rows}),
        " and ".join(dict.fromkeys(r["capability"] for r in rows)),
    )
    made = f"{kernels} kernels, {len(pairs(rows))} with their types, for compute capability {capabilities} ({made_by})"
    return [*wrong, f"{made}: {len(wrong)} faults" if wrong else f"{made}: no faults"]


def text(results: Results) -> str:
    """The table for a terminal, and the summary below it."""
    lines = table(results)
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS) - 1)]
    rows = ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in lines]
    return "\n".join([*rows, *summary(results)])


def markdown(results: Results) -> str:
    """The table as a page."""
    head, *lines = [f"| {' | '.join(line)} |" for line in table(results)]
    about = (
        "Every kernel of the CUDA column as `tinyvae bench --cuda-code` compiles it, without a GPU. Two figures where "
        "those for 9.0 and 8.0 differ. Stack, spilled and shared in bytes; instructions for 9.0, by "
        f"{results['instructions from']}."
    )
    return "\n".join(["# Machine code of the CUDA kernels", "", about, "", *summary(results), "", head,
                      "|---" * len(HEADS) + "|", *lines, ""])  # fmt: skip


def as_json(results: Results) -> str:
    """All figures, a line for each row."""
    rest = {key: value for key, value in results.items() if key != "rows"}
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in results["rows"])
    return f'{json.dumps(rest)[:-1]}, "rows": [\n{rows}\n]}}\n'
