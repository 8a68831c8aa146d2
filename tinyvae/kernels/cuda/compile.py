"""How a kernel of this column is written down, compiled and launched.
It knows Numba's CUDA target by way of device.py, and not what a kernel computes.

Every kernel sees flat arrays: `launch` flattens what it is given, so that an index is one unsigned number, and the
lengths travel beside them. A Python int travels as uint32, also in a tuple, a float as float64; what must be of the
arrays' own dtype is passed as one of its scalars.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
from numba import config

from ...device import cuda, cuda_stream
from ...errors import DeviceError

CACHE = None
on_compile: Callable[[], None] | None = None  # called before a kernel is compiled, while somebody listens
on_launch: Callable[..., None] | None = None  # called in place of a launch, while somebody listens


class Kernel:
    """A kernel for any dtype: `function`, compiled for the types of its arguments when it is first launched.

    expect: instructions that the machine code for float32 must contain, by the names that the disassembler gives them.
    max_registers: a cap for the compiler, None for its own choice.
    """

    def __init__(self, function: Callable[..., None], expect: tuple[str, ...] = (), max_registers: int | None = None):
        self.function, self.expect, self.max_registers = function, expect, max_registers
        self.name = function.__name__

    @cached_property
    def dispatcher(self) -> Any:
        """Numba's object, made when it is first asked for."""
        if self.max_registers is None or config.ENABLE_CUDASIM:
            return cuda.jit(self.function)
        return cuda.jit(self.function, max_registers=self.max_registers)


def kernel(
    *, expect: tuple[str, ...] = (), max_registers: int | None = None
) -> Callable[[Callable[..., None]], Kernel]:
    """Decorates a function as a Kernel."""
    return lambda function: Kernel(function, expect, max_registers)


def device_function(function: Callable[..., Any]) -> Any:
    """Decorates a function that kernels call; LLVM inlines it. In the simulator one that does not name cuda stays plain
    Python: to enter one of the simulator's costs as much as a hundred lines."""
    if config.ENABLE_CUDASIM and "cuda" not in function.__code__.co_names:
        return function
    return cuda.jit(device=True)(function)


def launch(kernel: Kernel, blocks: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any) -> None:
    """Launches on the device's stream; nothing where there are no blocks."""
    if not np.prod(blocks):
        return
    flat = tuple(map(_argument, arguments))
    if on_launch is not None:
        on_launch(kernel, blocks, threads, flat)
        return
    kernel.dispatcher[blocks, threads, cuda_stream()](*flat)


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        raise DeviceError("a CUDA kernel was given an array of the host; device.put uploads it")
    if hasattr(value, "reshape") and hasattr(value, "strides"):
        return value if value.ndim == 1 else value.reshape(-1)
    if isinstance(value, int):
        return np.uint32(value)
    if isinstance(value, tuple):
        return tuple(map(_argument, value))
    return value


def blocks_for(count: int, each: int) -> int:
    """Blocks that take `each` of `count` things, the last one perhaps fewer."""
    return -(-count // each)


def aligned(*arrays: Any) -> bool:
    """Whether every array begins on 16 bytes, as loads and stores of 128 bits ask."""
    return all(address(a) % 16 == 0 for a in arrays)


def address(array: Any) -> int:
    """Where an array begins in the device's memory."""
    if hasattr(array, "device_ctypes_pointer"):
        return int(array.device_ctypes_pointer.value or 0)
    return int(array.ctypes.data)
