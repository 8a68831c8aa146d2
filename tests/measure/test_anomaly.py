"""Anomalies: figures against hand-worked numbers and scikit-learn, thresholds that keep their rate, scores that mean
what they say, and the command on labelled data, on a folder of pictures and on wrong use."""

import csv
import importlib.util
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinyvae import zoo
from tinyvae.app import anomaly as anomaly_run
from tinyvae.app.cli import main
from tinyvae.datasets import as_dataset
from tinyvae.errors import ConfigError, DataError, TinyvaeError
from tinyvae.measure import anomaly
from tinyvae.measure import evaluate as ev
from tinyvae.measure.anomaly import conformal, detector, protocols
from tinyvae.models.methods import Abilities
from tinyvae.pictures import plots
from tinyvae.training import trainer

SHAPE = (12, 10, 1)


def bars(n, seed=0, across=False):
    """n images (12, 10, 1) uint8 of an upright bar somewhere, or of one that lies."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, *SHAPE), np.uint8)
    for image, place, level in zip(x, rng.integers(0, 9, n), rng.integers(150, 256, n), strict=True):
        if across:
            image[place : place + 2] = level
        else:
            image[:, place : place + 2] = level
    return x


def train(name="vae", **options):
    model = zoo.build(name, SHAPE, 3, (32,), "gaussian", 0.2, **options)
    trainer.train(model, as_dataset(bars(600), test_images=bars(9, 1)), epochs=25, batch_size=50, lr=3e-3)
    return model


@pytest.fixture(scope="module")
def vae():
    return train()


@pytest.fixture(scope="module")
def found(vae):
    """The detector, and its scores of 60 upright bars and then 60 lying ones."""
    judge = anomaly.Detector(vae, bars(600))
    return judge, judge.score(np.concatenate([bars(60, 5), bars(60, 6, across=True)]))


# ---------------------------------------------------------------------------------------------- figures


def test_auroc_by_hand():
    """Of 2·3 pairs the anomalies 0.35 and 0.8 win 1 + 3, and lose none more to a tie."""
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8, 0.5]), np.array([False, False, True, True, False])
    assert anomaly.auroc(scores, truth) == pytest.approx(4 / 6)
    assert anomaly.auroc(-scores, truth) == pytest.approx(2 / 6)


def test_auroc_counts_a_tie_as_half():
    assert anomaly.auroc(np.zeros(5), np.array([True, False, False, True, False])) == 0.5
    scores, truth = np.array([1.0, 1, 2, 2, 3]), np.array([False, True, False, True, True])
    assert anomaly.auroc(scores, truth) == pytest.approx((0.5 + 0 + 1 + 0.5 + 1 + 1) / 6)


def test_aupr_by_hand():
    """From above: anomaly (1 of 1), normal, anomaly (2 of 3), normal: ½ · 1 + ½ · ⅔."""
    scores, truth = np.array([4.0, 3, 2, 1]), np.array([True, False, True, False])
    assert anomaly.aupr(scores, truth) == pytest.approx(0.5 + 0.5 * 2 / 3)
    # one group of three with one anomaly in it, then an anomaly: ½ · ⅓ + ½ · 2/4
    assert anomaly.aupr(np.array([2.0, 2, 2, 1]), np.array([False, True, False, True])) == pytest.approx(1 / 6 + 1 / 4)
    assert anomaly.aupr(np.zeros(8), np.arange(8) < 2) == 0.25


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=30))
def test_figures_equal_their_definitions(rows):
    scores, truth = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if truth.all() or not truth.any():
        return
    pairs = list(itertools.product(scores[truth], scores[~truth]))
    assert anomaly.auroc(scores, truth) == pytest.approx(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))
    area = before = 0.0
    for t in sorted(set(scores), reverse=True):
        recall, precision = truth[scores >= t].sum() / truth.sum(), truth[scores >= t].mean()
        area, before = area + (recall - before) * precision, recall
    assert anomaly.aupr(scores, truth) == pytest.approx(area)


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")
def test_figures_equal_scikit_learn():
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    for decimals in (0, 1, 9):  # many ties, some, none
        truth = rng.random(400) < 0.2
        scores = np.round(rng.normal(size=400) + truth, decimals)
        assert anomaly.auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        assert anomaly.aupr(scores, truth) == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "truth", "words"),
    [
        ([1.0, 2], [True, True], "marks 2 of 2 images; both kinds"),
        ([1.0, np.nan], [True, False], "NaN at 1"),
        ([1.0, 2], [1, 0], "of bool"),
        ([1.0], [True, False], r"two arrays \(N,\)"),
    ],
)
def test_figures_of_nothing(scores, truth, words):
    for figure in (anomaly.auroc, anomaly.aupr):
        with pytest.raises(DataError, match=words):
            figure(np.array(scores), np.array(truth))


# ---------------------------------------------------------------------------------------------- thresholds


def test_p_values_by_hand():
    calibration = np.array([3.0, 1, 2, 2])
    p = anomaly.p_values(calibration, np.array([0.0, 1, 2, 2.5, 3, 9]))
    np.testing.assert_allclose(p, np.array([5, 5, 4, 2, 2, 1]) / 5)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 99))
def test_above_the_threshold_is_a_small_p_value(values, percent):
    calibration, scores = np.array(values, float), np.arange(-1, 11, 0.5)
    limit = anomaly.threshold(calibration, percent / 100)
    np.testing.assert_array_equal(scores > limit, anomaly.p_values(calibration, scores) <= percent / 100 + 1e-12)


def test_too_few_images_never_raise_an_alarm():
    assert anomaly.threshold(np.arange(98.0), 0.01) == math.inf
    assert anomaly.threshold(np.arange(99.0), 0.01) == 98
    assert anomaly.false_alarm_interval(98, 50, 0.01) == (0, 0)


def test_beta_binomial_by_enumeration():
    """n + m exchangeable scores: every arrangement is as likely, and the alarms of each can be counted."""
    n, m, alpha = 4, 3, 0.4  # k = 2: an alarm above the second largest of four
    counts = np.zeros(m + 1)
    for places in itertools.combinations(range(n + m), n):
        fresh = np.setdiff1d(np.arange(n + m), places)
        counts[(fresh > anomaly.threshold(np.array(places, float), alpha)).sum()] += 1
    p = [math.exp(conformal._log_beta_binomial(j, m, 2, n - 1)) for j in range(m + 1)]
    np.testing.assert_allclose(p, counts / counts.sum(), rtol=1e-12)


@pytest.mark.parametrize(("n", "m", "alpha"), [(500, 500, 0.01), (500, 480, 0.05), (99, 2000, 0.01), (30, 7, 0.5)])
def test_the_interval_leaves_at_most_its_tails(n, m, alpha):
    low, high = anomaly.false_alarm_interval(n, m, alpha, 0.99)
    k = conformal.alarms_among(n, alpha)
    p = np.exp([conformal._log_beta_binomial(j, m, k, n + 1 - k) for j in range(m + 1)])
    assert p.sum() == pytest.approx(1, abs=1e-9)
    assert p[:low].sum() <= 0.005 < p[: low + 1].sum()
    assert p[high + 1 :].sum() <= 0.005 < p[high:].sum()


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_false_alarms_stay_at_the_stated_rate(found, vae, alpha):
    """Fresh normal images, calibration and test from one shuffled pool, 20 seeds: always inside 99.9 %."""
    scores = found[0].score(noisy_bars(1000), ["joint"])["joint"]
    for seed in range(20):
        a = anomaly_run.try_threshold(scores, alpha, seed)
        assert a["low"] <= a["alarms"] <= a["high"]
        assert a["high"] < 4 * alpha * a["fresh"] + 12  # an interval that everything fits in would prove nothing


def noisy_bars(n):
    """Bars with noise, so that no two scores are equal."""
    noise = np.random.default_rng(9).integers(0, 40, (n, *SHAPE))
    return np.minimum(bars(n, 8) + noise, 255).astype(np.uint8)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, "x"])
def test_impossible_rates(alpha):
    with pytest.raises(ConfigError, match="alpha="):
        anomaly.threshold(np.arange(9.0), alpha)


# ---------------------------------------------------------------------------------------------- scores


def test_every_score_is_there_and_some_find_the_lying_bars(found):
    truth = np.arange(120) >= 60
    assert set(found[1]) == set(anomaly.SCORES)
    figures = anomaly.judge(found[1], truth)
    assert all(np.isfinite(s).all() and s.shape == (120,) for s in found[1].values())
    for name in ("squared_error", "relative_error", "joint", "reconstruction_probability", "neg_elbo"):
        assert figures[name]["auroc"] > 0.95, name
    assert "joint *" in protocols.table(figures, "joint")


def test_errors_are_the_reconstructions(found, vae):
    x = bars(60, 5)[:7]
    rest = x / 255 - vae.reconstruct(x)
    np.testing.assert_allclose(found[1]["squared_error"][:7], (rest**2).sum(axis=(1, 2, 3)), rtol=1e-5)
    smooth = detector.smooth(rest), detector.smooth(x / 255)  # the background of bars is black
    expected = [np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*smooth, strict=True)]
    np.testing.assert_allclose(found[1]["relative_error"][:7], expected, rtol=1e-5)


def test_relative_error_does_not_depend_on_light(vae):
    """An image and its reconstruction, both twice as dark: the same score."""

    class Echo:
        def __init__(self, scale):
            self.scale, self.parts = scale, {}

        can = Abilities()
        as_images = staticmethod(vae.as_images)

        def encode(self, x):
            return np.random.default_rng(0).normal(size=(len(x), 3)), None

        def decode(self, z):
            return self.scale * 0.9 * np.ones((len(z), *SHAPE))

    x = bars(5, 3).astype(np.float64) / 255
    a = anomaly.Detector(Echo(1.0), x).score(x)["relative_error"]
    b = anomaly.Detector(Echo(0.5), 0.5 * x).score(0.5 * x)["relative_error"]
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_latent_scores_by_hand(found, vae):
    scores = found[1]
    codes, z = vae.encode(bars(600))[0].astype(float), vae.encode(bars(60, 5)[:7])[0].astype(float)
    distance = np.linalg.norm(z[:, None] - codes[None], axis=2).min(axis=1)
    np.testing.assert_allclose(scores["latent_neighbour"][:7], distance, rtol=1e-4, atol=1e-5)
    sigma = np.exp(vae.encode(bars(600))[1].astype(float))
    inverse = np.linalg.inv(np.cov(codes.T) + np.diag((sigma**2).mean(axis=0)))
    white = [(v - codes.mean(0)) @ inverse @ (v - codes.mean(0)) for v in z]
    np.testing.assert_allclose(scores["mahalanobis"][:7], white, rtol=1e-4)
    unit, own = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (codes, z))
    distance = np.linalg.norm(own[:, None] - unit[None], axis=2).min(axis=1)
    np.testing.assert_allclose(scores["latent_direction"][:7], distance, rtol=1e-3, atol=3e-4)
    joint = np.log(scores["relative_error"]) + np.log(np.maximum(scores["latent_direction"], detector.TINY))
    np.testing.assert_allclose(scores["joint"], joint)


def test_drawn_scores_are_those_of_importance_sampling(found, vae):
    scores = found[1]
    x = np.concatenate([bars(60, 5), bars(60, 6, across=True)])
    known = ev.importance_sampling(vae, x, detector.CHUNK)
    np.testing.assert_allclose(scores["importance_weighted"], known.nll, rtol=1e-6)
    z_mean, z_log_sigma = (h.astype(float) for h in vae.encode(x))
    kl = -0.5 * (1 + 2 * z_log_sigma - z_mean**2 - np.exp(2 * z_log_sigma)).sum(axis=1)
    np.testing.assert_allclose(scores["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(scores["neg_elbo"], scores["reconstruction_probability"] + scores["kl"])
    # both average the same draws; one has the KL in closed form, the other drawn
    assert np.abs(scores["neg_elbo"] - known.neg_elbo).mean() < 2
    assert (scores["importance_weighted"] <= known.neg_elbo + 1e-6).all()


def test_more_draws_than_a_chunk(vae):
    x = bars(3, 5)
    nll, ratio, _ = detector.draws(vae, x, 21)
    assert nll.shape == ratio.shape == (3, 21)
    known = ev.importance_sampling(vae, x, 21).nll
    np.testing.assert_allclose(-ev.log_mean_exp(ratio - nll), known, rtol=1e-6)


def test_scores_do_not_depend_on_the_company(found):
    """Alone or among others, and asked for alone or with all, an image has the same deterministic scores."""
    judge, scores = found
    for name in detector.DETERMINISTIC:
        np.testing.assert_allclose(judge.score(bars(60, 5)[4:5], [name])[name], scores[name][4:5], rtol=2e-4, atol=1e-5)


def test_a_plain_image_has_less_to_say():
    x = np.stack([np.zeros(SHAPE, np.uint8), np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)])
    plain, noise = detector.complexity(x)
    assert plain < 20 * 8 * np.log(2) < noise
    np.testing.assert_array_equal(detector.complexity(x / 255), [plain, noise])


def test_an_autoencoder_has_the_scores_without_draws():
    judge = anomaly.Detector(train("ae"), bars(600))
    assert judge.names == detector.DETERMINISTIC
    x = np.concatenate([bars(60, 5), bars(60, 6, across=True)])
    assert anomaly.judge(judge.score(x), np.arange(120) >= 60)["joint"]["auroc"] > 0.95
    with pytest.raises(ConfigError, match="score='neg_elbo' is not known"):
        judge.score(x, ["neg_elbo"])


def test_equal_norm():
    x = noisy_bars(5)
    y = anomaly.equal_norm(x, 0.1)
    np.testing.assert_allclose(np.sqrt((y.astype(float) ** 2).mean(axis=(1, 2, 3))), 0.1, rtol=1e-6)
    np.testing.assert_allclose(y, anomaly.equal_norm(x / 255 * 0.3, 0.1), rtol=1e-5)
    assert y.dtype == np.float32
    assert anomaly.equal_norm(x, 2).max() == 1
    np.testing.assert_array_equal(anomaly.equal_norm(np.zeros((2, *SHAPE))), 0)


def test_smoothing_keeps_the_sum_and_the_place():
    x = np.zeros((1, 40, 30, 2))
    x[0, 20, 12, 1] = 1
    y = detector.smooth(x)
    assert y.sum() == pytest.approx(1)
    assert np.unravel_index(y.argmax(), y.shape) == (0, 20, 12, 1)
    std = np.sqrt((y[0, :, :, 1].sum(1) * (np.arange(40) - 20) ** 2).sum())
    assert std == pytest.approx(detector.SMOOTHING * 40, rel=1e-3)


def test_the_heat_map_shows_a_stain(found):
    judge, _ = found
    x = bars(20, 5)
    clean = judge.heat_map(x)
    x[:, 3:5, 6:8] = np.where(x[:, 3:5, 6:8] > 100, 0, 255)
    maps = judge.heat_map(x)
    assert maps.shape == (20, 12, 10)
    assert (maps >= 0).all()
    rise = (maps - clean).mean(axis=0)
    row, column = np.unravel_index(rise.argmax(), rise.shape)
    assert row in (2, 3, 4, 5)
    assert column in (5, 6, 7, 8)


def test_too_few_normal_images(vae):
    with pytest.raises(DataError, match="normal holds 1 image"):
        anomaly.Detector(vae, bars(1))
    with pytest.raises(ConfigError, match="samples=0"):
        anomaly.Detector(vae, bars(9), samples=0)


# ---------------------------------------------------------------------------------------------- baselines


@pytest.mark.parametrize("n", [300, 40])  # more images than pixels, and fewer
def test_pca_equals_the_singular_value_decomposition(n):
    x, y = noisy_bars(n), bars(30, 2, across=True)
    flat, other = (v.reshape(len(v), -1) / 255 for v in (x, y))
    _, s, vt = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    q = int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), 0.9)) + 1
    rest = other - flat.mean(0)
    rest = rest - rest @ vt[:q].T @ vt[:q]
    pca = anomaly.PCA(x)
    assert pca.components.shape[1] == q
    np.testing.assert_allclose(pca.score(y), (rest**2).sum(axis=1), rtol=1e-3)


def test_pca_of_large_images_takes_some(monkeypatch):
    monkeypatch.setattr("tinyvae.measure.anomaly.baselines.FIT_IMAGES", 50)
    whole, some = anomaly.PCA(noisy_bars(51)).score(bars(9)), anomaly.PCA(noisy_bars(50)).score(bars(9))
    assert whole.shape == some.shape
    assert anomaly.PCA(noisy_bars(2000)).components.shape[1] <= 50


def test_nearest_neighbour_by_hand(monkeypatch):
    monkeypatch.setattr("tinyvae.measure.anomaly.baselines.BLOCK_ROWS", 7)
    x, y = noisy_bars(30), noisy_bars(40)[30:]
    a, b = x.reshape(30, -1) / 255, y.reshape(10, -1) / 255
    expected = np.linalg.norm(b[:, None] - a[None], axis=2).min(axis=1)
    np.testing.assert_allclose(anomaly.NearestNeighbour(x).score(y), expected, rtol=1e-5)


# ---------------------------------------------------------------------------------------------- protocols


def labelled(n=60):
    x = np.concatenate([bars(n), bars(n, 1, across=True)])
    order = np.random.default_rng(0).permutation(2 * n)
    return as_dataset(x[order], (np.arange(2 * n) >= n)[order].astype(np.uint8), label_names=("upright", "lying"))


def test_the_two_protocols():
    data = labelled()
    out, only = anomaly.leave_one_out(data, 1), anomaly.one_against_rest(data, 1)
    assert len(out.normal) == (data.train_labels == 0).sum()
    assert len(only.normal) == (data.train_labels == 1).sum()
    np.testing.assert_array_equal(out.anomalous, data.test_labels == 1)
    np.testing.assert_array_equal(only.anomalous, data.test_labels == 0)
    assert (out.name, only.name) == ("all but lying", "only lying")
    assert anomaly.class_of(data, "lying") == anomaly.class_of(data, "1") == 1


def test_classes_that_are_not_there():
    with pytest.raises(ConfigError, match="no class '7'; its classes are upright, lying"):
        anomaly.class_of(labelled(), "7")
    with pytest.raises(ConfigError, match="has no labels"):
        anomaly.class_of(as_dataset(bars(20)), "1")
    with pytest.raises(DataError, match="has no labels"):
        anomaly.leave_one_out(as_dataset(bars(20)), 1)
    with pytest.raises(DataError, match="class 5 holds 0 of"):
        anomaly.leave_one_out(labelled(), 5)


# ---------------------------------------------------------------------------------------------- the command


TINY = ("--latent-dim", "3", "--hidden", "32", "--epochs", "60")
RATE = ("--false-alarms", "0.05")


def run(*arguments, capsys):
    try:
        status = main(["anomaly", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    data = labelled(400)
    np.savez(path, images=data.train_images, labels=data.train_labels)
    return path


@pytest.mark.parametrize(("option", "label"), [("--leave-out", 1), ("--only", 0)])
def test_a_protocol_on_the_command_line(small, tmp_path, option, label, capsys):
    status, out, err = run("--data", small, option, label, "--out", tmp_path, *RATE, *TINY, capsys=capsys)
    assert status == 0, err
    for name in (*anomaly.SCORES, *anomaly.BASELINES):
        assert name in out
    assert "joint *" in out
    report = json.loads((tmp_path / "anomaly.json").read_text())
    assert report["figures"]["joint"]["auroc"] > 0.95
    assert f"{report['alarms']['alarms']} false alarms" in out
    assert (tmp_path / "anomalies.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Good pictures: upright bars; suspects: ten more and three lying ones, two of them in a sub-folder or not."""
    root = tmp_path_factory.mktemp("pictures")
    for name, images in (("good", bars(150)), ("suspects", np.concatenate([bars(10, 5), bars(3, 6, across=True)]))):
        (root / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image[..., 0]).save(root / name / f"{name}{i:03}.png")
    return root


