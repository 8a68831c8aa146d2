"""Signs that a game of two players fails: figures against known answers, verdicts, advice, and what training says.
How often the verdict is right on trained runs is benchmarks/gan_doctor.py's affair."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinyvae import zoo
from tinyvae.app.cli import main
from tinyvae.config import Adam, ModelConfig, TrainConfig
from tinyvae.datasets import as_dataset
from tinyvae.errors import ConfigError, DataError
from tinyvae.measure.doctor import game as gan_doctor
from tinyvae.measure.doctor import latent as doctor
from tinyvae.measure.doctor import signs as gan_signs
from tinyvae.measure.doctor.diagnosis import Diagnosis
from tinyvae.measure.doctor.signs import game_figures, missing_classes, sample_figures
from tinyvae.measure.evaluate import evaluate
from tinyvae.models import Abilities
from tinyvae.models.model import Player
from tinyvae.training import trainer
from tinyvae.training.signs import swing, warning

SHAPE = (6, 5, 1)


def pictures(n, seed=0, labels=None):
    """n pictures of a bright square at one of four places, each with noise of its own."""
    rng = np.random.Generator(np.random.Philox(seed))
    labels = rng.integers(0, 4, n) if labels is None else labels
    x = rng.uniform(0, 0.5, (n, *SHAPE))
    for image, label in zip(x, labels, strict=True):
        i, j = 3 * (label // 2), 3 * (label % 2)
        image[i : i + 3, j : j + 2] += 0.5
    return x, labels


def rows_of(d_fake, d_real=0.7, test=None):
    """A log whose epochs have these d_fake."""
    test = d_fake if test is None else test
    return [
        {"epoch": i + 1, "train": {"d_real": d_real, "d_fake": f}, "test": {"d_real": d_real, "d_fake": t}}
        for i, (f, t) in enumerate(zip(d_fake, test, strict=True))
    ]


# ---------------------------------------------------------------------------------------------- the log


def test_game_figures_are_of_the_last_third():
    rows = rows_of([0.5, 0.3] + [0.2] * 4 + [0.01, 0.04, 0.02])
    found = game_figures(rows)
    assert found["d_fake"] == pytest.approx((0.01 * 0.04 * 0.02) ** (1 / 3))
    assert found["d_real"] == pytest.approx(0.7)
    assert (found["top_fake"], found["most_fake"]) == (0.04, 0.3)  # not that of the first epoch
    assert game_figures(rows[:1])["most_fake"] == 0.5


def test_swing_is_half_the_second_difference_over_the_mean():
    up_and_down, line = np.array([9.0, 9.0, *[1.0, 3.0] * 4]), np.linspace(1, 4, 9)
    assert swing(rows_of(np.exp(-up_and_down))) == pytest.approx(2 / 2)
    assert swing(rows_of(np.exp(-line))) == pytest.approx(0, abs=1e-12)  # a loss that grows has a level at each moment
    assert swing(rows_of(np.exp(-up_and_down), test=[0.3] * 10)) == 0  # the test part is what counts
    assert swing(rows_of([0.3] * 7)) is None
    assert np.isfinite(swing(rows_of([1.0, 0.0] * 5)))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (rows_of([0.3, 0.2, 0.2, 0.3, 0.2, 0.3, 0.25, 0.3, 0.2]), None),
        (rows_of([0.3, 0.3, 0.006, 0.005, 0.004, 0.003]), "too strong: d_fake below 0.02 for 4 epochs"),
        (rows_of([0.3, 0.3, 0.3, 0.005, 0.004, 0.003]), None),  # not long enough
        (rows_of([0.005] * 4), None),  # the first epochs of many a good run
        (rows_of([0.5, 0.02] * 5), "losses swing: by 140 %"),
        (rows_of([0.5, 0.02] * 3), None),
        (rows_of([0.2, 0.2] + [0.2, 0.3] * 4), None),  # by 29 %: too little to be sure while training
        ([{"train": {"loss": 1.0}, "test": {"loss": 1.0}}] * 6, None),
    ],
)
def test_warning(rows, words):
    assert warning(rows) is None if words is None else words in warning(rows)


def small(name="dense-gan", **options):
    return zoo.build(name, SHAPE, 2, (8,), device="numpy", seed=1, **options)


def test_training_says_it_once_and_is_not_changed_by_it(monkeypatch, capsys, tmp_path):
    data, weights = as_dataset(pictures(40)[0].astype(np.float32)), []
    for text in (None, "the losses swing"):
        monkeypatch.setattr(trainer, "warning", lambda rows, text=text: text if len(rows) > 1 else None)
        model = small()
        trainer.train(model, data, epochs=4, batch_size=16, progress=True, out=tmp_path / str(text))
        weights.append(model.table.values.tobytes())
    said = capsys.readouterr().err
    assert said.count("warning: the losses swing; see tinyvae doctor ") == 1
    assert re.search(r"epoch 2/4:.*\nwarning: .*\nepoch 3/4:", said)
    assert weights[0] == weights[1]


def test_a_discriminator_that_runs_ahead_is_seen_while_training(capsys):
    model = small()
    model.players = tuple(
        replace(p, optimizer=Adam(0.05 if p.name == "discriminator" else 1e-7, 0.5)) for p in model.players
    )
    trainer.train(model, pictures(200)[0].astype(np.float32), epochs=20, batch_size=10, progress=True)
    assert capsys.readouterr().err.count("warning: the discriminator is too strong") == 1


# ---------------------------------------------------------------------------------------------- samples


def test_sample_figures_of_samples_made_for_them():
    images = pictures(400)[0]
    good = sample_figures(pictures(400, 1)[0], images)
    assert all(0.9 < good[name] < 1.1 for name in ("spread", "contrast", "nearest"))
    assert min(good["precision"], good["coverage"]) > 0.85
    copies = sample_figures(images[np.arange(400) % 10], images)
    assert (copies["nearest"], copies["precision"]) == (0, 1)
    assert copies["coverage"] < 0.3
    one = sample_figures(pictures(400, 1, np.zeros(400, int))[0], images)
    assert one["coverage"] < 0.35 < 0.85 < one["precision"]
    noise = sample_figures(np.random.default_rng(0).uniform(0, 1, (400, *SHAPE)), images)
    assert noise["precision"] < 0.1
    grey = sample_figures(np.full((400, *SHAPE), 0.4) + 0.01 * pictures(400, 1)[0], images)
    assert grey["contrast"] < 0.01
    assert grey["nearest"] < 0.05
    assert json.loads(json.dumps(good, allow_nan=False)) == good


def test_sample_figures_by_hand():
    """Three points on a line: nearest neighbours 1, 1 and 2 apart among the images, 2, 2 and 2 among the samples."""
    images, samples = (np.array(v, float).reshape(3, 1, 1, 1) for v in ([0, 1, 3], [0, 2, 4]))
    found = sample_figures(samples, images)
    assert found["nearest"] == pytest.approx(2 / 1)
    assert found["spread"] == pytest.approx((8 / 3) / (14 / 9))
    assert sample_figures(samples, np.zeros((3, 1, 1, 1)))["nearest"] is None
    with pytest.raises(DataError, match="two at least"):
        sample_figures(samples[:1], images)


def test_missing_classes():
    labels = np.repeat([0, 1, 2], [500, 400, 100])
    assert missing_classes(labels, labels) == []
    assert missing_classes(np.repeat([0, 1, 2], [955, 39, 6]), labels) == [1, 2]


# ---------------------------------------------------------------------------------------------- verdicts

GOOD = {
    "d_real": 0.7, "d_fake": 0.2, "top_fake": 0.25, "most_fake": 0.3, "swing": 0.2, "spread": 0.9, "contrast": 0.9,
    "nearest": 0.8, "precision": 0.7, "coverage": 0.6, "classes": 10, "missing": [], "lr_discriminator": 1e-3,
    "lr_generator": 1e-3,
}  # fmt: skip
ALIKE = {"nearest": 0.1, "coverage": 0.05, "precision": 0.1}
BEATEN = {"d_real": 0.99, "d_fake": 0.002, "top_fake": 0.004}


@pytest.mark.parametrize(
    ("figures", "verdict", "words"),
    [
        ({}, "healthy", "--model gan"),
        (BEATEN | {"most_fake": 0.02}, "discriminator-too-strong", "--model gan"),
        (BEATEN | ALIKE | {"most_fake": 0.02}, "discriminator-too-strong", "--model gan"),
        (BEATEN | {"lr_discriminator": 0.02}, "discriminator-too-strong", "is 0.02, the generator's 0.001: --lr 0.001"),
        (BEATEN | ALIKE, "mode-collapse", "--lr 0.00025"),  # the generator had its turn
        (ALIKE, "mode-collapse", "--lr 0.00025"),
        (ALIKE | {"lr_generator": 0.02}, "mode-collapse", "is 0.001, the generator's 0.02: --lr 0.001 for both"),
        ({"coverage": 0.1}, "mode-collapse", "--lr 0.00025"),  # true pictures, but always the same ones
        ({"missing": [3, 8]}, "mode-collapse", "--lr 0.00025"),
        ({"nearest": 0.3}, "healthy", "--model gan"),  # near each other, but everywhere among the images
        (ALIKE | {"contrast": 0.3}, "generator-not-learning", "--epochs 30"),
        ({"precision": 0.01}, "generator-not-learning", "--epochs 30"),
        ({"swing": 0.9}, "oscillation", "--lr 0.00025"),
        (ALIKE | {"swing": 0.9}, "oscillation", "--lr 0.00025"),  # the cause before what it leads to
        ({"swing": None, "nearest": None, "classes": None, "missing": None}, "healthy", "--model gan"),
        ({"d_real": 0.51, "d_fake": 0.49}, "healthy", "--model gan"),  # the game is over
        (ALIKE | {"d_real": 0.5, "d_fake": 0.9}, "discriminator-too-weak", "--lr 0.004"),
        (dict.fromkeys(("d_real", "d_fake", "top_fake", "most_fake", "swing")), "healthy", "--model gan"),  # no log
    ],
)
def test_verdicts_and_first_advice(figures, verdict, words):
    found = gan_doctor.diagnose_game(GOOD | figures, ModelConfig(model="dense-gan"), TrainConfig())
    assert found.verdict == verdict
    assert words in found.advice[0] or words in found.advice[1], found.advice
    assert str(found).startswith(f"{verdict}: ")
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["verdict"] == verdict


def test_advice_names_options_of_train_and_not_what_is_done_already():
    from tinyvae.app.cli import build_parser

    options = build_parser()._subparsers._group_actions[0].choices["train"]._option_string_actions
    for figures in ({}, BEATEN | {"most_fake": 0.0}, ALIKE, {"swing": 0.9}, {"precision": 0}, {**ALIKE, "d_fake": 0.9}):
        for model in ("dense-gan", "gan", "vae-gan"):
            found = gan_doctor.diagnose_game(GOOD | figures, ModelConfig(model=model, latent_dim=4), TrainConfig())
            words = " ".join(found.advice).replace(",", " ").split()
            named = {word for word in words if word.startswith("--")}
            assert named, found
            assert named <= set(options)
            assert f"--model {model}" not in " ".join(found.advice)


def test_two_diagnoses_in_one():
    ill = Diagnosis("holes", "codes lie elsewhere", ("a",), ("x", "y"), {"p": 1})
    well = Diagnosis("healthy", "all is well", ("b",), ("y",), {"q": 2})
    both = ill & well
    assert (both.verdict, both.why, both.findings, both.advice) == ("holes", ill.why, ("a", "b"), ("x", "y"))
    assert both.figures == {"p": 1, "q": 2}
    assert (well & well).verdict == "healthy"
    assert (ill & replace(ill, verdict="oscillation")).verdict == "holes and oscillation"


# ---------------------------------------------------------------------------------------------- patients


def patient(samples):
    """A model without an encoder whose samples are these, in turn."""
    model = small()
    return SimpleNamespace(
        sample=lambda n, seed: samples[np.arange(n) % len(samples)], as_images=model.as_images, image_shape=SHAPE,
        players=(Player("generator", ("g",), Adam(1e-3)), Player("discriminator", ("d",), Adam(1e-3))),
        config=ModelConfig(model="dense-gan"), device=model.device, latent_dim=2,
        can=Abilities(codes=False, likelihood=False, game="images"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "d_fake", "verdict"),
    [
        (pictures(500, 5)[0], 0.3, "healthy"),
        (pictures(8, 5)[0], 0.3, "mode-collapse"),
        (pictures(500, 5, np.arange(500) % 3)[0], 0.3, "mode-collapse"),  # a class is missing
        (0.1 * pictures(500, 5)[0], 0.3, "generator-not-learning"),
        (pictures(500, 5)[0], 1e-4, "discriminator-too-strong"),
        (pictures(8, 5)[0], 0.9, "discriminator-too-weak"),
    ],
)
def test_examined(samples, d_fake, verdict, monkeypatch):
    monkeypatch.setattr(gan_doctor, "JUDGED_BY", 800)
    (x, labels), (test, test_labels) = pictures(1000, 1), pictures(500, 2)
    data = as_dataset(x, labels, test_images=test, test_labels=test_labels)
    found = doctor.examine(patient(samples.astype(np.float32)), data, rows=rows_of([d_fake] * 6))
    assert found.verdict == verdict, str(found)
    assert found.figures["classes"] == 4
    unlabelled = as_dataset(x, test_images=test)
    found = doctor.examine(patient(samples.astype(np.float32)), unlabelled, rows=rows_of([d_fake] * 6))
    assert found.figures["classes"] is None


@pytest.mark.parametrize(
    ("latent", "d_fake", "verdict", "words"),
    [
        ("healthy", [0.4] * 6, "healthy", "larger --latent-dim"),
        ("holes", [0.4] * 6, "holes", "--gamma"),
        ("holes", [1e-3] * 6, "holes and discriminator-too-strong", "--lr 0.00025"),
        ("healthy", [0.9, 0.1] * 5, "oscillation", "--lr 0.00025"),
        ("healthy", [1e-3] * 6, "discriminator-too-strong", "--lr 0.00025"),
    ],
)
def test_codes_of_an_adversarial_autoencoder(latent, d_fake, verdict, words):
    model = small("aae")
    found = gan_doctor.examine_codes(Diagnosis(latent, "", ("MMD",), (), {}), model, None, rows_of(d_fake))
    assert found.verdict == verdict
    assert words in found.advice[0]
    assert "codes" in found.findings[1]


# ---------------------------------------------------------------------------------------------- commands


GAMES = ("gan", "vae-gan", "aae")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each model with two players, on 60 pictures."""
    folder = tmp_path_factory.mktemp("games")
    images, labels = pictures(60)
    np.savez(folder / "set.npz", images=(255 * images).astype(np.uint8), labels=labels.astype(np.uint8))
    options = ["--data", str(folder / "set.npz"), "--epochs", "2", "--batch-size", "16", "--latent-dim", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyvae.app.run.draw_pictures", lambda run: [])  # test_gan and test_models see to these
        for name in GAMES:
            command = ["train", "--model", name, *options, "--hidden", "8", "--device", "numpy"]
            assert main([*command, "--out", str(folder / name)]) == 0
    return folder


@pytest.mark.parametrize("name", GAMES)
def test_doctor_and_evaluate(name, runs, capsys):
    capsys.readouterr()
    assert main(["doctor", str(runs / name)]) == 0
    said = capsys.readouterr().out
    assert "the discriminator gives" in said
    assert ("active units" in said) == (name == "vae-gan")
    assert ("of samples lie among the images" in said) == (name != "aae")
    assert main(["doctor", str(runs / name), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert said.startswith(f"{report['verdict']}: ")
    assert 0 < report["figures"]["d_fake"] < 1
    assert main(["evaluate", str(runs / name), "--samples", "3"]) == 0
    report = json.loads(capsys.readouterr().out)
    last = json.loads((runs / name / "metrics.jsonl").read_text().splitlines()[-1])["test"]
    assert report["d_fake"] == pytest.approx(last["d_fake"], rel=1e-6)
    assert report["neg_elbo"] is report["nll"] is None
    assert (report["rmse"] is None) == (name == "gan")


WORKS = {"sample": "samples.png", "latent": "manifold.png", "explore": "explorer.html"}
NOT = {
    "reconstruct": "reconstruct starts from images' codes, and GAN has none; use sample or explore",
    "interpolate": "interpolate starts from images' codes, and GAN has none; use sample or explore",
}


@pytest.mark.parametrize("command", [*WORKS, *NOT])
def test_every_command_works_on_a_gan_or_says_why_not(command, runs, capsys):
    folder = runs / "gan"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    status = main([command, str(folder)])
    captured = capsys.readouterr()
    if command in WORKS:
        assert status == 0
        assert captured.out.split() == [str(folder / WORKS[command])]
        assert (folder / WORKS[command]).stat().st_size > 1000
        return
    assert status == 2
    assert captured.err.splitlines()[-1] == f"tinyvae {command}: error: {NOT[command]}"
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_anomalies_need_reconstructions(runs, capsys, tmp_path):
    (tmp_path / "suspects").mkdir()
    Image.fromarray((255 * pictures(1)[0][0, ..., 0]).astype(np.uint8)).save(tmp_path / "suspects" / "0.png")
    out = ["--device", "numpy", "--out", str(tmp_path / "out")]
    for asked in (
        ["--model", "gan", "--data", str(runs / "set.npz"), "--only", "1"],
        [str(runs / "gan"), "--rank", str(tmp_path / "suspects")],
    ):
        assert main(["anomaly", *asked, *out]) == 2
        assert "reconstruction, and GAN makes none; use another model" in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "out").exists()
    joined = [
        *["--model", "vae-gan", "--only", "1", "--epochs", "1", "--latent-dim", "2", "--data"],
        str(runs / "set.npz"),
    ]
    assert main(["anomaly", *joined, *out, "--likelihood", "mse"]) == 2
    assert "likelihood='mse': vae-gan scores no pixels" in capsys.readouterr().err
    assert main(["anomaly", *joined, *out]) == 0  # the default likelihood is for models that have one
    assert "neg_elbo" not in capsys.readouterr().out


REFUSED = [
    ("gan", "--beta", "4", "beta=4.0: GAN has no KL divergence; leave it out"),
    ("dense-gan", "--warmup", "3", "warmup=3: GAN has no KL divergence; leave it out"),
    ("gan", "--cycles", "2", "cycles=2: GAN has no"),
    ("gan", "--cycle-share", "0.4", "cycle_share=0.4: GAN has no"),
    ("gan", "--capacity", "2", "capacity=2.0: GAN has no"),
    ("gan", "--free-bits", "2", "free_bits=2.0: GAN has no"),
    ("ae", "--beta", "4", "beta=4.0: AutoEncoder has no KL divergence; leave it out"),
    ("aae", "--beta", "4", "AdversarialAutoEncoder has no KL divergence; weigh its game by gamma"),
    ("aae", "--free-bits", "4", "AdversarialAutoEncoder has no KL divergence; leave it out"),
    ("vae-gan", "--free-bits", "4", "VAEGAN has no bound with a KL divergence; leave it out"),
    ("vae-gan", "--capacity", "4", "VAEGAN has no bound"),
    ("gan", "--likelihood", "mse", "likelihood='mse': gan scores no pixels"),
    ("vae-gan", "--sigma", "0.3", "sigma=0.3: vae-gan scores no pixels"),
]


@pytest.mark.parametrize(("name", "option", "value", "words"), REFUSED)
def test_options_for_what_a_model_lacks_are_refused(name, option, value, words, runs, capsys, tmp_path):
    out, data = tmp_path / "run", str(runs / "set.npz")
    assert main(["train", "--model", name, "--data", data, "--device", "numpy", option, value, "--out", str(out)]) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not out.exists()


def test_from_python_they_are_refused_as_well():
    x = pictures(20)[0].astype(np.float32)
    with pytest.raises(ConfigError, match=r"free_bits=1\.0: GAN has no KL"):
        trainer.train(small(), x, epochs=1, free_bits=1.0)
    trainer.train(small(), x, epochs=1, beta=1.0, binarize="dynamic")  # what changes nothing, and what makes sense
    trainer.train(small("vae-gan"), x, epochs=1, beta=2.0, warmup=1)
    assert evaluate(small(), x, binarize="static")["images"] == 20


def test_too_few_images_for_neighbours_are_said():
    assert gan_signs.drawn_figures(small(), pictures(3)[0].astype(np.float32))["coverage"] >= 0
    with pytest.raises(DataError, match="two at least"):
        gan_signs.drawn_figures(small(), pictures(1)[0].astype(np.float32))
