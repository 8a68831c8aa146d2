"""What the rungs become: registers and memory of each kernel, and the instructions of its innermost loop."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
from rungs import markdown, number, title

from peers import cuda_code
from tinyvae.kernels.cuda.engine import compile

CAPABILITY = 9, 0
SIZE = 4096
# of a thread; a tensor core's instruction makes 16 × 8 × 8 multiply-adds for the 32 of a warp
MULTIPLY_ADDS = {"FFMA": 1, "HMMA": 32}
LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)(.*)")
LABEL, TARGET = re.compile(r"^(\.L\w+):"), re.compile(r"\.L\w+")


def of(rung: ModuleType, tools: Mapping[str, Path]) -> dict[str, Any]:
    """Figures of the kernel that a rung launches at SIZE, and what is wrong with its code."""
    seen: list[tuple[Any, ...]] = []
    with mock.patch.object(compile, "on_launch", lambda *launch: seen.append(launch)):
        rung.product(*(cuda_code.Ghost((SIZE, SIZE), np.float32) for _ in range(3)))
    [(kernel, _, threads, arguments)] = seen
    one = cuda_code.Launched(kernel, cuda_code.types_of(arguments), [], int(np.prod(threads)))
    ptx, said, listing = cuda_code.build(one, CAPABILITY, tools)
    figures = cuda_code.figures(ptx, said, listing)
    inner, outer = loops(listing) if listing else (None, None)
    return {
        **figures, "idea": rung.IDEA, "threads": one.threads, "flop per byte": rung.FLOP_PER_BYTE,
        "inner": inner, "outer": outer, "faults": cuda_code.faults(one, figures),
    }  # fmt: skip


def loops(listing: str) -> tuple[Counter[str], Counter[str]]:
    """The instructions of the innermost loop with the most multiply-adds, and of the outermost loop around it."""
    names: list[str] = []
    places: dict[str, int] = {}
    jumps: list[tuple[int, str]] = []
    for line in listing.splitlines():
        if label := LABEL.match(line):
            places[label[1]] = len(names)
        elif found := LINE.match(line):
            if found[1].startswith("BRA") and (target := TARGET.search(found[2])):
                jumps.append((len(names), target[0]))
            names.append(found[1])
    spans = [(places[target], at + 1) for at, target in jumps if places[target] <= at]
    inner = max(spans, key=lambda span: (multiply_adds(Counter(names[slice(*span)])), span[0] - span[1]))
    outer = max((s for s in spans if s[0] <= inner[0] and inner[1] <= s[1]), key=lambda span: span[1] - span[0])
    return Counter(names[slice(*inner)]), Counter(names[slice(*outer)])


def count(found: Counter[str], name: str, wide: bool = False) -> int:
    """How many instructions of this name there are, of 128 bits or of fewer."""
    return sum(n for one, n in found.items() if one.split(".")[0] == name and ("128" in one.split(".")) == wide)


def multiply_adds(found: Counter[str]) -> int:
    """What a thread makes of them."""
    return sum(count(found, name) * each for name, each in MULTIPLY_ADDS.items())


def cells(name: str, row: dict[str, Any]) -> list[str]:
    """A rung's line of the table."""
    about = [title(name), row["idea"], *(str(row[key]) for key in ("threads", "registers", "shared"))]
    if row["inner"] is None:
        return [*about, *["–"] * 5, number(row["flop per byte"])]
    inner, outer = row["inner"], row["outer"]
    loads = {wide: [count(inner, kind, wide) for kind in ("LDS", "LDG")] for wide in (False, True)}
    made = " + ".join(f"{n} {kind}" for kind in MULTIPLY_ADDS if (n := count(inner, kind)))
    fetched = ", ".join(
        f"{n} {kind}{'.128' if wide else ''}"
        for kind in ("LDG", "LDGSTS") for wide in (False, True) if (n := count(outer, kind, wide))
    )  # fmt: skip
    per_load = number(multiply_adds(inner) / sum(map(sum, loads.values())))
    return [*about, made, str(loads[False][0]), str(loads[True][0]), fetched, per_load, number(row["flop per byte"])]


def table(rows: Mapping[str, dict[str, Any]]) -> str:
    """All rungs."""
    head = ["rung", "idea", "threads", "registers", "shared, bytes", "multiply-adds", "LDS", "LDS.128",
            "fetched", "per load", "flop per byte"]  # fmt: skip
    return "\n".join(markdown([head, *(cells(name, row) for name, row in rows.items())]))
