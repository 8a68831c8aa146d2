"""Locks between processes, each a file: whoever holds it is alone, and it is free again when that process ends.

A lock is a courtesy here, never a condition: where there is none to be had, as on some network disks, or where another
process does not let go of it, `acquire` returns None and the caller goes on without.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

PAUSE = 0.01  # seconds between two tries
_given_up: set[Path] = set()  # waited for in vain: not waited for again


def acquire(path: Path, patience: float, shared: bool = False) -> int | None:
    """An open file that holds the lock `path`, or None. shared: others may hold it at the same time, if shared too.

    patience: the seconds to wait for a lock, in total.
    """
    end = time.monotonic() + (0 if path in _given_up else patience)
    while True:
        number = None
        try:
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            # the file may have been removed by its last holder since it was opened: then others lock another one
            if _locked(number, shared) and os.path.samestat(os.fstat(number), os.stat(path)):
                held, number = number, None
                return held
        except FileNotFoundError:
            if not path.parent.is_dir():
                return None
        except OSError:
            return None
        finally:
            if number is not None:
                os.close(number)
        if time.monotonic() >= end:
            _given_up.add(path)
            return None
        time.sleep(PAUSE)


def release(number: int | None, remove: Path | None = None) -> None:
    """Lets go of what `acquire` returned. remove: its file, which is deleted while it is still held."""
    if number is None:
        return
    with suppress(OSError):
        if remove is not None:
            remove.unlink(missing_ok=True)
    with suppress(OSError):
        _unlock(number)
    os.close(number)


if sys.platform == "win32":
    import msvcrt

    def _locked(number: int, shared: bool) -> bool:
        try:
            msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # there is no shared kind
        except PermissionError:
            return False
        return True

    def _unlock(number: int) -> None:
        msvcrt.locking(number, msvcrt.LK_UNLCK, 1)

else:
    try:
        import fcntl
    except ImportError:  # a system without locks
        fcntl = None  # type: ignore[assignment]

    def _locked(number: int, shared: bool) -> bool:
        """Whether the lock was free. An OSError where the disk has no locks."""
        if fcntl is None:
            raise OSError("no locks on this system")
        try:
            fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(number: int) -> None:
        """For a child forked in between too, which holds the open file as well."""
        fcntl.flock(number, fcntl.LOCK_UN)
