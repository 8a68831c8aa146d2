"""Figures of a model against known answers: likelihoods by importance sampling, units in use, continuity, completeness.
Hand-made models stand in where a trained one could only be compared with itself; exact likelihoods are in test_ppca."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyvae import zoo
from tinyvae.config import TrainConfig
from tinyvae.datasets.dataset import as_dataset
from tinyvae.errors import ConfigError, DataError, TinyvaeError
from tinyvae.layers.priors import StandardNormal
from tinyvae.measure import evaluate as ev
from tinyvae.measure import latent_space as space
from tinyvae.models import Abilities
from tinyvae.training.step import Feed, Step, evaluate_pass

SHAPE, LATENT = (6, 5, 1), 3


def pictures(n, seed=0):
    """n images (6, 5, 1) uint8 of a bright bar that moves and changes its width: three numbers make an image."""
    rng = np.random.Generator(np.random.Philox(seed))
    place, width, level = rng.uniform(0, 5, (n, 1)), rng.uniform(0.5, 2, (n, 1)), rng.uniform(0.3, 1, (n, 1))
    row = level * np.exp(-(((np.arange(5) - place) / width) ** 2))
    return np.rint(255 * np.repeat(row[:, None, :, None], 6, axis=1)).astype(np.uint8)


def trained(name, epochs=4, **options):
    model = zoo.build(name, SHAPE, LATENT, (16,), **options)
    feed = Feed(model, pictures(1000))
    step = Step(model, feed, TrainConfig(epochs=epochs, batch_size=50, lr=5e-3))
    for epoch in range(epochs):
        feed.shuffle(0, epoch)
        for _ in range(step.per_epoch):
            step.run()
    return model


@pytest.fixture(scope="module")
def vae():
    return trained("vae")


@pytest.fixture(scope="module")
def ae():
    return trained("ae")


class Toy:
    """A model made of two functions on arrays, with what latent_space asks of a model."""

    def __init__(self, encode, decode, latent_dim, prior=True):
        self._encode, self._decode, self.latent_dim = encode, decode, latent_dim
        self.can, self.prior = Abilities(posterior=prior), StandardNormal(latent_dim) if prior else None

    def encode(self, x, labels=None):
        return self._encode(np.asarray(x, float).reshape(len(x), -1)), None

    def decode(self, z, labels=None):
        return self._decode(z)[:, :, None, None]

    def sample(self, n, seed=None, prior=None):
        z = np.random.default_rng(seed).normal(size=(n, self.latent_dim))
        return self.decode(z if prior is None else prior.place(z))


# ---------------------------------------------------------------------------------------------- likelihood


def test_log_mean_exp_of_huge_weights():
    values = np.array([[1e4, 1e4 + np.log(3)], [-1e4, -1e4], [-np.inf, 0.0], [-np.inf, -np.inf]])
    expected = [1e4 + np.log(2), -1e4, -np.log(2), -np.inf]
    np.testing.assert_allclose(ev.log_mean_exp(values), expected, rtol=1e-14)


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=6), st.floats(-1e6, 1e6))
def test_log_mean_exp_shifts(values, shift):
    """log mean exp(v + c) = c + log mean exp(v), between the mean and the largest."""
    v = np.array(values)
    found = float(ev.log_mean_exp(v))
    assert v.mean() - 1e-9 <= found <= v.max() + 1e-9
    np.testing.assert_allclose(ev.log_mean_exp(v + shift), found + shift, rtol=1e-9, atol=1e-6)


def test_summary_of_known_weights():
    log_w = np.log(np.array([[1.0, 3.0, 1.0, 3.0], [2.0, 2.0, 2.0, 2.0]])) + np.array([[5000.0], [-5000.0]])
    nll, neg_elbo, error, effective = ev._summary(log_w)
    np.testing.assert_allclose(nll, [-5000 - np.log(2), 5000 - np.log(2)])
    np.testing.assert_allclose(neg_elbo, [-5000 - np.log(3) / 2, 5000 - np.log(2)])
    np.testing.assert_allclose(effective, [64 / 20, 4])
    # the standard error of the mean of 1, 3, 1, 3, relative to that mean
    np.testing.assert_allclose(error, [np.std([1, 3, 1, 3], ddof=1) / 2 / 2, 0], atol=1e-7)


def test_one_huge_weight_is_one_effective_sample():
    log_w = np.zeros((1, 1000))
    log_w[0, 7] = 1e5
    nll, _, error, effective = ev._summary(log_w)
    assert nll[0] == pytest.approx(np.log(1000) - 1e5)
    assert effective[0] == pytest.approx(1)
    assert error[0] == pytest.approx(1, rel=1e-2)


def test_log_weights_are_the_three_densities(vae):
    """log w = log p(x|z) + log p(z) − log q(z|x), each written out from the public methods."""
    x = pictures(4, 1)
    batch = vae.batch("evaluate", 4, ev.CHUNK)
    vae.eval_clock.set(cursor=0, row=0)
    Feed(vae, x).fill(batch)
    log_w = ev._log_weights(vae, batch, ev.CHUNK)
    vae.eval_clock.set(step=0)
    z = vae.device.get(batch.twins["latent"].z).astype(float).reshape(4, ev.CHUNK, LATENT)
    z_mean, z_log_sigma = (h.astype(float)[:, None] for h in vae.encode(x))
    p = vae.decode(z.reshape(-1, LATENT)).astype(float).reshape(4, ev.CHUNK, -1)
    target = x.reshape(4, 1, -1) / 255
    log_px = (target * np.log(p) + (1 - target) * np.log1p(-p)).sum(-1)
    log_pz = -0.5 * (z**2 + np.log(2 * np.pi)).sum(-1)
    deviation = (z - z_mean) / np.exp(z_log_sigma)
    log_qz = (-0.5 * (deviation**2 + np.log(2 * np.pi)) - z_log_sigma).sum(-1)
    np.testing.assert_allclose(log_w, log_px + log_pz - log_qz, atol=2e-4)


def test_one_sample_has_the_mean_of_the_bound(vae):
    """K = 1: −log w estimates the ELBO; many images average the noise away."""
    x = pictures(4000, 2)
    bound = evaluate_pass(vae, Feed(vae, x))["neg_elbo"]
    found = ev.importance_sampling(vae, x, 1)
    np.testing.assert_array_equal(found.nll, found.neg_elbo)
    assert np.isnan(found.mc_error).all()
    assert found.mean_mc_error() is None
    spread = np.std(found.nll - ev.importance_sampling(vae, x, 256).neg_elbo)
    assert abs(found.nll.mean() - bound) < 4 * spread * np.sqrt(2 / len(x))  # two draws per image


def test_bound_tightens_as_samples_grow(vae):
    """Burda et al. 2016, theorem 1; the first draws are the same, so even one set of images shows it."""
    x = pictures(500, 3)
    means = [ev.importance_sampling(vae, x, k).nll.mean() for k in (1, 4, 16, 64, 256)]
    assert all(after < before for before, after in pairwise(means))
    assert means[-1] < evaluate_pass(vae, Feed(vae, x))["neg_elbo"]


@pytest.mark.parametrize("size", [1, 7, 500])
def test_result_does_not_depend_on_batch_size(vae, size, monkeypatch):
    x = pictures(40, 4)
    expected = ev.importance_sampling(vae, x, 20)
    monkeypatch.setattr(ev, "BATCH_PIXELS", 30 * ev.CHUNK * size)
    found = ev.importance_sampling(vae, x, 20)
    np.testing.assert_allclose(found.nll, expected.nll, rtol=1e-5)


def test_common_draws_make_a_figure_independent_of_its_neighbours(vae):
    x = pictures(12, 4)
    common = ev.importance_sampling(vae, x, 20, common=True)
    some = ev.importance_sampling(vae, x[5:8], 20, common=True)
    np.testing.assert_allclose(some.nll, common.nll[5:8], rtol=1e-6)
    np.testing.assert_allclose(ev.importance_sampling(vae, x, 20).nll[0], common.nll[0], rtol=1e-5)


def test_clock_is_put_back_and_result_repeats(vae):
    x = pictures(30, 5)
    before, bound = vae.eval_clock.get(), evaluate_pass(vae, Feed(vae, x))
    after_pass = vae.eval_clock.get()
    first = ev.importance_sampling(vae, x, 20, seed=9)
    np.testing.assert_array_equal(vae.eval_clock.get(), after_pass)
    assert before[0] == after_pass[0] == 0
    assert evaluate_pass(vae, Feed(vae, x)) == bound
    np.testing.assert_array_equal(ev.importance_sampling(vae, x, 20, seed=9).nll, first.nll)
    assert not np.array_equal(ev.importance_sampling(vae, x, 20, seed=10).nll, first.nll)


def test_clock_is_put_back_after_an_interruption(vae):
    def stop(done, total):
        raise KeyboardInterrupt

    before = vae.eval_clock.get()
    with pytest.raises(KeyboardInterrupt):
        ev.importance_sampling(vae, pictures(5), 20, seed=3, progress=stop)
    np.testing.assert_array_equal(vae.eval_clock.get(), before)


def test_noise_is_not_that_of_training(vae):
    """Importance samples are drawn at steps of the clock that training, which counts from 1, never reaches."""
    batch = vae.batch("evaluate", 2, ev.CHUNK)
    vae.eval_clock.set(cursor=0, row=0)
    Feed(vae, pictures(2)).fill(batch)
    ev._log_weights(vae, batch, ev.CHUNK)
    used, noise = vae.device.get(batch.twins["latent"].eps), {}
    for step in (0, 1, ev.FIRST_STEP):
        vae.eval_clock.set(step=step)
        batch.twins["latent"].forward(batch.twins["encoder"].forward(batch.x))
        noise[step] = vae.device.get(batch.twins["latent"].eps)
    vae.eval_clock.set(step=0)
    assert [np.array_equal(used, noise[step]) for step in noise] == [False, False, True]


def test_progress_reaches_the_end(vae, monkeypatch):
    monkeypatch.setattr(ev, "BATCH_PIXELS", 30 * ev.CHUNK * 10)
    seen = []
    ev.importance_sampling(vae, pictures(25), 3, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 25), (20, 25), (25, 25)]


# ---------------------------------------------------------------------------------------------- evaluate


def test_report_of_a_vae(vae):
    x = pictures(300, 6)
    report = ev.evaluate(vae, x, samples=32, nll_images=100)
    assert json.loads(json.dumps(report)) == report
    figures = evaluate_pass(vae, Feed(vae, x))
    assert all(report[name] == figures[name] for name in ("neg_elbo", "recon", "kl"))
    assert report["nll"] < report["neg_elbo"] + 3 * report["nll_stderr"]
    assert (report["images"], report["nll_images"], report["samples"], report["latent_dim"]) == (300, 100, 32, LATENT)
    assert 0 < report["nll_mc_error"] < report["nll_stderr"]
    assert 1 <= report["effective_samples"] <= 32
    assert report["posterior_gap"] > 0
    assert 0 <= report["active_units"] <= LATENT
    expected = np.sqrt(np.mean((x / 255 - vae.reconstruct(x)) ** 2))
    assert report["rmse"] == pytest.approx(expected, rel=1e-6)


def test_report_of_an_autoencoder_has_no_bound(ae):
    report = ev.evaluate(ae, pictures(50, 6), samples=32)
    missing = {"neg_elbo", "kl", "nll", "nll_stderr", "nll_mc_error", "posterior_gap", "active_units"}
    assert all(report[name] is None for name in missing)
    assert report["recon"] > 0
    assert report["rmse"] > 0


def test_no_samples_no_likelihood(vae):
    report = ev.evaluate(vae, pictures(10))
    assert report["nll"] is None
    assert report["samples"] == 0


def test_one_image_has_no_standard_error(vae):
    report = ev.evaluate(vae, pictures(1), samples=4)
    assert report["nll"] > 0
    assert report["nll_stderr"] is None


def test_binarised_images_are_those_of_evaluation(vae):
    """The figures on images binarised beforehand are the figures of the pass that binarises."""
    x = pictures(70, 7)
    seen = ev.binarized(vae, x, "dynamic")
    assert set(np.unique(seen)) == {0, 255}
    np.testing.assert_array_equal(seen, ev.binarized(vae, x, "static"))
    np.testing.assert_allclose(seen.mean() / x.mean(), 1, rtol=0.1)
    report = ev.evaluate(vae, x, binarize="static")
    figures = evaluate_pass(vae, Feed(vae, x, "static", evaluation=True))
    assert report["neg_elbo"] == pytest.approx(figures["neg_elbo"], rel=1e-12)
    assert report["neg_elbo"] != evaluate_pass(vae, Feed(vae, x))["neg_elbo"]


def test_latent_figures_join_where_training_images_are_given(vae):
    data = as_dataset(pictures(400), test_images=pictures(60, 8))
    said = []
    report = ev.full_report(vae, data, samples=4, nll_images=30, say=said.append)
    assert json.loads(json.dumps(report)) == report
    latent = ev.latent_report(vae, data)
    assert all(report[name] == value for name, value in latent.items())
    assert 0 <= report["completeness"] <= 1
    assert report["completeness"] == report["completeness_standard_normal"]
    assert len(latent["code_std"]) == LATENT
    assert said == ["importance sampling: 30 of 30 images"]


def test_latent_report_of_an_autoencoder_shows_both_priors(ae):
    data = as_dataset(pictures(400), test_images=pictures(60, 8))
    report = ev.latent_report(ae, data)
    assert report["active_units"] is None
    assert report["completeness"] != report["completeness_standard_normal"]
    assert report["completeness"] == ev.completeness(ae, data.train_images, data.test_images)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: ev.evaluate(m, pictures(3), samples=-1), "samples=-1"),
        (lambda m: ev.evaluate(m, pictures(3)[:0]), "at least one"),
        (lambda m: ev.evaluate(m, np.zeros((2, 4, 4, 1), np.uint8)), "must have shape"),
        (lambda m: ev.evaluate(m, pictures(3), binarize="maybe"), "binarize='maybe'"),
        (lambda m: ev.evaluate(m, pictures(3), samples=2, nll_images=0), "nll_images=0"),
        (lambda m: ev.importance_sampling(m, pictures(3), 0), "samples=0"),
        (lambda m: ev.continuity(m, pictures(1)), "two images"),
        (lambda m: ev.continuity(m, pictures(3), steps=1), "steps=1"),
        (lambda m: space.nearest(np.zeros((2, 3, 3, 1)), pictures(3)), "cannot be compared"),
    ],
)
def test_impossible_requests(vae, call, words):
    with pytest.raises(TinyvaeError, match=words):
        call(vae)


def test_autoencoder_has_nothing_to_draw_importance_samples_from(ae):
    with pytest.raises(ConfigError, match="samples=0"):
        ev.importance_sampling(ae, pictures(3), 4)


# ---------------------------------------------------------------------------------------------- the latent space


def test_active_units_of_known_codes():
    rng = np.random.default_rng(0)
    std = np.array([1.0, 0.11, 0.09, 0.0])  # 0.1² is the threshold
    codes = rng.normal(size=(4000, 4))
    codes = (codes - codes.mean(0)) / codes.std(0) * std + 7  # 7: a constant offset is not activity
    model = Toy(lambda x: codes, None, 4)
    assert ev.active_units(model, np.zeros((4000, 1))) == 2
    assert ev.active_units(model, np.zeros((4000, 1)), threshold=0.001) == 3


def test_fitted_prior_is_the_codes_gaussian(ae):
    x = pictures(200)
    prior = ev.fit_prior(ae, x)
    mean, covariance = prior.mean, prior.covariance
    codes = ae.encode(x)[0]
    np.testing.assert_allclose(mean, codes.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(covariance, np.cov(codes.T, bias=True), rtol=1e-3, atol=1e-3)
    drawn = ae.draw_prior(20_000, 1, prior)
    np.testing.assert_allclose(drawn.mean(axis=0), mean, atol=4 * np.sqrt(np.diag(covariance).max() / 20_000))


def test_continuity_of_a_perfect_model_is_zero():
    model = Toy(lambda x: x, lambda z: z, 3)
    assert ev.continuity(model, np.random.default_rng(0).normal(size=(50, 3, 1, 1))) < 1e-12


def test_continuity_has_no_units():
    """encode ∘ decode shifts every code by a tenth of their total standard deviation, whatever their scale."""
    for scale in (1e-3, 1.0, 1e3):
        x = scale * np.random.default_rng(0).normal(size=(50, 3, 1, 1))
        shift = 0.1 * np.sqrt(x.reshape(50, 3).var(axis=0).sum()) * np.array([0.6, 0, 0.8])
        model = Toy(lambda x: x, lambda z, s=shift: z + s, 3)
        assert ev.continuity(model, x) == pytest.approx(0.1, rel=1e-9)


def test_continuity_finds_the_gap_between_codes():
    """A model that knows only two codes, −1 and 1, and sends every other to the nearer: |z − sign z| on average."""
    x = np.repeat([-1.0, 1.0], 500)[:, None, None, None]
    model = Toy(lambda x: np.where(x > 0, 1.0, -1.0), lambda z: z, 1)
    profile = space.continuity_profile(model, x, pairs=1000, steps=12)
    assert profile[0] == profile[-1] == 0
    assert profile.argmax() in (5, 6)
    crossing = profile[5] / (1 - 1 / 11)  # half of the seeded pairs join the two codes
    assert crossing == pytest.approx(0.5, abs=0.06)


def test_continuity_of_a_collapsed_model_is_unknown():
    model = Toy(lambda x: np.zeros((len(x), 2)), lambda z: z, 2)
    assert np.isnan(ev.continuity(model, np.zeros((5, 2, 1, 1))))


def test_nearest_is_the_nearest(monkeypatch):
    monkeypatch.setattr(space, "BLOCK_ROWS", 7)
    train, x = pictures(50), pictures(20, 9)
    flat = (train.reshape(50, -1) / 255.0, x.reshape(20, -1) / 255.0)
    exact = np.sqrt(((flat[1][:, None] - flat[0][None]) ** 2).sum(-1))
    distance, place = space.nearest(x, train)
    np.testing.assert_array_equal(place, exact.argmin(axis=1))
    np.testing.assert_allclose(distance, exact.min(axis=1), rtol=1e-5)
    skipped, other = space.nearest(x, train, skip=place)
    np.testing.assert_allclose(skipped, np.sort(exact, axis=1)[:, 1], rtol=1e-5)
    assert (other != place).all()
    assert space.nearest(train, train)[0].max() == 0  # an image is its own neighbour, without rounding


def test_novelty_of_copies_and_single_images():
    train = np.concatenate([pictures(20), pictures(20)])  # each image twice
    distance, ratio = space.novelty(train[:5], train)
    np.testing.assert_array_equal(distance, 0)
    np.testing.assert_array_equal(ratio, 0)
    distance, ratio = space.novelty(train[:5], train[:1])
    np.testing.assert_array_equal(distance, ratio)


def test_completeness_of_samples_that_are_training_images_is_one():
    rng = np.random.default_rng(0)
    train, test = rng.random((200, 4, 1, 1)), rng.random((100, 4, 1, 1))
    model = Toy(None, lambda z: train[np.arange(len(z)) % 200, :, 0, 0], 4)
    assert ev.completeness_shares(model, train, test) == (1.0, 1.0)
    far = Toy(None, lambda z: 50 + z, 4)
    assert ev.completeness_shares(far, train, test) == (0.0, 0.0)


def test_completeness_of_true_images_is_the_quantile():
    """Samples from the images' own distribution pass as often as the test images: 95 of 100."""
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(2000, 2, 1, 1)), rng.normal(size=(2000, 2, 1, 1))
    shares = ev.completeness_shares(Toy(None, lambda z: z, 2), train, test, samples=4000)
    assert shares.near == pytest.approx(0.95, abs=0.03)
    assert shares.local == pytest.approx(0.95, abs=0.03)


