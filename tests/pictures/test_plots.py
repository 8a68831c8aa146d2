"""Pictures: what is where in them, the words they carry, the same bytes each time, and no trace left in matplotlib.
Whether they look good is for eyes; here stands what eyes found and should not have to find again."""

import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tinyvae import zoo
from tinyvae.errors import ConfigError, DataError, TinyvaeError
from tinyvae.layers.priors import FullGaussian
from tinyvae.measure import latent_space
from tinyvae.pictures import canvas, charts, plots

GREY, COLOUR = (28, 28, 1), (9, 7, 3)


def build(name="vae", shape=GREY, latent_dim=3):
    return zoo.build(name, shape, latent_dim, (8,))


def noise(n, shape=GREY, seed=0):
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (n, *shape), np.uint8)


def rows(epochs, ae=False, **parts):
    """A log of so many epochs; parts: a factor for each part's figures."""
    parts = parts or {"train": 1.0, "test": 1.1}
    log = []
    for epoch in range(1, epochs + 1):
        recon, kl = 80 + 100 / epoch, 25 - 10 / epoch
        own = (
            {"loss": recon, "recon": recon}
            if ae
            else {"loss": recon + kl, "neg_elbo": recon + kl, "recon": recon, "kl": kl}
        )
        log.append(
            {"epoch": epoch, **{p: {k: v * f for k, v in own.items()} for p, f in parts.items()}, "seconds": 1.0}
        )
    return log


PICTURES = {
    "contact_sheet": lambda m, x, path: plots.contact_sheet(
        [x[:3], x[3:5]], path, ["one", "two"], "Title", ["a", "b", "c"]
    ),
    "reconstructions": lambda m, x, path: plots.reconstructions(m, x, path),
    "samples": lambda m, x, path: plots.samples(m, path, 10, seed=3),
    "interpolations": lambda m, x, path: plots.interpolations(m, x, path),
    "neighbours": lambda m, x, path: plots.neighbours(m, x, path, 4),
    "manifold": lambda m, x, path: plots.manifold(m, path, 6),
    "latent_scatter": lambda m, x, path: plots.latent_scatter(m, x, np.arange(len(x)) % 10, path),
    "loss_curves": lambda m, x, path: plots.loss_curves(rows(12), path),
}


@pytest.fixture
def words(monkeypatch):
    """Every text in the figures that are saved."""
    found: list[str] = []
    save = canvas.save

    def spy(figure: Figure, path):
        found.extend(t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text())
        return save(figure, path)

    for module in (canvas, plots, charts):
        monkeypatch.setattr(module, "save", spy)
    return found


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


# ---------------------------------------------------------------------------------------------- every picture


@pytest.mark.parametrize("shape", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_a_png_of_reasonable_size(name, shape, tmp_path):
    path = tmp_path / "picture.png"
    assert PICTURES[name](build(shape=shape), noise(24, shape), path) == path
    with Image.open(path) as image:
        image.verify()
        assert image.format == "PNG"
        assert 200 < image.width < 2200
        assert 150 < image.height < 2200
    assert path.stat().st_size < 2_000_000
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]  # no temporary file is left


