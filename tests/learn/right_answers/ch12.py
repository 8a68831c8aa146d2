"""Chapter 12: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import numpy as np


def auroc_pair_by_pair(scores, anomalous):
    points = pairs = 0
    for high in scores[anomalous]:
        for low in scores[~anomalous]:
            pairs += 1
            if high > low:
                points += 1
            elif high == low:
                points += 0.5
    return points / pairs


def auroc_by_mean_ranks(scores, anomalous):
    rank = np.array([np.sum(scores < s) + (np.sum(scores == s) + 1) / 2 for s in scores])
    n_1, n_0 = np.sum(anomalous), np.sum(~anomalous)
    return (rank[anomalous].sum() - n_1 * (n_1 + 1) / 2) / (n_1 * n_0)


def auroc_under_the_curve(scores, anomalous):
    """Trapezoids below the points (false alarms, found), one point for each threshold."""
    thresholds = [np.inf, *np.unique(scores)[::-1]]
    found = np.array([(scores[anomalous] >= t).mean() for t in thresholds])
    alarms = np.array([(scores[~anomalous] >= t).mean() for t in thresholds])
    return np.sum((found[1:] + found[:-1]) / 2 * np.diff(alarms))


def mahalanobis_row_by_row(z, codes):
    m, C = np.mean(codes, 0), np.cov(codes, rowvar=False)
    return [(row - m) @ np.linalg.solve(C, row - m) for row in z]


def mahalanobis_by_whitening(z, codes):
    """The length in coordinates in which the codes have covariance 1."""
    centred = codes - codes.mean(axis=0)
    root = np.linalg.cholesky(centred.T @ centred / (len(codes) - 1))
    return np.square(np.linalg.solve(root, (z - codes.mean(axis=0)).T)).sum(axis=0)


def mahalanobis_by_directions(z, codes):
    """Along each principal direction, in units of its variance."""
    variance, directions = np.linalg.eigh(np.cov(codes.T))
    return ((((z - codes.mean(axis=0)) @ directions) ** 2) / variance) @ np.ones(z.shape[1])


def p_one_by_one(calibration, scores):
    out = []
    for score in scores:
        at_least = sum(1 for c in calibration if c >= score)
        out.append((1 + at_least) / (len(calibration) + 1))
    return out


def p_by_search(calibration, scores):
    below = np.searchsorted(np.sort(calibration), scores, side="left")
    return 1 - below / (len(calibration) + 1)


def p_of_all_together(calibration, scores):
    """The share of the n + 1, the new one among them, that are at least as high."""
    return np.array([np.mean(np.append(calibration, s) >= s) for s in scores])


ANSWERS = {
    "auroc": (auroc_pair_by_pair, auroc_by_mean_ranks, auroc_under_the_curve),
    "mahalanobis": (mahalanobis_row_by_row, mahalanobis_by_whitening, mahalanobis_by_directions),
    "p_values": (p_one_by_one, p_by_search, p_of_all_together),
}
