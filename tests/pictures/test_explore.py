"""The explorer's file: what is in it is the model, it needs nothing else, and what it cannot show it says.
How the page behaves in a browser is tested in test_explore_browser."""

import re

import numpy as np
import pytest
from explore_runs import DRAWN, GREY, RUNS, array, bars, contents, make_run, zoo_run
from naive_ops import activation, silu
from naive_ops import conv2d as naive_conv2d
from naive_ops import conv2d_grad_x as naive_conv2d_grad_x
from naive_ops import dense as naive_dense

from tinyvae import kernels, zoo
from tinyvae.app.cli import main
from tinyvae.datasets.dataset import as_dataset
from tinyvae.errors import ConfigError, DataError
from tinyvae.layers import Bernoulli, Conv2d, Dense, Reshape, Sequential
from tinyvae.layers.normalise import EPSILON
from tinyvae.measure.latent_space import fit_prior
from tinyvae.pictures import explore
from tinyvae.pictures.explore import KINDS, PAGE, describe_layers, describe_run, page, write_page


@pytest.fixture(scope="module", params=list(RUNS))
def run(request):
    return RUNS[request.param]()


# ---------------------------------------------------------------------------------------------- the decoder


def test_weights_are_those_of_the_model(run):
    layers = contents(page(describe_run(run)))["layers"]
    table, found = run.model.table, 0
    for layer in layers:
        for name in ("weight", "bias"):
            full, tensor = f"{layer['path']}.{name}", array(layer[name])
            if full in table.places:
                np.testing.assert_array_equal(tensor, table.view(full).astype(np.float32))
                found += 1
            else:
                assert tensor.size == 0
    assert found == sum(name.startswith("decoder.") for name in table.places)


def evaluate(described, z):
    """The decoder again, from what the file says, in scalar loops."""
    x = z
    for layer in described["layers"]:
        w, b = array(layer["weight"]).astype(float), array(layer["bias"]).astype(float)
        assert x.shape[1:] == tuple(layer["in"])
        out, geometry = tuple(layer["out"]), (layer["stride"], layer["padding"])
        if layer["kind"] == "dense":
            x = naive_dense(x, w, b, "identity")
        elif layer["kind"] == "conv2d":
            x = naive_conv2d(x, w, b, *geometry, out[:2])
        elif layer["kind"] == "conv_transpose2d":
            x = naive_conv2d_grad_x(x, w, b, *geometry, out[:2])
        else:
            assert layer["kind"] in ("reshape", "activation")
            x = x.reshape(-1, *out)
        act = layer["act"]
        x = np.vectorize(silu if act == "silu" else lambda a, act=act: activation(act, a), otypes=[float])(x)
        assert x.shape[1:] == out
    return np.vectorize(lambda a: activation(described["mean"], a))(x)


SMALL = [
    "vae of 2 dimensions",
    "vae of 1 dimension",
    "every layer",
    "dense-gan of 2 dimensions",
]  # the conv models' 256 channels take loops minutes


@pytest.mark.parametrize("name", SMALL)
def test_what_the_file_says_is_what_the_model_decodes(name):
    run = (RUNS | DRAWN)[name]()
    z = np.random.Generator(np.random.Philox(1)).normal(size=(3, run.model.latent_dim))
    expected = run.model.decode(z)
    assert np.ptp(expected) > 0.2
    np.testing.assert_allclose(evaluate(contents(page(describe_run(run))), z), expected, atol=1e-5)


def test_the_page_knows_every_kind_and_every_activation():
    script = (PAGE / "decoder.js").read_text("utf-8")
    kinds = re.search(r"const LAYERS = \{\n(.*?)\n\};", script, re.DOTALL)[1]
    assert set(re.findall(r"^  (\w+)\(", kinds, re.MULTILINE)) == set(KINDS.values())
    acts = re.search(r"const ACTIVATIONS = \{\n(.*?)\n\};", page({}), re.DOTALL)[1]
    assert set(re.findall(r"^  (\w+): ", acts, re.MULTILINE)) == {*kernels.ACTIVATIONS, "silu"}


class Doubled(Dense):
    """A layer that computes something of its own."""


class Clipped(Bernoulli):
    """A likelihood whose mean is its own."""


