"""Figures of the latent space against known answers: aggregate posterior, classifier and its metrics, doctor.
Hand-made models and codes stand in where a trained one could only be compared with itself."""

import importlib
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from tinyvae import gradcheck_fn
from tinyvae.app.cli import main
from tinyvae.config import ModelConfig, TrainConfig
from tinyvae.datasets.dataset import as_dataset
from tinyvae.errors import CheckpointError, ConfigError, DataError, TinyvaeError
from tinyvae.kernels.ops import latent
from tinyvae.layers.priors import FullGaussian, StandardNormal
from tinyvae.measure import aggregate as agg
from tinyvae.measure import classifier as cls
from tinyvae.measure import classifier_metrics
from tinyvae.measure.doctor import latent as doctor
from tinyvae.models import Abilities, Batch


def normal(*shape, seed=0):
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


class Toy:
    """A model made of functions on arrays (N, numbers), with what the metrics need of a model."""

    def __init__(self, encode, decode, latent_dim, log_sigma=None, config=None):
        self._encode, self._decode, self.latent_dim, self.log_sigma = encode, decode, latent_dim, log_sigma
        self.can = Abilities(posterior=log_sigma is not None)
        self.prior = None if log_sigma is None else StandardNormal(latent_dim)
        self.config = config

    def encode(self, x, labels=None):
        z = self._encode(np.asarray(x, float).reshape(len(x), -1))
        return z, None if self.log_sigma is None else np.full(z.shape, self.log_sigma)

    def decode(self, z):
        return self._decode(z)[:, :, None, None]

    def draw_prior(self, n, seed=None, prior=None):
        z = normal(n, self.latent_dim, seed=1000 + seed)
        return z if prior is None else prior.place(z)

    def sample(self, n, seed=None, prior=None):
        return self.decode(self.draw_prior(n, seed, prior))


class Judge:
    """A classifier of rows: a function to probabilities; its features are the row itself."""

    def __init__(self, probabilities):
        self._probabilities = probabilities

    def probabilities(self, x):
        return self._probabilities(x.reshape(len(x), -1))

    def encode(self, x):
        return x.reshape(len(x), -1), None


def same(z):
    return z


# ---------------------------------------------------------------------------------------------- aggregate posterior


def test_dimension_kl_is_the_ops():
    m, s = normal(50, 3), 0.3 * normal(50, 3, seed=1) - 1
    kl, z = np.empty((50, 3)), np.empty((50, 3))
    latent.latent(np.concatenate([m, s], axis=1), np.zeros((50, 3)), z, kl)
    np.testing.assert_allclose(agg.dimension_kl(m, s), kl.mean(axis=0), rtol=1e-12)


def test_mixture_density_is_the_mean_of_the_densities(monkeypatch):
    monkeypatch.setattr(agg, "BLOCK", 3)  # several blocks, the last one ragged
    z, m, s = normal(7, 2), normal(5, 2, seed=1), 0.3 * normal(5, 2, seed=2)
    d = (z[:, None] - m) / np.exp(s)
    density = np.exp((-0.5 * d * d - s - 0.5 * np.log(2 * np.pi)).sum(-1)).mean(1)
    np.testing.assert_allclose(agg.log_mixture(z, m, s), np.log(density), rtol=1e-12)
    assert np.isfinite(agg.log_mixture(z + 1e3, m, s)).all()


def test_rate_split_where_the_aggregate_is_the_prior():
    """z_mean ~ N(0, 1 − s²) and noise s give q(z) = N(0, I): all of the KL is information, −log s per dimension."""
    s = 0.5
    m = np.sqrt(1 - s * s) * normal(4000, 2, seed=5)
    split = agg.rate_split(m, np.full(m.shape, np.log(s)))
    assert split.mutual_information == pytest.approx(-2 * np.log(s), abs=0.06)
    assert split.marginal_kl == pytest.approx(0, abs=0.06)
    assert not split.saturated
    assert agg.moments(m, np.full(m.shape, np.log(s))).kl_to_standard_normal() == pytest.approx(0, abs=0.01)


