"""The machine that figures come from: its processor, its cores, the versions of all that takes part."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__


def cpu_name() -> str:
    """The processor's name, as Linux reports it."""
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """The machine and the versions of all that takes part, for the report."""
    from ..kernels.cpu.engine.tile import machine

    versions = {"tinyvae": __version__, "Python": sys.version.split()[0]}
    for label, package in (("NumPy", "numpy"), ("Numba", "numba"), ("PyTorch", "torch"), ("JAX", "jax")):
        try:
            versions[label] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[label] = "not installed"
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": cpu_name(), "cores": cores(), "system": system, "vectors": machine(), "versions": versions}
