"""Thresholds with a stated rate of false alarms: conformal p-values, and how far off a measured rate may be.
It knows scores of normal images; not what a score is made of."""

from __future__ import annotations

import math

import numpy as np

from ...config import require_int, require_number
from ...errors import ConfigError, DataError


def p_values(calibration: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """p = (1 + number of calibration scores ≥ the score) / (n + 1), for each score (N,).

    calibration (n,): scores of normal images that nothing was fitted on. For an image drawn like them,
    P(p ≤ alpha) ≤ alpha at every alpha, whatever the score: its rank among n + 1 exchangeable scores is uniform.
    Laxhammar & Falkman 2015; Bates, Candès, Lei, Romano & Sesia 2023, equation 2. Ties count against an alarm.
    """
    ordered = _calibration(calibration)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return (1 + at_least) / (len(ordered) + 1)


def threshold(calibration: np.ndarray, alpha: float) -> float:
    """The score above which p ≤ alpha: the k-th largest calibration score, k = ⌊alpha (n + 1)⌋.

    inf, never an alarm, where n < 1 / alpha − 1: so few images cannot support so low a rate.
    """
    ordered = _calibration(calibration)
    k = alarms_among(len(ordered), alpha)
    return float(ordered[-k]) if k else math.inf


def alarms_among(n: int, alpha: float) -> int:
    """k = ⌊alpha (n + 1)⌋: an alarm is raised where fewer than k of n calibration scores reach the image's."""
    require_number("alpha", alpha, 0, open_=True, why=", the rate of false alarms")
    if alpha >= 1:
        raise ConfigError(f"alpha={alpha!r} must be below 1, it is a rate of false alarms")
    return math.floor(alpha * (n + 1) * (1 + 1e-12))  # 0.01 · 100 must be 1, not just below


def false_alarm_interval(n: int, m: int, alpha: float, level: float = 0.999) -> tuple[int, int]:
    """The central `level` of the number of false alarms among m normal images after calibration on n: both ends.

    Without ties the rate at which one calibration leads to alarms is Beta(k, n + 1 − k), k = ⌊alpha (n + 1)⌋, and the
    number among m images BetaBinomial(m, k, n + 1 − k): P(j) = C(m, j) B(j + k, m − j + n + 1 − k) / B(k, n + 1 − k).
    Vovk 2012, proposition 2a. Each tail outside has at most (1 − level) / 2.
    """
    require_int("n", n, 1, ", the number of calibration images")
    require_int("m", m, 1, ", the number of test images")
    k = alarms_among(n, alpha)
    if not k:
        return 0, 0
    log_p = np.array([_log_beta_binomial(j, m, k, n + 1 - k) for j in range(m + 1)])
    p, tail = np.exp(log_p), (1 - level) / 2
    low = int(np.searchsorted(np.cumsum(p), tail, side="right"))
    high = m - int(np.searchsorted(np.cumsum(p[::-1]), tail, side="right"))
    return low, high


def _log_beta_binomial(j: int, m: int, a: int, b: int) -> float:
    log = math.lgamma
    choose = log(m + 1) - log(j + 1) - log(m - j + 1)
    return choose + log(j + a) + log(m - j + b) - log(m + a + b) - (log(a) + log(b) - log(a + b))


def _calibration(calibration: np.ndarray) -> np.ndarray:
    ordered = np.sort(np.asarray(calibration, np.float64))
    if ordered.ndim != 1 or not len(ordered) or np.isnan(ordered[-1]):
        raise DataError(f"calibration {ordered.shape} must be the scores (n,) of at least one image, without NaN")
    return ordered


__all__ = ["alarms_among", "false_alarm_interval", "p_values", "threshold"]
