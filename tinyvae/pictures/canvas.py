"""Paper for pictures: the style, sheets of images laid out to the pixel, and PNG files written whole or not at all.
It knows images and words; models and logs are plots'. matplotlib is imported here, in plots and in charts only."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform

from ..errors import ConfigError, DataError, TinyvaeError
from ..models import Model

PathLike = str | os.PathLike[str]

# Okabe & Ito 2008: colours that colour-blind people can tell apart. Their yellow is darkened, as white swallows it.
BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE, YELLOW = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#C8B900",
)  # fmt: skip
GREY = "#666666"

DPI = 160
STYLE = {
    "figure.dpi": DPI, "savefig.dpi": "figure", "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#E5E5E5",
    "axes.axisbelow": True, "axes.edgecolor": GREY, "xtick.color": GREY, "ytick.color": GREY,
    "axes.labelcolor": "#333333", "axes.titleweight": "bold", "lines.linewidth": 1.8, "legend.frameon": False,
}  # fmt: skip

TILE = 96  # pixels of a tile's longer side, about: small images are enlarged by a whole factor
LARGEST = 160  # images above are reduced by a whole factor
GAP = 4  # pixels between tiles
MARGIN = 24  # pixels around the sheet


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults with `STYLE`, whatever the user has set; put back at the end."""
    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(width: int, height: int, layout: Literal["constrained"] | None = None) -> Figure:
    """A figure of so many pixels that belongs to no pyplot: nothing has to be closed."""
    # a hundredth more, as matplotlib rounds down what n / DPI · DPI leaves of n
    figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: PathLike) -> Path:
    """Writes the PNG atomically and returns its path. No date and no version inside: equal figures, equal bytes."""
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ConfigError(f"path={str(path)!r} must end in .png, the format that pictures are written in")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(buffer.getvalue())
        os.replace(temporary, path)
    except OSError as error:
        raise TinyvaeError(f"cannot write {path}: {error.strerror}; choose another path") from None
    finally:
        with suppress(OSError):  # it has become the picture, or was never there
            temporary.unlink()
    return path


# ---------------------------------------------------------------------------------------------- tiles


def as_tiles(images: np.ndarray, side: int = TILE) -> np.ndarray:
    """Images (N, H, W, C), uint8 or float, as RGB tiles (N, h, w, 3) uint8, clipped to [0, 1].

    C = 1 is grey, 3 is RGB, 4 is RGBA on white; of any other number of channels the mean is shown.
    The longer side comes near `side` pixels where a whole factor allows it.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not images.size:
        raise DataError(f"images must have shape (N, H, W, C) with pixels in it, got {images.shape}")
    x = images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1)
    x = np.clip(np.nan_to_num(x, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)
    channels = x.shape[3]
    if channels == 4:
        x = x[..., :3] * x[..., 3:] + 1 - x[..., 3:]
    elif channels != 3:
        x = np.repeat(x.mean(axis=3, keepdims=True), 3, axis=3)
    longer = max(x.shape[1:3])
    if longer > LARGEST:
        x = _reduce(x, -(-longer // LARGEST))
    tiles = np.rint(x * 255).astype(np.uint8)
    zoom = max(1, round(side / longer))
    return tiles.repeat(zoom, axis=1).repeat(zoom, axis=2)


def _reduce(x: np.ndarray, k: int) -> np.ndarray:
    """Means over k×k pixels; a ragged edge is filled up with its last pixels."""
    N, H, W, C = x.shape
    x = np.pad(x, ((0, 0), (0, -H % k), (0, -W % k), (0, 0)), mode="edge")
    return x.reshape(N, x.shape[1] // k, k, x.shape[2] // k, k, C).mean(axis=(2, 4))


def mosaic(
    rows: Sequence[np.ndarray], row_gaps: Sequence[int] = (), column_gaps: Sequence[int] = (), side: int = TILE
) -> Mosaic:
    """Rows of images in one RGB picture. row_gaps, column_gaps: pixels before each row and column, GAP unless given."""
    tiles = [as_tiles(row, side) for row in rows]
    if len({t.shape[1:] for t in tiles}) != 1:
        raise DataError("all images of a sheet must have the same height and width")
    h, w = tiles[0].shape[1:3]
    tops = _starts(len(tiles), h, row_gaps)
    lefts = _starts(max(len(t) for t in tiles), w, column_gaps)
    picture = np.full((tops[-1] + h, lefts[-1] + w, 3), 255, np.uint8)
    for top, row in zip(tops, tiles, strict=True):
        for left, tile in zip(lefts, row, strict=False):
            picture[top : top + h, left : left + w] = tile
    return Mosaic(picture, [t + h / 2 for t in tops], [left + w / 2 for left in lefts])


@dataclass
class Mosaic:
    """The picture (height, width, 3) uint8, and the middles of its rows (from above) and columns, in pixels."""

    picture: np.ndarray
    rows: list[float]
    columns: list[float]


def _starts(count: int, size: int, gaps: Sequence[int]) -> list[int]:
    before = [0, *([GAP] * (count - 1))]
    before[: len(gaps)] = list(gaps)[:count]
    return [sum(before[: i + 1]) + i * size for i in range(count)]


# ---------------------------------------------------------------------------------------------- sheets


@dataclass(frozen=True)
class Font:
    """Words of one kind; `height` is a line's, in pixels."""

    size: float
    color: str = BLACK
    weight: str = "normal"

    @property
    def height(self) -> int:
        return round(self.size * DPI / 72 * 1.4)

    def options(self) -> dict[str, Any]:
        return {"fontsize": self.size, "color": self.color, "fontweight": self.weight}


