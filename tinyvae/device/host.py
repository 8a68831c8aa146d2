"""The host as a device: NumPy's arrays, aligned, for the ops in NumPy and for those that Numba compiles."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..errors import DeviceError

ALIGNMENT = 64  # bytes: a cache line, and the widest vector of today's CPUs


class NumpyDevice:
    """The host itself. Arrays are NumPy arrays whose first element stands on a 64-byte boundary."""

    name = "numpy"

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised contiguous array."""
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        raw = np.empty(size + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + size].view(dtype).reshape(shape)

    def put(self, host: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Copies a host array to the device, into `out` where one is given."""
        if out is None:
            out = self.empty(np.shape(host), np.asarray(host).dtype)
        out[...] = host
        return out

    def get(self, array: np.ndarray) -> np.ndarray:
        """A NumPy copy, independent of the device's array."""
        return np.array(array)

    def fill(self, array: np.ndarray, value: float) -> None:
        """Sets every element to `value`."""
        array[...] = value

    def sync(self) -> None:
        """Waits for all launched work: nothing to wait for here."""

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """A function that repeats `step` with less overhead; on the host, `step` itself."""
        return step


class NumbaDevice(NumpyDevice):
    """The host again, with ops compiled by Numba: the same arrays, other functions."""

    name = "numba"

    def __init__(self) -> None:
        if find_spec("numba") is None:
            raise DeviceError("device='numba' needs the package numba: pip install numba")
