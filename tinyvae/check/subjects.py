"""What can be checked, in one form: a layer on the harness, a whole model, a pair of plain functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..models import Batch, Model, Player
from .differences import Subject
from .harness import STEP_OF_NOISE, LayerHarness, settle

SCALES = (1.0, 100.0)


def draw_cotangents(rng: np.random.Generator, n: int) -> np.ndarray:
    """(2, n): normal numbers of scale 1 and, independent of them, of scale 100."""
    return np.stack([scale * rng.standard_normal(n) for scale in SCALES])


def sides(kinks: Sequence[Any], get: Callable[[Any], np.ndarray] = np.asarray) -> bytes:
    """The signs of all arrays, as bytes that can be compared."""
    return b"".join(np.sign(get(k)).astype(np.int8).tobytes() for k in kinks)


class LayerSubject(Subject):
    """A layer: outputs are y and, behind it, the KL divergences of latent layers inside.

    J = Σ grad_y · y + Σ kl_weight / B · kl, with kl_weight as random as grad_y. A likelihood's rows carry their
    row_scale: J = Σ grad_nll · row_scale · nll.
    """

    def __init__(self, harness: LayerHarness, seed: int) -> None:
        self.harness, self.name, self.batch = harness, repr(harness.layer), harness.site.rows
        samples = f" of {harness.site.samples} samples each" if harness.site.samples > 1 else ""
        self.where = f"batch {self.batch}{samples}"
        self.rng = np.random.default_rng((seed, 7))
        y = harness.forward()
        self.y_shape, self.n_y = y.shape, y.size
        grads = harness.backward(np.zeros(y.shape))
        names = ["x"] if len(grads) == 1 else [f"x{i}" for i in range(len(grads))]
        self.inputs = {name: i for i, name in enumerate(names)}
        self.arrays = {name: harness.given[i] for name, i in self.inputs.items() if grads[i] is not None}
        self.arrays |= harness.parameters()

    def put(self, name: str, value: np.ndarray) -> None:
        if name in self.inputs:
            self.harness.given[self.inputs[name]] = value
        else:
            self.harness.device.put(value, self.harness.table.view(f"layer.{name}"))

    def outputs(self) -> np.ndarray:
        y = self.harness.forward().reshape(-1)
        return np.concatenate([y, *(self.harness.device.get(t.kl).reshape(-1) for t in self.harness.latents)])

    def pattern(self) -> bytes:
        return sides(self.harness.twin.kinks(), self.harness.device.get)

    def cotangents(self) -> np.ndarray:
        c = draw_cotangents(self.rng, self.n_y)
        if self.harness.row_scale is not None:
            c = c * self.harness.row_scale
        weights = self.rng.uniform(0.2, 1.8, (len(SCALES), self.harness.clock.kl_weight.size))
        kl = [np.tile(weights / self.batch, self.batch) for _ in self.harness.latents]  # (2, B·latent) each
        return np.concatenate([c, *kl], axis=1)

    def gradients(self, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        harness = self.harness
        grad_y, weights = cotangent[: self.n_y], cotangent[self.n_y :]
        harness.set_kl_weight(weights[: harness.clock.kl_weight.size] * self.batch)
        if harness.row_scale is not None:
            grad_y = grad_y / harness.row_scale
        harness.fill_grads()
        harness.forward()
        given = harness.backward(grad_y.reshape(self.y_shape))
        found = {name: given[i] for name, i in self.inputs.items() if name in self.arrays} | harness.grads()
        for name, grad in found.items():
            if grad is None or grad.size != self.arrays[name].size:
                shape = None if grad is None else grad.shape
                raise ShapeError(f"{self.name}: the gradient of {name} must be {self.arrays[name].shape}, got {shape}")
        return {name: np.asarray(grad) for name, grad in found.items()}


class FunctionSubject(Subject):
    """forward(*arrays) → y and backward(grad_y, *arrays) → gradients, plain functions of NumPy arrays."""

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        arrays: dict[str, np.ndarray],
        wrt: Sequence[str],
        kinks: Callable[..., Any] | None,
        seed: int,
    ) -> None:
        self.name, self.forward, self.backward, self.kinks = name, forward, backward, kinks
        self.values, self.arrays = dict(arrays), {n: arrays[n] for n in wrt}
        first = next(iter(self.arrays.values()))
        self.batch = first.shape[0] if first.ndim else 1
        self.rng = np.random.default_rng((seed, 11))
        self.y_shape = self.run().shape

    def run(self) -> np.ndarray:
        """y, from copies of the arrays: a function that harms them harms only itself."""
        y = self.forward(*(v.copy() for v in self.values.values()))
        if y is None:
            raise ShapeError(f"{self.name}: forward returned None; is a return statement missing?")
        try:
            kind, array = np.asarray(y).dtype, np.asarray(y, np.float64)
        except (TypeError, ValueError):
            given = type(y).__name__
            raise ShapeError(f"{self.name}: forward must return one array or a number, got {given}") from None
        if kind.kind == "f" and kind.itemsize < 8:
            raise ShapeError(
                f"{self.name}: forward gives {kind} for float64 arrays, too coarse to be differenced; "
                "make its constants and buffers float64, or of the dtype of its arrays"
            )
        return array

    def put(self, name: str, value: np.ndarray) -> None:
        self.values[name] = value

    def outputs(self) -> np.ndarray:
        return np.array(self.run().reshape(-1))

    def pattern(self) -> bytes:
        if self.kinks is None:
            return b""
        found = self.kinks(*(v.copy() for v in self.values.values()))
        return sides(found if isinstance(found, list | tuple) else [found])

    def cotangents(self) -> np.ndarray:
        return draw_cotangents(self.rng, int(np.prod(self.y_shape)))

    def gradients(self, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        given = self.backward(cotangent.reshape(self.y_shape).copy(), *(v.copy() for v in self.values.values()))
        grads = given if isinstance(given, tuple | list) else (given,)
        names = list(self.values) if len(grads) == len(self.values) else list(self.arrays)
        if len(grads) != len(names):
            raise ShapeError(
                f"{self.name}: backward returned {len(grads)} gradient{'s' if len(grads) > 1 else ''}, but there are "
                f"{len(names)} arrays to differentiate; return the tuple ({', '.join('grad_' + n for n in names)})"
            )
        found = {name: grad for name, grad in zip(names, grads, strict=True) if name in self.arrays}
        return {name: self._right_shape(name, grad) for name, grad in found.items()}

    def _right_shape(self, name: str, grad: Any) -> np.ndarray:
        shape = self.arrays[name].shape
        if grad is None:
            raise ShapeError(f"{self.name}: backward returned None for grad_{name}; is a return statement missing?")
        try:
            array = np.asarray(grad, np.float64)
        except (TypeError, ValueError):
            raise ShapeError(
                f"{self.name}: grad_{name} must be an array of numbers, got {type(grad).__name__}"
            ) from None
        if array.shape != shape:
            hint = ""
            if array.ndim == len(shape) + 1 and array.shape[1:] == shape:
                hint = "; sum over the batch axis, .sum(axis=0)"
            elif array.shape == shape[::-1]:
                hint = "; it looks transposed"
            elif array.ndim == 0 or array.size < int(np.prod(shape)):
                hint = "; did a sum run over too many axes?"
            raise ShapeError(
                f"{self.name}: grad_{name} must have the shape of {name}, {shape}, got {array.shape}{hint}"
            )
        return array


def float64_copy(model: Model) -> Model:
    """A model of the same class, layers and values in float64, on buffers of its own: the given one stays as it is."""
    twin = object.__new__(type(model))
    twin.__dict__.update(model.__dict__)
    Model.__init__(
        twin, model.parts, model.image_shape, model.latent_dim, model.players, prior=model.prior,
        device=model.device.name, dtype="float64", seed=model.seed, config=model.config,
    )  # fmt: skip
    for mine, theirs in ((twin.table.values, model.table.values), (twin.table.state, model.table.state)):
        twin.device.put(model.device.get(theirs).astype(np.float64), mine)
    twin.set_plan(model.device.get(model.clock.plan))
    twin.device.put(model.device.get(model.clock.rates), twin.clock.rates)
    return twin


class ModelSubject(Subject):
    """A whole model: the output is one player's loss, the arrays are its parameters."""

    def __init__(self, model: Model, player: Player, rows: int, seed: int) -> None:
        self.model, self.player, self.batch = model, player, rows
        self.name, self.where = f"{type(model).__name__} {model.image_shape}", f"batch {rows}"
        self.rng = np.random.default_rng((seed, 13))
        model.clock.set(step=STEP_OF_NOISE)
        settle(model.parts, model.table)
        weights = model.clock.kl_weight
        model.device.put(self.rng.uniform(0.3, 1.7, weights.shape), weights)  # beta other than 1, unequal
        self.rows_of: Batch = model.batch("train", rows)
        self.x = self.rng.uniform(0, 1, (rows, *model.image_shape))
        model.device.put(self.x, self.rows_of.x)
        if model.can.labels:
            model.device.put(np.eye(model.classes)[self.rng.integers(0, model.classes, rows)], self.rows_of.labels)
        self.state = model.device.get(model.table.state)
        self.frozen = model.frozen(self.rows_of)
        span = model.table.range_of(player.parts)
        names = [n for n in model.table.names() if span.start <= model.table.places[n][1] < span.stop]
        self.arrays = {name: model.device.get(model.table.view(name)) for name in names}

    def put(self, name: str, value: np.ndarray) -> None:
        self.model.device.put(value, self.model.table.view(name))

    def restore(self) -> None:
        """State as it was at first: every forward pass may move it."""
        if self.state.size:
            self.model.device.put(self.state, self.model.table.state)

    def outputs(self) -> np.ndarray:
        if len(self.model.players) == 1:
            self.restore()
            return np.array([self.model.surrogate(self.rows_of, self.frozen)])
        return np.array([self.loss()])  # each player has a loss of its own

    def loss(self) -> float:
        """The loss itself, whatever is differenced."""
        self.restore()
        self.model.loss(self.rows_of)
        return self.model.loss_of(self.player, self.rows_of)

    def pattern(self) -> bytes:
        kinks = [k for twin in self.rows_of.twins.values() for k in twin.kinks()]
        if self.model.clock.targeted:  # free bits switch a weight off and on, a capacity turns its sign
            kinks.append(self.model.clock.kl_weight)
        return sides(kinks, self.model.device.get)

    def cotangents(self) -> np.ndarray:
        return np.ones((1, 1))

    def gradients(self, cotangent: np.ndarray) -> dict[str, np.ndarray]:
        for name in self.arrays:
            self.model.device.fill(self.model.table.grad(name), np.nan)
        self.restore()
        self.model.loss_and_grad(self.player, self.rows_of)
        return {name: self.model.device.get(self.model.table.grad(name)) for name in self.arrays}
