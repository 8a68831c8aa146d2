"""`tinyvae bench`: what to measure, in which order, and where the figures go."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DTYPES, require_choice, require_int
from ..device import open_device
from ..errors import ConfigError
from ..kernels import COLUMNS, ops_of
from ..kernels import check as verify
from ..kernels.check import WrongResult
from . import cases, host, jobs, peers, report
from .measure import measure_group, missing
from .pool import Effort
from .startup import EPOCHS, measure_startup

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What the command line asked for. threads: () for one and all. only: () for every group."""

    only: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    dtype: str = "float32"
    rounds: int = 5
    epochs: int = EPOCHS
    command: str = "tinyvae bench"

    def __post_init__(self) -> None:
        for group in self.only:
            require_choice("--only", group, cases.GROUPS)
        for count in self.threads:
            require_int("--threads", count, 1)
        require_choice("--dtype", self.dtype, DTYPES)
        require_int("--rounds", self.rounds, 1)


def verify_all(device: str, dtype: str, say: Say) -> bool:
    """Verifies every op on every example and every case, without timing; whether all are right."""
    require_choice("--dtype", dtype, DTYPES)
    require_choice("--device", device, tuple(COLUMNS))
    open_device(device)
    kind, wrong = np.dtype(dtype).type, 0
    every, steps = [*cases.products(), *cases.convs()], [*cases.steps(), *cases.players()]
    checks: list[tuple[str, Callable[[], None]]] = [(name, _op_check(name, device, kind)) for name in ops_of(device)]
    checks += [(str(case), _case_check(case, device, dtype)) for case in [*every, *steps]]
    for name, check in checks:
        try:
            check()
        except WrongResult as error:
            wrong += 1
            say(f"{name}: WRONG: {error}")
    groups = f"{len(ops_of(device))} ops, {len(every)} products and convolutions, {len(steps)} training steps"
    say(f"{groups}: {wrong} wrong ({device}, {dtype})" if wrong else f"{groups} verified ({device}, {dtype})")
    return not wrong


def _op_check(name: str, device: str, kind: Any) -> Callable[[], None]:
    return lambda: verify.verify_op(name, device, kind)


def _case_check(case: cases.Case, device: str, dtype: str) -> Callable[[], None]:
    def check() -> None:
        job = jobs.build(device, case, dtype) if case.model else jobs.op_job(case, dtype, device)
        job.run()
        case.check(job.result(), np.dtype(dtype).type)

    return check


def measure(options: Options, say: Say) -> report.Results:
    """Measures the groups asked for, at each number of threads; our own wrong result stops it."""
    groups = options.only or cases.GROUPS
    threads = options.threads or tuple(dict.fromkeys((1, host.cores())))
    if max(threads) > host.cores():
        raise ConfigError(f"--threads {max(threads)}: this process may use {host.cores()} cores")
    notes, rows = missing(groups), []
    rates: dict[str, dict[str, float]] = {}
    for note in notes:
        say(note)
    effort = Effort(options.rounds)
    for count in threads:
        for group in (g for g in groups if g in cases.CASES):
            found, roofs = measure_group(group, count, options.dtype, effort, notes, say)
            rows += found
            at = rates.setdefault(str(count), roofs)
            rates[str(count)] = {name: max(at[name], value) for name, value in roofs.items()}
    startup = measure_startup(max(threads), options.epochs, say) if "startup" in groups else None
    return {
        "machine": host.describe(), "command": options.command, "rates": {options.dtype: rates}, "rows": rows,
        "startup": startup, "notes": notes,
    }  # fmt: skip


def bench(
    options: Options | None,
    say: Say,
    earlier: Path | None = None,
    json_file: Path | None = None,
    readme: Path | None = None,
    roofline: Path | None = None,
) -> str:
    """Measures (options) or only reads (earlier), writes what was asked for, and returns the long table."""
    old = report.read(earlier) if earlier else None
    results = measure(options, say) if options else None
    if old and results:
        results = report.merge(old, results)
    results = results or old
    assert results is not None
    if json_file:
        json_file.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if readme:
        report.rewrite(readme, report.table(results))
    if roofline:
        peers.program("roofline").draw_roofline(results, roofline)
    return report.text(results)


def run(given: dict[str, Any], say: Say, command: Sequence[str] = ("tinyvae", "bench")) -> tuple[str, bool]:
    """The command with its parsed options: what to print, and whether all went well."""
    peers.enable(given["peers"])
    json_file = Path(given["json"]) if given["json"] else None
    if given["cuda_code"]:
        text, ok = peers.program("inspection").run(json_file, say)
        return str(text), bool(ok)
    if given["verify_only"]:
        return "", verify_all(given["device"] or "numba", given["dtype"], say)
    if given["device"] == "cuda":
        open_device("cuda")
        found = peers.program("cuda_bench").measure(given["only"], given["rounds"], say, json_file)
        return str(peers.program("cuda_report").text(found)), True
    if given["device"] not in (None, "numba"):
        raise ConfigError(f"--device {given['device']} belongs to --verify-only; what is timed is numba or cuda")
    options = None
    if given["only"] or not given["earlier"]:
        options = Options(
            given["only"], given["threads"], given["dtype"], given["rounds"], command=" ".join(command)
        )  # fmt: skip
    paths = [Path(given[k]) if given[k] else None for k in ("earlier", "json", "readme", "roofline")]
    return bench(options, say, *paths), True
