"""What a right gradient alone does not prove: repeatable, harmless, without memory of the last call, linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import IDENTITY
from ..layers.conv import Conv2d
from ..layers.dense import Dense
from ..layers.layer import Layer
from ..layers.reshape import Reshape
from .harness import LayerHarness
from .report import Failure, Row
from .subjects import FunctionSubject, ModelSubject

LINEAR = (Dense, Conv2d, Reshape)
ROUNDING = 1e-11  # of sums in another order, relative to the sum of the terms' sizes


class Findings:
    """Rows and failures of the structure checks of one subject."""

    def __init__(self, name: str, where: str) -> None:
        self.name, self.where = name, where
        self.rows: list[Row] = []
        self.failures: list[Failure] = []

    def note(self, what: str, ok: bool, cause: str) -> None:
        """One check: what was looked at, whether it held, and what to say if not."""
        self.rows.append(Row(self.where, what, ok=bool(ok)))
        if not ok:
            self.failures.append(Failure(self.name, what, cause=cause, where=self.where))


def same_bits(a: Any, b: Any) -> bool:
    """Whether two results (arrays, None, tuples or dictionaries of them) are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[k], b[k]) for k in a)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(same_bits(x, y) for x, y in zip(a, b, strict=True))
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def harmed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> str:
    """Names of the arrays that differ."""
    return ", ".join(name for name in before if not same_bits(before[name], after[name]))


MakeHarness = Callable[..., LayerHarness]


def layer_structure(make: MakeHarness, layer: Layer, where: str, seed: int) -> Findings:
    """All structure checks of a layer. make(need_grad_x=, weight_grad=) gives a fresh harness with the same numbers."""
    found = Findings(repr(layer), where)
    harness, rng = make(), np.random.default_rng((seed, 17))
    y = harness.forward()
    rows, wanted = y.shape[0] if y.ndim else 0, tuple(layer.out_shape)
    found.note("shapes", y.shape[1:] == wanted, f"forward gave {y.shape[1:]} per row, declare promised {wanted}")
    grad_y = rng.standard_normal((rows, *y.shape[1:]))
    harness.set_kl_weight(0.7)
    harness.fill_grads()
    first = harness.backward(grad_y), harness.grads()
    _repeatable(found, harness, y, grad_y, first)
    _harmless(found, harness, grad_y)
    _no_memory(found, make, harness, grad_y, rng)
    _linear(found, harness, y.shape, rng)
    if harness.parameters():
        _weight_grad(found, make, grad_y, first[1], rng)
    if isinstance(layer, LINEAR) and getattr(layer, "act", IDENTITY) == IDENTITY:
        _adjoint(found, make(), rng)
    cause = "something was written before the beginning or past the end of a buffer"
    found.note("guard bands", not harness.device.damaged(), cause)
    return found


def _repeatable(found: Findings, harness: LayerHarness, y: np.ndarray, grad_y: np.ndarray, first: Any) -> None:
    again = harness.forward()
    cause = "forward gave another result for the same inputs: noise is redrawn, or something accumulates"
    found.note("same bits twice", same_bits(y, again), cause)
    harness.fill_grads()
    second = harness.backward(grad_y), harness.grads()
    cause = "backward gave another result for the same inputs: it adds to what the last call left, or draws noise"
    found.note("same bits twice", same_bits(first, second), cause)


def _harmless(found: Findings, harness: LayerHarness, grad_y: np.ndarray) -> None:
    """Inputs, parameters and the padding between gradients stay as they were."""
    before = dict(zip(["x0", "x1"], harness.given, strict=False)) | harness.parameters()
    values = harness.device.get(harness.table.values)
    harness.forward()
    harness.backward(grad_y)
    now = dict(zip(["x0", "x1"], (harness.device.get(x) for x in harness.xs), strict=False)) | harness.parameters()
    names = harmed(before, now)
    cause = f"{names} changed: a layer may write into its own buffers and into grad_y only, never in place into x"
    found.note("inputs unharmed", not names, cause)
    host = harness.device.get(harness.table.grads)
    for name in harness.table.names():
        tensor, start = harness.table.places[name]
        host[start : start + int(np.prod(tensor.shape))] = 0
    clean = not np.any(host) and same_bits(values, harness.device.get(harness.table.values))
    found.note("inputs unharmed", clean, "the padding between tensors was written; it must stay zero")


def _no_memory(found: Findings, make: MakeHarness, harness: LayerHarness, grad_y: np.ndarray, rng: Any) -> None:
    """After a second forward with other inputs, everything is as on a fresh harness with these inputs."""
    harness.redraw()
    fresh = make()
    fresh.given = list(harness.given)
    results = []
    for b in (harness, fresh):
        b.set_kl_weight(0.7)
        b.fill_grads()
        results.append((b.forward(), b.backward(grad_y), b.grads()))
    cause = (
        "after a forward pass with other inputs the results are not those of a fresh layer: something of the first "
        "call was kept (an input, a mask, a sum)"
    )
    found.note("no memory", same_bits(results[0], results[1]), cause)


def _linear(found: Findings, harness: LayerHarness, shape: tuple[int, ...], rng: Any) -> None:
    """Without a KL weight, backward is linear in grad_y: zero for zero, and B(a − 100 b) = B(a) − 100 B(b)."""

    def gradients(grad_y: np.ndarray) -> list[np.ndarray]:
        harness.fill_grads()
        harness.forward()
        return [g for g in (*harness.backward(grad_y), *harness.grads().values()) if g is not None]

    harness.set_kl_weight(0.0)
    cause = "a zero upstream gradient must give zero gradients; something is added that does not belong to it"
    found.note("zero in, zero out", not any(np.any(g) for g in gradients(np.zeros(shape))), cause)
    a, b = rng.standard_normal((2, *shape))
    of_a, of_b, of_both = gradients(a), gradients(b), gradients(a - 100 * b)
    same = [np.allclose(g, x - 100 * y, rtol=1e-9, atol=1e-9) for g, x, y in zip(of_both, of_a, of_b, strict=True)]
    found.note("linear in grad_y", all(same), "backward(a − 100 b) is not backward(a) − 100 backward(b)")


