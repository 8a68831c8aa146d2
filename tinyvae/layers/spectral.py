"""SpectralNorm: a layer whose weight is divided by its largest singular value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..device import Array
from ..errors import ShapeError
from ..kernels import IDENTITY
from .conv import Conv2d, ConvTranspose2d
from .dense import Dense
from .join import Sequential
from .layer import Example, Layer, Shape, Site, Twin, Wrapping
from .params import Tensor
from .reshape import Flatten


class SpectralNorm(Wrapping):
    """The inner layer, Dense, Conv2d or ConvTranspose2d, computing with W̄ = W / sigma where it has its weight W.

    W is taken as a matrix (K, N) as it lies in memory: (n_in, n_out) of Dense, (KH·KW·c_in, c_out) of Conv2d,
    (KH·KW·c_out, c_in) of ConvTranspose2d. sigma is its largest singular value as power iteration finds it:
    v = W u / |W u|,  u ← Wᵀ v / |Wᵀ v|,  sigma = vᵀ W u
    `iterations` times (once, as a rule) in each training forward, going on from the last one's u. u: (N,) is state,
    saved and never optimised, drawn at random at first. Evaluation goes on from the stored u too, and stores nothing.
    With G = grad_W̄, the inner layer's gradient of its weight, and u and v held constant
    grad_W = (G − <G, W̄> v uᵀ) / sigma,  <G, W̄> = Σ G · W̄
    and all else is the inner layer's. u and v do move with W; at the singular vectors that counts in second order only.
    Every twin keeps u, v and W̄ of its own last forward, whatever other twins of the layer do to the state.
    sigma is at most the largest singular value: in the first steps W̄ is a little too large, never too small. A Dense
    layer so made, with an activation no steeper than 1, brings two outputs no further apart than their inputs are; for
    a convolution the matrix is that of one window, and windows overlap, so its bound is larger.
    Miyato et al. 2018, algorithm 1 and section 2.3.
    """

    def __init__(self, inner: Dense | Conv2d, iterations: int = 1) -> None:
        if not isinstance(inner, Dense | Conv2d):
            raise ShapeError(f"SpectralNorm takes Dense, Conv2d or ConvTranspose2d, got {inner!r}; wrap each by itself")
        if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
            raise ShapeError(f"SpectralNorm: iterations={iterations!r} must be an integer of at least 1")
        self.inner, self.iterations = inner, iterations

    def shape(self, *in_shapes: Shape) -> Shape:
        out = self.declare_inner(*in_shapes)
        weight = next(tensor for tensor in self.inner.tensors if tensor.name == "weight")
        self.tensors = (Tensor("u", (weight.shape[-1],), bound=1.0, kind="state"),)
        return out

    def bind(self, site: Site) -> Twin:
        return SpectralNormTwin(self, site)

    def walk(self, path: str) -> Iterator[tuple[str, Layer]]:
        yield path, self
        yield from super().walk(path)

    def describe(self) -> str:
        return repr(self.inner) + ("" if self.iterations == 1 else f", iterations={self.iterations}")

    @classmethod
    def examples(cls) -> list[Example]:
        discriminator = Sequential(
            SpectralNorm(Conv2d(2, 3, (3, 2), (1, 2), (2, 0), "leaky_relu")),
            SpectralNorm(ConvTranspose2d(3, 2, 3, (7, 3), 2, 1)), Flatten(), SpectralNorm(Dense(42, 1)),
        )  # fmt: skip
        return [
            Example(SpectralNorm(Dense(5, 4, "tanh")), ((5,),)),
            Example(SpectralNorm(Dense(3, 1, bias=False), 2), ((3,),), batch=2),
            Example(discriminator, ((2, 4, 2),)),
        ]


@dataclass(frozen=True)
class WeightSite(Site):
    """The site of an inner layer, with another array for its weight and for the weight's gradient."""

    weight: Array = None
    grad_weight: Array = None

    def value(self, name: str) -> Array:
        return self.weight if name == "weight" else super().value(name)

    def grad(self, name: str) -> Array:
        return self.grad_weight if name == "weight" else super().grad(name)


class SpectralNormTwin(Twin):
    """SpectralNorm on fixed buffers. The inner layer may add to its gradients, so its weight's starts at zero then."""

    def __init__(self, layer: SpectralNorm, site: Site) -> None:
        inner, self.kept = site.child("inner"), site.value("u")
        weight, N = inner.value("weight"), self.kept.size
        self.weight, self.grad_weight = (a.reshape(-1, N) for a in (weight, inner.grad("weight")))  # (K, N)
        self.u, self.v, self.sigma = site.empty(N), site.empty(self.weight.shape[0]), site.empty(1)
        self.normalised, self.grad_normalised = site.empty(*self.weight.shape), site.empty(*self.weight.shape)
        self.iterations, self.train, self.weight_grad = layer.iterations, site.train, site.weight_grad
        self.add, self.gate, self.fill = int(site.weight_grad == "add"), site.gate, site.table.device.fill
        self.activate, self.spectral_norm = site.op("activate"), site.op("spectral_norm")
        self.spectral_norm_grad = site.op("spectral_norm_grad")
        normalised, grad = (a.reshape(weight.shape) for a in (self.normalised, self.grad_normalised))
        self.twins = [layer.inner.bind(WeightSite(**vars(inner), weight=normalised, grad_weight=grad))]

    def forward(self, *xs: Array) -> Array:
        self.activate(self.kept, IDENTITY, self.u)
        self.spectral_norm(self.weight, self.iterations, self.u, self.v, self.sigma, self.normalised)
        if self.train:
            self.activate(self.u, IDENTITY, self.kept)
        return self.twins[0].forward(*xs)

    def backward(self, grad_y: Array) -> Any:
        if self.add:
            self.fill(self.grad_normalised, 0)
        grad_x = self.twins[0].backward(grad_y)
        if self.weight_grad != "skip" and self.gate.open:
            self.spectral_norm_grad(
                self.grad_normalised, self.normalised, self.u, self.v, self.sigma, self.add, self.grad_weight
            )
        return grad_x
