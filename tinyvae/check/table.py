"""The table that `tinyvae gradcheck` prints: every op, layer and model, and what each of them means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from .. import kernels
from ..config import Adam, TrainConfig
from ..device import open_device
from ..kernels import OPS, lacking
from ..kernels.check import Runner
from ..layers import examples
from ..layers.layer import Example, Layer
from ..layers.likelihood import Likelihood
from ..models import Model, zoo
from ..training.step import make_plan
from .check import gradcheck, gradcheck_fn
from .differences import Plan
from .harness import LayerHarness, pieces
from .meaning import MEANINGS, Meaning, MeaningError
from .meaning_layers import LAYER_MEANINGS, UNIT_NORM
from .meaning_likelihoods import LIKELIHOOD_MEANINGS, TARGETED
from .meaning_ops import OP_MEANINGS
from .pairs import PAIRS, Pair
from .pairs_layers import LAYER_PAIRS
from .report import Failure, Report
from .subjects import ModelSubject

DEFAULT_SIZE = Plan(elements=0, sampled=0, directions=3)  # of a model of 10⁵ parameters and more


@dataclass(frozen=True)
class Check:
    """One line of the table. group: "op", "meaning", "layer" or "model". places: the ops and classes it looks at."""

    group: str
    name: str
    places: tuple[str, ...]
    run: Callable[[str, int], Report | str]


@dataclass(frozen=True)
class Line:
    """The outcome of a check."""

    group: str
    name: str
    text: str
    ok: bool
    seconds: float
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "WRONG"
        return f"{self.group:<8}{self.name:<59}{verdict:<6}{self.text:<56}{self.seconds:5.2f} s"


@dataclass
class Table:
    """All lines. `str(table)` is the text that the command line prints."""

    device: str
    seed: int
    lines: list[Line] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every check passed, and every op was looked at."""
        return bool(self.lines) and all(line.ok for line in self.lines)

    @property
    def failures(self) -> list[str]:
        """What is wrong, one sentence each."""
        return [failure for line in self.lines for failure in line.failures]

    def summary(self) -> str:
        """Failures, then the last line."""
        wrong = sum(not line.ok for line in self.lines)
        seconds = sum(line.seconds for line in self.lines)
        verdict = f"{wrong} of {len(self.lines)} checks FAILED" if wrong else f"all {len(self.lines)} checks passed"
        return "\n".join([*self.failures, f"{verdict} on device {self.device}, float64, {seconds:.1f} s"])

    def __str__(self) -> str:
        return "\n".join([*map(str, self.lines), self.summary()])


# ---------------------------------------------------------------------------------------------- the cases


def _of_pair(pair: Pair) -> Check:
    def run(device: str, seed: int) -> Report:
        report = Report(pair.name)
        forward, backward, kinks = pair.make(Runner(device))
        for size in (1, 2, 0):
            arrays = pair.arrays(np.random.default_rng((seed, size)), size)
            one = gradcheck_fn(forward, backward, *arrays, wrt=pair.wrt, kinks=kinks, seed=seed, name=pair.name)
            report.rows, report.failures = report.rows + one.rows, report.failures + one.failures
        return report

    return Check("op", pair.name, pair.ops, run)


def _of_meaning(group: str, meaning: Meaning) -> Check:
    return Check(group, meaning.name, meaning.places, lambda device, seed: meaning.run(device))


def _of_example(number: int, example: Example) -> Check:
    """The line of the table for the layer example of this number; each run makes a new layer."""
    layer, shapes = example.layer, example.in_shapes
    shown = shapes[-1] if isinstance(layer, Likelihood) else shapes[0] if len(shapes) == 1 else shapes
    samples = f", {example.samples} samples" if example.samples > 1 else ""

    def run(device: str, seed: int) -> Report:
        case = examples()[number]
        case.layer.declare(*case.in_shapes)
        return gradcheck(case.layer, None, case.batch, device, seed, case.samples)

    name = _short(f"{layer} {shown}, batch {example.batch}{samples}")
    return Check("layer", name, places_of(example), run)


@cache
def _layers() -> tuple[Check, ...]:
    return tuple(_of_example(number, example) for number, example in enumerate(examples()))