def _weight_grad(found: Findings, make: MakeHarness, grad_y: np.ndarray, written: dict, rng: Any) -> None:
    """weight_grad "add" adds, "skip" leaves alone; without grad_x the parameters' gradients are the same."""
    for mode in ("add", "skip"):
        harness = make(weight_grad=mode)
        start = {name: rng.standard_normal(grad.shape) for name, grad in harness.grads().items()}
        for name, value in start.items():
            harness.device.put(value, harness.table.grad(f"layer.{name}"))
        harness.set_kl_weight(0.7)
        harness.forward()
        harness.backward(grad_y)
        wanted = {n: start[n] + written[n] if mode == "add" else start[n] for n in start}
        names = ", ".join(n for n, g in harness.grads().items() if not np.allclose(g, wanted[n], rtol=1e-9, atol=1e-9))
        does = "add to what is there" if mode == "add" else "leave it alone"
        found.note(f"weight_grad {mode}", not names, f"gradient of {names}: the layer must {does} and does not")
    harness = make(need_grad_x=False)
    harness.set_kl_weight(0.7)
    harness.fill_grads()
    harness.forward()
    none = all(g is None for g in harness.backward(grad_y))
    equal = all(np.allclose(g, written[n], rtol=1e-9, atol=1e-9) for n, g in harness.grads().items())
    cause = "without need_grad_x, backward must return None and give the parameters the same gradients"
    found.note("no grad_x", none and equal, cause)


def _adjoint(found: Findings, harness: LayerHarness, rng: Any) -> None:
    """<L(x) − L(0), g> = <x, grad_x> = <weight, grad_weight> for a linear layer: a test without a step size."""
    x = harness.given[0]
    y = harness.forward()
    g = rng.standard_normal(y.shape)
    harness.fill_grads()
    (grad_x,) = harness.backward(g)
    grads = harness.grads()
    harness.given = [np.zeros(x.shape)]
    linear = y - harness.forward()
    left, size = float(np.sum(linear * g)), float(np.sum(np.abs(linear * g)))
    values = harness.parameters()
    pairs = {"x": (x, grad_x)} | {n: (values[n], grads[n]) for n in values if n.endswith("weight")}
    wrong = []
    for name, (value, grad) in pairs.items():
        right = np.nan if grad is None else float(np.sum(value * grad))
        if not abs(left - right) <= ROUNDING * (size + np.sum(np.abs(value * grad))):
            wrong.append(f"<L({name}), g> = {left:.9g} but <{name}, grad_{name}> = {right:.9g}")
    found.note("adjoint", not wrong, "; ".join(wrong) + ": forward and backward are not each other's adjoint")


def function_structure(subject: FunctionSubject) -> Findings:
    """The structure checks of plain functions: repeatable, harmless, zero for zero."""
    found = Findings(subject.name, "")
    y = subject.run()
    cause = "forward gave another result for the same arrays: is noise drawn inside? Draw it once and pass it in"
    found.note("same bits twice", same_bits(y, subject.run()), cause)
    c = subject.cotangents()[0]
    first, second = subject.gradients(c), subject.gradients(c)
    cause = "backward gave another result for the same arrays: does it add to what the last call left, or draw noise?"
    found.note("same bits twice", same_bits(first, second), cause)
    given = {name: value.copy() for name, value in subject.values.items()}
    subject.forward(*given.values())
    names = harmed(subject.values, given)
    found.note("inputs unharmed", not names, f"forward changed {names} in place; make a copy first")
    given = {name: value.copy() for name, value in subject.values.items()}
    subject.backward(c.reshape(subject.y_shape).copy(), *given.values())
    names = harmed(subject.values, given)
    found.note("inputs unharmed", not names, f"backward changed {names} in place; make a copy first")
    zero = subject.gradients(np.zeros_like(c))
    cause = "a zero upstream gradient must give zero gradients: is grad_y multiplied in everywhere?"
    found.note("zero in, zero out", not any(np.any(g) for g in zero.values()), cause)
    return found


def model_structure(subject: ModelSubject, rng: Any) -> Findings:
    """The structure checks of a whole model's `loss_and_grad`."""
    found = Findings(subject.name, subject.where)
    model, batch, one = subject.model, subject.rows_of, np.ones(1)
    values = model.device.get(model.table.values)
    first = subject.outputs(), subject.gradients(one)
    model.device.put(rng.uniform(0, 1, subject.x.shape), batch.x)
    subject.gradients(one)
    model.device.put(subject.x, batch.x)
    second = subject.outputs(), subject.gradients(one)
    cause = "loss or gradients differ for the same batch, after another one: noise is redrawn, or state is kept"
    found.note("same bits twice", same_bits(first, second), cause)
    loss, alone = model.loss_of(subject.player, batch), subject.loss()
    cause = f"loss gives {alone!r}, loss_and_grad {loss!r}: training and evaluation must share one function"
    found.note("one loss", loss == alone, cause)
    clean = same_bits(values, model.device.get(model.table.values)) and same_bits(subject.x, model.device.get(batch.x))
    found.note("inputs unharmed", clean, "images or parameters changed during loss_and_grad")
    bad = ", ".join(name for name, grad in second[1].items() if not np.isfinite(grad).all())
    found.note("all written", not bad, f"gradient of {bad}: not every element is written, or it is not finite")
    return found
