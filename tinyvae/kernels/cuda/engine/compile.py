"""How a kernel of this column is written down, compiled, kept and launched.

Every kernel sees flat arrays: `launch` flattens what it is given, so that an index is one unsigned number, and the
lengths are passed with them. A Python int is passed as uint32, also in a tuple, a float as float64; what must be of the
arrays' own dtype is passed as one of its scalars.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from ....device import SIMULATED, address, cuda, cuda_stream
from ....device.machine import look
from ....errors import DeviceError
from ... import cache

THREADS = 256  # of a block, where each takes a few neighbours
WIDE = ("LDG.128", "STG.128")  # what a kernel must contain that loads and stores 128 bits at a time


def fingerprint() -> str:
    """A hash of all that the machine code depends on, but for GPU and toolkit: Numba keeps a file for each of them."""
    return cache.fingerprint("cuda", getattr(cuda, "__version__", None))


CACHE = None if SIMULATED else cache.cache_folder(fingerprint())
on_compile: Callable[[], None] | None = None  # called before a kernel is compiled, while somebody listens
on_launch: Callable[..., None] | None = None  # called in place of a launch, while somebody listens


def _announce() -> None:
    if on_compile is not None:
        on_compile()


class Kernel:
    """A kernel for any dtype: `function`, compiled for the types of its arguments when it is first launched.

    expect: instructions that the machine code for float32 must contain, by the names that the disassembler gives them.
    max_registers: a cap for the compiler, None for no cap. doubles: for float32 too it computes in float64.
    """

    def __init__(
        self,
        function: Callable[..., None],
        expect: tuple[str, ...] = (),
        max_registers: int | None = None,
        doubles: bool = False,
    ) -> None:
        self.function, self.expect, self.max_registers, self.doubles = function, expect, max_registers, doubles
        self.name = function.__name__

    @cached_property
    def dispatcher(self) -> Any:
        """Numba's object, made at first use."""
        if SIMULATED:
            return cuda.jit(self.function)
        options = {} if self.max_registers is None else {"max_registers": self.max_registers}
        return cache.kept(lambda keep: cuda.jit(cache=keep, **options)(self.function), cuda.config, CACHE, _announce)


def kernel(
    *, expect: tuple[str, ...] = (), max_registers: int | None = None, doubles: bool = False
) -> Callable[[Callable[..., None]], Kernel]:
    """Decorates a function as a Kernel."""
    return lambda function: Kernel(function, expect, max_registers, doubles)


def device_function(function: Callable[..., Any]) -> Any:
    """Decorates a function that kernels call; LLVM inlines it. In the simulator one that does not name cuda stays plain
    Python: to enter one of the simulator's costs as much as a hundred lines."""
    if SIMULATED and "cuda" not in function.__code__.co_names:
        return function
    return cuda.jit(device=True)(function)


def launch(kernel: Kernel, blocks: int | tuple[int, ...], threads: int | tuple[int, ...], *arguments: Any) -> None:
    """Launches on the device's stream; nothing where there are no blocks."""
    if not np.prod(blocks):
        return
    flat = tuple(_argument(kernel, place, value) for place, value in enumerate(arguments))
    if on_launch is not None:
        on_launch(kernel, blocks, threads, flat)
        return
    try:
        kernel.dispatcher[blocks, threads, cuda_stream()](*flat)
    except Exception as error:
        if "UNSUPPORTED_PTX_VERSION" in str(error):
            raise DeviceError(look().too_new()) from error
        raise


def _argument(kernel: Kernel, place: int, value: Any) -> Any:
    if isinstance(value, np.ndarray):  # Numba would copy it there and back
        name = list(inspect.signature(kernel.function).parameters)[place]
        raise DeviceError(f"{kernel.name}: argument {name} is an array of the host; upload it with device.put")
    if isinstance(value, int):
        return np.uint32(value)
    if isinstance(value, tuple):
        return tuple(_argument(kernel, place, part) for part in value)
    if isinstance(value, float | np.generic):  # a scalar of NumPy could be reshaped too
        return value
    return value if value.ndim == 1 else value.reshape(-1)


def blocks_for(count: int, each: int) -> int:
    """Blocks that take `each` of `count` things, the last one perhaps fewer."""
    return -(-count // each)


def aligned(*arrays: Any) -> bool:
    """Whether every array begins on 16 bytes, as loads and stores of 128 bits ask."""
    return all(address(a) % 16 == 0 for a in arrays)
