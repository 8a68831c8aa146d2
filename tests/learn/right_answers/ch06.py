"""Chapter 06: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import math

import numpy as np


def line_in_steps(a, b, steps):
    return [a + (b - a) * i / (steps - 1) for i in range(steps)]


def circle_by_gram_schmidt(a, b, t):
    """Along a, and along what of b stands upright on it; the lengths from a to b as slerp has them."""
    e = a / math.sqrt(sum(a * a))
    f = b - (b @ e) * e
    f = f / np.linalg.norm(f)
    angle = math.atan2(b @ f, b @ e)
    from_a = math.sin((1 - t) * angle) / math.sin(angle) * np.linalg.norm(a)
    from_b = math.sin(t * angle) / math.sin(angle) * np.linalg.norm(b)
    return from_a * e + from_b * (math.cos(angle) * e + math.sin(angle) * f)


def circle_from_units(a, b, t):
    cosine = np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b))
    w = np.arccos(np.clip(cosine, -1, 1))
    return np.sin((1 - t) * w) / np.sin(w) * a + np.sin(t * w) / np.sin(w) * b


def circle_number_by_number(a, b, t):
    w = math.acos(math.fsum(a * b) / math.hypot(*a) / math.hypot(*b))
    return [
        math.sin((1 - t) * w) / math.sin(w) * p + math.sin(t * w) / math.sin(w) * q for p, q in zip(a, b, strict=True)
    ]


def units_one_by_one(z_mean, threshold):
    count = 0
    for column in z_mean.T:
        mean = sum(column) / len(column)
        if sum((v - mean) ** 2 for v in column) / len(column) > threshold:
            count += 1
    return count


ANSWERS = {
    "line": (
        line_in_steps,
        lambda a, b, steps: np.linspace(a, b, steps),
        lambda a, b, steps: a + np.outer(np.arange(steps) / (steps - 1), b - a),
    ),
    "great_circle": (circle_by_gram_schmidt, circle_from_units, circle_number_by_number),
    "active_units": (
        units_one_by_one,
        lambda z, threshold: np.count_nonzero(np.var(z, axis=0) > threshold),
        lambda z, threshold: sum((z**2).mean(0) - z.mean(0) ** 2 > threshold),
    ),
}
