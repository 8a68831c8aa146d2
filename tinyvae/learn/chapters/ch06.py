"""Chapter 06, a latent space to walk in: the straight line, the great circle, and the units in use.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SIZES = (2, 3, 7)
SHAPES = ((20, 3), (15, 4), (30, 2))


def line(a, b, steps):
    """`steps` points on the straight line from a to b, both ends included, equally far apart.

    a, b: (latent,). steps: a whole number, at least 2. Returns (steps, latent).
    """
    t = np.linspace(0, 1, steps)[:, None]
    return (1 - t) * a + t * b


def great_circle(a, b, t):
    """sin((1 − t) ω) / sin ω · a + sin(t ω) / sin ω · b, ω the angle between a and b.

    a, b: (latent,), not parallel. t: a number from 0 to 1. Returns (latent,).
    """
    omega = np.arccos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
    return (np.sin((1 - t) * omega) * a + np.sin(t * omega) * b) / np.sin(omega)


def active_units(z_mean, threshold):
    """The number of latent dimensions whose z_mean has a variance over the images above the threshold.

    z_mean: (N, latent), one row an image. threshold: a number. Returns a whole number.
    """
    return int((z_mean.var(axis=0) > threshold).sum())


def _ends(rng: np.random.Generator, case: int) -> tuple:
    return rng.standard_normal(SIZES[case]), rng.standard_normal(SIZES[case])


def _codes(rng: np.random.Generator, case: int) -> tuple:
    N, L = SHAPES[case]
    spread = np.array([1.0, 0.03, 0.2, 0.05])[:L]
    return spread * rng.standard_normal((N, L)) + np.array([0.0, 0.0, 3.0, -1.0])[:L], 0.02


def _angle(a, b):
    return np.arccos(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _circle(a, b, t, omega):
    return (np.sin((1 - t) * omega) * a + np.sin(t * omega) * b) / np.sin(omega)


CHAPTER = Chapter(
    "06",
    "A latent space to walk in: continuity, completeness, sampling",
    "06_a_latent_space_to_walk_in.md",
    (
        Exercise(
            line,
            lambda rng, case: (*_ends(rng, case), (2, 5, 9)[case]),
            (
                Mistake("the line from b to a", lambda a, b, n: line(b, a, n)),
                Mistake("a line that ends before b: steps / (steps − 1) is lost",
                        lambda a, b, n: line(a, a + (b - a) * (n - 1) / n, n)),
                Mistake("a line without its two ends", lambda a, b, n: line(a, b, n + 2)[1:-1]),
                Mistake("a + t b, which does not end at b", lambda a, b, n: a + np.linspace(0, 1, n)[:, None] * b),
                Mistake("the line in steps of squares: t² where t belongs",
                        lambda a, b, n: a + np.linspace(0, 1, n)[:, None] ** 2 * (b - a)),
                Mistake("the line twice as far, beyond b", lambda a, b, n: line(a, 2 * b - a, n)),
            ),
            (
                "np.linspace(0, 1, steps) gives the share of the way, both ends included.",
                "At t = 0 all of a, at t = 1 all of b, in between both: two products and a sum.",
                "t needs the shape (steps, 1) so that it meets every latent number: t[:, None].",
            ),
        ),
        Exercise(
            great_circle,
            lambda rng, case: (*_ends(rng, case), (0.25, 0.6, 0.9)[case]),
            (
                Mistake("the straight line, (1 − t) a + t b", lambda a, b, t: (1 - t) * a + t * b),
                Mistake("the circle walked backwards, from b to a", lambda a, b, t: great_circle(b, a, t)),
                Mistake("the sum without the division by sin ω",
                        lambda a, b, t: _circle(a, b, t, _angle(a, b)) * np.sin(_angle(a, b))),
                Mistake("the circle with ω from a · b, without the division by the lengths",
                        lambda a, b, t: _circle(a, b, t, np.arccos(np.clip(a @ b, -0.999, 0.999)))),
                Mistake("the circle with cosines where sines belong",
                        lambda a, b, t: (np.cos((1 - t) * _angle(a, b)) * a + np.cos(t * _angle(a, b)) * b)
                        / np.sin(_angle(a, b))),
                Mistake("a quarter of a circle, whatever the angle: cos(t π/2) a + sin(t π/2) b",
                        lambda a, b, t: np.cos(t * np.pi / 2) * a + np.sin(t * np.pi / 2) * b),
            ),
            (
                "First ω: the cosine of the angle between two vectors is a · b over the product of their lengths.",
                "np.arccos gives the angle, np.linalg.norm the length, a @ b the product of two vectors.",
                "Then the formula as it stands. At t = 0 it must give a, at t = 1 b: try it.",
            ),
        ),
        Exercise(
            active_units,
            _codes,
            (
                Mistake("the count by the standard deviation, not the variance",
                        lambda z, h: int((z.std(axis=0) > h).sum())),
                Mistake("the count of unused dimensions", lambda z, h: int((z.var(axis=0) <= h).sum())),
                Mistake("the count by the mean square, which a constant offset passes",
                        lambda z, h: int(((z**2).mean(axis=0) > h).sum())),
                Mistake("the count of dimensions that vary more than the average one",
                        lambda z, h: int((z.var(axis=0) > z.var(axis=0).mean()).sum())),
                Mistake("the count of images, not of dimensions: the variance is taken along the wrong axis",
                        lambda z, h: int((z.var(axis=1) > h).sum())),
                Mistake("the share of dimensions in use, not their number",
                        lambda z, h: (z.var(axis=0) > h).mean()),
            ),
            (
                "An unused dimension has nearly the same z_mean for every image. What measures that?",
                "The variance over the images, so along axis 0. Compare each with the threshold.",
                "The sum of an array of True and False is the number of True.",
            ),
        ),
    ),
)  # fmt: skip
