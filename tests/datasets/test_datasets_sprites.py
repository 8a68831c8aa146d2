"""The generated sprites: the pictures show what the factors say.
Everything is measured from the pixels, not from the generator's own geometry."""

import numpy as np
import pytest

from tinyvae.datasets import load, make_sprites
from tinyvae.errors import ConfigError


@pytest.fixture(scope="module")
def sprites():
    return load("sprites")


@pytest.fixture(scope="module")
def values(sprites):
    return {name: factor.train for name, factor in sprites.factors.items()}


def moments(images):
    """Mass, centre (x, y) in pixels and second moments of each picture."""
    images = images[..., 0].astype(float)
    grid = np.arange(images.shape[1]) + 0.5
    mass = images.sum((1, 2))
    x, y = (images.sum(1) @ grid) / mass, (images.sum(2) @ grid) / mass
    dx, dy = grid - x[:, None], grid - y[:, None]
    xx = np.einsum("nhw,nw->n", images, dx**2) / mass
    yy = np.einsum("nhw,nh->n", images, dy**2) / mass
    xy = np.einsum("nhw,nh,nw->n", images, dy, dx) / mass
    return mass, x, y, xx, yy, xy


def test_the_full_set(sprites):
    assert sprites.train_images.shape == (12_960, 32, 32, 1)
    assert sprites.test_images.shape == (1_440, 32, 32, 1)
    assert sprites.train_images.dtype == np.uint8
    assert sprites.note == "the last 10 % of a shuffle with seed 0 is held out (1440 of 14400 images)"
    assert sprites.label_names == ("square", "ellipse", "heart")
    assert list(sprites.factors) == ["shape", "scale", "rotation", "x", "y"]
    assert np.array_equal(sprites.factors["shape"].train, sprites.train_labels)
    assert np.array_equal(sprites.factors["shape"].test, sprites.test_labels)


def test_every_combination_once(sprites):
    rows = np.stack([np.concatenate(factor) for factor in sprites.factors.values()], axis=1)
    assert len(np.unique(rows, axis=0)) == 3 * 4 * 12 * 10 * 10


def test_the_centre_of_mass_is_x_y(sprites, values):
    _, x, y, *_ = moments(sprites.train_images)
    assert abs(x - (7 + 18 * values["x"])).max() < 0.02
    assert abs(y - (7 + 18 * values["y"])).max() < 0.02


def test_area_goes_with_the_square_of_scale(sprites, values):
    mass, *_ = moments(sprites.train_images)
    for shape, area in enumerate((2.0, np.pi / 2, 3.66 / 1.3**2)):  # of a shape in the unit circle
        of_shape = values["shape"] == shape
        expected = area * (7 * values["scale"][of_shape]) ** 2
        assert mass[of_shape] / 255 == pytest.approx(expected, rel=0.05)


def test_the_long_axis_of_an_ellipse_turns_counter_clockwise(sprites, values):
    *_, xx, yy, xy = moments(sprites.train_images)
    ellipse = values["shape"] == 1
    axis = 0.5 * np.arctan2(-2 * xy, xx - yy)[ellipse]  # minus: rows go down
    off = (axis - values["rotation"][ellipse] + np.pi / 2) % np.pi - np.pi / 2
    assert abs(off).max() < 0.03


def test_hearts_stand_upright_and_turn(sprites, values):
    whole = np.concatenate([sprites.train_images, sprites.test_images])
    rows = {name: np.concatenate(factor) for name, factor in sprites.factors.items()}
    big = (rows["shape"] == 2) & (rows["scale"] == 1) & (rows["x"] == rows["x"][0]) & (rows["y"] == rows["y"][0])
    upright = whole[big & (rows["rotation"] == 0)][0, ..., 0]
    lit = np.flatnonzero(upright.sum(1))
    assert (upright[lit[1]] > 0).sum() > (upright[lit[-1]] > 0).sum()  # two lobes above, one tip below
    turned = [whole[big & (abs(rows["rotation"] - k * np.pi / 2) < 1e-6)][0, ..., 0] for k in range(4)]
    assert len({picture.tobytes() for picture in turned}) == 4


def test_a_square_is_the_same_after_a_quarter_turn():
    data = make_sprites(16, scales=1, rotations=4, positions=2)
    images = np.concatenate([data.train_images, data.test_images])
    rows = {name: np.concatenate(factor) for name, factor in data.factors.items()}
    corner = (rows["shape"] == 0) & (rows["x"] == 0) & (rows["y"] == 0)
    assert corner.sum() == 4
    assert len(np.unique(images[corner], axis=0)) == 1


def test_edges_are_smooth_and_shapes_stay_inside(sprites):
    images = sprites.train_images[..., 0]
    assert images.max() == 255
    assert len(np.unique(images)) > 40
    border = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    inner = np.concatenate([images[:, 1], images[:, -2], images[:, :, 1], images[:, :, -2]], axis=1)
    assert border.max() < inner.max()  # a shape may touch the border, and does not continue past it


def test_same_bytes_every_time_and_another_split_by_seed(sprites):
    again, other = make_sprites(), load("sprites", seed=1)
    assert np.array_equal(sprites.train_images, again.train_images)
    assert not np.array_equal(sprites.train_images, other.train_images)
    assert np.array_equal(np.sort(np.ravel(other.factors["scale"].train))[:1], [0.5])


def test_sizes():
    assert load("sprites", image_size=(16, 16)).image_shape == (16, 16, 1)
    for size in (8, 21, 64):
        data = make_sprites(size, scales=2, rotations=3, positions=3)
        _, x, y, *_ = moments(data.train_images)
        margin = np.ceil(7 / 32 * size * 8) / 8
        assert abs(x - margin - (size - 2 * margin) * data.factors["x"].train).max() < 0.15
        assert abs(y - margin - (size - 2 * margin) * data.factors["y"].train).max() < 0.15


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_sprites(4), "size=4 is out of range"),
        (lambda: make_sprites(32.0), "size=32.0 is out of range"),
        (lambda: make_sprites(scales=0), "scales=0 is out of range"),
        (lambda: make_sprites(rotations=True), "rotations=True is out of range"),
        (lambda: make_sprites(positions=101), "positions=101 is out of range"),
        (lambda: make_sprites(scales=100, rotations=100, positions=100), "ask for fewer values"),
        (lambda: load("sprites", image_size=(16, 32)), "is not square"),
        (lambda: load("sprites", image_size=16), "is not a height and a width"),
        (lambda: load("sprites", color=True), "color=True works for folders of pictures only"),
        (lambda: load("sprites", holdout=2), "holdout=2 is not a share"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
