"""What the ladders share: their rungs, the check of a rung against float64, and figures as a table."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
from timing import operands


def find(folder: Path) -> dict[str, ModuleType]:
    """The numbered files of a folder on the path, in order, {name: module}."""
    names = sorted(path.stem for path in folder.glob("[0-9][0-9]_*.py"))
    return {name: importlib.import_module(name) for name in names}


def verify(rung: ModuleType, M: int, K: int, N: int) -> None:
    """Raises AssertionError unless c = a b within (4·√K + 2)·2⁻²⁴·Σ|terms| of float64, and nothing else is written.

    A rung that rounds its factors states the error of a term, TERM_ERROR, which comes on top.
    """
    a, b, c = operands(M, K, N)
    rung.product(a, b, c)
    a, b, around = a.astype(np.float64), b.astype(np.float64), c.base
    error = (4 * np.sqrt(K) + 2) * 2.0**-24 + getattr(rung, "TERM_ERROR", 0)
    bound = error * (np.abs(a) @ np.abs(b))
    with np.errstate(invalid="ignore"):
        wrong = int((~(np.abs(c - a @ b) <= bound)).sum())
    assert not wrong, f"{M}×{K}×{N}: {wrong} of {c.size} elements are not within the bound"
    assert np.isnan(around).sum() == around.size - c.size, f"{M}×{K}×{N}: wrote outside of c"


def number(x: float) -> str:
    """Two or three digits."""
    return f"{x:.0f}" if x >= 99.95 else f"{x:.1f}" if x >= 0.995 else f"{x:.2g}"


def title(name: str) -> str:
    """01_python_loops → 1 Python loops."""
    return name.lstrip("0").replace("_", " ").replace("python", "Python")


def markdown(rows: list[list[str]], left: int = 2) -> list[str]:
    """The lines of a table whose first row is its head and whose first `left` columns are words."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        [cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    lines.insert(1, ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)])
    return ["| " + " | ".join(line) + " |" for line in lines]


def rewrite(path: Path, text: str, name: str = "ladder") -> None:
    """Puts the text between the two markers of that name in a file."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, rest = path.read_text("utf-8").split(begin)
    path.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", "utf-8")
