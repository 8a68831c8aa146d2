"""One layer or one model set up in float64, every buffer between guard bands and full of NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import kernels
from ..device import open_device
from ..kernels.check import GuardedDevice
from ..kernels.clock import Clock
from ..layers.latent import Latent
from ..layers.layer import Layer, Shape, Site
from ..layers.likelihood import Likelihood, LikelihoodTwin
from ..layers.params import ParamTable
from ..layers.spectral import SpectralNorm

STEP_OF_NOISE = 3  # where the clock stands while gradients are checked


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