def test_a_layer_that_the_page_cannot_evaluate_is_named():
    run = zoo_run("vae", GREY, 2)
    run.model.parts["decoder"] = Sequential(Dense(2, 120), Sequential(Doubled(120, 120), Reshape(*GREY)))
    run.model.parts["decoder"].declare((2,))
    message = (
        r"decoder\.sequential1\.doubled1: the page cannot evaluate Doubled\(120, 120, 'identity'\); it knows Dense"
    )
    with pytest.raises(ConfigError, match=message):
        describe_run(run)


def test_a_likelihood_that_the_page_cannot_show_is_named():
    run = zoo_run("vae", GREY, 2)
    run.model.parts["likelihood"] = Clipped()
    with pytest.raises(ConfigError, match=r"cannot show the mean of Clipped\(\); it knows Bernoulli and Gaussian"):
        describe_run(run)


# ---------------------------------------------------------------------------------------------- codes and images


def test_codes_images_and_labels_are_those_of_the_first_test_images(run):
    found = describe_run(run, count=7)
    test = run.data.test_images[:7]
    np.testing.assert_allclose(array(found["codes"]), run.model.encode(test)[0], atol=1e-5)
    np.testing.assert_array_equal(array(found["images"], "u1"), test)
    assert found["labels"] == run.data.test_labels[:7].tolist()
    assert describe_run(run)["codes"]["shape"][0] == len(run.data.test_images)  # fewer than a thousand


def test_activity_is_the_divergence_of_each_dimension():
    run = zoo_run("vae", GREY, 4)
    z_mean, z_log_sigma = run.model.encode(run.data.test_images)
    z, kl = np.empty_like(z_mean), np.empty_like(z_mean)
    kernels.load("numpy").latent(np.hstack([z_mean, z_log_sigma]), np.zeros_like(z_mean), z, kl)
    found = describe_run(run)
    np.testing.assert_allclose(found["activity"], kl.mean(axis=0), rtol=1e-5)
    assert (found["activity_name"], found["prior"]) == ("KL", None)


def test_a_deterministic_model_brings_variances_and_a_fitted_prior():
    run = zoo_run("ae", GREY, 3)
    found = describe_run(run)
    codes = run.model.encode(run.data.test_images)[0]
    np.testing.assert_allclose(found["activity"], codes.var(axis=0), rtol=1e-5)
    prior = fit_prior(run.model, run.data.train_images)
    mean, covariance = prior.mean, prior.covariance
    factor = np.array(found["prior"]["factor"])
    np.testing.assert_allclose(found["prior"]["mean"], mean)
    np.testing.assert_allclose(factor @ factor.T, covariance, atol=1e-12)
    assert found["activity_name"] == "variance"


def test_without_an_encoder_codes_are_drawn_and_images_decoded():
    run = DRAWN["gan of 2 dimensions"]()
    found = describe_run(run, count=9)
    codes = array(found["codes"])
    np.testing.assert_array_equal(codes, run.model.draw_prior(9, run.model.seed))
    np.testing.assert_allclose(array(found["images"], "u1") / 255, run.model.decode(codes), atol=0.5 / 255 + 1e-6)
    assert found["drawn"]
    assert found["labels"] is found["prior"] is None
    assert not describe_run(zoo_run("vae", GREY, 2), count=9)["drawn"]


def test_a_batch_norm_is_a_scale_and_a_shift_of_each_channel():
    """With its running mean and variance, as in evaluation: the op's own answer."""
    model = DRAWN["gan of 2 dimensions"]().model
    layer = next(d for d in describe_layers(model, "generator", model.parts["generator"]) if d["kind"] == "scale")
    x, C = np.random.Generator(np.random.Philox(2)).normal(size=(5, layer["in"][-1])), layer["in"][-1]
    gamma, beta, mean, variance = (
        model.table.view(f"{layer['path']}.{name}").astype(float)
        for name in ("gamma", "beta", "running_mean", "running_var")
    )
    y = np.empty((5, C))
    kernels.load("numpy").batch_norm_frozen(x, mean, variance, gamma, beta, EPSILON, y)
    np.testing.assert_allclose(array(layer["weight"]) * x + array(layer["bias"]), y, rtol=1e-5, atol=1e-5)


