"""The data sets that come as MNIST's four IDX files: MNIST itself, Fashion-MNIST, and folders laid out like them.
It finds, checks and downloads files; it knows nothing of what is done with the images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..errors import ConfigError, DataError
from .dataset import Dataset, as_dataset
from .idx import read_idx

PARTS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PACKAGED = Path(__file__).parent / "mnist"

# Of the raw bytes: the same data is gzipped differently from place to place.
SHA256 = {
    "mnist": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    "fashion-mnist": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}
LABEL_NAMES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
}  # fmt: skip


SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
MIRRORS = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)


def data_directory(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where downloaded data sets live: `data_dir`, else $TINYVAE_DATA, else ~/.cache/tinyvae."""
    return Path(data_dir or os.environ.get("TINYVAE_DATA") or "~/.cache/tinyvae").expanduser()


def load_mnist() -> Dataset:
    """The packaged MNIST: 60,000 training and 10,000 test images of 28×28."""
    return read_folder(PACKAGED, "mnist", SHA256["mnist"], LABEL_NAMES["mnist"])


def load_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), the same sizes as MNIST, from the first place that has it."""
    folder = find_fashion_mnist(data_dir)
    if folder is None:
        raise DataError(f"fashion-mnist is not on this machine: {how_to_get_fashion_mnist(data_dir)}")
    return read_folder(folder, "fashion-mnist", SHA256["fashion-mnist"], LABEL_NAMES["fashion-mnist"])


def find_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """The first folder that has all four files of Fashion-MNIST."""
    places = (data_directory(data_dir) / "fashion-mnist", SYSTEM_FOLDER)
    return next((place for place in places if all(find_files(place))), None)


def how_to_get_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> str:
    """Where Fashion-MNIST was looked for, and the three ways to get it."""
    folder = data_directory(data_dir) / "fashion-mnist"
    found = sum(file is not None for file in find_files(folder))
    return (
        f"looked in {folder} (which has {found} of the four files) and {SYSTEM_FOLDER}; on Debian or Ubuntu run "
        f"'apt-get install dataset-fashion-mnist', or put {', '.join(part + '.gz' for part in PARTS)} into {folder}, "
        f"or run pip install 'tinyvae[data]' and then tinyvae.datasets.download('fashion-mnist') in Python"
    )


def read_folder(
    folder: Path, name: str, sha256: tuple[str, ...] | None = None, label_names: tuple[str, ...] | None = None
) -> Dataset:
    """The four files in `folder`, gzipped or not; with `sha256`, their raw bytes must have these sums."""
    files = find_files(folder)
    missing = [part for part, file in zip(PARTS, files, strict=True) if file is None]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing of the four files named as MNIST's; put them there")
    sums = sha256 or (None,) * 4
    arrays = [read_idx(file, sha256=s) for file, s in zip(files, sums, strict=True) if file is not None]
    images, labels, test_images, test_labels = arrays
    return as_dataset(
        images, labels, test_images=test_images, test_labels=test_labels, name=name, label_names=label_names
    )


def find_files(folder: Path) -> list[Path | None]:
    """Where each of the four PARTS is in `folder`, None where it is not."""
    found: list[Path | None] = []
    for part in PARTS:
        # Some copies write train-images.idx3-ubyte.
        names = [name + end for name in (part, part.replace("-idx", ".idx")) for end in ("", ".gz")]
        found.append(next((folder / name for name in names if (folder / name).is_file()), None))
    return found


def download(name: str, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Fetch a data set's files into the data directory, check them, and return their folder.

    Only Fashion-MNIST needs it. Nothing else here touches the network. Files already there and sound are kept.
    """
    if name != "fashion-mnist":
        raise ConfigError(f"name={name!r} cannot be downloaded; only 'fashion-mnist' can, the others need no download")
    try:
        import pooch
    except ImportError as error:
        raise DataError("downloading needs the package pooch; run pip install 'tinyvae[data]'") from error
    folder = data_directory(data_dir) / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for part, sha256 in zip(PARTS, SHA256[name], strict=True):
            target = folder / f"{part}.gz"
            if not _is_sound(target, sha256):
                _fetch(pooch.retrieve, target, sha256)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}); set TINYVAE_DATA") from error
    return folder


def _fetch(retrieve: Callable[..., str], target: Path, sha256: str) -> None:
    """One file from the first mirror that gives the right bytes; it appears under its name only once checked."""
    failures = []
    for mirror in MIRRORS:
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            try:
                # The known sum is of the raw bytes, which pooch never sees: mirrors gzip differently.
                file = Path(retrieve(mirror + target.name, known_hash=None, fname=target.name, path=scratch))
                read_idx(file, sha256=sha256)
            except (OSError, ValueError) as error:  # requests' errors are OSErrors, DataError is a ValueError
                failures.append(f"{mirror}: {error}")
                continue
            os.replace(file, target)
            return
    raise DataError(f"{target.name} could not be downloaded ({'; '.join(failures)}); try again or fetch it by hand")


def _is_sound(file: Path, sha256: str) -> bool:
    try:
        read_idx(file, sha256=sha256)
    except DataError:
        return False
    return True