@pytest.mark.parametrize("name", PICTURES)
def test_same_call_same_bytes(name, tmp_path):
    """Also under another user's style, which is then as it was before."""
    first = PICTURES[name](build(), noise(24), tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"figure.facecolor": "red", "font.size": 31, "savefig.dpi": 30, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        second = PICTURES[name](build(), noise(24), tmp_path / "b.png").read_bytes()
        assert dict(matplotlib.rcParams) == before
    assert first == second
    assert b"Software" not in first
    assert b"tIME" not in first


@pytest.mark.parametrize("name", [n for n in PICTURES if n not in ("contact_sheet", "loss_curves")])
def test_picture_says_what_it_shows(name, words, tmp_path):
    PICTURES[name](build(), noise(24), tmp_path / "a.png")
    assert any("vae, 3 latent dimensions" in text for text in words)


def test_pyplot_stays_out_of_it():
    """No picture needs pyplot, which holds figures until they are closed and asks for a display."""
    code = "import tinyvae.pictures.plots, sys; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 1), (300, 200, 3), (33, 29, 3), (5, 4, 4), (6, 6, 2)])
def test_any_size_and_number_of_channels(shape, tmp_path):
    plots.contact_sheet([noise(2, shape), noise(1, shape)], tmp_path / "a.png", ["two", "one"], "Title")


@pytest.mark.parametrize("name", ["reconstructions", "samples", "neighbours", "latent_scatter"])
def test_one_image(name, tmp_path):
    model, x = build(), noise(1)
    calls = {
        "reconstructions": lambda p: plots.reconstructions(model, x, p),
        "samples": lambda p: plots.samples(model, p, 1),
        "neighbours": lambda p: plots.neighbours(model, x, p, 1),
        "latent_scatter": lambda p: plots.latent_scatter(model, x, np.array([7]), p),
    }
    assert calls[name](tmp_path / "a.png").exists()


def test_folder_is_made_and_old_picture_replaced(tmp_path):
    path = tmp_path / "new" / "a.png"
    plots.contact_sheet([noise(1)], path)
    old = path.read_bytes()
    plots.contact_sheet([noise(2)], str(path))
    assert path.read_bytes() != old


# ---------------------------------------------------------------------------------------------- tiles


def test_tiles_are_exact():
    """Each pixel becomes a square of its own colour: whole factors, no blur."""
    x = noise(2, COLOUR)
    tiles = canvas.as_tiles(x)
    zoom = tiles.shape[1] // 9
    assert tiles.shape == (2, 9 * zoom, 7 * zoom, 3)
    np.testing.assert_array_equal(tiles[:, ::zoom, ::zoom], x)
    np.testing.assert_array_equal(tiles[:, zoom - 1 :: zoom, zoom - 1 :: zoom], x)


def test_tiles_are_clipped_and_survive_nan():
    x = np.array([-3.0, 0.5, 7.0, np.nan, np.inf, -np.inf]).reshape(1, 1, 6, 1)
    tiles = canvas.as_tiles(x, side=1)
    np.testing.assert_array_equal(tiles[0, 0, :, 0], [0, 128, 255, 0, 255, 0])


def test_transparent_pixels_are_white_and_other_channels_averaged():
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 1] = [1, 0, 0, 0.5]
    np.testing.assert_array_equal(canvas.as_tiles(x, 1)[0, 0], [[255, 255, 255], [255, 128, 128]])
    np.testing.assert_array_equal(canvas.as_tiles(np.array([[[[0.0, 1.0]]]]), 1)[0, 0, 0], [128] * 3)


def test_large_images_are_averaged_down():
    x = np.zeros((1, 399, 230, 1), np.uint8)
    x[:, ::2] = 255
    tiles = canvas.as_tiles(x)
    assert max(tiles.shape[1:3]) <= canvas.LARGEST
    assert 80 < tiles.min() <= tiles.mean() <= tiles.max() < 175


def test_reconstructions_stand_below_their_originals(tmp_path, monkeypatch):
    """The pixels themselves: in the file, original i stands above reconstruction i."""
    model, x = build(shape=COLOUR), noise(5, COLOUR)
    shown = np.rint(model.reconstruct(x).clip(0, 1) * 255).astype(np.uint8)
    picture = pixels(plots.reconstructions(model, x, tmp_path / "a.png"))
    tile = canvas.as_tiles(x[:1]).shape[1:3]
    zoom = tile[0] // 9
    top = next(r for r in range(picture.shape[0]) if (picture[r] == x[0, 0, 0]).all(axis=1).sum() >= zoom)
    left = next(c for c in range(picture.shape[1]) if (picture[top, c] == x[0, 0, 0]).all())
    for i in range(5):
        column = left + i * (tile[1] + canvas.GAP)
        above = picture[top : top + tile[0] : zoom, column : column + tile[1] : zoom]
        below = picture[top + tile[0] + 2 :][: tile[0] : zoom, column : column + tile[1] : zoom]
        np.testing.assert_array_equal(above, x[i])
        np.testing.assert_array_equal(below, shown[i])


def test_reconstruction_rows_and_labels(words, tmp_path):
    plots.reconstructions(build(), noise(24), tmp_path / "a.png", n=12, columns=5)
    assert words.count("original") == words.count("reconstruction") == 3
    assert any("these 12 images" in text for text in words)


