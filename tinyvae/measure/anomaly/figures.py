"""How well a score tells anomalies from normal images, whatever the threshold: AUROC and AUPR.
It knows scores and truth; not what a score is made of."""

from __future__ import annotations

import numpy as np

from ...errors import DataError


def auroc(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """The area under the receiver operating characteristic: P(score of an anomaly > score of a normal image).

    A tie counts as half. scores (N,), higher is more anomalous; anomalous (N,) bool, with both kinds in it.
    With r the ranks from 1, those of ties averaged: (Σ r over anomalies − n₁ (n₁ + 1) / 2) / (n₀ n₁). Mann & Whitney
    1947; Hanley & McNeil 1982. 0.5 is guessing, below it the score is upside down.
    """
    scores, anomalous = _checked(scores, anomalous)
    _, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[group]
    n_1 = int(anomalous.sum())
    above = rank[anomalous].sum() - n_1 * (n_1 + 1) / 2
    return float(above / (n_1 * (len(scores) - n_1)))


def aupr(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """The area under precision against recall, as average precision: Σ_t (recall_t − recall_{t−1}) · precision_t.

    t runs over the different scores from the highest down; images of one score are found together. Nothing is
    interpolated, which would flatter: Davis & Goadrich 2006. Guessing gives the share of anomalies.
    Arguments as in `auroc`.
    """
    scores, anomalous = _checked(scores, anomalous)
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last place of each score
    found = np.cumsum(anomalous[order])[last]
    gained = np.diff(found, prepend=0)
    return float((gained * found / (last + 1)).sum() / found[-1])


def _checked(scores: np.ndarray, anomalous: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, anomalous = np.asarray(scores, np.float64), np.asarray(anomalous)
    if scores.ndim != 1 or scores.shape != anomalous.shape or anomalous.dtype != bool:
        raise DataError(
            f"scores {scores.shape} and anomalous {anomalous.shape} of {anomalous.dtype} must be two arrays (N,), the "
            f"second of bool"
        )
    if np.isnan(scores).any():
        raise DataError(f"scores holds NaN at {int(np.isnan(scores).argmax())}; a score must be a number")
    if not 0 < anomalous.sum() < len(anomalous):
        raise DataError(f"anomalous marks {anomalous.sum()} of {len(anomalous)} images; both kinds are needed")
    return scores, anomalous


__all__ = ["aupr", "auroc"]