def places_of(example: Example) -> tuple[str, ...]:
    """The ops that the layer's twin asks for, and the names of all its layers' classes."""
    harness = LayerHarness(example.layer, example.in_shapes, 1)
    return _places(harness.site.kernels, [example.layer, *pieces(example.layer)])


def places_of_model(make: Callable[[str, int], Model]) -> tuple[str, ...]:
    """The ops that losses and gradients ask for, and the names of the model's and its layers' classes."""
    try:
        model = make("numpy", 0)
        for player in model.players:
            subject = ModelSubject(model, player, 1, 0)
            subject.outputs()
            subject.gradients(np.ones(1))
    except Exception:  # the check of this model fails, and says why
        return ()
    return _places(model.kernels, [model, *(leaf for part in model.parts.values() for leaf in pieces(part))])


def _places(ops: kernels.Kernels, objects: Iterable[Layer | Model]) -> tuple[str, ...]:
    """The ops that were asked for, which `Kernels` keeps as attributes, and the classes of the objects."""
    kinds = {kind for one in objects for kind in type(one).__mro__ if issubclass(kind, (Layer, Model))}
    return *sorted(vars(ops).keys() & OPS.keys()), *sorted(kind.__name__ for kind in kinds)


def _short(name: str) -> str:
    name = name.replace("stride=", "").replace("padding=", "")
    return name if len(name) <= 58 else name[:57] + "…"


AIMS = {"free bits": TrainConfig(beta=0.7, free_bits=0.08), "a capacity": TrainConfig(beta=3.0, capacity=0.3)}
"""Objectives whose KL weights follow from the batch."""


DENSE_TINY = {name: ((5, 3, 3), (9,)) for name in ("vae", "dae", "beta-vae", "cvae", "iwae", "dense-gan", "aae")}
TINY = {
    "ae": ((5, 7, 1), (9,)), "conv-ae": ((3, 5, 1), (3,)), "conv-vae": ((5, 3, 1), (3,)), "gan": ((3, 5, 1), (3,)),
    "vae-gan": ((3, 3, 1), (2,)),
} | DENSE_TINY  # fmt: skip
"""Odd images and hidden widths at which a model has at most 2,000 parameters; others take ((5, 3, 1), (3,))."""


def _of_model(name: str, likelihood: str, tiny: bool) -> Check:
    scored = {"likelihood": likelihood, "sigma": 0.8} if likelihood == "gaussian" else dict[str, Any]()
    tiny_image, tiny_hidden = TINY.get(name, ((5, 3, 1), (3,)))

    def make_tiny(device: str, seed: int) -> Model:
        return zoo.build(name, tiny_image, 2, tiny_hidden, **scored, device=device, dtype="float64", seed=seed)

    def run(device: str, seed: int) -> Report:
        default = {"device": device, "seed": seed, "dtype": "float32", **scored}
        model = make_tiny(device, seed) if tiny else zoo.build(name, (28, 28, 1), 20, (), **default)
        count = model.table.count()
        report = gradcheck(model, batch=3 if tiny else 2, seed=seed, plan=Plan() if tiny else DEFAULT_SIZE)
        if tiny and count > 2000:
            cause = f"{count} parameters; give it a smaller entry in the table TINY"
            report.failures.append(Failure(name, "tiny size", cause=cause))
        report.title = f"{count:,} parameters"
        return report

    size = f"{tiny_image} {likelihood}, tiny" if tiny else f"(28, 28, 1) {likelihood}, default"
    return Check("model", f"{name} {size} size", places_of_model(make_tiny), run)  # places are those of every size


def _doubly() -> Check:
    """The doubly reparameterised gradient, which is that of a surrogate."""

    def make(device: str, seed: int) -> Model:
        return zoo.build("iwae", (5, 3, 1), 2, (9,), device=device, dtype="float64", seed=seed, samples=3, doubly=True)

    def run(device: str, seed: int) -> Report:
        return gradcheck(make(device, seed), seed=seed)

    return Check("model", "iwae (5, 3, 1) doubly reparameterised, surrogate", places_of_model(make), run)