def test_ranking_a_folder(folders, tmp_path, capsys):
    arguments = (
        "--data",
        folders / "good",
        "--rank",
        folders / "suspects",
        "--out",
        tmp_path,
        "--false-alarms",
        "0.05",
    )
    status, out, err = run(*arguments, "--latent-dim", 3, "--hidden", 32, "--epochs", 400, capsys=capsys)
    assert status == 0, err
    with (tmp_path / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["picture"] for r in rows[:3]} == {"suspects010.png", "suspects011.png", "suspects012.png"}
    assert float(rows[0]["p_joint"]) == pytest.approx(1 / 31)  # 30 of 150 calibrate
    assert set(rows[0]) == {"picture", "joint", "p_joint", "p_pca", "p_nearest_neighbour"}
    assert "of 13 pictures raise an alarm at a stated 5 %" in out
    assert "suspects010.png" in out


def test_a_rate_that_so_few_pictures_cannot_support(folders, tmp_path, capsys):
    status, out, _ = run(
        "--data", folders / "good", "--rank", folders / "suspects", "--out", tmp_path, "--epochs", 1, capsys=capsys
    )
    assert status == 0
    assert "0 of 13 pictures raise an alarm at a stated 1 %" in out
    assert "so few cannot support a rate below 3.2 %" in out


