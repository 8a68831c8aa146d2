"""Where the programs of the peers are: the package `peers` in the folder benchmarks/ of a clone of the repository."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import ConfigError

CLONE = Path(__file__).resolve().parents[2] / "benchmarks"
MISSING = (
    "the peers' programs are not part of the installed package: run this in a clone of the repository, "
    "or give its folder benchmarks/ with --peers"
)


def enable(given: str | None) -> bool:
    """Makes `peers` importable, from the folder given or beside this package; whether it was found."""
    where = Path(given).resolve() if given else CLONE
    if not (where / "peers" / "__init__.py").is_file():
        if given:
            raise ConfigError(f"--peers {given}: no package `peers` there; give the folder benchmarks/ of a clone")
        return False
    if str(where) not in sys.path:
        sys.path.append(str(where))
    return True


def folder() -> Path | None:
    """The folder from which `peers` can be imported; None where it cannot."""
    spec = find_spec("peers")
    return Path(spec.origin).parents[1] if spec and spec.origin else None


def program(name: str = "") -> Any:
    """The package `peers`, or the module of this name in it."""
    if folder() is None:
        raise ConfigError(MISSING)
    return import_module(f"peers.{name}" if name else "peers")
