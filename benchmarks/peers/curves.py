"""The loss of a device's first training steps beside numpy's, from the same weights, order and noise.

python -m peers.curves DEVICE [FILE]      FILE takes both curves, as JSON
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tinyvae.bench.cases import Case
from tinyvae.bench.jobs import training_step

MODELS = ("vae", "conv-vae")
LIMITS = (("float64", 200, 1e-10), ("float32", 10, 1e-5), ("float32", 200, 5e-3))  # dtype, steps, relative difference


def losses(model: str, device: str, dtype: str, steps: int) -> np.ndarray:
    """The loss of each of the first `steps` steps."""
    step, loss = training_step(Case("steps", model, "step", model=model), dtype, device)
    found = []
    for _ in range(steps):
        step()
        found.append(loss()[0])
    return np.array(found)


def compare(model: str, device: str, limits: tuple[tuple[str, int, float], ...] = LIMITS) -> list[dict[str, Any]]:
    """A row for each limit: the largest relative difference within so many steps, and both curves."""
    longest = {dtype: max(steps for d, steps, _ in limits if d == dtype) for dtype, _, _ in limits}
    curves = {dtype: [losses(model, name, dtype, n) for name in (device, "numpy")] for dtype, n in longest.items()}
    rows = []
    for dtype, steps, limit in limits:
        ours, numpys = (curve[:steps] for curve in curves[dtype])
        worst = float(np.max(np.abs(ours - numpys) / np.abs(numpys)))
        rows.append({
            "model": model, "dtype": dtype, "steps": steps, "limit": limit, "worst": worst, "ok": worst < limit,
            device: ours.tolist(), "numpy": numpys.tolist(),
        })  # fmt: skip
    return rows


def main(arguments: list[str]) -> int:
    """Prints a line for each comparison, and a last one; 1 where a difference is too large, or no number."""
    device, *file = arguments
    rows = []
    for model in MODELS:
        for row in compare(model, device):
            rows.append(row)
            found = f"{row['worst']:.1e} {'<' if row['ok'] else 'NOT <'} {row['limit']:g}"
            print(f"{model}, {row['dtype']}, {row['steps']} steps: {found}", flush=True)
    if file:
        Path(file[0]).write_text(json.dumps(rows) + "\n", "utf-8")
    wrong = sum(not row["ok"] for row in rows)
    print(f"{len(rows)} comparisons of losses with numpy's: {wrong} beyond their limit")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
