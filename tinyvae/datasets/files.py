"""A path becomes a Dataset: an .npz or .npy, an IDX file, a folder of MNIST's four files, a folder of pictures.
It knows what kind a path is and nothing of the formats themselves."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError, DataError
from .array_files import Arrays, read_npy, read_npz
from .dataset import Dataset, as_dataset
from .idx import read_idx
from .mnist_files import find_files, read_folder
from .pictures import SUFFIXES, check_image_size, list_pictures, read_pictures, sub_folders

KINDS = (
    "an .npz or .npy file, an IDX file (.gz or not), a folder with the four files named as MNIST's, or a folder of "
    "pictures"
)


def load_path(path: Path, image_size: tuple[int, int] | None, color: bool | None, holdout: float, seed: int) -> Dataset:
    """What is at `path`; errors about the arrays in a file name the file."""
    try:
        name = path.resolve().name
        if not path.exists():
            raise DataError(f"{path}: no such file or folder; a data set's path is {KINDS}")
        if not path.is_dir() and not path.is_file():  # a named pipe would keep its reader waiting for ever
            raise DataError(f"{path}: is neither a file nor a folder; a data set's path is {KINDS}")
        if path.is_dir() and not any(find_files(path)):
            return _load_pictures(path, name, image_size, color, holdout, seed)
        refuse_picture_options(str(path), image_size, color)
        if path.is_dir():
            return read_folder(path, name)
        if path.suffix.lower() in SUFFIXES:
            raise DataError(f"{path}: is one picture; pass the folder that holds all of them")
        return as_dataset(**_read_file(path)._asdict(), holdout=holdout, seed=seed, name=name)
    except DataError as error:
        if str(path) in str(error):
            raise
        raise DataError(f"{path}: {error}") from error
    except ConfigError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # no permission, a null byte, a loop of links
        raise DataError(f"{str(path)!r}: cannot be read ({error}); a data set's path is {KINDS}") from error


def refuse_picture_options(what: str, image_size: object, color: object) -> None:
    """`image_size` and `color` change pictures only; ignoring them elsewhere would mislead."""
    for argument, value in (("image_size", image_size), ("color", color)):
        if value is not None:
            raise ConfigError(f"{argument}={value!r} works for folders of pictures only, not for {what}; leave it out")


def _read_file(path: Path) -> Arrays:
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    if path.suffix.lower() == ".npy":
        return read_npy(path)
    images = read_idx(path)
    # MNIST's naming: train-images-idx3-ubyte has its labels in train-labels-idx1-ubyte, either one gzipped or not.
    twin = path.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    for sibling in (path.with_name(twin), path.with_name(twin + ".gz")):
        if "images" in path.name and sibling.is_file():
            return Arrays(images, read_idx(sibling))
    return Arrays(images)


def _load_pictures(
    folder: Path, name: str, image_size: tuple[int, int] | None, color: bool | None, holdout: float, seed: int
) -> Dataset:
    check_image_size(image_size)
    if {sub.name for sub in sub_folders(folder)} == {"train", "test"}:
        return _load_two_parts(folder, name, image_size, color)
    listing = list_pictures(folder)
    images = read_pictures(listing.files, image_size, color)
    return as_dataset(images, listing.labels, holdout=holdout, seed=seed, name=name, label_names=listing.label_names)


def _load_two_parts(folder: Path, name: str, image_size: tuple[int, int] | None, color: bool | None) -> Dataset:
    """Sub-folders `train` and `test` are parts, not classes; their own sub-folders are the classes."""
    train, test = list_pictures(folder / "train"), list_pictures(folder / "test")
    if train.label_names != test.label_names:
        raise DataError(
            f"{folder}: train has the classes {train.label_names} and test has {test.label_names}; give both the same "
            f"sub-folders"
        )
    images = read_pictures(train.files + test.files, image_size, color)  # together, so that both get the same channels
    n = len(train.files)
    return as_dataset(
        images[:n],
        train.labels,
        test_images=images[n:],
        test_labels=test.labels,
        name=name,
        label_names=train.label_names,
    )
