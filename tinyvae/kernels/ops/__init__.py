"""The ops, one subject a file: what each one means in NumPy, and its row of the table.

A device's column has files of the same names with functions of the same names; where a file or a
function is missing, the device lacks the op. A new op is a function and a row in a file here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from types import ModuleType

from ..op import Op

PAGES = {page.name: import_module(f".{page.name}", __name__) for page in iter_modules(__path__)}
OPS: dict[str, Op] = {op.name: op for page in PAGES.values() for op in page.OPS}


def collect(package: str) -> Iterator[tuple[str, Callable[..., None], ModuleType]]:
    """(op, function, file) for every op that the package, a device's column, has."""
    for subject, page in PAGES.items():
        if find_spec(f"{package}.{subject}") is None:
            continue
        file = import_module(f"{package}.{subject}")
        for op in page.OPS:
            if hasattr(file, op.name):
                yield op.name, getattr(file, op.name), file
