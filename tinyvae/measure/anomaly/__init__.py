"""Which pictures do not belong: scores of a trained model, figures, thresholds with a stated rate of false alarms.
It knows models and images; `tinyvae anomaly` puts it to work in anomaly_run."""

from __future__ import annotations

from .baselines import PCA, NearestNeighbour
from .conformal import false_alarm_interval, p_values, threshold
from .detector import SCORES, Detector, equal_norm
from .figures import aupr, auroc
from .protocols import BASELINES, Case, baseline_scores, class_of, judge, leave_one_out, one_against_rest, table

__all__ = [
    "BASELINES", "PCA", "SCORES", "Case", "Detector", "NearestNeighbour", "aupr", "auroc", "baseline_scores",
    "class_of", "equal_norm", "false_alarm_interval", "judge", "leave_one_out", "one_against_rest", "p_values", "table",
    "threshold",
]  # fmt: skip
