"""How the kernels of this column are compiled; their machine code is kept on disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba

from ... import cache


def fingerprint() -> str:
    """A hash of all that the machine code depends on."""
    features = llvm.get_host_cpu_features().flatten()
    return cache.fingerprint("cpu", llvm.get_host_cpu_name(), features, os.environ.get("TINYVAE_VECTOR"))


CACHE = cache.cache_folder(fingerprint())
on_compile: Callable[[], None] | None = None  # called before a kernel is compiled, while somebody listens

# How long a thread of Numba's OpenMP layer waits actively for the next kernel, in rounds (about 50 µs; libgomp's own
# choice is milliseconds). Long enough for the pauses inside a training step, short enough that a thread whose core is
# taken by another program does not burn the other core too: the step took 2.2 ms either way on a quiet machine, 5
# instead of 140 ms on a busy one. Read once, when the first parallel kernel runs.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def _announce() -> None:
    if on_compile is not None:
        on_compile()


def _decorator(on_disk: bool = True, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    # error_model="numpy": a division by zero gives inf or NaN, as everywhere else, and leaves loops free of branches
    def make(function: Callable[..., Any], keep: bool) -> Any:
        return numba.njit(cache=keep, nogil=True, error_model="numpy", **options)(function)

    def decorate(function: Callable[..., Any]) -> Any:
        if numba.config.DISABLE_JIT:  # NUMBA_DISABLE_JIT=1: plain Python, for the ops that use no vector code
            return function
        if not on_disk:
            return make(function, False)
        return cache.kept(lambda keep: make(function, keep), numba.config, CACHE, _announce)

    return decorate


jit = _decorator()  # what Python calls, or another function by its address
parallel = _decorator(parallel=True)
# what compiled functions alone call: part of their machine code, without wrappers or files of its own
inner = _decorator(on_disk=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