def test_rate_split_where_codes_say_nothing():
    """One q(z|x) for all: no information, and the KL is that of q(z) to the prior."""
    m, s = np.full((500, 2), 1.5), np.full((500, 2), np.log(0.3))
    split = agg.rate_split(m, s)
    assert split.mutual_information == pytest.approx(0, abs=1e-9)
    assert split.marginal_kl == pytest.approx(agg.dimension_kl(m, s).sum())
    assert agg.moments(m, s).kl_to_standard_normal() == pytest.approx(split.marginal_kl)


def test_rate_split_tells_no_more_than_log_n():
    split = agg.rate_split(normal(300, 3), np.full((300, 3), -8.0))
    assert split.mutual_information == pytest.approx(np.log(300))
    assert split.saturated


def test_rate_split_both_parts_are_estimates_of_their_own():
    """The second part, kl − information, is within its error what averaging log q(z) − log p(z) gives."""
    m, s = 2 * normal(3000, 2, seed=5) + 1, 0.2 * normal(3000, 2, seed=1) - 1
    split = agg.rate_split(m, s, seed=3)
    z = m + np.exp(s) * normal(3000, 2, seed=9)
    direct = agg.log_mixture(z, m, s) + 0.5 * (z * z + np.log(2 * np.pi)).sum(1)
    assert split.stderr > 0
    assert abs(split.marginal_kl - direct.mean()) < 6 * split.stderr


def test_codes_in_a_plane_have_no_gaussian_kl():
    assert FullGaussian(np.zeros(2), np.array([[1.0, 1.0], [1.0, 1.0]])).kl_to_standard_normal() == np.inf


def test_mmd_is_its_double_sum():
    a, b = normal(4, 2), normal(3, 2, seed=1) + 1

    def k(u, v):
        return 4 / (4 + np.square(u - v).sum())

    within = np.mean([k(a[i], a[j]) for i in range(4) for j in range(4) if i != j])
    within += np.mean([k(b[i], b[j]) for i in range(3) for j in range(3) if i != j])
    assert agg.mmd(a, b) == pytest.approx(within - 2 * np.mean([k(u, v) for u in a for v in b]))


def test_mmd_is_unbiased_and_grows_with_the_distance():
    zero = [agg.mmd(normal(50, 3, seed=2 * i), normal(50, 3, seed=2 * i + 1)) for i in range(200)]
    assert abs(np.mean(zero)) < 4 * np.std(zero) / np.sqrt(200)
    apart = [agg.mmd(normal(200, 3), normal(200, 3, seed=1) + shift) for shift in (0, 0.5, 1, 3)]
    assert apart == sorted(apart)


@pytest.mark.parametrize(
    ("scale", "shift", "filled", "reached"),
    [(1, 0, (0.9, 1), (0.9, 1)), (0.1, 0, (0, 0.1), (0.95, 1)), (10, 0, (0.9, 1), (0, 0.2)), (1, 20, (0, 0), (0, 0))],
)
def test_overlap_of_prior_and_codes(scale, shift, filled, reached):
    """The prior itself; a speck in its middle; ten times as wide; somewhere else."""
    codes, fresh = (scale * normal(2000, 2, seed=i) + shift for i in (0, 1))
    found = agg.overlap(codes, fresh, normal(2000, 2, seed=2), normal(2000, 2, seed=3))
    assert filled[0] <= found.filled <= filled[1]
    assert reached[0] <= found.reached <= reached[1]


def test_overlap_finds_a_hole_in_the_middle():
    """Codes on a ring: the prior's middle, about a third of it, holds none."""
    ring = [z[np.linalg.norm(z, axis=1) > 0.9][:1500] for z in (normal(4000, 2), normal(4000, 2, seed=1))]
    found = agg.overlap(*ring, normal(1500, 2, seed=2), normal(1500, 2, seed=3))
    assert 0.6 < found.filled < 0.85
    assert found.reached > 0.9


# ---------------------------------------------------------------------------------------------- classifier