def _of_aim(aim: str) -> Check:
    def make(device: str, seed: int) -> Model:
        model = zoo.build("vae", (5, 3, 1), 3, (4,), device=device, dtype="float64", seed=seed)
        model.set_plan(make_plan(AIMS[aim], [(Adam(), 1)], 1))
        model.kernels.tick(model.clock.plan, model.clock.counters, model.clock.rates)
        return model

    def run(device: str, seed: int) -> Report:
        return gradcheck(make(device, seed), batch=3, seed=seed)

    return Check("model", f"vae (5, 3, 1) bernoulli, {aim}", places_of_model(make), run)


@cache
def _models() -> tuple[Check, ...]:
    return (
        *(_of_model(name, "bernoulli", True) for name in zoo.ZOO),
        *(_of_model(name, "gaussian", True) for name in zoo.SCORING),
        *(_of_aim(aim) for aim in AIMS),
        _doubly(),
        *(_of_model(name, "bernoulli", False) for name in zoo.ZOO),
    )


def checks(groups: Sequence[str] = ("op", "meaning", "layer", "model")) -> list[Check]:
    """Every check of these groups, in the order of the table."""
    ops = [_of_pair(pair) for pair in (*PAIRS, *LAYER_PAIRS)]
    ops += [_of_meaning("op", m) for m in (*OP_MEANINGS, *LAYER_MEANINGS, TARGETED)]
    every = [
        *ops,
        *(_of_meaning("meaning", m) for m in (*MEANINGS, *LIKELIHOOD_MEANINGS, UNIT_NORM)),
        *_layers(),
        *_models(),
    ]
    return [check for check in every if check.group in groups]


# ---------------------------------------------------------------------------------------------- running


def run_check(check: Check, device: str = "numpy", seed: int = 0) -> Line:
    """One line of the table; a check that stops with an error has failed."""
    start = time.perf_counter()
    failures: tuple[str, ...] = ()
    try:
        found = check.run(device, seed)
    except MeaningError as error:
        ok, text, failures = False, "", (f"{check.name}: {error}",)
    except Exception as error:  # a crash is a failed check, and the others still run
        ok, text, failures = False, "", (f"{check.name}: {type(error).__name__}: {error}",)
    else:
        if isinstance(found, str):
            ok, text = True, found
        else:
            ok, failures = found.ok, tuple(map(str, found.failures))
            text = f"{found.checked:>5} derivatives, {found.skipped} skipped, worst error {found.worst:.0e}"
    return Line(check.group, check.name, text, ok, time.perf_counter() - start, failures)


def possible(every: Iterable[Check], device: str) -> list[Check]:
    """The checks of `every` that need no op that the device lacks."""
    absent = lacking(device)
    return [check for check in every if not absent & set(check.places)]


def uncovered(every: Iterable[Check]) -> list[str]:
    """Ops of the table of contents that no check of the group "op" looks at."""
    seen = {place for check in every if check.group == "op" for place in check.places}
    return [name for name in OPS if name not in seen]


def check_all(
    device: str = "numpy",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    groups: Sequence[str] = ("op", "meaning", "layer", "model"),
) -> Table:
    """Runs every check; `progress` is given each line of the table as soon as it is known."""
    open_device(device)  # a device that is not there is one error, not a table full of them
    table, every = Table(device, seed), checks(groups)
    for check in possible(every, device):
        table.lines.append(run_check(check, device, seed))
        if progress:
            progress(str(table.lines[-1]))
    absent = lacking(device)
    if absent and progress:
        progress(f"left out: what needs an op that {device} lacks ({', '.join(sorted(absent))})")
    if "op" in groups:
        for name in uncovered(every):
            sentence = f"op {name} has no check: add a pair, or a meaning check"
            table.lines.append(Line("op", name, "", False, 0.0, (sentence,)))
    return table


def main_table(device: str = "numpy", seed: int = 0, progress: Callable[[str], None] | None = None) -> tuple[str, bool]:
    """What `tinyvae gradcheck` prints, and whether all is well.

    With progress=print the lines appear while they are made, and the text is only what remains to be said.
    """
    table = check_all(device, seed, progress)
    return (table.summary() if progress else str(table)), table.ok
