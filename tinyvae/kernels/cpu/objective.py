"""The objective: sums over images and latent dimensions, in float64."""

from __future__ import annotations

import numpy as np

from .. import clock
from .engine.compile import jit
from .engine.sums import dot64, sum64


@jit
def objective(nll, kl, kl_weight, sums, metrics):
    """ops.objective.objective, all sums in float64."""
    B = kl.shape[0]
    recon, total, weighted = sum64(nll) / nll.size, 0.0, 0.0
    for b in range(B):
        total += sum64(kl[b])
        weighted += dot64(kl[b], kl_weight)
    metrics[0], metrics[1], metrics[2] = recon + weighted / B, recon, total / B
    for i in range(3):
        sums[i] += B * metrics[i]
    sums[3] += B


@jit
def targeted_objective(nll, kl, rates, sums, kl_weight, metrics):
    """ops.objective.targeted_objective; the means over the batch are computed in kl_weight."""
    B, L = kl.shape
    beta, capacity, free, total, cost = rates[clock.KL_BETA], rates[clock.KL_CAPACITY], rates[clock.KL_FREE], 0.0, 0.0
    for i in range(L):
        kl_weight[i] = 0
    for b in range(B):
        for i in range(L):
            kl_weight[i] += kl[b, i]
    for i in range(L):
        mean = kl_weight[i] / B
        total += mean
        cost += mean if mean > free else free
        kl_weight[i] = beta if mean > free else 0.0
    if capacity > 0:
        cost = abs(total - capacity)
        for i in range(L):
            kl_weight[i] = beta * np.sign(total - capacity)
    recon = sum64(nll) / nll.size
    metrics[0], metrics[1], metrics[2] = recon + beta * cost, recon, total
    for i in range(3):
        sums[i] += B * metrics[i]
    sums[3] += B