def bars(n, seed=0):
    """n images (6, 5, 1) uint8 with a bright column, one of three, on noise; and which."""
    rng = np.random.Generator(np.random.Philox(seed))
    labels = rng.integers(0, 3, n)
    images = rng.integers(0, 60, (n, 6, 5, 1), dtype=np.uint8)
    images[np.arange(n), :, 2 * labels] = 200
    return images, labels


def test_softmax_nll_gradient():
    labels = np.array([0, 2, 1, 1])

    def forward(logits):
        return cls.softmax_nll(logits, labels)[0]

    def backward(grad_y, logits):
        return grad_y[:, None] * cls.softmax_nll(logits, labels)[1]

    report = gradcheck_fn(forward, backward, 3 * normal(4, 3))
    assert report.ok, str(report)


def test_softmax_of_huge_logits():
    logits = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]])
    nll, grad = cls.softmax_nll(logits, np.array([0, 0]))
    np.testing.assert_array_equal(nll, [0, 2000])
    np.testing.assert_array_equal(grad, [[0, 0], [-1, 1]])
    np.testing.assert_array_equal(cls.softmax(logits), [[1, 0], [0, 1]])


def test_softmax_nll_is_torchs():
    torch = pytest.importorskip("torch")
    logits, labels = normal(5, 4), np.array([3, 0, 1, 2, 3])
    x = torch.tensor(logits, requires_grad=True)
    torch.nn.functional.cross_entropy(x, torch.tensor(labels), reduction="sum").backward()
    nll, grad = cls.softmax_nll(logits, labels)
    np.testing.assert_allclose(grad, x.grad.numpy(), atol=1e-12)
    np.testing.assert_allclose(nll.sum(), -np.log(cls.softmax(logits)[np.arange(5), labels]).sum())


@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_classifier_gradient(device):
    """Every parameter of a tiny classifier, by 12 random directions, float64."""
    judge = cls.Classifier((6, 5, 1), 3, features=7, device=device, dtype="float64", seed=2)
    images, labels = bars(5)
    batch: Batch = judge.batch("train", 5)
    batch.x[:] = images / 255
    judge.labels = labels
    judge.loss_and_grad(judge.players[0], batch)
    values, grads = judge.table.values, judge.table.grads.copy()
    assert np.abs(grads).max() > 0
    start = values.copy()
    used = np.concatenate([np.arange(p, p + int(np.prod(t.shape))) for t, p in judge.table.places.values()])
    for seed in range(12):
        direction = np.zeros(len(values))
        direction[used] = normal(len(used), seed=seed)
        loss = []
        for sign in (1, -1):
            values[:] = start + sign * 1e-6 * direction
            judge.loss(batch)
            loss.append(batch.metrics[0])
        assert (loss[0] - loss[1]) / 2e-6 == pytest.approx(grads @ direction, rel=1e-5, abs=1e-7)


@pytest.fixture(scope="module")
def judge():
    return cls.Classifier((6, 5, 1), 3, features=8).fit(*bars(600), epochs=8)


def test_classifier_learns_and_repeats(judge):
    images, labels = bars(200, 1)
    assert judge.accuracy(images, labels) > 0.98
    np.testing.assert_allclose(judge.probabilities(images).sum(axis=1), 1)
    again = cls.Classifier((6, 5, 1), 3, features=8).fit(*bars(600), epochs=8)
    np.testing.assert_array_equal(again.table.values, judge.table.values)


def test_classifier_is_kept_in_a_file(tmp_path):
    data = as_dataset(*bars(100))
    path = tmp_path / "judge.npz"
    first = cls.train_classifier(data, epochs=1, cache=path)
    second = cls.train_classifier(data, epochs=1, cache=path)
    np.testing.assert_array_equal(first.table.values, second.table.values)
    with pytest.raises(CheckpointError, match="a classifier of array, not of this other"):
        cls.train_classifier(replace(data, name="other"), cache=path)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="holds no classifier"):
        cls.train_classifier(data, cache=path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: cls.Classifier((6, 5, 1), 1), "classes=1"),
        (lambda: cls.Classifier((6, 5, 1), 3, device="cuda"), "device='cuda'"),
        (lambda: cls.Classifier((6, 5, 1), 2).fit(*bars(20)), "from 0 to 1"),
        (lambda: cls.train_classifier(as_dataset(bars(20)[0])), "no labels"),
        (lambda: classifier_metrics.coverage(normal(3, 2), normal(3, 2)), "k=5"),
        (lambda: classifier_metrics.frechet_distance(normal(1, 2), normal(3, 2)), "two rows"),
        (lambda: agg.mmd(normal(1, 2), normal(3, 2)), "two rows"),
    ],
)
def test_impossible_requests(call, words):
    with pytest.raises(TinyvaeError, match=words):
        call()


