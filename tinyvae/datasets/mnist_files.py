"""The data sets that come as MNIST's four IDX files: MNIST itself, Fashion-MNIST, and folders laid out like them.
It finds, checks and downloads files; it knows nothing of what is done with the images."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
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
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}


def load_mnist() -> Dataset:
    """The packaged MNIST: 60,000 training and 10,000 test images of 28×28."""
    return read_folder(PACKAGED, "mnist")


def read_folder(folder: Path, name: str) -> Dataset:
    """The four files in `folder`, gzipped or not; their sums are checked where the name has known ones."""
    files = find_files(folder)
    missing = [part for part, file in zip(PARTS, files, strict=True) if file is None]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing of the four files named as MNIST's; put them there")
    sums = SHA256.get(name, (None,) * 4)
    arrays = [read_idx(file, sha256=sha256) for file, sha256 in zip(files, sums, strict=True) if file is not None]
    return as_dataset(
        arrays[0],
        arrays[1],
        test_images=arrays[2],
        test_labels=arrays[3],
        name=name,
        label_names=LABEL_NAMES.get(name),
    )


def find_files(folder: Path) -> list[Path | None]:
    """Where each of the four PARTS is in `folder`, None where it is not."""
    found: list[Path | None] = []
    for part in PARTS:
        # Some copies write train-images.idx3-ubyte.
        names = [name + end for name in (part, part.replace("-idx", ".idx")) for end in ("", ".gz")]
        found.append(next((folder / name for name in names if (folder / name).is_file()), None))
    return found
