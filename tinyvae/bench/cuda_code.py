"""Compiles the CUDA column without a GPU: which kernels an op launches, and what machine code they become.
It knows Numba's compiler and NVIDIA's assembler; what a kernel computes is tested elsewhere."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


class Ghost:
    """An array of the GPU as far as a launch looks at it: a shape and a dtype, at an aligned address, and no memory."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.size, self.ndim, self.strides = math.prod(self.shape), len(self.shape), ()
        self.ctypes = type("Address", (), {"data": 0})

    def reshape(self, *shape: Any) -> Ghost:
        """The same numbers in another shape."""
        wanted = list(shape[0] if shape and isinstance(shape[0], tuple) else shape)
        if -1 in wanted:
            wanted[wanted.index(-1)] = self.size // max(1, -math.prod(wanted))
        return Ghost(tuple(wanted), self.dtype)

    def __getitem__(self, index: slice) -> Ghost:
        return Ghost((len(range(*index.indices(self.shape[0]))), *self.shape[1:]), self.dtype)


def launches(name: str, arguments: list[Any]) -> list[tuple[Any, Any, Any, tuple[Any, ...]]]:
    """(kernel, blocks, threads, arguments) of each launch that the op makes; nothing runs."""
    from ..kernels.cuda import COLUMN, compile

    seen: list[tuple[Any, Any, Any, tuple[Any, ...]]] = []
    compile.on_launch = lambda *launch: seen.append(launch)
    try:
        COLUMN[name](*(Ghost(a.shape, a.dtype) if isinstance(a, np.ndarray) else a for a in arguments))
    finally:
        compile.on_launch = None
    return seen


def signature(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numba's types of a launch's arguments."""
    from numba import from_dtype, typeof, types

    return tuple(types.Array(from_dtype(a.dtype), 1, "C") if isinstance(a, Ghost) else typeof(a) for a in arguments)


def machine_code(kernel: Any, arguments: tuple[Any, ...], cc: tuple[int, int], ptxas: str) -> dict[str, Any]:
    """Registers, spilled bytes, stack bytes and shared bytes of one kernel, and its PTX and cubin."""
    from numba import cuda
    from numba.cuda import dispatcher

    dispatcher.get_current_device = lambda: type("Device", (), {"compute_capability": cc})
    options = {} if kernel.max_registers is None else {"max_registers": kernel.max_registers}
    ptx, _ = cuda.compile_ptx(kernel.function, signature(arguments), cc=cc)
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = Path(folder, "k.ptx"), Path(folder, "k.cubin")
        source.write_text(ptx)
        command = [ptxas, "-v", f"-arch=sm_{cc[0]}{cc[1]}", str(source), "-o", str(cubin)]
        if options:
            command.insert(1, f"--maxrregcount={kernel.max_registers}")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        code = cubin.read_bytes()
    text = done.stderr
    return {
        "registers": _number(r"Used (\d+) registers", text), "stack": _number(r"(\d+) bytes stack", text),
        "spilled": _number(r"(\d+) bytes spill stores", text), "shared": _number(r"(\d+) bytes smem", text),
        "ptx": ptx, "cubin": code,
    }  # fmt: skip


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def op_kernels(dtype: Any) -> Iterator[tuple[str, str, Any, tuple[Any, ...]]]:
    """(op, case, kernel, arguments) of every launch over the table's cases."""
    from ..kernels.cuda import COLUMN
    from .verify import cases, example

    for name, label in cases():
        if name in COLUMN:
            for kernel, _, _, arguments in launches(name, example(name, label, dtype)):
                yield name, label, kernel, arguments
