"""One layer, one op or one model set up in float64, every buffer between guard bands and full of NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import kernels
from ..device import open_device
from ..errors import TinyvaeError
from ..kernels import OPS
from ..kernels.clock import Clock
from ..layers import Latent, Layer, Likelihood, Shape, Site, SpectralNorm
from ..layers.likelihood import LikelihoodTwin
from ..layers.params import ParamTable

GUARD = 64  # elements on either side of a buffer: as many as keep any dtype on a 64-byte boundary
STEP_OF_NOISE = 3  # where the clock stands while gradients are checked


class DamageError(TinyvaeError):
    """Something was written that must not be written: past the end of a buffer, or into an input."""


class GuardedDevice:
    """A device whose buffers start as NaN and stand between bands that nothing may write (integers: all ones)."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.name = inner, inner.name
        self.buffers: list[Any] = []

    def __getattr__(self, name: str) -> Any:  # get, fill, sync, record are the inner device's
        return getattr(self.inner, name)

    def empty(self, shape: int | Shape, dtype: Any) -> Any:
        """A poisoned buffer between two bands."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape, dtype=np.int64))
        raw = self.inner.empty(size + 2 * GUARD, dtype)
        self.inner.fill(raw, _poison(np.dtype(dtype)))
        self.buffers.append(raw)
        return raw[GUARD : GUARD + size].reshape(shape)

    def put(self, host: np.ndarray, out: Any = None) -> Any:
        """A host array on the device, in a guarded buffer unless `out` is given."""
        host = np.asarray(host)
        return self.inner.put(host, self.empty(host.shape, host.dtype) if out is None else out)

    def damaged(self) -> bool:
        """Whether a band of any buffer was written."""
        for raw in self.buffers:
            host = self.inner.get(raw)
            bands = np.concatenate([host[:GUARD], host[-GUARD:]])
            poison = np.full(len(bands), _poison(host.dtype), host.dtype)
            if bands.tobytes() != poison.tobytes():
                return True
        return False


def _poison(dtype: np.dtype) -> Any:
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max


class Runner:
    """Calls ops on NumPy arrays: run("dense", x, w, b, act, y=(B, N)) → y. In float64 unless told.

    Inputs, options and arrays updated in place stand in the op's order; outputs are named with their shapes; `work` is
    supplied. Returns what the op updated or wrote, one array or a tuple. A DamageError says what the op harmed.
    """

    def __init__(self, device: str = "numpy", dtype: Any = np.float64, ops: Any = None) -> None:
        self.device = GuardedDevice(open_device(device))
        self.ops, self.dtype = ops or kernels.load(device), np.dtype(dtype)

    def __call__(self, name: str, *given: Any, **shapes: Shape) -> Any:
        op, self.device.buffers = OPS[name], []
        arguments: list[Any] = []
        inputs: list[tuple[str, Any, bytes]] = []
        written: list[Any] = []
        feed = iter(given)
        for arg in op.args:
            if arg.role == "option":
                arguments.append(next(feed))
            elif arg.role == "work":
                arguments.append(self.device.empty(self._work(name, given, shapes), self.dtype))
            elif arg.role == "out":
                dtype = self.dtype if arg.dtype == "float" else arg.dtype
                arguments.append(self.device.empty(shapes[arg.name], dtype))
                written.append(arguments[-1])
            else:
                host = self._host(arg.dtype, next(feed))
                arguments.append(self.device.put(host))
                if arg.role == "in":
                    inputs.append((arg.name, arguments[-1], host.tobytes()))
                else:
                    written.append(arguments[-1])
        getattr(self.ops, name)(*arguments)
        for label, array, before in inputs:
            if self.device.get(array).tobytes() != before:
                raise DamageError(f"op {name} changed its input {label}")
        if self.device.damaged():
            raise DamageError(f"op {name} wrote outside its arrays")
        results = [self.device.get(array) for array in written]
        return results[0] if len(results) == 1 else tuple(results)

    def _host(self, kind: str, value: Any) -> np.ndarray:
        value = np.asarray(value)
        if kind == "float" or (kind == "image" and value.dtype != np.uint8):
            return np.ascontiguousarray(value, self.dtype)
        return np.ascontiguousarray(value, None if kind == "image" else kind)

    @staticmethod
    def _work(name: str, given: Sequence[Any], outputs: Mapping[str, Shape]) -> int:
        feed, shapes, options = iter(given), [], {}
        for arg in OPS[name].args:
            if arg.role == "option":
                options[arg.name] = next(feed)
            elif arg.role != "work":
                shape = outputs[arg.name] if arg.role == "out" else np.shape(next(feed))
                shapes.append(() if 0 in shape else shape)
        return OPS[name].work_size(*shapes, options=options)


def pieces(layer: Layer) -> list[Layer]:
    """The layer and every leaf below it."""
    return [leaf for _, leaf in layer.walk("layer")]


def settle(parts: Mapping[str, Layer], table: ParamTable) -> None:
    """Brings the power iterations of these parts to their end, which training only comes near.

    Backward holds the vectors of spectral normalisation constant. At the end, the singular vectors, that is the whole
    derivative; on the way there, differences would see the vectors move with the weight as well.
    """
    for part, layer in parts.items():
        for path, leaf in layer.walk(part):
            if isinstance(leaf, SpectralNorm):
                u, weight = table.view(f"{path}.u"), table.device.get(table.view(f"{path}.inner.weight"))
                _, _, v = np.linalg.svd(weight.reshape(-1, u.size), full_matrices=False)
                table.device.put(v[0].astype(table.dtype), u)


def twins_below(twin: Any) -> list[Any]:
    """The twin and every twin inside it."""
    return [twin] + [t for inner in getattr(twin, "twins", ()) for t in twins_below(inner)]


class LayerHarness:
    """A layer bound in float64 for `batch` images with `samples` rows each, its inputs and parameters drawn.

    Parameters are those of the layer's own initialisation; what starts constant (zero biases) is shaken.
    """

    def __init__(
        self,
        layer: Layer,
        in_shapes: tuple[Shape, ...],
        batch: int,
        samples: int = 1,
        device: str = "numpy",
        seed: int = 0,
        need_grad_x: bool = True,
        weight_grad: str = "write",
    ) -> None:
        self.layer, self.device = layer, GuardedDevice(open_device(device))
        self.rng = np.random.default_rng((seed, batch, samples))
        layer.declare(*in_shapes)
        self.table = ParamTable({"layer": layer}, np.float64, self.device, seed)
        latents = [leaf for leaf in pieces(layer) if isinstance(leaf, Latent)]
        self.clock = Clock(self.device, 1, latents[0].latent_dim if latents else 0, seed)
        self.clock.set(step=STEP_OF_NOISE)
        self._shake()
        settle({"layer": layer}, self.table)
        ops = kernels.load(device, unchecked=True)
        self.site = Site(
            self.table, ops, self.clock, batch, need_grad_x=need_grad_x, weight_grad=weight_grad, samples=samples,
            path="layer",
        )  # fmt: skip
        self.twin = layer.bind(self.site)
        self.latents = [t for t in twins_below(self.twin) if hasattr(t, "kl")]
        rows: tuple[int, ...] = (batch,) * len(in_shapes)
        self.row_scale: np.ndarray | None = None
        if isinstance(self.twin, LikelihoodTwin):  # outputs have R rows, images B; rows are weighted unequally
            rows = (batch * samples, batch)
            self.row_scale = self.rng.uniform(0.2, 1.8, rows[0])
            self.device.put(self.row_scale, self.twin.row_scale)
        self.shapes = [(n, *shape) for n, shape in zip(rows, in_shapes, strict=True)]
        self.given = [self._draw(i, shape) for i, shape in enumerate(self.shapes)]  # the inputs, on the host
        self.xs = [self.device.put(host) for host in self.given]
        self.state = self.device.get(self.table.state)

    def _shake(self) -> None:
        for name, (tensor, _) in self.table.places.items():
            if tensor.bound == 0 and tensor.kind == "param":
                noise = 0.1 * self.rng.standard_normal(tensor.shape)
                self.device.put(tensor.fill + noise, self.table.view(name))

    def _draw(self, which: int, shape: Shape) -> np.ndarray:
        """Normal numbers; pixels in [0, 1]; the numbers of a latent layer small enough for exp."""
        if isinstance(self.layer, Likelihood) and which == 1:
            return self.rng.uniform(0.05, 0.95, shape)
        return self.rng.standard_normal(shape) * (0.6 if isinstance(self.layer, Latent) else 1.0)

    def redraw(self) -> None:
        """Other inputs for the same buffers."""
        self.given = [self._draw(i, shape) for i, shape in enumerate(self.shapes)]

    def set_kl_weight(self, weight: np.ndarray | float) -> None:
        """The KL weights (latent,) of the clock."""
        if self.clock.kl_weight.size:
            self.device.put(np.broadcast_to(weight, self.clock.kl_weight.shape), self.clock.kl_weight)

    def forward(self) -> np.ndarray:
        """y, a copy, for the inputs `given`, with state as it was at first."""
        for host, x in zip(self.given, self.xs, strict=True):
            self.device.put(host, x)
        if self.state.size:
            self.device.put(self.state, self.table.state)
        y = self.twin.forward(*self.xs)
        return self.device.get(y)

    def backward(self, grad_y: np.ndarray | None) -> tuple[np.ndarray | None, ...]:
        """The gradients of the inputs that have one, copies; None where the layer gives none."""
        grad_x = self.twin.backward(None if grad_y is None else self.device.put(grad_y))
        grads = grad_x if isinstance(grad_x, tuple) else (grad_x,)
        return tuple(None if g is None else self.device.get(g) for g in grads)

    def fill_grads(self, value: float = np.nan) -> None:
        """Every parameter gradient ← value; the padding between them stays as it is."""
        for name in self.table.names():
            self.device.fill(self.table.grad(name), value)

    def parameters(self) -> dict[str, np.ndarray]:
        """Parameter values by name, copies."""
        return {name.removeprefix("layer."): self.device.get(self.table.view(name)) for name in self.table.names()}

    def grads(self) -> dict[str, np.ndarray]:
        """Parameter gradients by name, copies."""
        return {name.removeprefix("layer."): self.device.get(self.table.grad(name)) for name in self.table.names()}
