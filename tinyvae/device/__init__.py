"""The border between host and device: empty, put, get, fill, sync, record. Only in this package is numba.cuda imported.
It knows arrays and nothing of ops, layers or models."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

from ..errors import DeviceError
from .host import NumbaDevice, NumpyDevice

Array = Any  # an array of the model's device: NumPy's, or one in the memory of the GPU


@cache
def _cuda_device() -> NumpyDevice:
    """The GPU: one object for the whole process, as there is one arena and one stream."""
    if find_spec("numba") is None:
        raise DeviceError("device='cuda' needs the package numba: pip install numba")
    from .gpu import CudaDevice

    return CudaDevice()


DEVICES: dict[str, Callable[[], NumpyDevice]] = {"numpy": NumpyDevice, "numba": NumbaDevice, "cuda": _cuda_device}


def open_device(name: str) -> NumpyDevice:
    """The device called `name`, or a DeviceError that says what is missing."""
    if name in DEVICES:
        return DEVICES[name]()
    raise DeviceError(f"device={name!r} is not a device; use one of {', '.join(map(repr, DEVICES))}")


def __getattr__(name: str) -> Any:
    if name in ("cuda", "cuda_stream", "address", "SIMULATED"):  # kernel files take these from here
        from . import gpu  # and Numba is imported when the first of them does

        return getattr(gpu, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