TITLE, NOTE, HEADING = Font(12, weight="bold"), Font(9, GREY), Font(10)
LABEL, CAPTION = Font(9, "#333333"), Font(8, GREY)


@dataclass
class Block:
    """Rows of images with words around them: a heading above, labels left of the rows, captions above the columns."""

    mosaic: Mosaic
    heading: str = ""
    labels: Sequence[str] = ()
    captions: Sequence[str] = ()

    def label_width(self) -> int:
        """Pixels left of the images."""
        return max((text_width(label, LABEL) + 12 for label in self.labels), default=0)

    def width(self) -> int:
        """Pixels with the labels, and with a heading that may be wider than the images."""
        return self.label_width() + max(self.mosaic.picture.shape[1], text_width(self.heading, HEADING))

    def head(self) -> int:
        """Pixels above the images."""
        return (HEADING.height if self.heading else 0) + (CAPTION.height if self.captions else 0)

    def draw(self, figure: Figure, left: int, top: int) -> None:
        """Puts the block where its images' upper left corner is at (left, top)."""
        write(figure, self.heading, left, top - self.head(), HEADING)
        for caption, x in zip(self.captions, self.mosaic.columns, strict=False):
            write(figure, caption, left + x, top - 6, CAPTION, "center", "bottom")
        for label, y in zip(self.labels, self.mosaic.rows, strict=False):
            write(figure, label, left - 12, top + y, LABEL, "right", "center")
        height = round(figure.bbox.height)
        figure.figimage(self.mosaic.picture, left, height - top - self.mosaic.picture.shape[0])


def sheet(blocks: Sequence[Block], path: PathLike, title: str = "", note: str = "") -> Path:
    """Blocks side by side under a title and a note, all placed to the pixel; returns the path of the PNG."""
    with style():
        words = [(text, font) for text, font in ((title, TITLE), (note, NOTE)) if text]
        top = MARGIN + sum(font.height for _, font in words) + (12 if words else 0) + max(b.head() for b in blocks)
        inner = sum(b.width() for b in blocks) + 2 * MARGIN * (len(blocks) - 1)
        inner = max(inner, *(text_width(text, font) for text, font in words), 0)
        figure = new_figure(inner + 2 * MARGIN, top + max(b.mosaic.picture.shape[0] for b in blocks) + MARGIN)
        y = MARGIN
        for text, font in words:
            write(figure, text, MARGIN, y, font)
            y += font.height
        x = MARGIN
        for block in blocks:
            block.draw(figure, x + block.label_width(), top)
            x += block.width() + 2 * MARGIN
        return save(figure, path)


def text_width(text: str, font: Font) -> int:
    """The width of words in pixels, rounded up."""
    if not text:
        return 0
    return int(np.ceil(new_figure(8, 8).text(0, 0, text, **font.options()).get_window_extent().width))


def write(figure: Figure, text: str, x: float, y: float, font: Font, ha: str = "left", va: str = "top") -> None:
    """Words at pixels counted from the upper left corner."""
    if text:
        height = round(figure.bbox.height)
        figure.text(x, height - y, text, ha=ha, va=va, transform=IdentityTransform(), **font.options())


def describe(model: Model) -> str:
    """One phrase: what model this is."""
    name = type(model).__name__ if model.config is None else model.config.model
    return f"{name}, {model.latent_dim} latent dimension" + ("s" if model.latent_dim != 1 else "")
