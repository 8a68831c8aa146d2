"""The model contract and the corridor: encoder, latent, decoder, likelihood, walked forward and then back.
It knows parts, players and batches; not data sets, optimisers or epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
from ..errors import ConfigError, DataError, ShapeError
from ..kernels.clock import COUNTERS, SEED, Clock, Stream
from ..layers import Gate, Layer, Likelihood, Shape, Site
from ..layers.params import ParamTable

EVAL_ROWS = 256  # rows of the twins behind encode, decode and the evaluation passes


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


class Model:
    """Parts on flat buffers, walked by the corridor: h = encoder(x); z = latent(h); outputs = decoder(z); nll.

    parts: {"encoder", "latent" (none in a deterministic model), "decoder", "likelihood"}, each one contiguous range.
    loss = mean over rows of nll + Σ kl_weight · (mean over images of kl), nats per image; with free bits or a capacity
    what `aimed_objective` makes of the KL divergences of each batch.
    """

    figure_names: tuple[str, ...] = ("loss", "recon")
    losses = 1  # how many rows [loss, part, part] of metrics, each with running sums Σ B · [these, 1] over an epoch
    encodes = True  # whether there is a way from an image to a code
    samples = 1  # draws of z per image, unless `batch` is asked for more
    classes = 0  # labels of a conditional model
    beta = 1.0  # the weight of the KL divergence, unless a run says otherwise

    def __init__(
        self,
        parts: Mapping[str, Layer],
        image_shape: Shape,
        latent_dim: int,
        players: tuple[Player, ...],
        device: str = DEFAULT_DEVICE,
        dtype: str = "float32",
        seed: int = 0,
        config: ModelConfig | None = None,
        precision: str = "fp32",
    ) -> None:
        require_choice("dtype", dtype, DTYPES)
        require_precision(precision, device, dtype)
        require_seed(seed)
        self.parts, self.players, self.config = dict(parts), players, config
        self.image_shape, self.latent_dim, self.seed = tuple(image_shape), latent_dim, seed
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

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood layer."""
        layer = self.parts["likelihood"]
        assert isinstance(layer, Likelihood)
        return layer

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

    @property
    def standard_prior(self) -> bool:
        """Whether N(0, I) is where codes are meant to lie, so that `sample` can draw from it."""
        return "latent" in self.parts

    @property
    def bounded(self) -> bool:
        """Whether there is a bound on log p(x), and so a likelihood of an image that draws can estimate."""
        return "neg_elbo" in self.figure_names

    def aim(self, plan: np.ndarray) -> None:
        """Gives the clock its plan. A KernelError where the plan's objective needs an op that this device lacks."""
        self.clock.set_plan(plan)
        if self.clock.aimed:
            self.site("objective", 1, "train").op("aimed_objective")

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
        if self.clock.aimed and batch.kl.shape[1]:
            self.kernels.aimed_objective(nll, batch.kl, rates, batch.sums, weight, batch.metrics)
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

    # ------------------------------------------------------------------------------------------ NumPy in, NumPy out

    def encode(self, x: np.ndarray, labels: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """z_mean (N, latent) and z_log_sigma (N, latent), or None for a deterministic encoder.

        x: (N, H, W, C) or (N, H, W), uint8 or float in [0, 1]. labels: (N,) for a conditional model, and for no other.
        """
        x = self.as_images(x)
        return self._apply("encoder", x, *self.one_hot(labels, len(x))), None

    def decode(self, z: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """The likelihood's mean image (N, H, W, C) for codes z (N, latent). labels: as in `encode`."""
        z = self.as_codes(z)
        outputs = self._apply("decoder", z, *self.one_hot(labels, len(z)))
        return self.shown(outputs).reshape(-1, *self.image_shape)

    def shown(self, outputs: np.ndarray) -> np.ndarray:
        """The images that the decoder's outputs stand for: the likelihood's mean."""
        return self.likelihood.mean(outputs)

    def as_codes(self, z: np.ndarray) -> np.ndarray:
        """z as (N, latent) in the model's dtype. A DataError says what does not fit."""
        z = _as_array("z", z)
        if z.ndim != 2 or z.shape[1] != self.latent_dim:
            raise DataError(f"z must be (N, {self.latent_dim}), got shape {z.shape}; use z[None] for a single code")
        if z.dtype.kind not in "fiu":
            raise DataError(f"z has dtype {z.dtype}; use floats")
        return self._as_floats("z", z)

    def reconstruct(self, x: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """decode(z_mean): no noise, so twice the same. labels: as in `encode`."""
        return self.decode(self.encode(x, labels)[0], labels)

    def sample(
        self,
        n: int,
        seed: int | None = None,
        prior: tuple[np.ndarray, np.ndarray] | None = None,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """n images decoded from z ~ N(0, I), or from N(mean, covariance) where `prior` gives these two.

        seed: None draws a fresh one. labels: as in `encode`; None lets a conditional model take its classes in turn.
        """
        z = self.draw_prior(n, seed, prior)
        return self.decode(z, np.arange(n) % self.classes if self.classes and labels is None else labels)

    def draw_prior(
        self, n: int, seed: int | None = None, prior: tuple[np.ndarray, np.ndarray] | None = None
    ) -> np.ndarray:
        """Codes (n, latent) from N(0, I) by Philox, stream `sample`; from N(mean, covariance) where `prior` says so."""
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise ConfigError(f"n={n!r} must be an integer of at least 1, the number of images to draw")
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1, np.uint64)[0])
        require_seed(seed)
        counters = np.zeros(COUNTERS, np.uint64)
        counters[SEED] = np.uint64(seed)
        z = np.empty((n, self.latent_dim))
        kernels.meaning("philox_normal")(counters, Stream.SAMPLE, z)
        if prior is not None:
            values, vectors = np.linalg.eigh(prior[1])
            z = prior[0] + (z * np.sqrt(np.maximum(values, 0))) @ vectors.T
        return z.astype(self.dtype)

    def interpolate(
        self, x_a: np.ndarray, x_b: np.ndarray, steps: int = 8, labels: np.ndarray | None = None
    ) -> np.ndarray:
        """decode of `steps` codes on the straight segments from encode(x_a) to encode(x_b), both ends included.

        x_a, x_b: one image (H, W, C) each, giving (steps, H, W, C); or (N, H, W, C) each, giving (N, steps, H, W, C).
        labels: as in `encode`, one for both ends of a segment.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
            raise ConfigError(f"steps={steps!r} must be an integer of at least 2, as both ends are included")
        single = np.ndim(x_a) == 3 and np.shape(x_a) == self.image_shape
        labels = np.atleast_1d(labels) if single and labels is not None else labels
        z_a, z_b = (self.encode(np.asarray(x)[None] if single else x, labels)[0] for x in (x_a, x_b))
        if z_a.shape != z_b.shape:
            raise DataError(f"x_a and x_b must have equally many images, got {len(z_a)} and {len(z_b)}")
        t = np.linspace(0, 1, steps, dtype=self.dtype)[None, :, None]
        z = (1 - t) * z_a[:, None] + t * z_b[:, None]  # (N, steps, latent)
        every = None if labels is None else np.repeat(labels, steps)
        strips = self.decode(z.reshape(-1, self.latent_dim), every).reshape(-1, steps, *self.image_shape)
        return strips[0] if single else strips

    def one_hot(self, labels: np.ndarray | None, n: int) -> tuple[np.ndarray, ...]:
        """(labels as rows with a 1 at their class,), n of them; () in a model that takes none. Or a ConfigError."""
        name = type(self).__name__
        if not self.classes:
            if labels is not None:
                raise ConfigError(f"labels= are for a conditional model, and {name} is none; leave them out")
            return ()
        if labels is None:
            raise ConfigError(f"{name} needs labels=, a class from 0 to {self.classes - 1} for each image")
        labels = _as_array("labels", labels)
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise DataError(f"labels must be {n} whole numbers, one per image, got {labels.dtype} {labels.shape}")
        if n and not 0 <= labels.min() <= labels.max() < self.classes:
            raise DataError(f"labels run from {labels.min()} to {labels.max()}; {name} has 0 to {self.classes - 1}")
        return (np.eye(self.classes, dtype=self.dtype)[labels],)

    def as_images(self, x: np.ndarray) -> np.ndarray:
        """x as (N, H, W, C) in the model's dtype: uint8 is divided by 255. A DataError says what does not fit."""
        x = _as_array("x", x)
        if x.ndim == 3 and self.image_shape[2] == 1 and x.shape[1:] == self.image_shape[:2]:
            x = x[..., None]
        if x.ndim != 4 or x.shape[1:] != self.image_shape:
            wanted = "(N, " + ", ".join(map(str, self.image_shape)) + ")"
            raise DataError(f"x must have shape {wanted}, got {x.shape}; use x[None] for a single image")
        if x.dtype == np.uint8:
            return x.astype(self.dtype) / self.dtype.type(255)
        if x.dtype.kind != "f":
            raise DataError(f"x has dtype {x.dtype}; use uint8 or floats in [0, 1]")
        return self._as_floats("x", x)

    def _as_floats(self, name: str, array: np.ndarray) -> np.ndarray:
        """A copy in the model's dtype; a DataError where a value is not finite in it."""
        with np.errstate(over="ignore"):
            floats = array.astype(self.dtype)
        if not np.isfinite(floats).all():
            raise DataError(f"{name} holds values that are not finite in {self.dtype}; remove or replace them first")
        return floats

    def _apply(self, part: str, *xs: np.ndarray) -> np.ndarray:
        """One part on any number of rows: full twins of EVAL_ROWS, the last one filled up with zeros."""
        count = len(xs[0])
        rows = min(EVAL_ROWS, max(1, count))
        rows = EVAL_ROWS if rows > 16 else 16 if rows > 1 else 1  # three sizes at most, so few twins are kept
        key = (part, rows)
        if key not in self._part_twins:
            buffers = [self.device.empty((rows, *x.shape[1:]), self.dtype) for x in xs]
            self._part_twins[key] = (buffers, self.parts[part].bind(self.site(part, rows, "evaluate")))
        buffers, twin = self._part_twins[key]
        out = np.empty((count, *self.parts[part].out_shape), self.dtype)
        hosts = [np.zeros(buffer.shape, self.dtype) for buffer in buffers]
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            for x, host, buffer in zip(xs, hosts, buffers, strict=True):
                host[: stop - start] = x[start:stop]
                self.device.put(host, buffer)
            out[start:stop] = self.device.get(twin.forward(*buffers))[: stop - start]
        return out

    def __repr__(self) -> str:
        lines = [f"  {name}: {part}" for name, part in self.parts.items()]
        size = f"{self.table.count():,} parameters, {self.dtype}, device {self.device.name}"
        return "\n".join([f"{type(self).__name__} of {self.image_shape} images, {size}", *lines])


def _as_array(name: str, value: Any) -> np.ndarray:
    """np.asarray, or a DataError where there is no regular array in `value`."""
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} cannot be made into an array: {error}") from None
