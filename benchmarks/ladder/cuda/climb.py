"""Runs the CUDA ladder: checks every rung against float64, times them in turns beside cuBLAS, prints what each gave.

python benchmarks/ladder/cuda/climb.py [--size 4096 …] [--rounds 5] [--only 3 4 …] [--json FILE] [--readme]
python benchmarks/ladder/cuda/climb.py --simulate     no GPU: each rung checked in Numba's simulator, on tiny shapes
python benchmarks/ladder/cuda/climb.py --code         no GPU: each rung compiled, its instructions counted
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]
from rungs import find, markdown, number, rewrite, title, verify  # noqa: E402
from timing import operands  # noqa: E402

from tinyvae.device import open_device  # noqa: E402
from tinyvae.errors import DeviceError  # noqa: E402

SECONDS = 0.2  # of a turn
WITHOUT = "of the ladder, --simulate checks the rungs here and --code compiles them and counts instructions"
# % of cuBLAS that Simon Boehm measured on an RTX A6000 with kernels of these ideas in CUDA C++
# (siboehm.com/articles/22/CUDA-MMM)
PUBLISHED = {1: 1.3, 2: 8.5, 3: 12.8, 4: 36.5, 5: 68.7, 6: 78.4}


class OnDevice:
    """A rung that takes the host's arrays: they go to the device with the NaN around them, and come back."""

    def __init__(self, rung: ModuleType, device: Any, calls: int = 1) -> None:
        self.rung, self.device, self.calls = rung, device, calls
        self.TERM_ERROR = getattr(rung, "TERM_ERROR", 0)

    def put(self, array: np.ndarray) -> tuple[Any, Any]:
        """All of `array.base` on the device, and there the part that is `array`."""
        whole, start = self.device.put(array.base), (array.ctypes.data - array.base.ctypes.data) // array.itemsize
        return whole, whole[start : start + array.size].reshape(array.shape)

    def product(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
        """The rung's product; of several calls, all must give the same bits."""
        results, (_, on_a), (_, on_b) = set(), self.put(a), self.put(b)
        for _ in range(self.calls):
            whole, on_c = self.put(c)
            self.rung.product(on_a, on_b, on_c)
            self.device.sync()
            result = self.device.get(whole)
            results.add(result.tobytes())
        assert len(results) == 1, f"{a.shape[0]}×{a.shape[1]}×{b.shape[1]}: other bits in another call"
        c.base[...] = result


def shapes(rung: ModuleType) -> list[tuple[int, int, int]]:
    """Tiny (M, K, N) that are ragged for this rung: beyond a tile in each direction, by fours and odd."""
    side = getattr(rung, "SIDE", 64)
    depth = getattr(rung, "DEPTH", side)
    return [(2, 3, 5), (side + 1, 4, 4), (3, depth + 4, side + 4)]


def check(rungs: dict[str, ModuleType], device: Any, sizes: list[int], calls: int) -> int:
    """Verifies every rung on its tiny shapes and on the sizes; how many are wrong."""
    wrong = 0
    for name, rung in rungs.items():
        try:
            for shape in (*shapes(rung), *([n] * 3 for n in sizes)):
                verify(OnDevice(rung, device, calls), *shape)
        except AssertionError as error:
            wrong += 1
            print(f"{title(name)}: WRONG: {error}")
    print(f"{len(rungs) - wrong} rungs verified, {wrong} wrong", flush=True)
    return wrong


# ---------------------------------------------------------------------------------------------- the clock


def turn(work: Callable[[], None], wait: Callable[[], None]) -> float:
    """Seconds of a call, the mean over a turn; a call before says how many fit, and brings the clock up to rate."""
    work()
    wait()
    start = time.perf_counter()
    work()
    wait()
    calls = max(1, round(SECONDS / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(calls):
        work()
    wait()
    return (time.perf_counter() - start) / calls


def cublas(a: np.ndarray, b: np.ndarray) -> dict[str, Callable[[], None]]:
    """cuBLAS's product by way of PyTorch or CuPy, whichever is installed; {} where neither is."""
    try:
        import torch
    except ImportError:
        pass
    else:
        from peers.torch_cuda import set_precision

        on_a, on_b = torch.from_numpy(a.copy()).cuda(), torch.from_numpy(b.copy()).cuda()
        out = torch.empty(a.shape[0], b.shape[1], device="cuda")

        def mm(tf32: bool) -> None:
            set_precision(tf32)
            torch.mm(on_a, on_b, out=out)

        return {"cuBLAS": lambda: mm(False), "cuBLAS tf32": lambda: mm(True)}
    try:
        import cupy
    except ImportError:
        return {}
    on_a, on_b = cupy.asarray(a), cupy.asarray(b)
    out = cupy.empty((a.shape[0], b.shape[1]), np.float32)
    return {"cuBLAS": lambda: cupy.matmul(on_a, on_b, out=out)}


def measure(rungs: dict[str, ModuleType], device: Any, size: int, rounds: int) -> dict[str, Any]:
    """TFLOP/s of every rung, of cuBLAS and of the peak: medians over `rounds` interleaved turns."""
    import peak

    from tinyvae.device import cuda

    a, b, c = operands(size, size, size)
    on_a, on_b, on_c = map(device.put, (a, b, c))
    works = {name: lambda rung=rung: rung.product(on_a, on_b, on_c) for name, rung in rungs.items()}
    flop = dict.fromkeys(works, 2 * size**3)
    peers = cublas(a, b)
    works |= peers
    flop |= dict.fromkeys(peers, 2 * size**3)
    works["peak"], flop["peak"] = peak.work(card().MULTIPROCESSOR_COUNT, on_c.reshape(-1))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(turn(work, cuda.synchronize))
    return {"size": size, "tflops": {name: flop[name] / statistics.median(times[name]) / 1e12 for name in works}}


def card() -> Any:
    """Numba's description of the GPU."""
    from tinyvae.device import cuda

    return cuda.get_current_device()


def machine() -> str:
    """One line on where the figures come from."""
    import numba

    name = card().name.decode() if isinstance(card().name, bytes) else card().name
    return f"{name}, compute capability {'.'.join(map(str, card().compute_capability))}, Numba {numba.__version__}"


def yardstick(rung: ModuleType) -> str:
    """The peer that computes as the rung does."""
    return "cuBLAS tf32" if hasattr(rung, "TERM_ERROR") else "cuBLAS"


def table(rungs: dict[str, ModuleType], figures: dict[str, Any] | None) -> str:
    """The measured table; `figures` None: not yet measured."""
    size = "" if figures is None else f" at {figures['size']}³"
    heads = ["rung", "idea", "Boehm, A6000: % of cuBLAS", "TFLOP/s here" + size, "% of peak", "% of cuBLAS", "× before"]
    rows = [heads]
    previous = None
    rates = {} if figures is None else figures["tflops"]
    for name, rung in rungs.items():
        row = [title(name), rung.IDEA, str(PUBLISHED.get(int(name[:2]), "–"))]
        if name not in rates:
            rows.append([*row, "not yet measured", "–", "–", "–"])
            continue
        rate, peer = rates[name], rates.get(yardstick(rung))
        row += [number(rate), number(100 * rate / rates["peak"]), number(100 * rate / peer) if peer else "–"]
        rows.append([*row, number(rate / rates[previous]) if previous else "–"])
        previous = name
    for name in ("cuBLAS", "cuBLAS tf32"):
        if name in rates:
            rows.append([name, "", "–", number(rates[name]), number(100 * rates[name] / rates["peak"]), "100", "–"])
    peak = [] if figures is None else ["", f"Peak: {number(rates['peak'])} TFLOP/s of multiply-adds in registers."]
    return "\n".join([*markdown(rows), *peak])


# ---------------------------------------------------------------------------------------------- without a GPU


def code(only: list[int] | None, readme: bool) -> int:
    """Compiles the rungs and prints the table of their machine code."""
    import machine_code

    from peers.inspection import versions, why_not
    from tinyvae.device import toolkit

    with tempfile.TemporaryDirectory(prefix="tinyvae-ladder-") as folder:
        tools = toolkit.gather(Path(folder))
        if reason := why_not(tools):
            print(f"machine code: not run, {reason}")
            return 1
        rows, faults = {}, []
        for name, rung in chosen(only).items():
            rows[name] = machine_code.of(rung, tools)
            faults += [f"{title(name)}: {fault}" for fault in rows[name]["faults"]]
            print(f"{title(name)} compiled", file=sys.stderr)
        made_by = ", ".join(f"{program} {version}" for program, version in versions(tools).items())
    text = f"{machine_code.table(rows)}\n\nFor compute capability 9.0, by {made_by}."
    print("\n".join([text, *faults]))
    if readme and not faults:
        rewrite(HERE / "README.md", text, "code")
    return 1 if faults else 0


def simulated() -> bool:
    """Whether Numba simulates."""
    from tinyvae.device import SIMULATED

    return SIMULATED


def chosen(only: list[int] | None) -> dict[str, ModuleType]:
    """The rungs of these numbers, or all. Imports them, and Numba with them."""
    return {name: rung for name, rung in find(HERE).items() if not only or int(name[:2]) in only}


def main() -> int:
    """Does what was asked for; without options it measures, which needs a GPU."""
    parser = argparse.ArgumentParser(description="Verify and time the rungs of the CUDA ladder.")
    parser.add_argument("--size", type=int, nargs="+", default=[4096], help="M = K = N (default 4096)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each rung")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of rungs; the default is all")
    parser.add_argument("--simulate", "--verify-only", action="store_true", help="check in the simulator, no GPU")
    parser.add_argument("--code", action="store_true", help="compile and count instructions, no GPU needed")
    parser.add_argument("--json", type=Path, help="write the measured figures to this file")
    parser.add_argument("--readme", action="store_true", help="write the table into this ladder's README.md")
    options = parser.parse_args()
    if options.code:
        return code(options.only, options.readme)
    if options.simulate:
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # before Numba is imported
    try:
        device = open_device("cuda")
        if simulated() and not options.simulate:
            raise DeviceError("NUMBA_ENABLE_CUDASIM is set, so this would time the simulator")
    except DeviceError as error:
        print(f"{error}; {WITHOUT}", file=sys.stderr)
        return 1
    rungs = chosen(options.only)
    if options.simulate:
        return 1 if check(rungs, device, [], 1) else 0
    if check(rungs, device, options.size, 2):
        return 1
    figures = [measure(rungs, device, size, options.rounds) for size in options.size]
    for one in figures:
        print(f"\n{machine()}\n\n{table(rungs, one)}")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "figures": figures}, indent=2) + "\n", "utf-8")
    if options.readme:
        rewrite(HERE / "README.md", f"{machine()}.\n\n{table(rungs, figures[0])}", "measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