def test_interpolations_default_pairs_and_captions(words, tmp_path):
    plots.interpolations(build(), noise(5), tmp_path / "a.png", steps=5)
    captions = ["image A", "0", "0.25", "0.5", "0.75", "1", "image B"]
    assert [w for w in words if w in captions] == captions
    height = pixels(tmp_path / "a.png").shape[0]
    plots.interpolations(build(), noise(5), tmp_path / "b.png", [(0, 1), (2, 3), (4, 0)], steps=5)
    assert pixels(tmp_path / "b.png").shape[0] == height + 84 + canvas.GAP  # two pairs, then three


# ---------------------------------------------------------------------------------------------- samples and the plane


def test_samples_of_an_autoencoder_show_both_priors(words, tmp_path):
    model, x = build("ae"), noise(30)
    prior = latent_space.fit_prior(model, x)
    plots.samples(model, tmp_path / "a.png", 9, 0, prior)
    assert [w for w in words if w.startswith("z ~")] == ["z ~ Gaussian fitted to the codes", "z ~ N(0, I)"]
    words.clear()
    plots.samples(model, tmp_path / "b.png", 9, 0)
    assert [w for w in words if w.startswith("z ~")] == ["z ~ N(0, I)"]
    assert pixels(tmp_path / "a.png").shape[1] > 1.2 * pixels(tmp_path / "b.png").shape[1]


def test_fresh_samples_differ_and_say_their_seed(words, tmp_path):
    first = plots.samples(build(), tmp_path / "a.png", 4).read_bytes()
    seed = next(int(w.split("seed ")[1]) for w in words if "seed" in w)
    assert plots.samples(build(), tmp_path / "b.png", 4).read_bytes() != first
    assert plots.samples(build(), tmp_path / "c.png", 4, seed).read_bytes() == first


def test_manifold_stands_at_quantiles_right_way_up(monkeypatch, tmp_path):
    """z[0] grows to the right, z[1] upwards; a fifth of the prior lies between neighbours."""
    model, seen = build(latent_dim=2), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, labels: seen.append(np.array(z)) or decode(z))
    plots.manifold(model, tmp_path / "a.png", 5)
    z = seen[-1].reshape(5, 5, 2)
    quantiles = [-1.2815516, -0.5244005, 0, 0.5244005, 1.2815516]  # of 0.1, 0.3, …, 0.9
    np.testing.assert_allclose(z[2, :, 0], quantiles, atol=1e-6)
    np.testing.assert_allclose(z[:, 2, 1], quantiles[::-1], atol=1e-6)


def test_manifold_chooses_the_dimensions_that_matter(words, tmp_path):
    model = build(latent_dim=6)
    weight = model.table.view("decoder.dense1.weight")  # (6, 8)
    weight[[0, 2, 3, 5]] *= 1e-3
    plots.manifold(model, tmp_path / "a.png", 3)
    assert {"z[1]", "z[4]"} <= set(words)
    assert any("slice through dimensions 1 and 4, the others at 0" in text for text in words)


def test_manifold_of_an_autoencoder_spans_its_codes(words, monkeypatch, tmp_path):
    model, seen = build("ae", latent_dim=2), []
    decode = model.decode
    monkeypatch.setattr(model, "decode", lambda z, labels: seen.append(np.array(z)) or decode(z))
    prior = FullGaussian(np.array([10.0, -5.0]), np.diag([4.0, 9.0]))
    plots.manifold(model, tmp_path / "a.png", 3, prior=prior)
    z = seen[-1].reshape(3, 3, 2)
    np.testing.assert_allclose(z[1, 1], [10, -5])
    np.testing.assert_allclose((z[0, 2] - z[1, 1]) / 0.9674216, [2, 3], rtol=1e-6)  # the quantile of 5/6
    assert any("Gaussian fitted" in text for text in words)
    assert {"10.00", "−5.00"} <= set(words)


# ---------------------------------------------------------------------------------------------- codes


def test_scatter_marks_every_class(words, tmp_path):
    plots.latent_scatter(build(latent_dim=2), noise(40), np.arange(40) % 10, tmp_path / "a.png")
    for digit in range(10):
        assert words.count(str(digit)) >= 2  # at the class's middle and in the legend
    assert {"z_mean[0]", "z_mean[1]", "95 % of the prior"} <= set(words)


