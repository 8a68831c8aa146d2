"""What a data set is here: images (N, H, W, C) in a training and a test part, checked once at the door.
It knows nothing of files and names; arrays come in, a Dataset goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError


class Factor(NamedTuple):
    """One known factor of variation: its value for every training and every test image, in the images' order."""

    train: NDArray[Any]
    test: NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images (N, H, W, C), uint8 or float in [0, 1], in a training and a test part, with labels where there are any.

    `factors` maps a name to `Factor(train, test)` where the factors of variation are known, as in
    `sprites.factors["scale"].train`. `note` says how the test part was made.
    """

    name: str
    train_images: NDArray[Any]
    test_images: NDArray[Any]
    train_labels: NDArray[Any] | None = None
    test_labels: NDArray[Any] | None = None
    label_names: tuple[str, ...] | None = None
    factors: Mapping[str, Factor] | None = None
    note: str = ""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        h, w, c = self.train_images.shape[1:]
        return h, w, c

    def __repr__(self) -> str:
        labels = "no labels" if self.train_labels is None else "labels"
        size = "×".join(map(str, self.image_shape))
        return (
            f"Dataset({self.name!r}: {len(self.train_images)} training and {len(self.test_images)} test images of "
            f"{size}, {self.train_images.dtype}, {labels}; {self.note})"
        )


def as_dataset(
    images: ArrayLike | Dataset,
    labels: ArrayLike | None = None,
    *,
    test_images: ArrayLike | None = None,
    test_labels: ArrayLike | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    name: str = "array",
    label_names: tuple[str, ...] | None = None,
    factors: Mapping[str, NDArray[Any]] | None = None,
) -> Dataset:
    """A Dataset from images (N, H, W, C) or (N, H, W), uint8 or float in [0, 1]; a Dataset is returned as it is.

    Without `test_images` the last `holdout` share of a shuffle with `seed` is held out. `factors` are values per
    image, and are split with them.
    """
    if isinstance(images, Dataset):
        return images
    train = check_images(images, "images")
    train_labels = check_labels(labels, len(train), "labels")
    if test_images is None:
        if test_labels is not None:
            raise DataError("test_labels were given without test_images; pass both or neither")
        return _held_out(train, train_labels, holdout, seed, name, label_names, factors)
    test = check_images(test_images, "test_images")
    if test.shape[1:] != train.shape[1:] or test.dtype != train.dtype:
        raise DataError(
            f"test_images are {test.dtype} of shape {test.shape[1:]} and images are {train.dtype} of shape "
            f"{train.shape[1:]}; give both parts the same dtype, height, width and channels"
        )
    checked = check_labels(test_labels, len(test), "test_labels")
    if (checked is None) != (train_labels is None):
        raise DataError("labels must be given for both the training and the test images, or for neither")
    if factors is not None:
        raise DataError("factors cannot be given with test_images; pass all images together and let them be split")
    return Dataset(name, train, test, train_labels, checked, label_names, None, "the test part was given")


def check_images(images: ArrayLike, argument: str) -> NDArray[Any]:
    """`images` as a contiguous (N, H, W, C) array of uint8, float32 or float64 in [0, 1], or one clear DataError."""
    array = _as_numbers(images, argument)
    if array.ndim not in (3, 4):
        raise DataError(
            f"{argument} has shape {array.shape}; pass (N, H, W, C) or (N, H, W), one image alone as image[None]"
        )
    if array.size == 0:
        raise DataError(f"{argument} has shape {array.shape}, which holds no pixels; pass at least one image")
    if array.ndim == 3:
        array = array[..., None]
    elif array.shape[1] in (1, 3, 4) and array.shape[3] > 4:
        raise DataError(
            f"{argument} has shape {array.shape}, which looks channels first; pass {argument}.transpose(0, 2, 3, 1)"
        )
    if array.dtype != np.uint8:
        _check_range(array, argument)
    return np.ascontiguousarray(array)


def check_labels(labels: ArrayLike | None, n: int, argument: str) -> NDArray[Any] | None:
    """`labels` as one whole number from 0 up for each of `n` images, or one clear DataError."""
    if labels is None:
        return None
    try:
        array = np.asarray(labels)
    except ValueError as error:
        raise DataError(f"{argument} are not an array ({error}); pass {n} whole numbers") from error
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{argument} have dtype {array.dtype}; pass whole numbers, as from "
            f"np.unique({argument}, return_inverse=True)[1]"
        )
    if array.shape != (n,):
        raise DataError(f"{argument} have shape {array.shape} for {n} images; pass one label per image, shape ({n},)")
    if array.min() < 0:
        raise DataError(f"{argument} go down to {array.min()}; number the classes from 0")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _as_numbers(images: ArrayLike, argument: str) -> NDArray[Any]:
    try:
        array = np.asarray(images)
    except (ValueError, TypeError) as error:
        raise DataError(f"{argument} is not an array ({error}); stack images of one size with np.stack") from error
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize in (4, 8):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    fixes = {
        "b": f"pass {argument}.astype(np.float32)",
        "i": f"pass {argument}.astype(np.uint8) if its values are 0..255",
        "u": f"pass ({argument} / {argument}.max()).astype(np.float32)",
    }
    fix = fixes.get(array.dtype.kind, "pass an array of uint8, float32 or float64")
    raise DataError(f"{argument} has dtype {array.dtype} where uint8 0..255 or float in [0, 1] is needed; {fix}")


def _check_range(array: NDArray[Any], argument: str) -> None:
    # The extremes tell everything: a NaN anywhere makes both NaN, so no mask of the array's size is needed.
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        index = tuple(int(i) for i in np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape))
        raise DataError(f"{argument} holds {array[index]} at {index}; clean or leave out such images first")
    if low >= 0 and high <= 1:
        return
    fix = f"scale it, as in ({argument} - low) / (high - low)"
    if low >= 0 and high <= 255:
        fix = f"it looks like 0..255, so divide by 255 or pass {argument}.astype(np.uint8)"
    elif low >= -1 and high <= 1:
        fix = f"it looks like -1..1, so pass ({argument} + 1) / 2"
    raise DataError(f"{argument} has values from {low:g} to {high:g} where float images need [0, 1]; {fix}")


def shuffled(n: int, seed: int) -> NDArray[Any]:
    """The numbers 0 … n − 1 in an order that follows from `seed`, by Philox."""
    return np.random.Generator(np.random.Philox(int(seed))).permutation(n)


def subset(rows: NDArray[Any], most: int, seed: int) -> NDArray[Any]:
    """The first `most` of the shuffled rows; all of them, in their own order, where there are no more."""
    return rows if len(rows) <= most else rows[shuffled(len(rows), seed)[:most]]


def _held_out(
    images: NDArray[Any],
    labels: NDArray[Any] | None,
    holdout: float,
    seed: int,
    name: str,
    label_names: tuple[str, ...] | None,
    factors: Mapping[str, NDArray[Any]] | None,
) -> Dataset:
    if not 0 < holdout < 1:
        raise ConfigError(f"holdout={holdout!r} is not a share of the images; pass a number between 0 and 1, like 0.1")
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ConfigError(f"seed={seed!r} cannot seed a shuffle; pass a whole number from 0 up")
    n = len(images)
    if n < 2:
        raise DataError(f"images holds {n} image, and one must be held out for testing; pass at least 2")
    n_test = min(max(1, round(n * holdout)), n - 1)
    order = shuffled(n, seed)
    train, test = order[:-n_test], order[-n_test:]
    return Dataset(
        name=name,
        train_images=images[train],
        test_images=images[test],
        train_labels=None if labels is None else labels[train],
        test_labels=None if labels is None else labels[test],
        label_names=label_names,
        factors=None if factors is None else {key: Factor(v[train], v[test]) for key, v in factors.items()},
        note=f"the last {100 * holdout:g} % of a shuffle with seed {seed} is held out ({n_test} of {n} images)",
    )