# ---------------------------------------------------------------------------------------------- classifier metrics


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_smoothness_of_known_decoders(scale):
    """A straight decoder is even; one that stands still but for one step in 32 has all its speed there."""
    x = normal(40, 2)
    straight = classifier_metrics.smoothness(Toy(lambda x: scale * x, lambda z: z @ normal(2, 6), 2), x)
    assert straight.unevenness == pytest.approx(0, abs=1e-9)
    assert straight.jump == pytest.approx(1)
    two = np.array([[-1.0], [1.0]])
    stairs = classifier_metrics.smoothness(Toy(same, lambda z: scale * (z > 0.01).astype(float), 1), two, pairs=2)
    assert stairs.jump == pytest.approx(32)
    assert stairs.unevenness == pytest.approx(np.sqrt(31))


def test_smoothness_of_a_constant_decoder_is_not_a_number():
    assert np.isnan(classifier_metrics.smoothness(Toy(same, lambda z: 0 * z, 2), normal(5, 2)).jump)


def by_sign(x):
    """Two labels by the sign of the first number, sure of it."""
    right = x[:, :1] > 0
    return np.concatenate([np.where(right, 0.01, 0.99), np.where(right, 0.99, 0.01)], axis=1)


def test_kept_by_distance():
    """Codes at ±1, whose standard deviation is 1: a move of 1.5 crosses the border in one of two directions."""
    codes = np.repeat([[-1.0], [1.0]], 500, axis=0)
    model, judge = Toy(lambda x: 7 * x, lambda z: z / 7, 1), Judge(by_sign)
    assert classifier_metrics.kept(model, judge, codes, 0.5) == 1
    assert classifier_metrics.kept(model, judge, codes, 1.5) == pytest.approx(0.5, abs=0.07)
    with pytest.raises(ConfigError, match="distance=-1"):
        classifier_metrics.kept(model, judge, codes, -1)


def test_walks_that_meet_a_third_label():
    """Labels by thirds of a line from −1 to 1: from end to end the middle one is met, and the judge is unsure there."""

    def thirds(x):
        place = np.clip(np.floor((x[:, 0] + 1) * 1.5).astype(int), 0, 2)
        p = np.full((len(x), 3), 0.01)
        p[np.arange(len(x)), place] = np.where(place == 1, 0.6, 0.98)
        return p

    ends = np.array([[-0.9], [0.9]])
    seen = classifier_metrics.recognise(Toy(same, same, 1), Judge(thirds), ends, 0.9, steps=9)
    assert seen.steady == 0
    assert seen.share == pytest.approx(6 / 9)
    np.testing.assert_array_equal(seen.profile, [1, 1, 1, 0, 0, 0, 1, 1, 1])
    steady = classifier_metrics.recognise(Toy(same, same, 1), Judge(by_sign), ends, 0.9)
    assert (steady.steady, steady.share) == (1, 1)


def test_confidence_is_what_true_images_reach():
    sure = np.linspace(0.5, 1, 101)
    judge = Judge(lambda x: np.stack([x[:, 0], 1 - x[:, 0]], axis=1))
    assert classifier_metrics.confidence_of(judge, sure[:, None]) == pytest.approx(0.525)


def test_frechet_distance_of_known_moments():
    a = normal(500, 4)
    assert classifier_metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert classifier_metrics.frechet_distance(a, a + np.array([1, 2, 0, 0])) == pytest.approx(5)
    assert classifier_metrics.frechet_distance(3 * a, 5 * a) == pytest.approx(
        4 * a.var(axis=0, ddof=1).sum() + np.sum(4 * a.mean(0) ** 2)
    )


