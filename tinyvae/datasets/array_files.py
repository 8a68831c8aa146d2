"""NumPy's .npz and .npy files: which arrays are the images, and reading them without trusting the headers.
It knows nothing of what images must look like; as_dataset checks that."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ..errors import DataError
from .idx import DEFLATE_LIMIT, MAX_BYTES


class Arrays(NamedTuple):
    """What a file holds, None where it does not."""

    images: NDArray[Any]
    labels: NDArray[Any] | None = None
    test_images: NDArray[Any] | None = None
    test_labels: NDArray[Any] | None = None


# The names that files in circulation use, in the order of Arrays.
LAYOUTS: tuple[tuple[str | None, ...], ...] = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
    ("images", "labels", None, None),
)


def read_npz(path: Path) -> Arrays:
    """The images and labels in an .npz; arrays by other names are not even looked at."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
            layout = _layout(path, list(members))
            arrays = [_read_member(path, archive, members[key]) if key in members else None for key in layout]
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen kinds on damaged files
        raise _damaged(path, error) from error
    images, labels, test_images, test_labels = arrays
    assert images is not None
    return Arrays(images, labels, test_images, test_labels)


def read_npy(path: Path) -> Arrays:
    """The one array in an .npy."""
    try:
        with path.open("rb") as file:
            return Arrays(_read_array(file, path.stat().st_size, str(path)))
    except DataError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _layout(path: Path, keys: list[str]) -> tuple[str | None, ...]:
    for layout in LAYOUTS:
        if layout[0] in keys:
            return layout
    if len(keys) == 1:
        return keys[0], None, None, None
    known = ", ".join("/".join(name for name in layout if name) for layout in LAYOUTS)
    raise DataError(f"{path}: holds the arrays {sorted(keys)}; name them {known}, or keep one array alone")


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    where = f"{path}: {member.filename}"
    if member.file_size > DEFLATE_LIMIT * member.compress_size + 1024:
        raise DataError(f"{where} claims {member.file_size} bytes, which its packed size cannot hold; save it again")
    with archive.open(member) as stream:
        return _read_array(stream, member.file_size, where)


def _read_array(stream: IO[bytes], size: int, where: str) -> NDArray[Any]:
    # np.load would allocate what the header says before it looks at what is there.
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read_header(stream)
    if dtype.hasobject:
        raise DataError(f"{where} holds Python objects, which are never loaded; save it as a plain array of numbers")
    promised, stored = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if promised != stored or promised > MAX_BYTES:
        raise DataError(
            f"{where} promises shape {shape} of {dtype}, {promised} bytes, and {stored} are stored (at most "
            f"{MAX_BYTES} are read); save it again"
        )
    raw = bytearray(promised)
    view, filled = memoryview(raw), 0
    while filled < promised:
        n = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not n:
            raise DataError(f"{where} is truncated, {filled} of {promised} bytes are there; save it again")
        filled += n
    return np.ndarray(shape, dtype, buffer=raw, order="F" if fortran_order else "C")


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged or not a NumPy file ({error or type(error).__name__}); save it again")
