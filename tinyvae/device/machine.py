"""What this machine has of a GPU: driver, card, toolkit; and what to do about a piece that is missing, in one sentence.
It knows where the pieces are looked for, not what they are used for."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass, field

from .driver import Driver, DriverError, find_driver
from .toolkit import find

Version = tuple[int, int]

LEAST = (8, 0)  # compute capability: asynchronous copies to shared memory, tf32
PIECES = ("libnvvm", "libdevice", "cudart")  # of the toolkit: compiler, its mathematics, its version
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*


@dataclass(frozen=True)
class Card:
    """A GPU. memory: bytes."""

    name: str
    capability: Version
    memory: int


@dataclass(frozen=True)
class Machine:
    """What was found. driver, version: the CUDA versions of driver and toolkit, None where there is none.

    home: $CUDA_HOME. failure: why the driver shows no card. toolkit: piece → its place. elsewhere: pieces that stand
    where Numba does not look.
    """

    home: str | None = None
    driver: Version | None = None
    failure: str = ""
    cards: tuple[Card, ...] = ()
    toolkit: dict[str, str] = field(default_factory=dict)
    version: Version | None = None
    elsewhere: frozenset[str] = frozenset()

    def missing(self) -> str | None:
        """The first thing that keeps kernels from running, and how to get it; None where nothing does."""
        if self.home == "":
            return (
                "CUDA_HOME is set but empty, and so the CUDA toolkit is not found: "
                "unset it, or set it to the toolkit's folder, such as /usr/local/cuda"
            )
        if self.driver is None:
            return (
                "there is no NVIDIA driver (libcuda.so.1): install the one for your GPU; "
                "without a GPU, NUMBA_ENABLE_CUDASIM=1 simulates one, very slowly"
            )
        if not self.cards:
            return (
                f"the NVIDIA driver finds no GPU ({self.failure or 'it counts none'}): "
                "see what nvidia-smi says, and whether CUDA_VISIBLE_DEVICES hides it"
            )
        if self.cards[0].capability < LEAST:
            return (
                f"{self.cards[0].name} has compute capability {dotted(self.cards[0].capability)}, "
                f"the kernels need {dotted(LEAST)} (Ampere) or newer: use device='numba'"
            )
        absent = [piece for piece in PIECES if piece not in self.toolkit]
        if absent:
            where = f" under CUDA_HOME={self.home}" if self.home else ""
            get = "install the toolkit from developer.nvidia.com/cuda-downloads and set CUDA_HOME to its folder"
            if self.elsewhere.issuperset(absent):
                get = "other packages brought it, so `eval $(python -m tinyvae.device.toolkit FOLDER)` makes it known"
            return f"{', '.join(absent)} of the CUDA toolkit, which compiles kernels, cannot be found{where}: {get}"
        return None

    def too_new(self) -> str:
        """The sentence for a driver that refused what the toolkit compiled."""
        return (
            f"the driver (for CUDA {dotted(self.driver)}) cannot load what the toolkit (CUDA {dotted(self.version)}) "
            "compiles: update the driver, or set CUDA_HOME to a toolkit no newer than it"
        )

    def lines(self) -> list[tuple[str, str]]:
        """What `tinyvae info` prints, (label, text)."""
        driver = f"driver for CUDA {dotted(self.driver)}" if self.driver else "no driver"
        cards = [f"{c.name}, compute capability {dotted(c.capability)}, {c.memory / 2**30:.1f} GiB" for c in self.cards]
        pieces = [f"{piece} {self.toolkit.get(piece, 'missing')}" for piece in PIECES]
        older = " (newer than the driver)" if self.version and self.driver and self.version > self.driver else ""
        return [
            ("GPU", f"{'; '.join(cards) or 'none'}; {driver}"),
            ("CUDA toolkit", f"{dotted(self.version)}{older}: {', '.join(pieces)}"),
        ]


def dotted(version: Version | None) -> str:
    """ "13.0"; "none" for None."""
    return ".".join(map(str, version)) if version else "none"


def look() -> Machine:
    """What there is. The toolkit is looked for where Numba will look."""
    toolkit, version = find_toolkit()
    elsewhere = frozenset(find() if len(toolkit) < len(PIECES) else ())
    home, driver = os.environ.get("CUDA_HOME"), find_driver()
    if driver is None:
        return Machine(home, None, "", (), toolkit, version, elsewhere)
    supported = _version(driver.number("cuDriverGetVersion"))
    try:
        driver.call("cuInit", 0)
        cards = tuple(_card(driver, i) for i in range(driver.number("cuDeviceGetCount")))
    except DriverError as error:
        return Machine(home, supported, str(error), (), toolkit, version, elsewhere)
    return Machine(home, supported, "", cards, toolkit, version, elsewhere)


def find_toolkit() -> tuple[dict[str, str], Version | None]:
    """The pieces that can be opened, with their places, and the toolkit's version."""
    from numba.cuda.cudadrv.libs import get_cudalib, get_libdevice

    found, version = {}, None
    for piece, name in (("libnvvm", "nvvm"), ("cudart", "cudart")):
        try:
            library = ctypes.CDLL(get_cudalib(name))
        except OSError:
            continue
        found[piece] = get_cudalib(name)
        if piece == "cudart":
            out = ctypes.c_int()
            library.cudaRuntimeGetVersion(ctypes.byref(out))
            version = _version(out.value)
    bitcode = get_libdevice()
    if bitcode and os.path.isfile(bitcode):
        found["libdevice"] = bitcode
    return found, version


def _version(number: int) -> Version:
    return number // 1000, number % 1000 // 10


def _card(driver: Driver, index: int) -> Card:
    device, name, memory = driver.number("cuDeviceGet", index), ctypes.create_string_buffer(128), ctypes.c_size_t()
    driver.call("cuDeviceGetName", name, len(name), device)
    driver.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    major, minor = (driver.number("cuDeviceGetAttribute", which, device) for which in (MAJOR, MINOR))
    return Card(name.value.decode(), (major, minor), memory.value)
