"""The CUDA column's jobs, and a copy on the GPU beside which its memory-bound ops are measured."""

from __future__ import annotations

import numpy as np

from tinyvae.bench.cases import Case
from tinyvae.bench.job import Job, step_job
from tinyvae.bench.jobs import op_job, training_step
from tinyvae.device import NumpyDevice, cuda_stream, open_device

from .burst import burst, burst_of

COPIED = 1 << 30  # bytes: many times what a GPU's cache holds


def cuda_job(case: Case, dtype: str, precision: str) -> Job:
    """A case on the GPU, many calls at a time; those of an op are recorded, as a step is by itself."""
    device = open_device("cuda")
    if case.group == "machine":
        return burst(copy_job(device), burst_of(case), device.sync)
    if case.model:
        return burst(step_job(*training_step(case, dtype, "cuda", precision)), burst_of(case), device.sync)
    return burst(op_job(case, dtype, "cuda", precision), burst_of(case), device.sync, device.record)


def copy_job(device: NumpyDevice) -> Job:
    """A copy from one array of the GPU to another; its result says how many bytes are read and written."""
    source, target = (device.empty(COPIED, np.uint8) for _ in range(2))
    device.fill(source, 1)
    return Job(
        lambda: target.copy_to_device(source, stream=cuda_stream()),  # type: ignore[attr-defined]
        lambda: {"amount": np.array([2.0 * COPIED])},
    )
