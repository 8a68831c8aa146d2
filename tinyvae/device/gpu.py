"""The GPU's side of the border, by Numba's CUDA target or its simulator: one stream, one arena, no hidden copy.
It knows memory and the stream; which kernels run there is not its business."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from ..errors import DeviceError
from .driver import find_driver
from .graph import Recorded, Recorder
from .host import NumpyDevice
from .machine import look

config: Any = cuda.config
SIMULATED = bool(config.ENABLE_CUDASIM)
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small grid is no mistake here: the clock ticks in a single thread

ALIGNMENT = 256  # bytes, what cudaMalloc promises: any vector load, any transaction begins there
BLOCK = 32 << 20  # bytes that the arena takes at a time
LARGE = BLOCK // 4  # beyond it a request has a block of its own, so that little of a block is left over
PIECE = 1 << 16  # numbers of a filling that come from the host
MOST = 2**31  # kernels count in 32 bits


@cache
def cuda_stream() -> Any:
    """The stream of every copy and every launch: one of its own, since the default stream cannot be recorded."""
    return cuda.stream()


def address(array: Any) -> int:
    """Where an array begins in the device's memory; in the simulator that is the host's."""
    if hasattr(array, "device_ctypes_pointer"):
        return int(array.device_ctypes_pointer.value or 0)
    return int(array.ctypes.data)


class Arena:
    """Memory in blocks, lent as views that begin on 256 bytes and never move.

    A view keeps its block alive; a block that no view is left of goes back to the driver.
    """

    def __init__(self) -> None:
        self.block: Any = None
        self.used = BLOCK  # so that the first request makes one

    def take(self, size: int) -> Any:
        """`size` bytes, uint8."""
        if size > LARGE:
            return self._new(size)
        if self.used + size > BLOCK:
            self.block, self.used = None, 0  # let go of the old one first
            self.block = self._new(BLOCK)
        start = self.used
        self.used += -(-size // ALIGNMENT) * ALIGNMENT
        return self.block[start : start + size]

    def _new(self, size: int) -> Any:
        raw = allocate(size + ALIGNMENT)
        start = -address(raw) % ALIGNMENT
        return raw[start : start + size]


def allocate(size: int, again: bool = True) -> Any:
    """`size` bytes from the driver."""
    try:
        return cuda.device_array(size, np.uint8)
    except Exception as error:
        if "OUT_OF_MEMORY" not in str(error):
            raise
    if again:
        gc.collect()  # a model that is gone can hang in a circle of references, with its memory
        return allocate(size, again=False)
    free, total = (count / 2**20 for count in cuda.current_context().get_memory_info())
    raise DeviceError(
        f"the GPU has no room for {size / 2**20:,.0f} MiB ({free:,.0f} of {total:,.0f} MiB are free); "
        "try a smaller --batch-size or smaller images"
    )


class CudaDevice(NumpyDevice):
    """A GPU, by Numba's CUDA target; with NUMBA_ENABLE_CUDASIM=1 its simulator, which needs no GPU and is slow."""

    name = "cuda"

    def __init__(self) -> None:
        self.arena = Arena()
        self.recorder: Recorder | None = None  # the simulator has nothing to record with
        if SIMULATED:
            return
        trouble = look().missing()
        if trouble is None and not cuda.is_available():
            trouble = f"Numba cannot use the GPU: {cuda.cuda_error()}"
        driver = find_driver()
        if trouble is not None or driver is None:
            raise DeviceError(f"device='cuda': {trouble}")
        self.recorder = Recorder(driver, int(cuda_stream()), cuda.defer_cleanup)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """An uninitialised contiguous array on the GPU."""
        self._not_while_recording("empty")
        shape, dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
        size = math.prod(shape)
        if size >= MOST:
            raise DeviceError(f"shape {shape} has {size:,} elements; an array of the GPU must have fewer than 2**31")
        if not size:  # with strides that are not 0, or Numba takes it for an array that is not contiguous
            return cuda.device_array(shape, dtype, strides=(dtype.itemsize,) * len(shape))
        return self.arena.take(size * dtype.itemsize).view(dtype).reshape(shape)

    def put(self, host: np.ndarray, out: Any = None) -> Any:
        """Copies a host array to the device, into `out` where one is given."""
        self._not_while_recording("put")
        if hasattr(host, "__cuda_ndarray__"):
            raise DeviceError("device.put takes an array of the host, and this one is on the GPU; device.get copies it")
        host = np.asarray(host)
        if out is None:
            out = self.empty(host.shape, host.dtype)
        if out.size:  # flat on both sides: Numba drops an axis of length 1 here and keeps it there
            flat = np.ascontiguousarray(np.broadcast_to(host, out.shape), out.dtype).reshape(-1)
            out.reshape(-1).copy_to_device(flat, stream=cuda_stream())
            self.sync()  # Numba's copy may read the host's memory after it has returned
        return out

    def get(self, array: Any) -> np.ndarray:
        """A NumPy copy."""
        self._not_while_recording("get")
        host = np.empty(array.shape, array.dtype)
        if host.size:
            array.copy_to_host(host, stream=cuda_stream())
            self.sync()
        return host

    def fill(self, array: Any, value: float) -> None:
        """Sets every element to `value`: a piece comes from the host, and doubles on the GPU."""
        self._not_while_recording("fill")
        flat = array.reshape(-1)
        done = min(flat.size, PIECE)
        self.put(np.full(done, value, array.dtype), flat[:done])
        while done < flat.size:
            count = min(done, flat.size - done)
            flat[done : done + count].copy_to_device(flat[:count], stream=cuda_stream())
            done += count

    def sync(self) -> None:
        """Waits for all launched work."""
        self._not_while_recording("sync")
        cuda_stream().synchronize()

    def record(self, step: Callable[[], None]) -> Callable[[], None]:
        """A function that repeats `step` with less overhead: all that it launches, as one CUDA graph.

        `step` must launch the same with the same arguments every time: what changes stands on the device, in the clock.
        """
        return step if self.recorder is None else Recorded(step, self.recorder)

    def _not_while_recording(self, name: str) -> None:
        if self.recorder is not None and self.recorder.recording:
            raise DeviceError(f"device.{name} inside a recorded step, which can only launch; call it before or after")