def test_frechet_distance_is_that_of_the_general_root():
    """The trace of (C_a C_b)^½ is the sum of the roots of the eigenvalues of C_a C_b, which is not symmetric."""
    a, b = normal(200, 3) @ normal(3, 3, seed=1), normal(300, 3, seed=2) @ normal(3, 3, seed=3) + 1
    C_a, C_b = np.cov(a.T), np.cov(b.T)
    root = np.sqrt(np.linalg.eigvals(C_a @ C_b).real).sum()
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(C_a) + np.trace(C_b) - 2 * root
    assert classifier_metrics.frechet_distance(a, b) == pytest.approx(expected)
    assert classifier_metrics.frechet_distance(b, a) == pytest.approx(expected)


def test_precision_and_coverage():
    true = normal(400, 2)
    assert classifier_metrics.coverage(true, true) == (1, 1)
    assert classifier_metrics.coverage(true, true + 100) == (0, 0)
    one = classifier_metrics.coverage(true, np.repeat(true[:1], 400, axis=0))  # always the same perfect image
    assert one.precision == 1
    assert one.coverage < 0.1


def test_classes_covered_by_sure_images_only():
    """100 images: 60 of class 0, one of class 1, 39 of which the judge is not sure; class 2 is never drawn."""

    def probabilities(x):
        return np.stack([x[:, 0], 0.99 - x[:, 0], np.full(len(x), 0.01)], axis=1)

    images = np.concatenate([np.full(60, 0.95), [0.02], np.full(39, 0.7)])[:, None]
    seen = classifier_metrics.classes_covered(Judge(probabilities), images, 0.9)
    np.testing.assert_allclose(seen.shares, [0.6, 0.01, 0])
    assert seen.covered == 2
    assert classifier_metrics.classes_covered(Judge(probabilities), images, 0.9, least=0.02).covered == 1
    assert classifier_metrics.classes_covered(Judge(probabilities), images, 0.5).shares[0] == pytest.approx(0.99)
    with pytest.raises(DataError, match="no image"):
        classifier_metrics.classes_covered(Judge(probabilities), images[:0], 0.9)


def test_report_of_all_judges_is_json(judge):
    images, _ = bars(60)
    z = normal(30, 2)

    def encode(x):
        return x @ z

    def decode(codes):
        return 1 / (1 + np.exp(-codes @ z.T))

    class Pictures(Toy):
        def decode(self, codes):
            return self._decode(codes).reshape(-1, 6, 5, 1)

    report = classifier_metrics.judge_report(Pictures(encode, decode, 2), judge, images / 255, images / 255, samples=50)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["classifier_frechet"] != report["classifier_frechet_standard_normal"]
    assert 0 <= report["kept"] <= 1


# ---------------------------------------------------------------------------------------------- doctor