def test_ranking_with_a_run(folders, tmp_path, capsys, monkeypatch):
    made = tmp_path / "run"
    arguments = ("--data", folders / "good", "--out", made, "--epochs", 3, "--hidden", 16, "--latent-dim", 2)
    monkeypatch.setattr("tinyvae.app.run.draw_pictures", lambda run: [])  # takes seconds and is tested elsewhere
    assert main(["train", *map(str, arguments)]) == 0
    status, out, err = run(made, "--rank", folders / "suspects", "--out", tmp_path / "out", capsys=capsys)
    assert status == 0, err
    assert "calibrated on 15 good pictures" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "use one of --leave-out CLASS, --only CLASS and --rank FOLDER"),
        (("--only", "1", "--leave-out", "2"), "use one of"),
        (("--only", "1", "--score", "nonsense"), "score='nonsense' is not known"),
        (("--only", "11"), "no class '11'"),
        (("--only", "1", "--false-alarms", "2"), "alpha=2.0 must be below 1"),
        (("--only", "1", "--show", "0"), "show=0"),
        (("somewhere", "--only", "1"), "a RUN brings its own images"),
        (("somewhere", "--rank", "pictures", "--data", "mnist"), "a RUN brings its own images"),
        (("--rank", "pictures"), "--rank needs good pictures to compare with: add --data FOLDER"),
        (("--only", "1", "--model", "ae", "--score", "kl"), "score='kl' needs a Gaussian"),
    ],
)
def test_wrong_use(arguments, words, tmp_path, capsys):
    status, out, err = run(*arguments, "--out", tmp_path, capsys=capsys)
    assert status == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1
    assert out == ""


def test_the_sheet_says_what_does_not_fit(tmp_path):
    with pytest.raises(TinyvaeError, match="N at least 1"):
        plots.anomalies(bars(3), np.zeros((2, 12, 10)), tmp_path / "a.png")
