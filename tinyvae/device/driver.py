"""NVIDIA's driver through ctypes, for the few functions that Numba does not offer.
It knows the library and its error codes, not what it is asked for."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from ..errors import DeviceError

NAMES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")


class DriverError(DeviceError):
    """A function of the driver failed, or this driver is too old to have it."""


class Driver:
    """call("cuInit", 0) calls the function of that name; a DriverError says which one failed, and why."""

    def __init__(self, library: Any) -> None:
        self.library = library

    def call(self, name: str, *arguments: Any) -> None:
        function = getattr(self.library, name, None)
        if function is None:
            raise DriverError(f"this driver has no {name}")
        code = function(*arguments)
        if code:
            raise DriverError(f"{name}: {self._reason(code)}")

    def number(self, name: str, *arguments: Any) -> int:
        """What a function writes to its first argument, an int."""
        out = ctypes.c_int()
        self.call(name, ctypes.byref(out), *arguments)
        return out.value

    def _reason(self, code: int) -> str:
        text = ctypes.c_char_p()
        known = self.library.cuGetErrorString(code, ctypes.byref(text)) == 0 and text.value
        return f"{text.value.decode()} ({code})" if known and text.value else f"error {code}"


def find_driver() -> Driver | None:
    """The driver's library, found as Numba finds it; None where there is none."""
    load = getattr(ctypes, "WinDLL", ctypes.CDLL)
    named = os.environ.get("NUMBA_CUDA_DRIVER")
    for name in (named,) if named else NAMES:
        try:
            return Driver(load(name))
        except OSError:
            continue
    return None