CENTRES = 8 * np.array([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
PATIENTS = {  # codes of the images, log sigma of the noise, verdict
    "collapsed": (lambda n, s: 1e-3 * normal(n, 2, seed=s), -1e-3, "collapsed"),
    "collapsed, off centre": (lambda n, s: 3 + 1e-3 * normal(n, 2, seed=s), 0.0, "collapsed"),
    "clusters": (lambda n, s: CENTRES[np.arange(n) % 4] + 0.3 * normal(n, 2, seed=s), -3.0, "holes"),
    "too wide": (lambda n, s: 6 * normal(n, 2, seed=s), -3.0, "holes"),
    "too narrow": (lambda n, s: 0.05 * normal(n, 2, seed=s), -6.0, "holes"),
    "healthy": (lambda n, s: 0.95 * normal(n, 2, seed=s), np.log(0.3), "healthy"),
    "autoencoder": (lambda n, s: 6 * normal(n, 2, seed=s), None, "holes"),
    "autoencoder like the prior": (lambda n, s: normal(n, 2, seed=s), None, "healthy"),
}


@pytest.mark.parametrize("name", PATIENTS)
def test_doctor_on_codes_made_for_it(name):
    codes, log_sigma, verdict = PATIENTS[name]
    config = ModelConfig(model="ae" if log_sigma is None else "vae", latent_dim=2)
    model = Toy(same, None, 2, log_sigma, config)
    data = as_dataset(np.zeros((2, 1, 2, 1)), test_images=np.zeros((1, 1, 2, 1)))
    data = replace(data, train_images=codes(1500, 1), test_images=codes(1000, 2))
    found = doctor.examine(model, data)
    assert found.verdict == verdict, str(found)
    assert str(found).startswith(f"{verdict}: ")
    assert found.advice
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["verdict"] == verdict


FIGURES = {
    "kl_per_dimension": [0.0] * 4, "mutual_information": 0.0, "mutual_information_limit": 8.0, "active_units": 0,
    "latent_dim": 4, "mmd_standard_normal": 0.0, "filled_standard_normal": 0.95, "reached_standard_normal": 0.95,
    "filled": 0.9,
}  # fmt: skip
ILL = {"mutual_information": 8.0, "kl_per_dimension": [50.0] * 4, "mmd_standard_normal": 0.4, "active_units": 4}
WELL = {"mutual_information": 5.0, "kl_per_dimension": [2.0, 3.0, 0.0, 0.01], "active_units": 2}


@pytest.mark.parametrize(
    ("figures", "model", "train", "words"),
    [
        ({}, {}, {"beta": 20.0}, "beta is 20: train with --beta 1"),
        ({}, {"likelihood": "gaussian", "sigma": 5.0}, {}, "sigma is 5"),
        ({}, {"likelihood": "mse"}, {"warmup": 3}, "mse stands for sigma 1"),
        ({}, {}, {"epochs": 9}, "--warmup 3"),
        ({}, {}, {"warmup": 3}, "weaker decoder"),
        (ILL, {}, {"beta": 0.01}, "beta is 0.01: train with a larger one"),
        (ILL, {"likelihood": "gaussian", "sigma": 0.01}, {}, "sigma is 0.01"),
        (ILL, {}, {}, "--beta 2"),
        (ILL, {}, {"epochs": 10, "warmup": 10}, "the KL weight never reached beta"),
        (ILL | {"kl_per_dimension": None}, {"model": "conv-ae"}, {}, "train --model conv-vae"),
        (WELL, {}, {}, "2 of 4 dimensions are hardly used; --latent-dim 2 will do"),
        (WELL | {"kl_per_dimension": [2.0] * 4}, {}, {}, "a larger --latent-dim than 4"),
    ],
)
def test_doctors_advice_names_the_setting(figures, model, train, words):
    found = doctor.diagnose(FIGURES | figures, ModelConfig(**model), TrainConfig(**train))
    assert any(words in line for line in found.advice[:2])


def test_doctor_on_the_command_line(tmp_path, capsys):
    images, labels = bars(300)
    np.savez(tmp_path / "bars.npz", images=images, labels=labels)
    options = ["--epochs", "1", "--latent-dim", "2", "--hidden", "8", "--beta", "1000", "--device", "numpy"]
    out = tmp_path / "run"
    assert main(["train", "--data", str(tmp_path / "bars.npz"), "--out", str(out), *options]) == 0
    capsys.readouterr()
    assert main(["doctor", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("collapsed: ")
    assert "1. beta is 1000: train with --beta 1, or lower" in said
    assert main(["doctor", str(out), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "collapsed"
    assert len(report["figures"]["kl_per_dimension"]) == 2
    assert main(["doctor", str(tmp_path)]) == 2


def test_without_scikit_learn_the_estimator_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    monkeypatch.delitem(sys.modules, "tinyvae.sklearn", raising=False)
    with pytest.raises(ImportError, match="needs scikit-learn"):
        importlib.import_module("tinyvae.sklearn")


def test_wrong_labels_are_refused_by_name():
    with pytest.raises(DataError, match="one per image"):
        cls.Classifier((6, 5, 1), 3).fit(bars(20)[0], np.zeros(19, int))
