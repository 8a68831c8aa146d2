"""The Numba column for the CPU: every op, compiled. Loaded at the device's first use.

A file names in INTERPRETED those of its ops that Python can run when Numba is set not to compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config

from ...errors import KernelError
from ..ops import collect


def _refuse(name: str) -> Callable[..., None]:
    def refuse(*arguments: Any) -> None:
        raise KernelError(
            f"op {name!r} is vector code and cannot run with NUMBA_DISABLE_JIT=1; unset it, or use device='numpy'"
        )

    return refuse


COLUMN: dict[str, Callable[..., None]] = {
    name: _refuse(name) if config.DISABLE_JIT and name not in getattr(file, "INTERPRETED", ()) else run
    for name, run, file in collect(__name__)
}
