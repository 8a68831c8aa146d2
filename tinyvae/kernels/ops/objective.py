"""The objective of a batch: reconstruction and KL divergence, weighted, and their sums over an epoch."""

from __future__ import annotations

import numpy as np

from .. import clock
from ..op import RATES_IN, In, InOut, Op, Out, per, rows_rule, three_examples


def objective(nll, kl, kl_weight, sums, metrics):
    """The loss of one batch, in nats per image, and the running sums over an epoch.

    metrics = [loss, recon, kl]: recon = mean of nll over rows, kl = Σ_latent of its mean over images,
    loss = recon + Σ_latent kl_weight · (its mean). sums += B · [loss, recon, kl, 1].
    nll: (R,). kl: (B, latent). kl_weight: (latent,), sums: (4,), metrics: (3,), these three float64.
    """
    B = kl.shape[0]
    recon = nll.mean(dtype=np.float64)
    kl_mean = kl.mean(axis=0, dtype=np.float64)  # (latent,)
    metrics[0] = recon + kl_weight @ kl_mean
    metrics[1] = recon
    metrics[2] = kl_mean.sum()
    sums[:3] += B * metrics
    sums[3] += B


def targeted_objective(nll, kl, rates, sums, kl_weight, metrics):
    """`objective` with free bits or a capacity on the batch's KL divergences, and the weights of its gradient.

    With kl_d the mean over the batch of dimension d, recon the mean of nll over rows, and beta = rates[KL_BETA]:
    free bits    loss = recon + beta · Σ_d max(KL_FREE, kl_d),        kl_weight_d = beta where kl_d > KL_FREE, else 0
    a capacity   loss = recon + beta · |Σ_d kl_d − KL_CAPACITY|,      kl_weight_d = beta · sign(Σ_d kl_d − KL_CAPACITY)
    Kingma et al. 2016; Burgess et al. 2018, beta being their γ. A capacity above 0 takes
    precedence. metrics = [loss, recon, Σ_d kl_d], sums += B · [loss, recon, Σ_d kl_d, 1].
    nll: (R,). kl: (B, latent). rates: (8,), sums: (4,), kl_weight: (latent,), metrics: (3,), these four float64.
    """
    B = kl.shape[0]
    recon = nll.mean(dtype=np.float64)
    each = kl.mean(axis=0, dtype=np.float64)  # (latent,)
    beta, capacity, free = rates[clock.KL_BETA], rates[clock.KL_CAPACITY], rates[clock.KL_FREE]
    total = each.sum()
    if capacity > 0:
        kl_weight[...] = beta * np.sign(total - capacity)
        cost = beta * abs(total - capacity)
    else:
        kl_weight[...] = np.where(each > free, beta, 0)
        cost = beta * np.maximum(each, free).sum()
    metrics[:] = recon + cost, recon, total
    sums[:3] += B * metrics
    sums[3] += B


def _objective_terms(a):
    nll, kl = np.abs(a["nll"]).mean(), np.abs(a["kl"]).mean(0)
    metrics = np.array([nll + a["kl_weight"] @ kl, nll, kl.sum()])
    return {"metrics": metrics, "sums": np.abs(a["sums"]) + len(a["kl"]) * np.array([*metrics, 1])}


def _targeted_objective_terms(a):
    nll, kl, rates = np.abs(a["nll"]).mean(), np.abs(a["kl"]).mean(0), a["rates"]
    cost = rates[clock.KL_BETA] * (kl.sum() + rates[clock.KL_CAPACITY] + rates[clock.KL_FREE] * len(kl))
    metrics = np.array([nll + cost, nll, kl.sum()])
    return {"metrics": metrics, "sums": np.abs(a["sums"]) + len(a["kl"]) * np.array([*metrics, 1])}


_EXAMPLES = three_examples({"B": 1, "R": 1, "L": 1}, {"B": 3, "R": 9, "L": 7}, {"B": 128, "R": 128, "L": 20})

OPS = (
    Op(
        "objective",
        (In("nll", "R"), In("kl", "B", "L"), In("kl_weight", "L", dtype="float64", draw="unit"),
         InOut("sums", "4", dtype="float64"), Out("metrics", "3", dtype="float64")),
        _EXAMPLES, per("B", "L", cost=2), ulp=4, reduction=("B", "L"), rule=rows_rule,
        terms=_objective_terms,
    ),
    Op(
        "targeted_objective",
        (In("nll", "R"), In("kl", "B", "L"), RATES_IN, InOut("sums", "4", dtype="float64"),
         Out("kl_weight", "L", dtype="float64"), Out("metrics", "3", dtype="float64")),
        _EXAMPLES, per("B", "L", cost=3), ulp=4, reduction=("B", "L"), rule=rows_rule,
        terms=_targeted_objective_terms,
    ),
)  # fmt: skip
