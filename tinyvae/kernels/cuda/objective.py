"""The objective: sums over images and latent dimensions, in float64."""

from __future__ import annotations

import numpy as np

from ...device import cuda
from .engine.compile import kernel, launch
from .engine.reduce import block_sum, power_of_two

BLOCK = 1024  # threads that sum the objective, at most


@kernel(doubles=True)
def objective_kernel(nll, kl, kl_weight, R, B, L, sums, metrics):
    shared = cuda.shared.array(BLOCK, np.float64)
    thread, threads = np.uint32(cuda.threadIdx.x), np.uint32(cuda.blockDim.x)
    recon = weighted = plain = np.float64(0)  # a Python float would be drawn to float32 in the simulator
    i = thread
    while i < R:
        recon += nll[i]
        i = np.uint32(i + threads)
    i = thread
    while i < kl.size:
        weighted += kl_weight[i % L] * kl[i]
        plain += kl[i]
        i = np.uint32(i + threads)
    recon, weighted, plain = block_sum(recon, shared) / R, block_sum(weighted, shared) / B, block_sum(plain, shared) / B
    if thread == 0:
        metrics[0], metrics[1], metrics[2] = recon + weighted, recon, plain
        sums[0] += B * (recon + weighted)
        sums[1] += B * recon
        sums[2] += B * plain
        sums[3] += B


def objective(nll, kl, kl_weight, sums, metrics):
    """ops.objective.objective, in one block: so that every sum has its order."""
    B, L = kl.shape
    threads = power_of_two(max(nll.size, kl.size), BLOCK)
    launch(objective_kernel, 1, threads, nll, kl, kl_weight, nll.size, B, L, sums, metrics)
