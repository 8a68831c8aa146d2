"""The model contract and the corridor: encoder, latent, decoder, likelihood, forward and then back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypedDict

import numpy as np

from .. import kernels
from ..config import (
    DEFAULT_DEVICE,
    DTYPES,
    Adam,
    ModelConfig,
    Optimizer,
    require_choice,
    require_precision,
    require_seed,
)
from ..device import open_device
from ..errors import ShapeError
from ..kernels.clock import Clock
from ..layers.layer import Gate, Layer, Shape, Site
from ..layers.likelihood import Likelihood
from ..layers.params import ParamTable
from ..layers.priors import Prior
from .methods import Methods
from .networks import Networks


@dataclass(frozen=True)
class Player:
    """Who is optimised: the parts, neighbours in order of declaration, their optimiser, and how often it moves."""

    name: str
    parts: tuple[str, ...]
    optimizer: Optimizer = field(default_factory=Adam)
    every_n_steps: int = 1


class Batch:
    """The twins of every part for one role and row count, and the buffers that a walk through them fills."""

    def __init__(
        self, x: Any, twins: dict[str, Any], kl: Any, clock: Clock, sums: Any, metrics: Any, samples: int = 1
    ) -> None:
        self.x, self.twins, self.kl, self.clock = x, twins, kl, clock
        self.sums, self.metrics = sums, metrics
        self.rows, self.samples = x.shape[0], samples
        self.labels: Any = None  # (B, classes) one-hot, in a conditional model
        self.buffers: dict[str, Any] = {}  # what a model needs beside its twins
        self.gates: dict[str, Gate] = {}  # of the twins in the corridor
        # of each loss: its running sums and its row [loss, part, part]
        self.losses = [(sums[4 * i : 4 * i + 4], metrics[3 * i : 3 * i + 3]) for i in range(metrics.size // 3)]


Part = tuple[Layer, tuple[Shape, ...]]
"""A layer, and the shapes that it is to be declared for."""


class Setup(TypedDict, total=False):
    """The options that every model takes by keyword. config: of a model that can be rebuilt from it."""

    device: str
    dtype: str
    seed: int
    precision: str
    config: ModelConfig | None


class Scored(Setup, total=False):
    """`Setup` and the options of the likelihood, for the constructors of subclasses."""

    likelihood: str | Likelihood
    sigma: float


class Model(Methods):
    """Parts on flat buffers, walked by the corridor: h = encoder(x); z = latent(h); outputs = decoder(z); nll.

    parts: {"encoder", "latent" (none in a deterministic model), "decoder", "likelihood"}, each one contiguous range.
    loss = mean over rows of nll + Σ kl_weight · (mean over images of kl), nats per image; with free bits or a capacity
    what `targeted_objective` makes of the KL divergences of each batch.
    """

    figure_names: tuple[str, ...] = ("loss", "recon")
    losses = 1  # how many rows [loss, part, part] of metrics, each with running sums Σ B · [these, 1] over an epoch
    samples = 1  # draws of z per image, unless `batch` is asked for more
    beta = 1.0  # the weight of the KL divergence, unless a run says otherwise
    gamma = 0.0  # the weight between a game's loss and the other, in the models that have both

    def __init__(
        self,
        parts: Mapping[str, Layer],
        image_shape: Shape,
        latent_dim: int,
        players: tuple[Player, ...],
        *,
        prior: Prior | None = None,
        device: str = DEFAULT_DEVICE,
        dtype: str = "float32",
        seed: int = 0,
        precision: str = "fp32",
        config: ModelConfig | None = None,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            options = ", ".join(options_of(type(self)))
            raise TypeError(f"{type(self).__name__} has no option {name!r}; its options are {options}")
        require_choice("dtype", dtype, DTYPES)
        require_precision(precision, device, dtype)
        require_seed("seed", seed)
        self.parts, self.players, self.config = dict(parts), players, config
        self.image_shape, self.latent_dim, self.seed = tuple(image_shape), latent_dim, seed
        self.prior = prior
        self.device = open_device(device)
        self.dtype, self.precision = np.dtype(dtype), precision
        self.kernels = kernels.load(device, unchecked=True, precision=precision)
        self._declare()
        self.table = ParamTable(self.parts, self.dtype, self.device, seed)
        self.clock = Clock(self.device, len(players), latent_dim if "latent" in self.parts else 0, seed)
        self.eval_clock = self.clock.fork(step=0)
        self.sums = {role: self.device.put(np.zeros(4 * self.losses)) for role in ("train", "evaluate")}
        self._batches: dict[tuple[str, int, int], Batch] = {}
        self._part_twins: dict[tuple[str, int], Any] = {}

    # ------------------------------------------------------------------------------------------ building

    Config: ClassVar[type[ModelConfig]] = ModelConfig

    @classmethod
    def layers(cls, config: ModelConfig, networks: Networks) -> list[Part]:
        """The layers that the constructor takes, in its order, each with the shapes of its inputs."""
        raise NotImplementedError

    @classmethod
    def options(cls, config: ModelConfig) -> dict[str, Any]:
        """The constructor's keyword options that a configuration has, beside those of `Setup`."""
        return {"likelihood": config.likelihood, "sigma": config.sigma} if cls.can.likelihood else {}

    @classmethod
    def build(cls, config: ModelConfig, networks: Networks, device: str, precision: str) -> Self:
        """The model that a configuration describes."""
        layers = [layer for layer, _ in cls.layers(config, networks)]
        make: Callable[..., Self] = cls
        return make(
            *layers, latent_dim=config.latent_dim, image_shape=config.image_shape, device=device,
            dtype=config.dtype, seed=config.seed, precision=precision, config=config,
            **cls.options(config),
        )  # fmt: skip

    def _declare(self) -> None:
        """Walks the shapes once through the corridor; a ShapeError names the part and the layer."""
        shape: Shape = self.image_shape
        for name in self.corridor():
            shape = self.declared(name, shape, *self.beside(name))
            if name == "encoder" and "latent" not in self.parts and shape != (self.latent_dim,):
                raise ShapeError(f"encoder: expected outputs ({self.latent_dim},), the codes, got {shape}")

    def declared(self, part: str, *shapes: Shape) -> Shape:
        """The shape that a part makes of these; a ShapeError names the part."""
        try:
            return self.parts[part].declare(*shapes)
        except ShapeError as error:
            raise error.within(part) from None

    def require_output(self, part: str, shape: Shape, wanted: Shape) -> Shape:
        """`shape`, or a ShapeError where it is not what this part must end in."""
        if shape != wanted:
            raise ShapeError(f"{part}: expected outputs {wanted}, got {shape}")
        return shape

    def corridor(self) -> tuple[str, ...]:
        """The parts of the default walk, in its order."""
        return tuple(self.parts)

    def set_plan(self, plan: np.ndarray) -> None:
        """Gives the clock its plan. A KernelError where the plan's objective needs an op that this device lacks."""
        self.clock.set_plan(plan)
        if self.clock.targeted:
            self.site("objective", 1, "train").op("targeted_objective")

    def beside(self, part: str) -> tuple[Shape, ...]:
        """The shapes of what a part takes beside the output of the part before it."""
        return (self.image_shape,) if part == "likelihood" else ()

    def site(self, part: str, rows: int, role: str, samples: int = 1) -> Site:
        """Where a part is bound: in training it writes gradients and advances with the clock; else neither."""
        train = role == "train"
        return Site(
            self.table, self.kernels, self.clock if train else self.eval_clock, rows, train, samples=samples, path=part,
            need_grad_x=train and part != "encoder", weight_grad="write" if train else "skip",
        )  # fmt: skip

    def batch(self, role: str, rows: int, samples: int = 0) -> Batch:
        """The batch of this role ("train" or "evaluate") and size; bound once, then the same object again.

        samples: draws of z per image, 0 for as many as the model takes in training.
        """
        samples = samples or self.samples
        key = (role, rows, samples)
        if key not in self._batches:
            twins: dict[str, Any] = {}
            gates: dict[str, Gate] = {}
            for name in self.corridor():
                after = name == "decoder"  # works on R = B·samples rows; latent and likelihood know both
                count, draws = (rows * samples, 1) if after else (rows, samples)
                site = self.site(name, count, role, draws)
                twins[name], gates[name] = self.parts[name].bind(site), site.gate
            kl = twins["latent"].kl if "latent" in twins else self.device.empty((rows, 0), self.dtype)
            x = self.device.empty((rows, *self.image_shape), self.dtype)
            clock = self.clock if role == "train" else self.eval_clock
            metrics = self.device.put(np.zeros(3 * self.losses))
            self._batches[key] = Batch(x, twins, kl, clock, self.sums[role], metrics, samples)
            self._batches[key].gates = gates
        return self._batches[key]

    # ------------------------------------------------------------------------------------------ the corridor

    def encoded(self, batch: Batch) -> Any:
        """The encoder's output for the batch's images."""
        return batch.twins["encoder"].forward(batch.x)

    def decoded(self, batch: Batch, z: Any) -> Any:
        """The decoder's output for the batch's codes."""
        return batch.twins["decoder"].forward(z)

    def loss(self, batch: Batch) -> None:
        """Forward: fills nll, kl and `batch.metrics` = [loss, recon, kl], and adds to the running sums."""
        twins = batch.twins
        h = self.encoded(batch)
        z = twins["latent"].forward(h) if "latent" in twins else h
        outputs = self.decoded(batch, z)
        nll = twins["likelihood"].forward(outputs, batch.x)
        self.objective(nll, batch)

    def objective(self, nll: Any, batch: Batch) -> None:
        """The batch's figures from nll and kl; with free bits or a capacity the weights of the KL's gradient too."""
        weight, rates = batch.clock.kl_weight, self.clock.player_rates(0)
        if self.clock.targeted and batch.kl.shape[1]:
            self.kernels.targeted_objective(nll, batch.kl, rates, batch.sums, weight, batch.metrics)
        else:
            self.kernels.objective(nll, batch.kl, weight, batch.sums, batch.metrics)

    def loss_of(self, player: Player, batch: Batch) -> float:
        """The number that this player makes small, after `loss`; of a lone player the first of `batch.metrics`."""
        return float(self.device.get(batch.metrics)[0])

    def loss_and_grad(self, player: Player, batch: Batch) -> None:
        """`loss`, and then back: fills the player's gradients."""
        self.loss(batch)
        self.grad(player, batch)

    def grad(self, player: Player, batch: Batch) -> None:
        """Back from the last `loss`: fills the player's gradients, and nobody else's. One here, so every part moves.

        Of several players, each moves right after its own: so they stand in an order in which none goes back through
        weights that one before it has moved, and all gradients of a step are taken at one point.
        """
        twins = batch.twins
        grad = twins["likelihood"].backward(None)
        grad = twins["decoder"].backward(grad)
        if "latent" in twins:
            grad = twins["latent"].backward(grad)  # pathwise and KL gradients join here
        twins["encoder"].backward(grad)

    def frozen(self, batch: Batch) -> Any:
        """What an estimator that is no derivative of its loss holds constant, as it stands now; for the checker."""
        return None

    def surrogate(self, batch: Batch, frozen: Any) -> float:
        """A function whose derivative `loss_and_grad` gives: the loss, unless something is held constant."""
        self.loss(batch)
        return self.loss_of(self.players[0], batch)

    def figures(self, sums: np.ndarray) -> dict[str, float]:
        """The log's figures from running sums Σ B·[loss, recon, kl, 1]: means over the images."""
        loss, recon, kl = (float(s) for s in sums[:3] / sums[3])
        named = {"loss": loss, "neg_elbo": recon + kl, "recon": recon, "kl": kl}
        named |= self.likelihood.figures(recon, int(np.prod(self.image_shape)))
        return {k: v for k, v in named.items() if k in (*self.figure_names, "rmse")}

    # ------------------------------------------------------------------------------------------ text

    def __repr__(self) -> str:
        lines = [f"  {name}: {part}" for name, part in self.parts.items()]
        size = f"{self.table.count():,} parameters, {self.dtype}, device {self.device.name}"
        return "\n".join([f"{type(self).__name__} of {self.image_shape} images, {size}", *lines])


def options_of(model: type[Model]) -> list[str]:
    """The names of the keyword options of a model's constructor."""
    own = [
        name
        for kind in model.__mro__
        if issubclass(kind, Model) and kind is not Model and "__init__" in vars(kind)
        for name, option in inspect.signature(kind.__init__).parameters.items()
        if option.kind is option.KEYWORD_ONLY
    ]
    return [*dict.fromkeys([*own, *Setup.__annotations__])]
