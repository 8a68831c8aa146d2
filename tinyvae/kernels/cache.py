"""Where the machine code of compiled columns is kept between runs, and how a broken file is forgiven.
It knows folders and Numba's dispatchers, and neither CPUs nor GPUs.

Compiling takes seconds, so the machine code is kept on disk, in a folder whose name is a hash of everything it depends
on. A changed source, an upgrade or another machine therefore looks elsewhere and compiles anew; what a broken or
read-only folder costs is time, never a result.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

import llvmlite
import numba
import numpy as np

HERE = Path(__file__).parent


def fingerprint(*depends: Any) -> str:
    """A hash of this room, of the compilers' versions, and of all else that its machine code depends on."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*.py")):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    digest.update(repr((numba.__version__, llvmlite.__version__, np.__version__, *depends)).encode())
    return digest.hexdigest()[:16]


def cache_folder(name: str) -> Path | None:
    """The folder of this name, made if need be; None where none can be written, and then nothing is kept.

    $TINYVAE_CACHE names its parent; "" switches the cache off. The default is ~/.cache/tinyvae.
    """
    named = os.environ.get("TINYVAE_CACHE")
    if named == "":
        return None
    try:
        parent = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyvae"
        folder = parent / f"kernels-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, RuntimeError):
        return None
    return folder


def is_cold(folder: Path | None) -> bool:
    """Whether nothing has been kept yet, so that the first calls will compile."""
    return folder is None or not any(folder.glob("*/*.nbi"))


def kept(make: Callable[[bool], Any], config: Any, folder: Path | None, announce: Callable[[], None]) -> Any:
    """The dispatcher `make(cache)`, whose machine code is kept in `folder`; `announce` is called before it compiles.

    config: that of the compiler; a CUDA target of its own, the package numba-cuda, has another than Numba.
    A file that cannot be read counts as none, and what cannot be written is not kept, where Numba itself would raise.
    """
    before = config.CACHE_DIR
    try:
        if folder is not None:
            config.CACHE_DIR = str(folder)  # read once, while the function is decorated
        dispatcher = make(folder is not None)
    finally:
        config.CACHE_DIR = before
    files = dispatcher._cache
    load, save = files.load_overload, files.save_overload

    def load_or_forget(signature: Any, target: Any) -> Any:
        found = None
        try:
            found = load(signature, target)
        except Exception:  # whatever a cut or foreign file makes of unpickling
            with suppress(OSError):
                files.flush()
        if found is None:
            announce()
        return found

    def save_if_possible(signature: Any, compiled: Any) -> None:
        with suppress(OSError):
            save(signature, compiled)

    files.load_overload, files.save_overload = load_or_forget, save_if_possible
    return dispatcher


def described(value: Any) -> Any:
    """A function, and what the function around it made it with, in words that are the same in every process.

    Numba's own way to tell such functions apart is a pickle, in which intrinsics have random numbers: it finds nothing.
    """
    value = getattr(value, "py_func", None) or getattr(value, "_defn", None) or value  # of a dispatcher, an intrinsic
    if isinstance(value, FunctionType):
        made_with = tuple(described(cell.cell_contents) for cell in value.__closure__ or ())
        return value.__module__, value.__qualname__, value.__code__.co_firstlineno, made_with
    return tuple(map(described, value)) if isinstance(value, tuple) else repr(value)
