"""Pictures of a model and of its training, each a PNG that explains itself; here those that are made of images.
It knows models and images; how words and tiles are placed is canvas's, points and curves are charts'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps

from ..config import require_int
from ..errors import ConfigError, DataError
from ..layers.priors import Prior, StandardNormal
from ..measure.latent_space import fit_prior, nearest
from ..models import Model
from .canvas import (
    MARGIN,
    NOTE,
    TITLE,
    Block,
    PathLike,
    describe,
    mosaic,
    new_figure,
    save,
    sheet,
    style,
    text_width,
    write,
)
from .charts import latent_scatter, loss_curves

WIDE_GAP = 16  # pixels between groups of tiles
PLANE_SIDE = 1120  # pixels of the manifold's longer side, about
TICK_PIXELS = 90  # an axis label needs so many


# ---------------------------------------------------------------------------------------------- sheets of images


def contact_sheet(
    rows_of_images: Sequence[np.ndarray],
    path: PathLike,
    row_labels: Sequence[str] = (),
    title: str = "",
    column_labels: Sequence[str] = (),
) -> Path:
    """Rows of images (n, H, W, C), uint8 or float (clipped to [0, 1]), with a label left of each row.

    Rows may be of different length. Small images are enlarged by a whole factor, so that each pixel is a square.
    """
    if not len(rows_of_images):
        raise DataError("rows_of_images holds no row; pass at least one array (n, H, W, C)")
    return sheet([Block(mosaic(rows_of_images), "", row_labels, column_labels)], path, title)


def reconstructions(
    model: Model, images: np.ndarray, path: PathLike, n: int = 20, columns: int = 10, labels: np.ndarray | None = None
) -> Path:
    """The first n images, each above its reconstruction decode(z_mean). labels: theirs, for a conditional model."""
    require_int("n", n, 1, ", the number of images")
    require_int("columns", columns, 1)
    x = model.as_images(images[:n])
    if not len(x):
        raise DataError("images holds no image to reconstruct; pass at least one")
    again = model.reconstruct(x, None if labels is None else labels[:n])
    error = np.sqrt(np.square(x - again, dtype=np.float64).mean())
    on = "this image" if len(x) == 1 else f"these {len(x)} images"
    note = f"{describe(model)} · RMSE {error:.3f} on {on}, pixels from 0 to 1"
    pairs = _pairs(x, again, columns, ("original", "reconstruction"))
    return sheet([pairs], path, "Reconstructions", note)


def _pairs(above: np.ndarray, below: np.ndarray, columns: int, labels: tuple[str, ...] = ()) -> Block:
    """Rows of `columns` images, each image above its partner; labels: of the two rows of a pair."""
    starts = range(0, len(above), columns)
    rows = [images[start : start + columns] for start in starts for images in (above, below)]
    return Block(mosaic(rows, [0, 2, *[WIDE_GAP, 2] * (len(starts) - 1)]), labels=labels * len(starts))


def samples(model: Model, path: PathLike, n: int = 64, seed: int | None = None, prior: Prior | None = None) -> Path:
    """n new images, decoded from codes drawn at random; seed None draws a fresh one.

    With `prior` (an autoencoder's `fit_prior`) there are two sheets side by side: codes from that Gaussian, and from
    N(0, I), which an autoencoder's codes need not follow.
    """
    require_int("n", n, 1, ", the number of images")
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    columns = int(np.ceil(np.sqrt(n)))
    sources: list[Prior] = [*([] if prior is None else [prior]), model.prior or StandardNormal(model.latent_dim)]
    blocks = []
    for source in sources:
        drawn = model.sample(n, seed, source)
        rows = [drawn[i : i + columns] for i in range(0, n, columns)]
        blocks.append(Block(mosaic(rows), f"z ~ {source.label.removeprefix('a ')}"))
    return sheet(blocks, path, "Samples: random codes, decoded", f"{describe(model)} · seed {seed}")


def interpolations(
    model: Model,
    images: np.ndarray,
    path: PathLike,
    pairs: Sequence[tuple[int, int]] | None = None,
    steps: int = 9,
    labels: np.ndarray | None = None,
) -> Path:
    """Straight walks from one image's code to another's, `steps` decoded points each, the two images at the ends.

    pairs: places in `images`; None takes neighbours, (0, 1), (2, 3), …, six of them at most.
    labels: the images', for a conditional model, which is told that of image A all the way; None for `pairs` takes the
    first two images of each class then, of six classes at most, and neighbours only where no class has two.
    """
    if pairs is None and labels is not None:
        firsts = [np.flatnonzero(labels == label)[:2] for label in np.unique(labels)]
        pairs = [(int(two[0]), int(two[1])) for two in firsts if len(two) == 2][:6] or None
    if pairs is None:
        pairs = [(i, i + 1) for i in range(0, min(12, len(images) - 1), 2)]
    if not len(pairs):
        raise DataError("an interpolation needs two images; there are fewer")
    if not all(0 <= i < len(images) for pair in pairs for i in pair):
        raise ConfigError(f"pairs={list(pairs)} name images from 0 to {len(images) - 1} only")
    a, b = (model.as_images(np.asarray(images)[[pair[side] for pair in pairs]]) for side in (0, 1))
    told = None if labels is None else labels[[pair[0] for pair in pairs]]
    walks = model.interpolate(a, b, steps, told)  # (pairs, steps, H, W, C)
    rows = [np.concatenate([a[i : i + 1], walk, b[i : i + 1]]) for i, walk in enumerate(walks)]
    captions = ["image A", "0", *[f"{t:.3g}" for t in np.linspace(0, 1, steps)[1:-1]], "1", "image B"]
    gaps = [0, WIDE_GAP, *([4] * (steps - 1)), WIDE_GAP]
    note = f"{describe(model)} · decode((1 − t) · code of A + t · code of B), by t"
    return sheet([Block(mosaic(rows, (), gaps), captions=captions)], path, "Interpolation between images", note)


def neighbours(model: Model, train_images: np.ndarray, path: PathLike, n: int = 10, seed: int = 0) -> Path:
    """n samples, each above the training image that is nearest to it: does the model copy?"""
    require_int("n", n, 1, ", the number of images")
    drawn = model.sample(n, seed, model.prior or fit_prior(model, train_images))
    distance, place = nearest(drawn, train_images)
    rows, captions = [drawn, model.as_images(train_images[place])], [f"{d:.1f}" for d in distance]
    block = Block(mosaic(rows, (0, 2)), labels=("sample", "nearest training image"), captions=captions)
    note = f"{describe(model)} · Euclidean distance above"
    return sheet([block], path, "Samples and their nearest training images", note)


def anomalies(
    images: np.ndarray, maps: np.ndarray, path: PathLike, title: str = "Anomalies", note: str = "", columns: int = 8
) -> Path:
    """Images (N, H, W, C), each above its heat map (N, H, W); all maps on one scale, black for 0."""
    if not len(images) or images.shape[:3] != maps.shape:
        raise DataError(f"images {images.shape} and maps {maps.shape} must be (N, H, W, C) and (N, H, W), N at least 1")
    require_int("columns", columns, 1)
    largest = max(float(maps.max()), 1e-12)
    heat = colormaps["inferno"](maps / largest)[..., :3]  # (N, H, W, 3)
    note = f"{note} · brightest {largest:.2f}".removeprefix(" · ")
    return sheet([_pairs(images, heat, columns)], path, title, note)


def manifold(
    model: Model,
    path: PathLike,
    n: int = 20,
    dims: tuple[int, int] | None = None,
    prior: Prior | None = None,
    label: int = 0,
) -> Path:
    """Images decoded over a plane of the latent space: n × n codes at the quantiles of the prior.

    The quantiles (i + ½) / n of a normal distribution lie denser in the middle, as codes do. With more than two latent
    dimensions the plane is a slice through `dims`, None for the two that change the decoded image most, the others at
    the prior's mean. prior: None for the model's, or N(0, I).
    label: the class that a conditional model is told, one for the whole plane; other models have none.
    """
    require_int("n", n, 2, " images along a side")
    if model.latent_dim < 2:
        raise ConfigError(f"latent_dim={model.latent_dim}: a plane needs two latent dimensions")
    prior = prior or model.prior or StandardNormal(model.latent_dim)
    mean, std = prior.moments()
    u, v = _strongest(model, mean, std, label) if dims is None else dims
    if u == v or not all(0 <= d < model.latent_dim for d in (u, v)):
        raise ConfigError(f"dims={(u, v)} must be two different dimensions from 0 to {model.latent_dim - 1}")
    z = prior.plane(n, u, v)  # (rows from above, columns, latent)
    images = _decode(model, z.reshape(n * n, -1), label).reshape(n, n, *model.image_shape)
    title = f"Latent space: decoded at quantiles of {prior.label}"
    note = describe(model) + (f" · class {label}" if model.can.labels else "")
    if model.latent_dim > 2:
        rest = "their mean" if mean.any() else "0"
        note += f" · slice through dimensions {u} and {v}, the others at {rest}"
    values = np.stack([z[0, :, u], z[::-1, 0, v]])
    return _plane(images, values, (f"z[{u}]", f"z[{v}]"), path, title, note)


def _decode(model: Model, z: np.ndarray, label: int) -> np.ndarray:
    """decode(z), of one class where the model is conditional."""
    return model.decode(z, np.full(len(z), label) if model.can.labels else None)


def _strongest(model: Model, mean: np.ndarray, std: np.ndarray, label: int) -> tuple[int, int]:
    """The two dimensions whose step from −1 to +1 standard deviations changes the decoded image most."""
    step = np.diag(std)
    change = _decode(model, mean + step, label).astype(np.float64) - _decode(model, mean - step, label)
    order = np.argsort(-np.square(change.reshape(len(change), -1)).sum(axis=1), kind="stable")
    return int(min(order[:2])), int(max(order[:2]))


def _plane(
    images: np.ndarray, values: np.ndarray, names: tuple[str, str], path: PathLike, title: str, note: str
) -> Path:
    """Images (n, n, H, W, C) without gaps, with the codes' values along two axes; placed to the pixel."""
    n, zero = len(images), [0] * len(images)
    picture = mosaic(list(images), zero, zero, PLANE_SIDE // n)
    height, width = picture.picture.shape[:2]
    left, bottom, head = 110, 90, MARGIN + TITLE.height + NOTE.height + 12
    with style():
        inner = max(left + width, text_width(title, TITLE) + MARGIN, text_width(note, NOTE) + MARGIN)
        figure = new_figure(inner + MARGIN, head + height + bottom)
        total_w, total_h = figure.bbox.width, figure.bbox.height
        write(figure, title, MARGIN, MARGIN, TITLE)
        write(figure, note, MARGIN, MARGIN + TITLE.height, NOTE)
        axes = figure.add_axes((left / total_w, bottom / total_h, width / total_w, height / total_h), frameon=False)
        axes.imshow(picture.picture, interpolation="nearest", aspect="auto", extent=(0, width, 0, height))
        axes.grid(False)
        shown = _ticks(n, width)
        axes.set_xticks([picture.columns[i] for i in shown], [_signed(values[0, i]) for i in shown])
        shown = _ticks(n, height)
        axes.set_yticks([height - picture.rows[n - 1 - i] for i in shown], [_signed(values[1, i]) for i in shown])
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        return save(figure, path)


def _ticks(n: int, pixels: int) -> np.ndarray:
    """Places of axis labels among n tiles, alike on both sides; with the middle where there is one."""
    count = min(n, 6 + n % 2, max(2, pixels // TICK_PIXELS))
    return np.linspace(0, n - 1, count).round().astype(int)


def _signed(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-", "−")


__all__ = [
    "anomalies", "contact_sheet", "describe", "interpolations", "latent_scatter", "loss_curves", "manifold",
    "neighbours", "reconstructions", "samples",
]  # fmt: skip
