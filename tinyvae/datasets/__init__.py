"""Data sets by name or path, as images (N, H, W, C) in a training and a test part. Pillow and pooch are imported only
when they are needed."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ConfigError, DataError
from .dataset import Dataset, Factor, as_dataset
from .files import KINDS, load_path, refuse_picture_options
from .idx import read_idx, write_idx
from .mnist_files import (
    PACKAGED,
    data_directory,
    download,
    find_fashion_mnist,
    find_files,
    how_to_get_fashion_mnist,
    load_fashion_mnist,
    load_mnist,
)
from .pictures import check_image_size
from .sprites import make_sprites

__all__ = [
    "DATA_SETS", "NAMES", "DataSet", "Dataset", "Factor", "Found", "as_dataset", "available", "data_directory",
    "download", "load", "make_sprites", "read_idx", "write_idx",
]  # fmt: skip


class Found(NamedTuple):
    """One named data set: is it here, and where, or how to get it."""

    name: str
    found: bool
    where: str


class DataSet(NamedTuple):
    """A row of the table of named data sets."""

    name: str
    load: Callable[..., Dataset]
    """Takes the options of `load` by name; a ConfigError for those that it cannot use."""
    found: Callable[[], Found]
    help: str


def _load_mnist(image_size: Any, color: Any, **_: Any) -> Dataset:
    refuse_picture_options("mnist", image_size, color)
    return load_mnist()


def _load_fashion_mnist(image_size: Any, color: Any, data_dir: Any, **_: Any) -> Dataset:
    refuse_picture_options("fashion-mnist", image_size, color)
    return load_fashion_mnist(data_dir)


def _load_sprites(image_size: tuple[int, int] | None, color: Any, holdout: float, seed: int, **_: Any) -> Dataset:
    refuse_picture_options("sprites", None, color)
    check_image_size(image_size)
    height, width = image_size or (32, 32)
    if height != width:
        raise ConfigError(f"image_size={image_size!r} is not square and sprites are; pass (n, n)")
    return make_sprites(height, holdout=holdout, seed=seed)


def _found_mnist() -> Found:
    return Found("mnist", all(find_files(PACKAGED)), str(PACKAGED))


def _found_fashion_mnist() -> Found:
    folder = find_fashion_mnist()
    return Found("fashion-mnist", folder is not None, str(folder) if folder else how_to_get_fashion_mnist())


def _found_sprites() -> Found:
    return Found("sprites", True, "generated when loaded")


DATA_SETS = (
    DataSet("mnist", _load_mnist, _found_mnist, "handwritten digits, 28×28, packaged"),
    DataSet("fashion-mnist", _load_fashion_mnist, _found_fashion_mnist, "pictures of clothes, 28×28"),
    DataSet("sprites", _load_sprites, _found_sprites, "drawn shapes with known factors, 32×32 or a square image_size"),
)
"""Every data set with a name. A new one is a file with its loader and a row here."""

NAMES = tuple(row.name for row in DATA_SETS)


def load(
    name_or_path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    color: bool | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """A data set by name ("mnist", "fashion-mnist", "sprites") or from a path.

    A path is an .npz or .npy file, an IDX file, a folder with the four files named as MNIST's, or a folder of
    pictures, whose sub-folders' names become labels. A name wins over a folder of that name; write "./mnist" for the
    folder. `image_size` (H, W) and `color` are for folders of pictures (sprites take a square `image_size`).
    Where no test part is given, the last `holdout` share of a shuffle with `seed` is held out, and `note` says so.
    `data_dir` is where Fashion-MNIST is looked for first.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise ConfigError(
            f"name_or_path is a {type(name_or_path).__name__}; pass a name or a path, and arrays to "
            f"tinyvae.datasets.as_dataset"
        )
    for row in DATA_SETS:
        if name_or_path == row.name:
            return row.load(image_size=image_size, color=color, holdout=holdout, seed=seed, data_dir=data_dir)
    try:
        path = Path(name_or_path).expanduser()
    except RuntimeError as error:
        raise DataError(f"{name_or_path}: {error}") from error
    if isinstance(name_or_path, str) and _is_no_path(name_or_path, path):
        close = difflib.get_close_matches(name_or_path.lower(), NAMES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"no data set is called {name_or_path!r}; {hint}the names are {', '.join(NAMES)}, and a path may be {KINDS}"
        )
    return load_path(path, image_size, color, holdout, seed)


def available() -> list[Found]:
    """Every named data set: (name, found, where it is or how to get it)."""
    return [row.found() for row in DATA_SETS]


def _is_no_path(text: str, path: Path) -> bool:
    if not text:
        return True  # as a path it would mean the current folder
    return not (os.path.lexists(path) or set(text) & {"/", os.sep, "~"} or path.suffix)
