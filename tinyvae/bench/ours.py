"""Our own side: ops of a device's column and steps of the zoo's models; and products as NumPy makes them.
It knows tinyvae and NumPy, no other library."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import datasets, kernels, zoo
from ..config import TrainConfig
from ..device import NumpyDevice, open_device
from ..kernels import OPS
from ..step import Feed, Step
from .cases import Case
from .job import Job, step_job
from .verify import Arrays


def named(case: Case, arguments: list[Any]) -> dict[str, Any]:
    """{argument: value} of a case's op."""
    return {arg.name: value for arg, value in zip(OPS[case.op].args, arguments, strict=True)}


def op_job(case: Case, dtype: str, device_name: str) -> Job:
    """The op of a column, as layers call it. Arrays that it updates are restored before each call."""
    op, device = OPS[case.op], open_device(device_name)
    host = case.arguments(np.dtype(dtype).type)
    given = [a if arg.role == "option" else device.put(a) for arg, a in zip(op.args, host, strict=True)]
    roles = {arg.name: arg.role for arg in op.args}
    arrays = named(case, given)
    kept = [(a, device.put(a)) for name, a in arrays.items() if roles[name] == "inout"]

    def restore() -> None:
        for array, before in kept:
            array[...] = before

    def result() -> Arrays:
        return {name: device.get(a) for name, a in arrays.items() if roles[name] in ("out", "inout")}

    run = getattr(kernels.load(device_name, unchecked=True), case.op)
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


def model_step(model_name: str, dtype: str, device: str) -> Job:
    """A training step as `tinyvae train` makes it: tick, gather, forward, backward, Adam."""
    images = datasets.load("mnist").train_images
    model = zoo.build(model_name, device=device, dtype=dtype)
    feed = Feed(model, images)
    feed.shuffle(0, 0)
    step = Step(model, feed, TrainConfig())
    batches: list[Any] = []

    def run() -> None:
        batches[:] = [step.run()]

    return step_job(run, lambda: float(batches[0].metrics[0]))
