"""The checker: gradcheck for layers and models, gradcheck_fn for plain functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..layers.dense import Dense
from ..layers.latent import Latent
from ..layers.layer import Layer, Shape
from ..layers.likelihood import Likelihood
from ..models import Model
from .differences import Plan, check_subject
from .harness import LayerHarness
from .report import Failure, Report
from .structure import function_structure, layer_structure, model_structure
from .subjects import FunctionSubject, LayerSubject, ModelSubject, float64_copy

OTHER_DRAW = 7919  # added to the seed for a second draw
Shapes = int | Sequence[int] | Sequence[Sequence[int]]


def gradcheck(
    layer_or_model: Layer | Model,
    in_shape: Shapes | None = None,
    batch: int = 3,
    device: str = "numpy",
    seed: int = 0,
    samples: int = 1,
    plan: Plan | None = None,
) -> Report:
    """Whether the backward pass of a layer or a model is the derivative of its forward pass.

    Everything runs in float64 with the noise held fixed. One scalar, J = Σ grad_y · y with a random grad_y (of scale 1,
    and again of scale 100), is differenced with respect to every input and parameter: each element of tensors of up to
    2,000 elements, of larger ones 200 random elements and 20 random directions (`plan` says otherwise). An analytic
    derivative a passes against a numeric n where |a − n| ≤ 1e-6 · max(|a|, |n|) + what rounding can have done to n; a
    NaN never passes. Then the layer protocol's promises are checked; see the rows of the report.

    in_shape: the input's shape without the batch axis, such as (28, 28, 1); a layer that is declared knows it. For a
    likelihood the image's shape. samples: rows per image, for latent and likelihood layers. A layer is checked at
    `batch` and at batch 1. A model is copied in float64 first, on its own device, and the derivatives of its loss at
    random images and KL weights are checked for every player.
    """
    if isinstance(layer_or_model, Model):
        model = layer_or_model
        return _away_from_kinks(lambda draw: _check_model(model, batch, seed + draw, plan or Plan()))
    if not isinstance(layer_or_model, Layer):
        raise ConfigError(
            f"gradcheck takes a layer or a model, got {type(layer_or_model).__name__}; "
            "for plain functions there is gradcheck_fn(forward, backward, *arrays)"
        )
    layer, shapes = layer_or_model, _in_shapes(layer_or_model, in_shape)

    def run(draw: int) -> Report:
        report = Report(f"gradient check of {layer} on {', '.join(map(str, shapes))}, float64, device {device}")
        for rows in dict.fromkeys((batch, 1)):

            def make(rows: int = rows, **options: Any) -> LayerHarness:
                return LayerHarness(layer, shapes, rows, samples, device, seed + draw, **options)

            _check_layer(report, layer, make, seed + draw, plan or Plan())
        return report

    return _away_from_kinks(run)


def _away_from_kinks(run: Callable[[int], Report]) -> Report:
    """The report of run(draw), with other inputs where the first ones happened to stand at too many kinks."""
    report = run(0)
    if report.too_many_skipped and not report.failures:
        skipped = f"{report.skipped} of {report.checked + report.skipped}"
        report = run(OTHER_DRAW)
        report.notes.append(f"inputs drawn a second time, as {skipped} elements stood at a kink of the first ones")
    report.judge_skipped()
    return report


def _check_layer(report: Report, layer: Layer, make: Callable[..., LayerHarness], seed: int, plan: Plan) -> None:
    harness = make()
    try:
        subject = LayerSubject(harness, seed)
        rows, failures = check_subject(subject, plan, np.random.default_rng((seed, 3)))
        found = layer_structure(make, layer, subject.where, seed)
    except ShapeError as error:  # the layer's own results do not fit
        report.failures.append(Failure(repr(layer), "shapes", cause=str(error)))
        return
    report.rows += rows + found.rows
    report.failures += failures + found.failures
    if harness.device.damaged():
        cause = "something was written before the beginning or past the end of a buffer"
        report.failures.append(Failure(repr(layer), "guard bands", cause=cause, where=subject.where))


def _check_model(model: Model, batch: int, seed: int, plan: Plan) -> Report:
    copy = float64_copy(model)
    report = Report(f"gradient check of {type(model).__name__} on {model.image_shape}, device {model.device.name}")
    report.notes.append(
        f"checked on a float64 copy of the {model.dtype} model with the same values, KL weights between 0.3 and 1.7"
    )
    for player in copy.players:
        for rows in dict.fromkeys((batch, 1)):
            subject = ModelSubject(copy, player, rows, seed)
            rng = np.random.default_rng((seed, 5))
            found = model_structure(subject, rng)
            limit = plan if rows == batch else Plan(0, 0, max(1, plan.directions // 10))
            lines, failures = check_subject(subject, limit, rng)
            report.rows += lines + found.rows
            report.failures += failures + found.failures
    return report


def _in_shapes(layer: Layer, in_shape: Shapes | None) -> tuple[Shape, ...]:
    """The shapes to declare the layer for, from what was given or from what the layer knows."""
    if in_shape is None:
        if layer.in_shapes:
            return layer.in_shapes
        if isinstance(layer, Dense):
            return ((layer.n_in,),)
        if isinstance(layer, Latent):
            return ((2 * layer.latent_dim,),)
        raise ConfigError(
            f"gradcheck({layer}): in_shape is needed, the input's shape without the batch axis, such as (28, 28, 1)"
        )
    given: Any = (in_shape,) if isinstance(in_shape, int | np.integer) else tuple(in_shape)
    if given and not isinstance(given[0], int | np.integer):
        return tuple(tuple(int(n) for n in shape) for shape in given)
    shape = tuple(int(n) for n in given)
    if isinstance(layer, Likelihood):
        return (*shape[:-1], shape[-1] * layer.outputs_per_channel), shape
    return (shape,)


def gradcheck_fn(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    *arrays: Any,
    wrt: Sequence[int | str] | None = None,
    kinks: Callable[..., Any] | None = None,
    seed: int = 0,
    name: str | None = None,
    plan: Plan | None = None,
) -> Report:
    """Whether `backward` is the derivative of `forward`: for functions of NumPy arrays, as one writes them to learn.

    forward(*arrays) → y, an array or a number. backward(grad_y, *arrays) → the gradient of Σ grad_y · y, or a tuple of
    them, one for each array (or one for each array of `wrt`). All in float64, as gradcheck does it; arrays of integers
    are passed on unchanged and not differentiated.
    wrt: which arrays to differentiate, by position or by forward's own argument names; without it all of floats.
    kinks(*arrays) → an array, or a list of arrays, whose signs tell on which side of a kink the inputs stand; elements
    where they differ between +h and −h are left out. name: how the report calls the function.
    """
    title = str(name or getattr(forward, "__name__", "the function"))
    named = _named(forward, arrays)
    chosen = _chosen(named, wrt, title)
    report = Report(f"gradient check of {title}({', '.join(named)}), float64")
    try:
        subject = FunctionSubject(title, forward, backward, named, chosen, kinks, seed)
        found = function_structure(subject)
        rows, failures = check_subject(subject, plan or Plan(), np.random.default_rng((seed, 3)))
    except ShapeError as error:  # a gradient of the wrong shape or None: the sentence says which
        report.failures.append(Failure(title, "shapes", cause=str(error).removeprefix(f"{title}: ")))
        return report
    report.rows, report.failures = rows + found.rows, failures + found.failures
    report.judge_skipped()
    return report


def _named(forward: Callable[..., Any], arrays: Sequence[Any]) -> dict[str, np.ndarray]:
    """The arrays under forward's own argument names, floats as float64."""
    if not arrays:
        raise ConfigError("gradcheck_fn(forward, backward, *arrays) needs at least one array to differentiate")
    try:
        names = [p.name for p in inspect.signature(forward).parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
    except (TypeError, ValueError):
        names = []
    names += [f"array{i}" for i in range(len(names), len(arrays))]
    converted = [np.asarray(a) for a in arrays]
    return {
        n: np.array(a, np.float64) if a.dtype.kind == "f" else a for n, a in zip(names, converted, strict=False)
    }  # fmt: skip


def _chosen(named: dict[str, np.ndarray], wrt: Sequence[int | str] | None, title: str) -> list[str]:
    """The names of the arrays to differentiate."""
    names = list(named)
    chosen = names if wrt is None else [names[w] if isinstance(w, int) and w < len(names) else str(w) for w in wrt]
    unknown = [n for n in chosen if n not in named]
    if unknown:
        raise ConfigError(f"wrt={wrt}: {title} has no array {unknown[0]!r}; it has {', '.join(names)}")
    floats = [n for n in chosen if named[n].dtype.kind == "f"]
    if not floats:
        raise ConfigError(f"{title}: none of the arrays {', '.join(chosen)} holds floats, so there is nothing to check")
    return floats
