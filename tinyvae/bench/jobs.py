"""The package's own jobs: ops of a device's column, training steps of the zoo's models, and NumPy's products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import datasets, kernels
from ..config import TrainConfig
from ..device import NumpyDevice, open_device
from ..kernels import OPS
from ..kernels.check import Arrays
from ..models import zoo
from ..training.step import Feed, Step
from .cases import Case
from .job import Job, step_job


def named(case: Case, arguments: list[Any]) -> dict[str, Any]:
    """{argument: value} of a case's op."""
    return {arg.name: value for arg, value in zip(OPS[case.op].args, arguments, strict=True)}


def op_job(case: Case, dtype: str, device_name: str, precision: str = "fp32") -> Job:
    """The op of a column, as layers call it. Arrays that it updates are restored before each call."""
    op, device = OPS[case.op], open_device(device_name)
    host = case.arguments(np.dtype(dtype).type)
    given = [a if arg.role == "option" else device.put(a) for arg, a in zip(op.args, host, strict=True)]
    roles = {arg.name: arg.role for arg in op.args}
    arrays = named(case, given)
    kept = [(arrays[name], value) for name, value in named(case, host).items() if roles[name] == "inout"]

    def restore() -> None:
        for array, before in kept:
            device.put(before, array)

    def result() -> Arrays:
        return {name: device.get(a) for name, a in arrays.items() if roles[name] in ("out", "inout")}

    run = getattr(kernels.load(device_name, unchecked=True, precision=precision), case.op)
    return Job(partial(run, *given), result, restore if kept else None)


def numpy_product(case: Case, dtype: str) -> Job:
    """A dense layer's product by NumPy's own matmul, into arrays made beforehand."""
    device = NumpyDevice()
    host = named(case, case.arguments(np.dtype(dtype).type))
    a: dict[str, Any] = {k: device.put(v) if isinstance(v, np.ndarray) else v for k, v in host.items()}

    def forward() -> None:
        np.matmul(a["x"], a["w"], out=a["y"])
        np.add(a["y"], a["b"], out=a["y"])

    calls: dict[str, tuple[str, Callable[[], Any]]] = {
        "dense": ("y", forward),
        "dense_grad_x": ("grad_x", lambda: np.matmul(a["grad_y"], a["w"].T, out=a["grad_x"])),
        "dense_grad_w": ("grad_w", lambda: np.matmul(a["x"].T, a["grad_y"], out=a["grad_w"])),
    }
    output, run = calls[case.op]
    return Job(run, lambda: {output: a[output].copy()})


def training_step(
    case: Case, dtype: str, device: str, precision: str = "fp32"
) -> tuple[Callable[[], None], Callable[[], list[float]]]:
    """A training step as `tinyvae train` makes it, tick, gather, forward, backward, Adam, and the losses of the last
    one, of each player. Whole batches only."""
    images = datasets.load("mnist").train_images
    model = zoo.build(case.model, device=device, dtype=dtype, precision=precision)
    feed = Feed(model, images[: len(images) // case.batch * case.batch])
    feed.shuffle(0, 0)
    step = Step(model, feed, TrainConfig(batch_size=case.batch))
    batches: list[Any] = []

    def run() -> None:
        batches[:] = [step.run()]

    return run, lambda: [model.loss_of(player, batches[0]) for player in model.players]


def build(library: str, case: Case, dtype: str) -> Job:
    """The job of a device's column, and of NumPy, whose products are its own matmul."""
    if case.model:
        return step_job(*training_step(case, dtype, library))
    if library == "numpy" and case.group == "products":
        return numpy_product(case, dtype)
    return op_job(case, dtype, library)
