"""Folders of pictures: every format Pillow reads, as uint8 grey or colour of one size.
Pillow lives only here; it knows nothing of how the test part is held out."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .idx import MAX_BYTES

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
Size = tuple[int, int]


class Listing(NamedTuple):
    """The picture files of one part, with a class for each where sub-folders name classes."""

    files: list[Path]
    labels: NDArray[Any] | None
    label_names: tuple[str, ...] | None


def list_pictures(folder: Path) -> Listing:
    """The pictures in `folder` in sorted order; those in sub-folders are labelled by the sub-folder's name."""
    loose = _sorted_pictures(_entries(folder))
    named = {sub.name: _sorted_pictures(_walk(sub)) for sub in sub_folders(folder)}
    names = tuple(name for name, files in named.items() if files)
    if loose and names:
        raise DataError(
            f"{folder}: holds pictures ({loose[0].name}) and sub-folders of pictures ({names[0]}), so some would have "
            f"no label; move the loose ones into a sub-folder"
        )
    if loose:
        return Listing(loose, None, None)
    if not names:
        raise DataError(
            f"{folder}: holds no pictures ({', '.join(s[1:] for s in SUFFIXES)}) and none of the four files named as "
            f"MNIST's; check the path"
        )
    counts = [len(named[name]) for name in names]
    dtype = np.uint8 if len(names) <= 256 else np.int64
    return Listing(
        [f for name in names for f in named[name]], np.repeat(np.arange(len(names), dtype=dtype), counts), names
    )


def sub_folders(folder: Path) -> list[Path]:
    """The sub-folders of `folder` in sorted order, hidden ones left out."""
    return sorted(p for p in _entries(folder) if p.is_dir() and not p.name.startswith((".", "__")))


def read_pictures(files: list[Path], image_size: Size | None = None, color: bool | None = None) -> NDArray[np.uint8]:
    """`files` as (N, H, W, C): C is 1 while all are grey and 3 otherwise, or as `color` says.

    Transparency is composited on white, 16 bits become 8, a camera's rotation is applied, and of an animation the
    first frame is taken. With `image_size` (H, W) every picture is resized, without keeping its proportions.
    """
    check_image_size(image_size)
    images: NDArray[np.uint8] | None = None
    for i, file in enumerate(files):
        pixels = _read_picture(file, image_size, color)  # (h, w, 1 or 3)
        if images is None:
            _check_total(files, pixels.shape)
            images = np.empty((len(files), *pixels.shape), np.uint8)
        if pixels.shape[:2] != images.shape[1:3]:
            raise DataError(
                f"{file}: is {_size(pixels)} where {files[0].name} is {_size(images[0])}; pass image_size=(H, W) to "
                f"resize all pictures"
            )
        if pixels.shape[2] > images.shape[3]:
            images = images.repeat(3, axis=3)  # the first colour picture among grey ones
        images[i] = pixels
    if images is None:
        raise DataError("there are no pictures to read; pass at least one file")
    return images


def check_image_size(image_size: Size | None) -> None:
    """One clear error unless `image_size` is None or two positive whole numbers."""
    if image_size is None:
        return
    try:
        good = len(image_size) == 2 and all(
            isinstance(n, (int, np.integer)) and not isinstance(n, bool) and 1 <= n <= 16384 for n in image_size
        )
    except TypeError:
        good = False
    if not good:
        raise ConfigError(f"image_size={image_size!r} is not a height and a width; pass two numbers, like (64, 64)")


def _read_picture(file: Path, image_size: Size | None, color: bool | None) -> NDArray[np.uint8]:
    from PIL import Image, ImageOps

    try:
        # Pillow only warns of a picture that would inflate to gigapixels; here that is an error, and its other
        # warnings (odd metadata) are no concern of the pixels.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                opened.load()
                picture = _to_8_bit(ImageOps.exif_transpose(opened), color)
        if image_size is not None and (picture.height, picture.width) != tuple(image_size):
            picture = picture.resize((int(image_size[1]), int(image_size[0])), Image.Resampling.LANCZOS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: too many pixels, perhaps a decompression bomb ({error}); shrink it first") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds on damaged files
        raise DataError(
            f"{file}: not a readable picture ({error or type(error).__name__}); replace or remove it"
        ) from error
    pixels = np.asarray(picture)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _to_8_bit(picture: Picture, color: bool | None) -> Picture:
    """`picture` as mode L or RGB, opaque."""
    from PIL import Image

    if picture.mode == "F" or picture.mode.startswith("I"):
        picture = Image.fromarray(_deep_grey(np.asarray(picture), picture.info.get("transparency")))
    elif "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        mode = picture.mode
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
        if mode in ("1", "L", "LA", "La") or (mode in ("P", "PA") and _is_grey(picture)):
            picture = picture.convert("L")
    elif picture.mode == "P":
        # A palette says nothing of colour by itself; GIFs have one for grey pictures too.
        picture = picture.convert("RGB")
        picture = picture.convert("L") if _is_grey(picture) else picture
    elif picture.mode not in ("1", "L"):
        picture = picture.convert("RGB")
    if color is not None:
        return picture.convert("RGB" if color else "L")
    return picture if picture.mode == "RGB" else picture.convert("L")


def _is_grey(picture: Picture) -> bool:
    rgb = np.asarray(picture)
    return bool((rgb == rgb[..., :1]).all())


def _deep_grey(values: NDArray[Any], transparent: object) -> NDArray[np.uint8]:
    """Grey of more than 8 bits as uint8. Pillow's own conversion would clip 16 bits at 255: all white."""
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind == "f":
        if not (low >= 0 and high <= 255):  # so written that NaN fails
            raise ValueError(f"its grey values go from {low:g} to {high:g}, outside 0..1 and 0..255")
        return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"its grey values go from {low:g} to {high:g}, outside the 16 bits 0..65535")
    if isinstance(transparent, int):
        values = np.where(values == transparent, 65535, values)
    return np.rint(values / 257).astype(np.uint8)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder}: the folder cannot be listed ({error.strerror or error})") from error


def _walk(folder: Path) -> list[Path]:
    return [Path(root) / name for root, _, names in os.walk(folder) for name in names]


def _sorted_pictures(entries: list[Path]) -> list[Path]:
    good = (p for p in entries if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in good if p.is_file())


def _check_total(files: list[Path], shape: tuple[int, ...]) -> None:
    total = len(files) * int(np.prod(shape))
    if total > MAX_BYTES:
        raise DataError(
            f"{files[0].parent}: {len(files)} pictures like {files[0].name} take {total} bytes, more than the bound of "
            f"{MAX_BYTES}; pass a smaller image_size=(H, W)"
        )


def _size(pixels: NDArray[Any]) -> str:
    return f"{pixels.shape[0]}×{pixels.shape[1]}"
