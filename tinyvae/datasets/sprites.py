"""Small grey pictures of one shape each, drawn here, so that every factor of variation is known.
It knows nothing of models; what is learned from the pictures is measured elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .dataset import Dataset, as_dataset
from .idx import MAX_BYTES

SHAPES = ("square", "ellipse", "heart")
_SUB = 8  # sample points per pixel and axis: 64 samples a pixel, 65 shades of grey
_RADIUS = 7 / 32  # of the picture's side, at scale 1; also the margin that the centre keeps from the border


def make_sprites(
    size: int = 32, *, scales: int = 4, rotations: int = 12, positions: int = 10, holdout: float = 0.1, seed: int = 0
) -> Dataset:
    """White shapes on black, (N, size, size, 1) uint8, one picture for every combination of five factors.

    shape     0 square, 1 ellipse, 2 heart (also the labels)
    scale     0.5 to 1
    rotation  radians in [0, 2π), counter-clockwise; a square looks the same every π/2, an ellipse every π
    x, y      centre of mass, 0 left or top, 1 right or bottom; the shape never leaves the picture

    After dSprites: L. Matthey, I. Higgins, D. Hassabis, A. Lerchner, "dSprites: Disentanglement testing Sprites
    dataset", 2017. The factors are the same, the pictures and their number are not.
    """
    _check_count("size", size, 8, 128)
    for argument, count in (("scales", scales), ("rotations", rotations), ("positions", positions)):
        _check_count(argument, count, 1, 100)
    radius = _RADIUS * size * _SUB  # in sample steps, as are all lengths below
    margin = int(np.ceil(radius))
    centres = np.rint(np.linspace(margin, size * _SUB - margin, positions)).astype(int)
    scale_values = np.linspace(0.5, 1.0, scales)
    angles = 2 * np.pi * np.arange(rotations) / rotations
    places = (centres - margin) / (size * _SUB - 2 * margin)  # what was drawn, after rounding

    grid = (len(SHAPES), scales, rotations, positions, positions)
    if (total := math.prod(grid) * size**2) > MAX_BYTES:
        raise ConfigError(
            f"sprites of {math.prod(grid)} combinations take {total} bytes; ask for fewer values a factor"
        )
    images = np.empty((*grid, size, size), np.uint8)
    for s, i, j in np.ndindex(*grid[:3]):
        coverage = _pixel_coverage(SHAPES[s], radius * float(scale_values[i]), float(angles[j]), margin)
        images[s, i, j] = _stamp(coverage, centres, size, margin)
    values = np.meshgrid(np.arange(len(SHAPES)), scale_values, angles, places, places, indexing="ij")
    shape, scale, rotation, y, x = (value.ravel() for value in values)
    factors: dict[str, NDArray[Any]] = {"shape": shape.astype(np.uint8)}
    factors |= {"scale": scale, "rotation": rotation, "x": x, "y": y}
    return as_dataset(
        images.reshape(-1, size, size, 1),
        factors["shape"],
        holdout=holdout,
        seed=seed,
        name="sprites",
        label_names=SHAPES,
        factors=factors,
    )


def _inside(shape: str, u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which points lie in the shape; u right, v up; every shape fits the unit circle."""
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= np.sqrt(0.5)
    if shape == "ellipse":
        return u**2 + (2 * v) ** 2 <= 1
    a, b = 1.3 * u, 1.3 * v + 0.293  # so that (0, 0) is the centre of mass
    inside: NDArray[np.bool_] = (a**2 + b**2 - 1) ** 3 <= a**2 * b**3
    return inside


def _pixel_coverage(shape: str, radius: float, angle: float, margin: int) -> NDArray[np.uint8]:
    """The shade of a pixel that starts at each sample step, for a shape centred in the window; 0 along its rim.

    A pixel's shade depends only on where the shape lies relative to it, so one drawing serves all positions.
    """
    half = margin + _SUB
    t = (np.arange(-half, half) + 0.5) / radius
    x, y = t[None, :], -t[:, None]  # rows go down, y goes up
    u = x * np.cos(angle) + y * np.sin(angle)
    v = y * np.cos(angle) - x * np.sin(angle)
    total = np.pad(_inside(shape, u, v), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    hits = total[_SUB:, _SUB:] - total[:-_SUB, _SUB:] - total[_SUB:, :-_SUB] + total[:-_SUB, :-_SUB]
    return np.rint(hits * (255 / _SUB**2)).astype(np.uint8)


def _stamp(coverage: NDArray[np.uint8], centres: NDArray[np.int_], size: int, margin: int) -> NDArray[np.uint8]:
    """The shape at every (y, x) of `centres`: (positions, positions, size, size)."""
    steps = _SUB * np.arange(size)[None, :] - centres[:, None] + margin + _SUB
    steps = np.clip(steps, 0, len(coverage) - 1)  # far pixels fall on the rim, which is black
    return coverage[steps[:, None, :, None], steps[None, :, None, :]]


def _check_count(argument: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ConfigError(f"{argument}={value!r} is out of range for sprites; pass a whole number from {low} to {high}")
