"""Every op of the CUDA column at every case of the table, for a tool that watches memory from outside.

compute-sanitizer --tool memcheck python -m peers.sanitize
"""

from __future__ import annotations

import numpy as np

from tinyvae import kernels
from tinyvae.device import gpu, open_device
from tinyvae.kernels.check import cases, example


def main() -> None:
    """Each array is an allocation of its own with no room behind it, so that a step outside is one."""
    gpu.LARGE, gpu.ALIGNMENT = -1, 1
    device = open_device("cuda")
    for dtype, precision in (("float32", "fp32"), ("float64", "fp32"), ("float32", "tf32")):
        ops, count = kernels.load("cuda", precision=precision), 0
        for name, label in ((name, label) for name, label in cases() if name in kernels.ops_of("cuda")):
            given = [device.put(a) if isinstance(a, np.ndarray) else a for a in example(name, label, np.dtype(dtype))]
            getattr(ops, name)(*given)
            device.sync()
            count += 1
        print(f"{dtype}, {precision}: {count} calls", flush=True)


if __name__ == "__main__":
    main()
