"""How the kernels of this column are compiled, and where the machine code is kept between runs.
It knows Numba's decorators and one folder; not what a kernel computes.

Compiling takes seconds, so the machine code is kept on disk, in a folder whose name is a hash of everything it
depends on: the sources of this column, the versions of Numba and llvmlite, the CPU and its features. A changed
source, an upgrade or another machine therefore looks elsewhere and compiles anew; what a broken or read-only folder
costs is time, never a result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
import numpy as np


def fingerprint() -> str:
    """A hash of all that the machine code depends on."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    versions = (numba.__version__, llvmlite.__version__, np.__version__)
    digest.update(repr((versions, llvm.get_host_cpu_name(), features, os.environ.get("TINYVAE_VECTOR"))).encode())
    return digest.hexdigest()[:16]


def cache_folder() -> Path | None:
    """The folder of this fingerprint, made if need be; None where none can be written, and then nothing is kept.

    $TINYVAE_CACHE names its parent; "" switches the cache off. The default is ~/.cache/tinyvae.
    """
    named = os.environ.get("TINYVAE_CACHE")
    if named == "":
        return None
    try:
        parent = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyvae"
        folder = parent / f"kernels-{fingerprint()}"
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, RuntimeError):
        return None
    return folder


CACHE = cache_folder()
on_compile: Callable[[], None] | None = None  # called before a kernel is compiled, while somebody listens

# How long a thread of Numba's OpenMP layer waits actively for the next kernel, in rounds (about 50 µs; libgomp's own
# choice is milliseconds). Long enough for the pauses inside a training step, short enough that a thread whose core is
# taken by another program does not burn the other core too: the step took 2.2 ms either way on a quiet machine, 5
# instead of 140 ms on a busy one. Read once, when the first parallel kernel runs.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def is_cold() -> bool:
    """Whether nothing of this fingerprint has been kept yet, so that the first calls will compile."""
    return CACHE is None or not any(CACHE.glob("*/*.nbi"))


def _forgiving(kernel: Any) -> Any:
    """`kernel`, for which a kept file that cannot be read counts as none: Numba itself would raise."""
    kept = kernel._cache
    load = kept.load_overload

    def load_or_forget(signature: Any, target: Any) -> Any:
        try:
            found = load(signature, target)
        except Exception:  # whatever a cut or foreign file makes of unpickling
            kept.flush()
            found = None
        if found is None and on_compile is not None:
            on_compile()
        return found

    kept.load_overload = load_or_forget
    return kernel


def _decorator(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    def decorate(function: Callable[..., Any]) -> Any:
        if numba.config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1: plain Python, for the ops that use no vector code
            return function
        if CACHE is None:
            return numba.njit(**options)(function)
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(CACHE)  # read once, while the function is decorated
        try:
            return _forgiving(numba.njit(cache=True, **options)(function))
        finally:
            numba.config.CACHE_DIR = before

    return decorate


# error_model="numpy": a division by zero gives inf or NaN, as everywhere else, and leaves loops free of branches
jit = _decorator(nogil=True, error_model="numpy")
parallel = _decorator(nogil=True, error_model="numpy", parallel=True)
