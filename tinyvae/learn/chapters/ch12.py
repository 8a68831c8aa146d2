"""Chapter 12, finding anomalies: the area under the ROC curve, the distance of a code, conformal p-values.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

PICTURES = ((5, 6), (9, 4), (12, 17))  # anomalies, normal pictures
CODES = ((12, 3, 5), (9, 2, 4), (15, 4, 7))  # N, latent, B
CALIBRATION = ((9, 4), (19, 3), (14, 6))  # n, m


def auroc(scores, anomalous):
    """The share of pairs (an anomaly, a normal picture) in which the anomaly has the higher score; a tie counts half.

    scores: (N,), higher is more anomalous. anomalous: (N,) of True and False, both are there. Returns a number.
    """
    above = scores[anomalous][:, None] - scores[~anomalous]
    return ((above > 0) + 0.5 * (above == 0)).mean()


def mahalanobis(z, codes):
    """(z − m)ᵀ C⁻¹ (z − m) of each row of z, m the mean and C the covariance of the normal pictures' codes.

    z: (B, latent). codes: (N, latent). C is divided by N − 1, as np.cov does. Returns (B,), squared distances.
    """
    away = z - codes.mean(axis=0)
    return (away @ np.linalg.inv(np.cov(codes.T)) * away).sum(axis=1)


def p_values(calibration, scores):
    """p = (1 + number of calibration scores that are at least as high) / (n + 1), of each score.

    calibration: (n,), scores of normal pictures. scores: (m,), of new ones. Returns (m,).
    """
    at_least = (calibration >= scores[:, None]).sum(axis=1)
    return (1 + at_least) / (len(calibration) + 1)


def _judged(rng: np.random.Generator, case: int) -> tuple:
    n_1, n_0 = PICTURES[case]
    scores = np.concatenate([rng.integers(2, 7, n_1), rng.integers(0, 5, n_0), [3, 3]]).astype(float)
    anomalous = np.concatenate([np.ones(n_1, bool), np.zeros(n_0, bool), [True, False]])
    order = rng.permutation(len(scores))
    return scores[order], anomalous[order]


def _latent(rng: np.random.Generator, case: int) -> tuple:
    N, L, B = CODES[case]
    mix = np.eye(L) + 0.5 * rng.standard_normal((L, L))
    return rng.standard_normal((B, L)) * 2 + 1, rng.standard_normal((N, L)) @ mix + 0.5


def _calibrated(rng: np.random.Generator, case: int) -> tuple:
    n, m = CALIBRATION[case]
    calibration = rng.integers(0, 8, n) / 4
    scores = rng.integers(0, 8, m) / 4
    scores[:2] = calibration[0], 5.0  # one tie at least, and one above all of them
    return calibration, scores


def _ranks(scores):
    """1, 2, … from the lowest score; ties in the order in which they stand."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _from_ranks(scores, anomalous, ranks):
    n_1 = anomalous.sum()
    return (ranks[anomalous].sum() - n_1 * (n_1 + 1) / 2) / (n_1 * (len(scores) - n_1))


def _pairs(scores, anomalous):
    return scores[anomalous][:, None] - scores[~anomalous]


def _quadratic(z, m, matrix):
    return ((z - m) @ matrix * (z - m)).sum(axis=1)


def _count(calibration, scores):
    return (calibration >= scores[:, None]).sum(axis=1)


