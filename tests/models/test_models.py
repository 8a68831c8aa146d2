"""Every model with an encoder by one table: it learns a batch by heart, trains by command, saves, loads, resumes.
Gradients are in test_gradients.py, a GAN in test_gan.py; what is particular to a model is at the end or in a file."""

import json

import numpy as np
import pytest
from PIL import Image

import tinyvae
from tinyvae import zoo
from tinyvae.app.cli import main
from tinyvae.app.run import open_run
from tinyvae.config import TrainConfig
from tinyvae.datasets import as_dataset
from tinyvae.errors import ConfigError, DataError
from tinyvae.measure.evaluate import evaluate, importance_sampling
from tinyvae.measure.latent_space import active_units, continuity_profile, segments
from tinyvae.training.step import Feed, Step
from tinyvae.training.trainer import train

SHAPE = (6, 5, 1)
OPTIONS = {"cvae": {"classes": 3}}
MODELS = pytest.mark.parametrize("name", list(zoo.SCORING))


def build(name, device="numpy", dtype="float32", **options):
    return zoo.build(name, SHAPE, 3, (8,), device=device, dtype=dtype, seed=1, **OPTIONS.get(name, {}) | options)


def pictures(n, seed=0):
    """Black and white images, uint8, and their labels."""
    rng = np.random.default_rng(seed)
    return (255 * (rng.random((n, *SHAPE)) < 0.4)).astype(np.uint8), rng.integers(0, 3, n)


def data():
    return as_dataset(*pictures(50))


@MODELS
def test_learns_one_batch_by_heart(device, name):
    """Six images, again and again: the reconstruction's cost falls far below that of the mean image."""
    if name.startswith("conv") and device == "numpy":
        pytest.skip("slow there, and the same model as on numba")
    x, labels = pictures(6)
    model = build(name, device, **{"dae": {"noise_amount": 0.1}, "aae": {"gamma": 0.1}}.get(name.split("-")[-1], {}))
    step = Step(model, Feed(model, x, labels=labels), TrainConfig(epochs=600, batch_size=6, lr=1e-2, beta=0.01))
    for _ in range(200 if name.startswith("conv") else 600):
        batch = step.run()
    p = (x / 255).mean(axis=0)
    mean_image = -(p * np.log(p + 1e-9) + (1 - p) * np.log(1 - p + 1e-9)).sum()
    assert model.device.get(batch.metrics)[1] < 0.35 * mean_image
    given = {"labels": labels} if model.classes else {}
    assert np.abs(model.reconstruct(x, **given) - x / 255).mean() < 0.12


@MODELS
def test_resumed_training_is_the_uninterrupted_one(device, name, tmp_path):
    """Two epochs, and one with another resumed: the same bits, and the same rows but for the seconds."""
    options = dict(batch_size=16, binarize="dynamic", validation=7)
    whole = train(build(name, device), data(), epochs=2, out=tmp_path / "whole", **options)
    train(build(name, device), data(), epochs=1, out=tmp_path / "parts", **options)
    model = build(name, device)
    parts = train(model, data(), epochs=2, out=tmp_path / "parts", resume=True, **options)
    files = [(tmp_path / run / "checkpoint.safetensors").read_bytes() for run in ("whole", "parts")]
    saved = [tinyvae.load(tmp_path / run / "checkpoint.safetensors", device) for run in ("whole", "parts")]
    values = [m.device.get(m.table.values).tobytes() for m in saved]
    assert values[0] == values[1]
    assert len(files[0]) == len(files[1])
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows] for rows in (whole, parts)]
    assert strip[0] == strip[1]


@MODELS
def test_saved_and_loaded(device, name, tmp_path):
    """The loaded model gives the same bits, has the same class and options."""
    model, (x, labels) = build(name, device), pictures(5)
    tinyvae.save(model, tmp_path / "model.safetensors")
    again = tinyvae.load(tmp_path / "model.safetensors", device)
    assert type(again) is type(model)
    assert again.config == model.config
    given = {"labels": labels} if model.classes else {}
    assert again.reconstruct(x, **given).tobytes() == model.reconstruct(x, **given).tobytes()
    assert again.sample(4, seed=2).tobytes() == model.sample(4, seed=2).tobytes()