def test_scatter_names_classes(words, tmp_path):
    names = ["shirt", "shoe", "bag"]
    plots.latent_scatter(build(), noise(9), np.array([0, 2] * 4 + [0]), tmp_path / "a.png", names)
    assert "shirt" in words
    assert "bag" in words
    assert "shoe" not in words


def test_ten_classes_have_ten_looks():
    assert len(set(charts.CLASS_COLORS)) == len(set(charts.CLASS_MARKERS)) == 10
    looks = {
        (charts.CLASS_COLORS[i % 10], charts.CLASS_MARKERS[(i + i // 10) % 10]) for i in range(charts.MANY_CLASSES)
    }
    assert len(looks) == charts.MANY_CLASSES


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
@pytest.mark.parametrize("labels", ["none", "few", "many"])
def test_scatter_of_any_latent_dimension(latent_dim, labels, tmp_path):
    given = {"none": None, "few": np.arange(60) % 3, "many": np.arange(60)}[labels]
    plots.latent_scatter(build(latent_dim=latent_dim), noise(60), given, tmp_path / "a.png")


def test_scatter_projects_on_principal_components(words, tmp_path):
    codes = np.random.default_rng(0).normal(size=(500, 4)) * [0.1, 3, 0.2, 2]
    points, names, origin = charts._to_plane(codes + 5, "z")
    np.testing.assert_allclose(np.abs(points[:, 0]), np.abs(codes[:, 1] - codes[:, 1].mean()), atol=0.3)
    np.testing.assert_allclose(points.var(axis=0, ddof=1), np.linalg.eigvalsh(np.cov(codes.T))[:-3:-1])
    np.testing.assert_allclose(origin, -(codes + 5).mean(axis=0) @ np.linalg.lstsq(codes - codes.mean(0), points)[0])
    assert "first principal component of z (65 % of its variance)" in names


def test_labels_are_moved_apart():
    places = charts._apart(np.array([[0.0, 0.0], [0.0, 0.0], [0.5, 0.0], [9.0, 9.0]]), 1.0)
    gaps = [np.hypot(*(places[i] - places[j])) for i in range(4) for j in range(i)]
    assert min(gaps) > 0.99
    np.testing.assert_array_equal(places[3], [9, 9])


# ---------------------------------------------------------------------------------------------- training


def axes_of(monkeypatch):
    found = []
    save = canvas.save
    monkeypatch.setattr(charts, "save", lambda figure, path: found.append(figure) or save(figure, path))
    return found


def test_loss_curves_hold_the_rows(monkeypatch, tmp_path):
    """A panel for the loss and one for each part; the lines are the log's numbers."""
    figures, log = axes_of(monkeypatch), rows(12)
    plots.loss_curves(log, tmp_path / "a.png")
    axes = figures[0].axes
    assert [a.get_title(loc="left") for a in axes] == ["loss", "reconstruction", "KL divergence"]
    assert {a.get_ylabel() for a in axes} == {"nats per image"}
    for a, name in zip(axes, ("loss", "recon", "kl"), strict=True):
        train, test = a.get_lines()
        np.testing.assert_array_equal(train.get_xdata(), np.arange(1, 13))
        np.testing.assert_array_equal(train.get_ydata(), [r["train"][name] for r in log])
        np.testing.assert_array_equal(test.get_ydata(), [r["test"][name] for r in log])
        assert train.get_linestyle() == "--"
        assert test.get_linestyle() == "-"
        assert [t.get_text().split()[0] for t in a.texts] == ["train", "test"]


def test_loss_curves_of_an_autoencoder_have_one_panel(monkeypatch, tmp_path):
    figures = axes_of(monkeypatch)
    plots.loss_curves(rows(3, ae=True), tmp_path / "a.png")
    assert [a.get_title(loc="left") for a in figures[0].axes] == ["loss"]


def test_a_weighted_loss_stands_beside_the_bound(monkeypatch, tmp_path):
    figures, log = axes_of(monkeypatch), rows(3)
    for row in log:
        row["train"]["loss"] += 3 * row["train"]["kl"]  # beta = 4
    plots.loss_curves(log, tmp_path / "a.png")
    assert [a.get_title(loc="left") for a in figures[0].axes] == ["loss", "−ELBO", "reconstruction", "KL divergence"]


def test_labels_at_the_ends_do_not_cover_each_other(monkeypatch, tmp_path):
    figures = axes_of(monkeypatch)
    plots.loss_curves(rows(12, train=1.0, validation=1.0001, test=1.0002), tmp_path / "a.png")
    for axes in figures[0].axes:
        boxes = sorted((t.get_window_extent() for t in axes.texts), key=lambda b: b.y0)
        assert len(boxes) == 3
        assert all(low.y1 <= high.y0 + 2 for low, high in pairwise(boxes))
        assert max(b.x1 for b in boxes) <= figures[0].bbox.width


def test_one_epoch_and_logs_with_gaps(monkeypatch, tmp_path):
    """One epoch is a point at a whole number; a resumed log may repeat an epoch, a diverged one holds NaN."""
    figures = axes_of(monkeypatch)
    plots.loss_curves(rows(1), tmp_path / "a.png")
    axes = figures[0].axes[0]
    assert [t for t in axes.get_xticks() if axes.get_xlim()[0] < t < axes.get_xlim()[1]] == [1]
    log = rows(4)
    again = {**log[1], "train": {**log[1]["train"], "loss": 1.0}}
    broken = {**rows(5)[4], "train": {k: float("nan") for k in log[0]["train"]}}
    plots.loss_curves([*log, again, broken], tmp_path / "b.png")
    line = figures[1].axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4, 5])
    assert line.get_ydata()[1] == 1.0


# ---------------------------------------------------------------------------------------------- impossible requests


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, p: plots.contact_sheet([], p), "no row"),
        (lambda m, p: plots.contact_sheet([noise(2)[0]], p), "must have shape"),
        (lambda m, p: plots.contact_sheet([noise(2), noise(2, COLOUR)], p), "same height and width"),
        (lambda m, p: plots.reconstructions(m, noise(3), p, n=0), "n=0"),
        (lambda m, p: plots.reconstructions(m, noise(3, COLOUR), p), "must have shape"),
        (lambda m, p: plots.samples(m, p, 0), "n=0"),
        (lambda m, p: plots.interpolations(m, noise(1), p), "two images"),
        (lambda m, p: plots.interpolations(m, noise(3), p, [(0, 3)]), "from 0 to 2"),
        (lambda m, p: plots.interpolations(m, noise(3), p, steps=1), "steps=1"),
        (lambda m, p: plots.manifold(m, p, 1), "n=1"),
        (lambda m, p: plots.manifold(m, p, dims=(1, 1)), "two different dimensions"),
        (lambda m, p: plots.manifold(m, p, dims=(0, 3)), "two different dimensions"),
        (lambda m, p: plots.manifold(build(latent_dim=1), p), "two latent dimensions"),
        (lambda m, p: plots.latent_scatter(m, noise(3), np.zeros(2), p), "one label per image"),
        (lambda m, p: plots.latent_scatter(m, noise(3), np.arange(3), p, ["a"]), "names"),
        (lambda m, p: plots.loss_curves([], p), "no epoch"),
        (lambda m, p: plots.loss_curves([{"epoch": 1, "seconds": 3.0}], p), "metrics.jsonl"),
    ],
)
def test_impossible_requests(call, words, tmp_path):
    with pytest.raises(TinyvaeError, match=words):
        call(build(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in \.png"):
        plots.contact_sheet([noise(1)], tmp_path / "a.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(TinyvaeError, match="cannot write"):
        plots.contact_sheet([noise(1)], tmp_path / "file" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(TinyvaeError, match="cannot write"):
        plots.contact_sheet([noise(1)], tmp_path / "folder.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]


def test_empty_images_say_so(tmp_path):
    with pytest.raises(DataError, match="no image"):
        plots.reconstructions(build(), noise(3)[:0], tmp_path / "a.png")
    with pytest.raises(DataError, match="no image"):
        plots.latent_scatter(build(), noise(3)[:0], None, tmp_path / "a.png")
