"""Every op of the table at its model size: verified first, then timed. Rows follow from kernels.OPS by themselves.
It knows the table and the clock on the wall; what is right is decided by the checks that the tests use too.

    python benchmarks/ops.py [--device numpy] [--dtype float32] [--repeats 30] [--verify-only] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import op_checks

from tinyvae import kernels


def verify(name: str, device: str, dtype: type) -> None:
    """Raises unless the op, on every example, is finite and within the table's bound of the float64 reference."""
    for label in kernels.OPS[name].examples:
        arguments = op_checks.example(name, label, dtype)
        got = op_checks.call(name, arguments, device)
        wide = op_checks.widened(arguments)
        want, sizes = op_checks.call_reference(name, wide), op_checks.magnitudes(name, arguments)
        op_checks.assert_close(name, got, want, sizes, op_checks.depth_of(name, label), dtype)


def measure(name: str, device: str, dtype: type, repeats: int) -> dict[str, float]:
    """Median and spread of one call at model size, in microseconds, with its arithmetic and memory rates."""
    op = kernels.OPS[name]
    arguments = op.example("model", dtype)
    run = getattr(kernels.load(device, unchecked=True), name)
    times = []
    with np.errstate(all="ignore"):  # an array updated in place by every repeat may overflow in the end
        for _ in range(repeats + 2):
            start = time.perf_counter()
            run(*arguments)
            times.append(time.perf_counter() - start)
    times = sorted(times[2:])
    median = statistics.median(times)
    lengths = op.examples["model"]
    return {
        "us": median * 1e6,
        "spread": (times[3 * repeats // 4] - times[repeats // 4]) / median,
        "gflops": op.flops(lengths) / median / 1e9,
        "gbytes": op.bytes(lengths, np.dtype(dtype).itemsize) / median / 1e9,
    }


def main() -> int:
    """Verifies every op; unless told otherwise, times them and prints a table."""
    parser = argparse.ArgumentParser(description="Verify and time every op at its model size.")
    parser.add_argument("--device", default="numpy")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--verify-only", action="store_true")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    dtype = np.dtype(options.dtype).type
    failed = 0
    for name in kernels.OPS:
        try:
            verify(name, options.device, dtype)
        except AssertionError as error:
            failed += 1
            print(f"{name}: WRONG: {error}")
    print(f"{len(kernels.OPS) - failed} ops verified, {failed} wrong ({options.device}, {options.dtype})")
    if failed or options.verify_only:
        return 1 if failed else 0
    rows = {name: measure(name, options.device, dtype, options.repeats) for name in kernels.OPS}
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"{'op':<18}{'µs':>10}{'spread':>8}{'GFLOP/s':>9}{'GB/s':>7}")
    for name, row in rows.items():
        print(f"{name:<18}{row['us']:>10.1f}{row['spread']:>8.0%}{row['gflops']:>9.2f}{row['gbytes']:>7.1f}")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