@MODELS
def test_trains_from_the_command_line(name, tmp_path, capsys):
    """The run's folder holds what it should; for the model with labels, so do the commands that follow."""
    images, labels = pictures(40)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    out = tmp_path / "run"
    arguments = ["--data", str(tmp_path / "set.npz"), "--epochs", "1", "--batch-size", "8", "--latent-dim", "2"]
    arguments += ["--hidden", "6", "--device", "numpy", "--out", str(out)]
    assert main(["train", "--model", name, *arguments]) == 0
    for picture in ("loss", "samples", "reconstructions"):
        assert (out / f"{picture}.png").stat().st_size > 1000
    config = json.loads((out / "config.json").read_text())
    assert config["train"]["beta"] == (4.0 if name == "beta-vae" else 1.0)
    run = open_run(out)
    assert type(run.model) is zoo.ZOO[name].model
    if name == "cvae":
        assert main(["sample", str(out), "--count", "9", "--seed", "1"]) == 0
        assert main(["reconstruct", str(out)]) == 0
        assert main(["train", "--resume", "--out", str(out), "--epochs", "2"]) == 0
        assert len((out / "metrics.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()


# ------------------------------------------------------------------------------------------------ options


def test_an_option_belongs_to_its_model():
    own = {option for model in zoo.ZOO for option in zoo.own_options(model)}
    assert own == {"classes", "doubly", "gamma", "noise", "noise_amount", "samples", "spectral"}
    for name, value in (("noise", "gaussian"), ("noise_amount", 0.5), ("classes", 3), ("doubly", True)):
        with pytest.raises(ConfigError, match=f"{name}={value!r} is an option of .*, not of conv-ae"):
            zoo.build("conv-ae", SHAPE, 3, **{name: value})


def test_beta_is_the_models_own_unless_a_run_says_otherwise(tmp_path):
    given = []
    for name, beta in (("vae", None), ("beta-vae", None), ("beta-vae", 2.0)):
        model = build(name)
        train(model, data(), epochs=1, beta=beta)
        given.append(float(model.device.get(model.clock.kl_weight)[0]))
    assert given == [1, 4, 2]


# ------------------------------------------------------------------------------------------------ denoising


@pytest.mark.parametrize(("noise", "amount"), [("masking", 0.4), ("gaussian", 0.5)])
def test_the_encoder_sees_noise_and_the_loss_the_clean_image(device, noise, amount):
    model, x = build("dae", device, "float64", noise=noise, noise_amount=amount), np.full((40, *SHAPE), 0.8)
    batch = model.batch("train", 40)
    model.device.put(x, batch.x)
    model.clock.set(step=4)
    model.loss(batch)
    seen = model.device.get(batch.twins["noise"].y)
    assert np.array_equal(model.device.get(batch.x), x)
    if noise == "masking":
        assert set(np.unique(seen)) == {0.0, 0.8}
        assert abs((seen == 0).mean() - 0.4) < 0.07
    else:
        assert abs((seen - x).std() - 0.5) < 0.05
    outputs = model.device.get(batch.twins["decoder"].twins[-1].forward(batch.twins["decoder"].twins[-2].y))
    nll = (np.logaddexp(0, outputs) - x * outputs).reshape(40, -1).sum(axis=1).mean()
    assert model.device.get(batch.metrics)[1] == pytest.approx(nll, rel=1e-12)


def test_noise_is_in_the_test_figures_but_not_in_public_methods(device):
    model, (x, _) = build("dae", device), pictures(9)
    clean = build("ae", device)
    clean.device.put(model.device.get(model.table.values), clean.table.values)
    assert np.array_equal(model.reconstruct(x), clean.reconstruct(x))
    batch, plain = model.batch("evaluate", 9), clean.batch("evaluate", 9)
    losses = []
    for m, b in ((model, batch), (model, batch), (clean, plain)):
        m.device.put(m.as_images(x), b.x)
        m.loss(b)
        losses.append(float(m.device.get(b.metrics)[0]))
    assert losses[0] == losses[1] != losses[2]


def test_noise_that_cannot_be():
    for options, word in (({"noise": "salt"}, "noise='salt'"), ({"noise_amount": 1.0}, "noise_amount=1.0 .* below 1")):
        with pytest.raises(ConfigError, match=word):
            build("dae", **options)


# ------------------------------------------------------------------------------------------------ conditional


def test_the_label_decides_what_is_drawn(device):
    """Three classes, each one picture: after training the decoder draws the class it is told, for any z."""
    motifs = (np.random.default_rng(5).random((3, *SHAPE)) < 0.5).astype(np.float64)
    labels = np.arange(60) % 3
    model = build("cvae", device)
    step = Step(model, Feed(model, motifs[labels], labels=labels), TrainConfig(epochs=200, batch_size=20, lr=1e-2))
    for _ in range(600):
        step.run()
    drawn = model.sample(12, seed=0, labels=np.arange(12) % 3)
    assert np.abs(drawn - motifs[np.arange(12) % 3]).mean() < 0.05
    assert np.array_equal(model.sample(12, seed=0), drawn)  # classes in turn
    swapped = model.decode(model.encode(motifs, np.arange(3))[0], np.array([1, 2, 0]))
    assert np.abs(swapped - motifs[[1, 2, 0]]).mean() < 0.05


def test_labels_are_asked_for_and_checked(device):
    model, (x, labels) = build("cvae", device), pictures(4)
    for bad, message in (
        (None, "CVAE needs labels=, a class from 0 to 2 for each image"),
        ([0, 1], "labels must be 4 whole numbers"),
        ([0, 1, 2, 3], "labels run from 0 to 3; CVAE has 0 to 2"),
        ([0.0] * 4, "labels must be 4 whole numbers, one per image, got float64"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            model.encode(x, bad)
    with pytest.raises(ConfigError, match="VAE is none; leave them out"):
        build("vae", device).encode(x, labels)
    with pytest.raises(DataError, match="CVAE needs the label of every image"):
        Feed(model, x)
    with pytest.raises(DataError, match="CVAE needs the label"):
        train(model, x)
    z = model.encode(x, labels)[0]
    assert model.decode(z, labels).tobytes() == model.reconstruct(x, labels).tobytes()
    walk = model.interpolate(x[:2], x[2:], steps=3, labels=labels[:2])
    np.testing.assert_array_equal(walk[1, 0], model.decode(z[1:2], labels[1:2])[0])
    assert model.interpolate(x[0], x[1], steps=3, labels=labels[0]).shape == (3, *SHAPE)


def test_classes_come_from_the_data(tmp_path):
    images, _ = pictures(20)
    np.savez(tmp_path / "unlabelled.npz", images=images)
    options = ["--data", str(tmp_path / "unlabelled.npz"), "--device", "numpy", "--out", str(tmp_path / "run")]
    assert main(["train", "--model", "cvae", *options]) == 2
    assert zoo.configure("cvae").classes == 10


def labelled_by_hand():
    """A CVAE whose parts see the label alone: z_mean is MEANS[label], log p(x|z, y) is LOGITS[label]'s."""
    model = zoo.build("cvae", SHAPE, 1, (3,), device="numpy", dtype="float64", classes=3)
    values = {name: np.zeros_like(model.table.view(name)) for name in model.table.places}
    for part, outputs in (("encoder", np.stack([MEANS, np.zeros(3)], axis=1)), ("decoder", LOGITS)):
        values[f"{part}.inner.dense1.weight"][-3:] = np.eye(3)  # the label's rows: hidden unit c says "class c"
        values[f"{part}.inner.dense2.weight"][:] = outputs
    for name, value in values.items():
        model.device.put(value, model.table.view(name))
    return model


MEANS = np.array([0.0, 0.5, -1.0])
LOGITS = np.random.default_rng(3).normal(size=(3, 30))


def test_figures_given_the_label_against_hand_computed_ones():
    """−log p(x|y) = Σ log(1 + exp(l)) − x l, l the logits of class y; KL(q(z|x, y) ‖ p(z)) = ½ z_mean(y)²."""
    model, (x, labels) = labelled_by_hand(), pictures(12)
    logits = LOGITS[labels]
    exact = (np.logaddexp(0, logits) - x.reshape(12, 30) / 255 * logits).sum(axis=1)
    kl = 0.5 * MEANS[labels] ** 2
    found = importance_sampling(model, x, 4000, labels=labels)
    np.testing.assert_allclose(found.nll[labels == 0], exact[labels == 0], rtol=1e-12)  # q is the prior there
    assert (np.abs(found.nll - exact) < 5 * found.mc_error + 1e-9).all()
    assert (np.abs(found.neg_elbo - exact - kl) < 5 / np.sqrt(4000)).all()  # log w has the variance z_mean² ≤ 1
    report = evaluate(model, x, 5, x[:7], labels=labels, train_labels=labels[:7])
    assert report["recon"] == pytest.approx(exact.mean(), rel=1e-12)
    assert report["kl"] == pytest.approx(kl.mean(), rel=1e-12)
    assert sum(report["kl_per_dimension"]) == pytest.approx(kl.mean(), rel=1e-12)
    assert report["rmse"] == pytest.approx(np.sqrt(np.mean((x / 255 - model.decode(np.zeros((12, 1)), labels)) ** 2)))
    assert active_units(model, x, labels=labels) == 1
    assert active_units(model, x, labels=np.ones(12, int)) == 0
    assert not continuity_profile(model, x, labels=labels).any()  # there and back, one label all the way
    with pytest.raises(DataError, match="CVAE needs the label of every image"):
        evaluate(model, x)


def test_binarised_images_need_no_label_and_keep_theirs():
    model, (x, labels) = labelled_by_hand(), pictures(12)
    figures = [evaluate(model, x, labels=labels, binarize=how)["recon"] for how in ("none", "dynamic")]
    assert figures[0] == pytest.approx(figures[1], rel=1e-12)  # the pictures are black and white already


def test_segments_stay_in_a_class():
    """Every walk joins two codes of one label, each code starts one; the only code of its class stays where it is."""
    labels = np.array([0, 1, 0, 1, 0, 2, 1])
    codes = 10.0 * labels[:, None] + np.arange(7)[:, None] / 10
    walks = segments(codes, 7, 3, seed=1, labels=labels)[..., 0]
    assert (np.floor(walks / 10) == np.floor(walks[:, :1] / 10)).all()
    assert sorted(walks[:, 0]) == sorted(walks[:, 2]) == sorted(codes[:, 0])
    assert (walks[:, 0] == walks[:, 2]).sum() == 1


def test_commands_take_a_conditional_run(tmp_path, capsys):
    """Pictures, figures and the doctor's words; what needs pictures without a label says so in one line."""
    images, labels = pictures(60)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    out = tmp_path / "run"
    arguments = ["--data", str(tmp_path / "set.npz"), "--epochs", "1", "--batch-size", "8", "--latent-dim", "2"]
    arguments += ["--hidden", "6", "--device", "numpy", "--out", str(out)]
    assert main(["train", "--model", "cvae", *arguments]) == 0
    drawn = {"loss", "reconstructions", "samples", "interpolations", "latent", "manifold"}
    assert {path.stem for path in out.glob("*.png")} == drawn
    for command, names in (("interpolate", ["interpolations"]), ("latent", ["latent", "manifold"])):
        for name in names:
            (out / f"{name}.png").unlink()
        assert main([command, str(out)]) == 0
        assert all((out / f"{name}.png").stat().st_size > 1000 for name in names)
    capsys.readouterr()
    assert main(["evaluate", str(out), "--samples", "5"]) == 0
    report = json.loads(capsys.readouterr().out)
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert report["neg_elbo"] == pytest.approx(last["test"]["neg_elbo"], rel=1e-6)
    run = open_run(out)
    given = importance_sampling(run.model, run.data.test_images, 5, labels=run.data.test_labels)
    assert report["nll"] == pytest.approx(given.nll.mean(), rel=1e-6)
    assert report["continuity"] > 0
    assert main(["doctor", str(out)]) == 0
    words = capsys.readouterr().out
    assert words.startswith(("collapsed: ", "holes: ", "healthy: "))
    assert f"active units {report['active_units']} of 2" in words
    assert main(["explore", str(out)]) == 2
    assert "the page tells its decoder no label, and CVAE needs one" in capsys.readouterr().err
    for i, image in enumerate(images[:3]):
        (tmp_path / "suspects").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / "suspects" / f"{i}.png")
    assert main(["anomaly", str(out), "--rank", str(tmp_path / "suspects")]) == 2
    assert "CVAE must be told the class of a picture" in capsys.readouterr().err


def test_labels_of_a_batch_are_those_of_its_images(device):
    """Through shuffling and a ragged last batch."""
    n = 11
    images = np.zeros((n, *SHAPE), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    labels = np.arange(n) % 3
    model = build("cvae", device)
    step = Step(model, Feed(model, images, labels=labels), TrainConfig(epochs=2, batch_size=4))
    step.feed.shuffle(0, 0)
    for _ in range(3):
        batch = step.run()
        place = np.rint(model.device.get(batch.x)[:, 0, 0, 0] * 255).astype(int)
        assert np.array_equal(model.device.get(batch.labels).argmax(axis=1), labels[place])