CHAPTER = Chapter(
    "12",
    "Finding anomalies",
    "12_finding_anomalies.md",
    (
        Exercise(
            auroc,
            _judged,
            (
                Mistake("the share of pairs with ties counted as lost, where they count half",
                        lambda s, a: (_pairs(s, a) > 0).mean()),
                Mistake("the share of pairs with ties counted as won, where they count half",
                        lambda s, a: (_pairs(s, a) >= 0).mean()),
                Mistake("the area upside down: the share of pairs in which the normal picture has the higher score",
                        lambda s, a: 1 - auroc(s, a)),
                Mistake("the area from ranks in which ties stand in the order of the array; give them their mean rank",
                        lambda s, a: _from_ranks(s, a, _ranks(s))),
                Mistake("the number of pairs, not their share: divide by both counts",
                        lambda s, a: auroc(s, a) * a.sum() * (~a).sum()),
                Mistake("the share of right verdicts at one threshold, the median",
                        lambda s, a: ((s > np.median(s)) == a).mean()),
                Mistake("the difference of the two mean scores",
                        lambda s, a: s[a].mean() - s[~a].mean()),
            ),
            (
                "scores[anomalous] are the anomalies' scores, scores[~anomalous] the others'. Compare each with each.",
                "scores[anomalous][:, None] meets a row of normal scores: a table with one place for each pair.",
                "A pair counts 1 where the anomaly is above, ½ where both are equal, 0 below; take the mean of the "
                "whole table. (By ranks it is faster: ties get the mean of their ranks.)",
            ),
        ),
        Exercise(
            mahalanobis,
            _latent,
            (
                Mistake("the plain squared distance from the mean: C⁻¹ is left out",
                        lambda z, c: _quadratic(z, c.mean(axis=0), np.eye(z.shape[1]))),
                Mistake("the distance, not its square",
                        lambda z, c: np.sqrt(mahalanobis(z, c))),
                Mistake("the distance with C where its inverse belongs: wide directions should count less",
                        lambda z, c: _quadratic(z, c.mean(axis=0), np.cov(c.T))),
                Mistake("the distance by the variances alone: C also says which dimensions go together",
                        lambda z, c: (((z - c.mean(axis=0)) ** 2) / c.var(axis=0, ddof=1)).sum(axis=1)),
                Mistake("the distance from 0: the mean of the codes is left out",
                        lambda z, c: _quadratic(z, 0, np.linalg.inv(np.cov(c.T)))),
                Mistake("the distance from the new pictures' own mean, in their own spread",
                        lambda z, c: _quadratic(z, z.mean(axis=0), np.linalg.inv(np.cov(z.T)))),
                Mistake("the right one but for C, which is divided by N where N − 1 belongs",
                        lambda z, c: _quadratic(z, c.mean(axis=0), np.linalg.inv(np.cov(c.T, ddof=0)))),
            ),
            (
                "m and C come from the normal codes alone. np.cov wants one row for each dimension: codes.T.",
                "With d = z − m, rows d, the product d @ np.linalg.inv(C) is again (B, latent).",
                "Multiply that by d, number by number, and sum along each row.",
            ),
        ),
        Exercise(
            p_values,
            _calibrated,
            (
                Mistake("the share of calibration scores that are at least as high, without the new picture itself: "
                        "p can be 0, and no finite calibration allows that",
                        lambda c, s: _count(c, s) / len(c)),
                Mistake("p without the 1 on top: the new picture is at least as high as itself",
                        lambda c, s: _count(c, s) / (len(c) + 1)),
                Mistake("p with n below, where n + 1 belongs: with the new picture there are n + 1",
                        lambda c, s: (1 + _count(c, s)) / len(c)),
                Mistake("p with ties left out: a calibration score equal to the picture's counts against an alarm",
                        lambda c, s: (1 + (c > s[:, None]).sum(axis=1)) / (len(c) + 1)),
                Mistake("p upside down: the calibration scores that are at most as high",
                        lambda c, s: (1 + (c <= s[:, None]).sum(axis=1)) / (len(c) + 1)),
                Mistake("p-values of the new pictures among themselves: the calibration is not used",
                        lambda c, s: p_values(s, s)),
                Mistake("the p-values sorted: they belong in the order of the scores",
                        lambda c, s: np.sort(p_values(c, s))),
            ),
            (
                "For each new score count the calibration scores that are as high or higher.",
                "calibration >= scores[:, None] is a table of True and False, one row for each new score.",
                "The picture itself is one of n + 1, and as high as itself: 1 on top, 1 below.",
            ),
        ),
    ),
)  # fmt: skip