def test_local_yardstick_rejects_faint_samples():
    """Images: a dense crowd near 0, a wide one far out. Samples beside the dense one are near it, but unlike it."""
    rng = np.random.default_rng(0)

    def crowds(n):
        return np.concatenate([rng.normal(size=(n, 2)) * 0.01, 3 * rng.normal(size=(n, 2)) + 30])[:, :, None, None]

    model = Toy(None, lambda z: 0.25 + 0.01 * z, 2)
    shares = ev.completeness_shares(model, crowds(300), crowds(300))
    assert shares.near > 0.95
    assert shares.local < 0.05


def test_autoencoder_draws_from_its_codes():
    """N(0, I) misses codes that lie elsewhere; the Gaussian fitted to them does not."""
    train, test = 20 + np.random.default_rng(5).normal(size=(2, 1000, 2, 1, 1))
    model = Toy(lambda x: x, lambda z: z, 2, prior=False)
    assert ev.completeness(model, train, test) == pytest.approx(0.95, abs=0.03)
    assert ev.completeness(model, train, test, prior=StandardNormal(2)) == 0


def test_collapsed_report_is_still_json():
    """A VAE whose codes are all the same: no continuity, but a report."""
    model = Toy(lambda x: np.zeros((len(x), 2)), lambda z: z, 2)
    report = space.latent_figures(model, np.ones((5, 2, 1, 1)), np.ones((5, 2, 1, 1)))
    assert report["continuity"] is None
    json.dumps(report, allow_nan=False)


def test_empty_images_say_so(vae):
    with pytest.raises(DataError, match="no image"):
        ev.importance_sampling(vae, pictures(1)[:0], 3)
