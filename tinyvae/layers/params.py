"""The parameter table: every tensor of a model in three flat buffers, allocated once, with named views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..device import Array
from ..errors import ConfigError
from ..kernels.clock import COUNTERS, SEED, STEP, Stream
from ..kernels.ops.noise import philox_uniform

TENSOR_ALIGNMENT = 64  # elements: each tensor starts on such a boundary, whatever the dtype


@dataclass(frozen=True)
class Tensor:
    """A tensor that a layer declares. `bound`: uniform in ±bound; otherwise every element is `fill`.

    kind "param" is trained; kind "state" is saved but never touched by an optimiser (running statistics).
    """

    name: str
    shape: tuple[int, ...]
    bound: float = 0.0
    fill: float = 0.0
    kind: str = "param"


class Declaring(Protocol):
    """What the table needs of a layer: whether it draws noise, its tensors, and its leaves with their paths."""

    noisy: bool
    tensors: tuple[Tensor, ...]

    def walk(self, path: str) -> Iterator[tuple[str, Declaring]]: ...


INITS = ("fan_in", "he", "glorot", "zeros")


def weight_and_bias(shape: tuple[int, ...], fan_in: int, fan_out: int, bias: int, init: str) -> tuple[Tensor, ...]:
    """The two tensors of a linear layer, with their initial ranges.

    "fan_in" draws both uniformly in ±1/√fan_in (PyTorch's default, so that published curves apply). "he" (He et al.
    2015, equation 10) draws the weight in ±√(6/fan_in), "glorot" (Glorot & Bengio 2010, equation 16) in
    ±√(6/(fan_in + fan_out)), both with zero bias. bias: its length, 0 for none.
    """
    if init not in INITS:
        raise ConfigError(f"init={init!r} is not an initialiser; use one of {', '.join(map(repr, INITS))}")
    bound = {"fan_in": fan_in**-0.5, "he": (6 / fan_in) ** 0.5, "glorot": (6 / (fan_in + fan_out)) ** 0.5, "zeros": 0.0}
    tensors: tuple[Tensor, ...] = (Tensor("weight", shape, bound[init]),)
    if bias:
        tensors += (Tensor("bias", (bias,), bound[init] if init == "fan_in" else 0.0),)
    return tensors


class ParamTable:
    """`values`, `grads` and `state`: three flat buffers on the device, allocated once and never re-pointed.

    Tensors are named "part.layer.weight" and stand in order of declaration, each on a 64-element boundary; the padding
    between them is zero and stays zero. Each part is one contiguous range of `values` and of `grads`.
    """

    def __init__(self, parts: Mapping[str, Declaring], dtype: Any, device: Any, seed: int) -> None:
        self.dtype, self.device = np.dtype(dtype), device
        self.places: dict[str, tuple[Tensor, int]] = {}
        self.streams: dict[str, int] = {}
        self.ranges: dict[str, slice] = {}
        ends = {"param": 0, "state": 0}
        for part, layer in parts.items():
            start = ends["param"]
            for path, leaf in layer.walk(part):
                if leaf.noisy:
                    self.streams[path] = Stream.LAYER + len(self.streams)
                for tensor in leaf.tensors:
                    self.places[f"{path}.{tensor.name}"] = (tensor, ends[tensor.kind])
                    ends[tensor.kind] += _padded(int(np.prod(tensor.shape)))
            self.ranges[part] = slice(start, ends["param"])
        self.values = device.empty(ends["param"], dtype)
        self.grads = device.empty(ends["param"], dtype)
        self.state = device.empty(ends["state"], dtype)
        for buffer in (self.values, self.grads, self.state):
            device.fill(buffer, 0)
        self.initialise(seed)

    def initialise(self, seed: int) -> None:
        """Draws every tensor from stream `init`, its ordinal as the step, in float64 and then rounded."""
        counters = np.zeros(COUNTERS, np.uint64)
        counters[SEED] = np.uint64(seed)
        for ordinal, (name, (tensor, _)) in enumerate(self.places.items()):
            host = np.full(tensor.shape, tensor.fill, np.float64)
            if tensor.bound:
                counters[STEP] = ordinal
                philox_uniform(counters, Stream.INIT, host.reshape(1, -1))
                host = (2 * host - 1) * tensor.bound
            self.device.put(host.astype(self.dtype), self.view(name))

    def view(self, name: str) -> Array:
        """The tensor `name`, a view into `values` (or `state`)."""
        tensor, _ = self.places[name]
        return self._cut(name, self.values if tensor.kind == "param" else self.state)

    def grad(self, name: str) -> Array:
        """The gradient of parameter `name`, a view into `grads`."""
        return self._cut(name, self.grads)

    def _cut(self, name: str, buffer: Array) -> Array:
        tensor, start = self.places[name]
        return buffer[start : start + int(np.prod(tensor.shape))].reshape(tensor.shape)

    def names(self, kind: str = "param") -> list[str]:
        """Names of all parameters (or of all state), in order of declaration."""
        return [name for name, (tensor, _) in self.places.items() if tensor.kind == kind]

    def range_of(self, parts: tuple[str, ...]) -> slice:
        """The one contiguous range that holds these parts; they must be neighbours in order of declaration."""
        order = list(self.ranges)
        unknown = [p for p in parts if p not in order]
        if unknown:
            raise ConfigError(f"parts={parts}: there is no part {unknown[0]!r}; this model has {', '.join(order)}")
        places = sorted(order.index(p) for p in parts)
        if places != list(range(places[0], places[0] + len(places))):
            raise ConfigError(f"parts={parts}: a player's parts must be neighbours in {', '.join(order)}")
        return slice(self.ranges[order[places[0]]].start, self.ranges[order[places[-1]]].stop)

    def count(self) -> int:
        """The number of trained numbers, padding left out."""
        return sum(int(np.prod(t.shape)) for t, _ in self.places.values() if t.kind == "param")


def _padded(size: int) -> int:
    return -(-size // TENSOR_ALIGNMENT) * TENSOR_ALIGNMENT