def test_images_as_floats_and_without_labels():
    run = make_run(zoo.build("vae", GREY, 2, (8,), device="numpy"), GREY, labelled=False)
    images = bars(20, GREY)[0]
    run.data = as_dataset(images.astype(np.float32) / 255, test_images=images.astype(np.float32) / 255)
    found = describe_run(run)
    np.testing.assert_array_equal(array(found["images"], "u1"), images)
    assert found["labels"] is found["label_names"] is None


def test_large_images_are_fewer(monkeypatch):
    run = zoo_run("vae", GREY, 2)
    monkeypatch.setattr(explore, "PIXELS", 1300)  # ten images of 120 bytes
    assert describe_run(run)["images"]["shape"] == [10, *GREY]
    assert describe_run(run, 30)["images"]["shape"] == [30, *GREY]
    monkeypatch.setattr(explore, "PIXELS", 1)
    assert describe_run(run)["images"]["shape"] == [1, *GREY]


def test_a_diverged_run_says_so():
    run = zoo_run("vae", GREY, 2)
    run.model.table.view("encoder.dense1.weight")[0] = np.nan
    with pytest.raises(DataError, match="the run has diverged"):
        describe_run(run)


# ---------------------------------------------------------------------------------------------- the file


def test_the_file_needs_nothing_else(run):
    text = page(describe_run(run))
    outside = r"https?:|//\w+\.\w|\bsrc\s*=|@import|url\(|\bimport\(|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon"
    own = re.sub(r'"data": "[^"]*"', "", text)  # base64 has slashes
    assert not re.findall(outside, own)
    assert "default-src 'none'" in text
    assert not re.findall(r"/\* insert|\{\{", text)
    assert text.count("<script") == text.count("</script>") == 5


def test_names_cannot_break_out_of_the_data():
    names = ("</script><b>", "<!--", "\u2028", "ü", '"')
    run = make_run(zoo.build("vae", GREY, 2, (8,), device="numpy"), GREY, names)
    text = page(describe_run(run))
    assert "</script><b>" not in text
    assert contents(text)["label_names"] == list(names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A real run's folder, of one epoch."""
    where = tmp_path_factory.mktemp("explore")
    images, labels = bars(60, GREY)
    np.savez(where / "bars.npz", images=images, labels=labels.astype(np.uint8))
    options = ("--latent-dim", "2", "--hidden", "16", "--epochs", "1", "--device", "numpy")
    assert main(["train", "--data", str(where / "bars.npz"), "--out", str(where / "run"), *options]) == 0
    return where / "run"


def test_the_command_writes_the_file(folder, tmp_path, capsys):
    assert main(["explore", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(folder / "explorer.html")
    assert "6 test images and their codes, 2,088 weights as float32, 0.1 MB" in err
    found = contents((folder / "explorer.html").read_text("utf-8"))
    assert (found["model"], found["data"], found["latent_dim"], found["image_shape"]) == ("vae", "bars.npz", 2, [*GREY])
    elsewhere = tmp_path / "new" / "page.html"
    assert main(["explore", str(folder), "--out", str(elsewhere), "--count", "3"]) == 0
    assert contents(elsewhere.read_text("utf-8"))["codes"]["shape"] == [3, 2]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (["--count", "0"], 2, "count=0"),
        (["--out", "{}"], 2, "is a folder"),
        (["--out", "{}/metrics.jsonl/page.html"], 1, "metrics.jsonl"),
        (["--count", "many"], 2, "'many' is not a whole number"),
    ],
)
def test_mistakes_are_one_line(folder, options, status, words, capsys):
    try:
        given = main(["explore", str(folder), *(o.replace("{}", str(folder)) for o in options)])
    except SystemExit as stop:
        given = stop.code
    out, err = capsys.readouterr()
    assert (given, out) == (status, "")
    assert words in err
    assert "Traceback" not in err
    assert sum("error:" in line for line in err.splitlines()) == 1


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    run, path = zoo_run("vae", GREY, 2), tmp_path / "page.html"
    write_page(run, path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(explore.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_page(run, path, count=2)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_conv2d_and_its_transpose_are_different_kinds():
    """One is a subclass of the other: the table must tell them apart."""
    assert KINDS[Conv2d] == "conv2d"
    assert len(set(KINDS.values())) == len(KINDS) - 2  # SiLU is an activation, Flatten a reshape
