"""What tinyvae is compared with: programs of PyTorch and JAX, the GPU's report, the machine's rates and the roofline
picture, the machine code of the CUDA kernels. `tinyvae bench` finds this package in a clone of the repository."""

from __future__ import annotations

from tinyvae.bench.cases import Case
from tinyvae.bench.job import OURS, Job, Variant


def build(variant: Variant, case: Case, dtype: str, threads: int) -> Job:
    """The job of a contestant; libraries are imported here and no earlier."""
    if variant.library == OURS:
        from .rates import rate_job

        return rate_job(case.name, dtype)
    if variant.library == "cuda":
        from .cuda_jobs import cuda_job

        return cuda_job(case, dtype, "tf32" if variant.tf32 else "fp32")
    if variant.library == "jax":
        from .jax_steps import jax_step

        return jax_step(case.model, dtype)
    from . import torch_ops, torch_players, torch_steps

    if case.group == "players":
        return torch_players.torch_players(case, dtype, threads, variant)
    if case.model:
        return torch_steps.torch_step(case, dtype, threads, variant)
    return torch_ops.torch_job(case, dtype, threads, variant)
