"""Runs the ladder: verifies every rung, times them in turns, and prints what each idea gave beside the machine's peak.

python benchmarks/ladder/climb.py [--size 512 …] [--threads 1 2 …] [--rounds 7] [--only 3 4 …]
                                  [--verify-only] [--json FILE] [--readme] [--roofline FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import ModuleType

import numba
import numpy as np
from llvmlite import binding

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import roofs  # noqa: E402
from rungs import find, markdown, number, rewrite, title, verify  # noqa: E402
from timing import PAUSE, NumPy, operands, turn  # noqa: E402

SHAPES = ((1, 1, 1), (33, 7, 50), (72, 73, 74), (70, 401, 1000))  # M, K, N; the last crosses every block
SECONDS = 0.1  # of a turn


def load() -> dict[str, ModuleType]:
    """All rungs in order, {name: module}."""
    return find(HERE)


def largest(rung: ModuleType, size: int) -> int:
    """The size this rung is timed at: slow ones name a limit."""
    return min(size, getattr(rung, "LARGEST", size))


def measure(rungs: dict[str, ModuleType], size: int, threads: int, rounds: int) -> dict:
    """GFLOP/s of every rung and of NumPy, the peak, and GB/s: medians over the calls of `rounds` interleaved turns."""
    numba.set_num_threads(threads)
    yardstick, works = NumPy(threads), roofs.works(threads)
    turns, units = {}, {}
    for name, (work, unit) in works.items():
        work()  # compiles; the rungs have been by verify()
        turns[name], units[name] = (lambda work=work: turn(work, SECONDS)), unit
    for name, rung in rungs.items():
        n = largest(rung, size)
        a, b, c = operands(n, n, n)
        work = lambda rung=rung, a=a, b=b, c=c: rung.product(a, b, c)  # noqa: E731
        turns[name], units[name] = (lambda work=work: turn(work, SECONDS)), 2 * n**3
    turns["NumPy"], units["NumPy"] = lambda: yardstick.turn(size, SECONDS), 2 * size**3
    times: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, take in turns.items():
            time.sleep(PAUSE)
            times[name] += take()
    yardstick.close()
    rates = {name: units[name] / statistics.median(seconds) / 1e9 for name, seconds in times.items()}
    return {
        "peak": rates["peak"],
        "bytes": {name: rates[name] for name in works if name != "peak"},
        "rungs": {name: rates[name] for name in [*rungs, "NumPy"]},
    }


def describe(rungs: dict[str, ModuleType], size: int) -> dict[str, dict]:
    """What the table and the picture say of a rung besides its rate."""
    return {
        name: {"idea": rung.IDEA, "size": largest(rung, size), "flop_per_byte": rung.FLOP_PER_BYTE}
        for name, rung in rungs.items()
    }


def table(figures: dict) -> str:
    """The figures of one size as text that is a Markdown table too."""
    size, threads = figures["size"], figures["threads"]
    head = ["rung", "idea"]
    for count in threads:
        on = f", {count} thread{'s' if count != '1' else ''}"
        head += ["GFLOP/s" + on, "% of peak", "× before"]
    rows, previous = [head], None
    for name in [*figures["rungs"], "NumPy"]:
        about = figures["rungs"].get(name, {"idea": "its BLAS, in a process of its own", "size": size})
        row = [title(name), about["idea"] + (f" (at {about['size']})" if about["size"] != size else "")]
        for measured in threads.values():
            rate = measured["rungs"][name]
            times = number(rate / measured["rungs"][previous]) if previous and name != "NumPy" else "–"
            row += [number(rate), number(100 * rate / measured["peak"]), times]
        rows.append(row)
        previous = name
    text = [f"{size} × {size} × {size}, float32:", "", *markdown(rows), ""]
    for count, measured in threads.items():
        moved = ", ".join(f"{name} {number(rate)} GB/s" for name, rate in measured["bytes"].items())
        text.append(f"- {count} thread{'s' if count != '1' else ''}: peak {number(measured['peak'])} GFLOP/s; {moved}")
    return "\n".join(text)


def machine() -> str:
    """One line on where the figures come from."""
    return f"{binding.get_host_cpu_name()}, Numba {numba.__version__}, NumPy {np.__version__}"


def main() -> int:
    """Verifies; unless told otherwise times, prints, and writes what was asked for."""
    parser = argparse.ArgumentParser(description="Verify and time the rungs of the ladder.")
    parser.add_argument("--size", type=int, nargs="+", default=[512], help="M = K = N (default 512)")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, numba.config.NUMBA_NUM_THREADS}))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each rung")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of rungs; the default is all")
    parser.add_argument("--verify-only", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--readme", action="store_true", help="write the tables into the ladder's README.md")
    parser.add_argument("--roofline", type=Path, help="draw the first size and number of threads")
    options = parser.parse_args()
    rungs, failed = load(), 0
    if options.only:
        rungs = {name: rung for name, rung in rungs.items() if int(name[:2]) in options.only}
    for name, rung in rungs.items():
        try:
            for shape in (*SHAPES, *([] if options.verify_only else [[n] * 3 for n in options.size])):
                if max(shape) <= 2 * largest(rung, max(shape)):
                    verify(rung, *shape)
        except AssertionError as error:
            failed += 1
            print(f"{title(name)}: WRONG: {error}")
    print(f"{len(rungs) - failed} rungs verified, {failed} wrong ({machine()})")
    if failed or options.verify_only:
        return 1 if failed else 0
    all_figures = []
    for size in options.size:
        threads = {str(count): measure(rungs, size, count, options.rounds) for count in options.threads}
        all_figures.append({"size": size, "rungs": describe(rungs, size), "threads": threads})
        print("\n" + table(all_figures[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "figures": all_figures}, indent=2) + "\n", "utf-8")
    if options.readme:
        rewrite(HERE / "README.md", "\n\n".join([machine() + ".", *map(table, all_figures)]))
    if options.roofline:
        from roofline import draw

        draw(all_figures[0], options.roofline)
    return 0


if __name__ == "__main__":
    sys.exit(main())
