"""The border between host and device: empty, put, get, fill, sync, record. Only here is numba.cuda imported.
It knows arrays and nothing of ops, layers or models."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from .errors import DeviceError

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


def __getattr__(name: str) -> Any:
    if name == "cuda":  # kernel files say `from ...device import cuda`; numba is imported when one of them is
        from numba import cuda

        return cuda
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def cuda_stream() -> Any:
    """The stream of every copy and every launch: one of its own, since the default stream cannot be recorded."""
    from numba import cuda

    return cuda.stream()


class CudaDevice(NumpyDevice):
    """A GPU, by Numba's CUDA target; with NUMBA_ENABLE_CUDASIM=1 its simulator, which needs no GPU and is slow."""

    name = "cuda"

    def __init__(self) -> None:
        if find_spec("numba") is None:
            raise DeviceError("device='cuda' needs the package numba: pip install numba")
        from numba import cuda

        self.simulated = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
        if not cuda.is_available():
            raise DeviceError("device='cuda' finds no GPU")
        self.cuda = cuda

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised contiguous array on the GPU."""
        return self.cuda.device_array(shape, dtype)

    def put(self, host: np.ndarray, out: Any = None) -> Any:
        """Copies a host array to the device, into `out` where one is given."""
        host = np.asarray(host)
        if out is None:
            out = self.empty(host.shape, host.dtype)
        if host.size:
            out.copy_to_device(np.ascontiguousarray(host), stream=cuda_stream())
        return out

    def get(self, array: Any) -> np.ndarray:
        """A NumPy copy."""
        return array.copy_to_host(stream=cuda_stream())

    def fill(self, array: Any, value: float) -> None:
        """Sets every element to `value`."""
        self.put(np.full(array.shape, value, array.dtype), array)

    def sync(self) -> None:
        """Waits for all launched work."""
        cuda_stream().synchronize()


DEVICES: dict[str, type[NumpyDevice]] = {"numpy": NumpyDevice, "numba": NumbaDevice, "cuda": CudaDevice}


def open_device(name: str) -> NumpyDevice:
    """The device called `name`, or a DeviceError that says what is missing."""
    if name in DEVICES:
        return DEVICES[name]()
    raise DeviceError(f"device={name!r} is not a device; use one of {', '.join(map(repr, DEVICES))}")
