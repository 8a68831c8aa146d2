"""Where the machine code of compiled columns is kept between runs, and how a broken file is ignored.

Compiling takes seconds, so the machine code is kept on disk, in a folder whose name is a hash of everything it depends
on. A changed source, an upgrade or another machine therefore looks elsewhere and compiles anew; what a broken or
read-only folder costs is time, never a result. A folder that was not used for a month is removed.

Processes share a folder. Numba writes an index, then the machine code, and kernels made by one function share an
index, so reading and writing take a lock, and with the code is kept the key that it belongs to. Of processes that want
the same kernel at once, one compiles, and the others wait for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FunctionType
from typing import Any, ClassVar

import llvmlite
import numba
import numpy as np

from . import locks

KERNELS = Path(__file__).parent
FOLDER = re.compile(r"kernels-[0-9a-f]+")
UNUSED = 30 * 24 * 3600  # seconds after which a folder is removed
COMPILING, WRITING = 60.0, 5.0  # seconds that another process is waited for: while it compiles, while it writes


def fingerprint(*depends: Any, kernels: Path = KERNELS) -> str:
    """A hash of all sources of kernels, of the compilers' versions, and of all else that machine code depends on.

    Both columns are hashed for either, and every file of the meaning, as kernels hold constants of many of them.
    """
    digest = hashlib.sha256()
    for path in sorted(kernels.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{os.path.relpath(path, kernels)}\0{len(content)}\0".encode() + content)
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
        os.utime(folder)  # used today
    except (OSError, RuntimeError):
        return None
    _remove_unused(folder)
    return folder


def folders_beside(folder: Path) -> list[Path]:
    """Every folder of machine code in the same place, this one included."""
    with suppress(OSError):
        return sorted(p for p in folder.parent.iterdir() if FOLDER.fullmatch(p.name) and p.is_dir())
    return []


def _remove_unused(current: Path) -> None:
    """Removes the folders beside `current` that no process has opened for a month: of older sources and versions."""
    for folder in folders_beside(current):
        with suppress(OSError):
            if folder != current and time.time() - folder.lstat().st_mtime > UNUSED and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)


def size(folder: Path) -> int:
    """The bytes of all files below."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def is_cold(folder: Path | None) -> bool:
    """Whether nothing has been kept yet, so that the first calls will compile."""
    return folder is None or not any(folder.glob("*/*.nbi"))


def kept(make: Callable[[bool], Any], config: Any, folder: Path | None, announce: Callable[[], None]) -> Any:
    """The dispatcher `make(cache)`, whose machine code is kept in `folder`; `announce` is called before it compiles.

    config: that of the compiler; a CUDA target of its own, the package numba-cuda, has another than Numba.
    A file that cannot be read counts as none, and what cannot be written is not kept, where Numba itself would raise.
    While another process compiles the same for the same types, it is waited for, and what it kept is taken.
    """
    before = config.CACHE_DIR
    try:
        if folder is not None:
            config.CACHE_DIR = str(folder)  # read once, while the function is decorated
        dispatcher = make(folder is not None)
    finally:
        config.CACHE_DIR = before
    files = dispatcher._cache
    files._index_key = lambda types, code: (types, code.magic_tuple(), described(dispatcher))
    load, save, compile_for = files.load_overload, files.save_overload, dispatcher.compile
    if folder is not None:
        _share(files._cache_file, folder)

    def load_or_forget(signature: Any, target: Any) -> Any:
        found = load_or_none(signature, target)
        if found is None and folder is not None:
            with suppress(Exception):  # what no key can be made of is compiled without a turn
                turn = _Turn(Path(files._cache_file._index_path), files._index_key(signature, target.codegen()))
                _turns_of_thread().append(turn)
            found = load_or_none(signature, target)  # what another process has kept meanwhile
        if found is None:
            announce()
        return found

    def load_or_none(signature: Any, target: Any) -> Any:
        try:
            return load(signature, target)
        except Exception:  # whatever a cut or foreign file makes of unpickling
            with suppress(OSError):
                files.flush()
        return None

    def save_if_possible(signature: Any, compiled: Any) -> None:
        with suppress(OSError):
            save(signature, compiled)

    def compile_in_turn(signature: Any) -> Any:
        turns = _turns_of_thread()
        before = len(turns)
        try:
            return compile_for(signature)
        finally:  # kept, or found, or failed
            while len(turns) > before:
                turns.pop().end()

    files.load_overload, files.save_overload = load_or_forget, save_if_possible
    dispatcher.compile = compile_in_turn
    return dispatcher


_turns = threading.local()


def _turns_of_thread() -> list[_Turn]:
    """The turns of this thread that have not ended, the innermost last."""
    return _turns.__dict__.setdefault("taken", [])


class _Turn:
    """This process's turn to compile one kernel for some types, waited for when it is made.

    Nested turns follow the calls of kernels, in which there is no circle, so processes do not wait for each other.
    """

    taken: ClassVar[set[Path]] = set()  # of this process; a second thread compiles for itself rather than wait

    def __init__(self, index: Path, key: Any) -> None:
        name = hashlib.sha256(repr((index.name, key)).encode()).hexdigest()[:16]
        self.path, self.held = index.with_name(f"{name}.lock"), None
        self.mine = self.path not in self.taken
        if self.mine:
            self.taken.add(self.path)
            with suppress(OSError):
                index.parent.mkdir(parents=True, exist_ok=True)
            self.held = locks.acquire(self.path, COMPILING)

    def end(self) -> None:
        if self.mine:
            locks.release(self.held, self.path)
            self.taken.discard(self.path)


def _share(file: Any, folder: Path) -> None:
    """Makes Numba's index and files safe among processes: one writes at a time, and what is read is what was asked for.

    The key stands in the file beside the machine code, as the index alone could tell of a file that is not yet written.
    """
    path = folder / "lock"
    load, save, flush = file.load, file.save, file.flush

    def load_own(key: Any) -> Any:
        with _alone(path, shared=True):
            found = load(key)
        return found[1] if isinstance(found, tuple) and len(found) == 2 and found[0] == key else None

    def save_with_key(key: Any, data: Any) -> None:
        with _alone(path):
            save(key, (key, data))

    def flush_alone() -> None:
        with _alone(path):
            flush()

    file.load, file.save, file.flush = load_own, save_with_key, flush_alone


@contextmanager
def _alone(path: Path, shared: bool = False) -> Iterator[None]:
    """With the lock, or without it where it cannot be had."""
    held = locks.acquire(path, WRITING, shared)
    try:
        yield
    finally:
        locks.release(held)


def described(value: Any) -> Any:
    """A function, and what the function around it made it with, in words that are the same in every process.

    Numba's own way to tell such functions apart is a pickle, in which intrinsics have random numbers: it finds nothing.
    """
    value = getattr(value, "py_func", None) or getattr(value, "_defn", None) or value  # of a dispatcher, an intrinsic
    if isinstance(value, FunctionType):
        made_with = tuple(described(cell.cell_contents) for cell in value.__closure__ or ())
        return value.__module__, value.__qualname__, value.__code__.co_firstlineno, made_with
    return tuple(map(described, value)) if isinstance(value, tuple) else repr(value)
