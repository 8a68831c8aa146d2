"""The exact likelihood proof: a linear VAE is probabilistic PCA, whose likelihood has a closed form.
Tipping & Bishop 1999; that its bound becomes tight: Lucas, Tucker, Grosse & Norouzi 2019, "Don't Blame the ELBO!"."""

from dataclasses import dataclass

import numpy as np
import pytest

from tinyvae import VAE
from tinyvae.config import TrainConfig
from tinyvae.layers import Dense, Flatten, Reshape, Sequential
from tinyvae.layers.likelihood import Gaussian
from tinyvae.measure.evaluate import active_units, evaluate, importance_sampling
from tinyvae.training.step import Feed, Step, evaluate_pass

D, LATENT, SIGMA, N = 8, 5, 0.5, 20_000
# Eigenvalues of the data's covariance, in units of SIGMA². Only those above 1, the noise, can be told by a code. They
# are exact in the sample: one at the noise would leave open whether a dimension is used.
EIGENVALUES = np.array([16, 7, 3] + [0.5] * (D - 3))
EPOCHS = 30


@dataclass
class Trained:
    """The converged model and its training images."""

    model: VAE
    images: np.ndarray


def draw(rng: np.random.Generator, basis: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """N images (1, D, 1) from N(shift, basis diag(SIGMA² · EIGENVALUES) basisᵀ), their covariance made exact."""
    g = rng.normal(size=(N, D))
    g -= g.mean(axis=0)
    g = np.linalg.solve(np.linalg.cholesky(g.T @ g / N), g.T).T
    return ((g * SIGMA * np.sqrt(EIGENVALUES)) @ basis.T + shift).reshape(N, 1, D, 1)


@pytest.fixture(scope="module")
def trained():
    rng = np.random.Generator(np.random.Philox(7))
    images = draw(rng, np.linalg.qr(rng.normal(size=(D, D)))[0], rng.normal(size=D))
    encoder = Sequential(Flatten(), Dense(D, 2 * LATENT))
    decoder = Sequential(Dense(LATENT, D), Reshape(1, D, 1))
    model = VAE(encoder, decoder, LATENT, (1, D, 1), likelihood=Gaussian(SIGMA), dtype="float64", seed=1)
    feed = Feed(model, images)
    step = Step(model, feed, TrainConfig(epochs=EPOCHS, batch_size=250, lr=0.03, schedule="cosine"))
    for epoch in range(EPOCHS):
        feed.shuffle(0, epoch)
        for _ in range(step.per_epoch):
            step.run()
    return Trained(model, images)


def decoder_of(model):
    return model.table.view("decoder.dense1.weight"), model.table.view("decoder.dense1.bias")  # (LATENT, D), (D,)


def exact_nll(model, images):
    """−log N(x; b, WᵀW + SIGMA² I) (N,), from the decoder's weights alone."""
    weight, bias = decoder_of(model)
    covariance = weight.T @ weight + SIGMA**2 * np.eye(D)
    d = images.reshape(-1, D) - bias
    quadratic = (d @ np.linalg.inv(covariance) * d).sum(axis=1)
    return 0.5 * (D * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + quadratic)


def test_elbo_reaches_the_exact_likelihood(trained):
    figures = evaluate_pass(trained.model, Feed(trained.model, trained.images))
    exact = exact_nll(trained.model, trained.images).mean()
    gap = figures["neg_elbo"] - exact
    assert -0.02 < gap < 0.05, gap  # below 0 only by the noise of one draw per image
    assert figures["neg_elbo"] == figures["recon"] + figures["kl"]


def test_decoder_is_the_maximum_likelihood_solution(trained):
    """With the noise known, the best marginal covariance has the data's eigenvalues, none below SIGMA²."""
    d = trained.images.reshape(-1, D)
    d = d - d.mean(axis=0)
    values, vectors = np.linalg.eigh(d.T @ d / N)
    best = (vectors * np.maximum(values, SIGMA**2)) @ vectors.T
    best_nll = 0.5 * (np.linalg.slogdet(2 * np.pi * best)[1] + (values / np.maximum(values, SIGMA**2)).sum())
    assert 0 <= exact_nll(trained.model, trained.images).mean() - best_nll < 0.02


def test_encoder_is_the_exact_posterior(trained):
    """p(z|x) = N(M⁻¹ W (x − b), SIGMA² M⁻¹), M = W Wᵀ + SIGMA² I: Tipping & Bishop 1999, equation 8."""
    weight, bias = decoder_of(trained.model)
    inverse = np.linalg.inv(weight @ weight.T + SIGMA**2 * np.eye(LATENT))
    z_mean, z_log_sigma = trained.model.encode(trained.images)
    exact = (trained.images.reshape(-1, D) - bias) @ (inverse @ weight).T
    deviation = np.sqrt(SIGMA**2 * np.diag(inverse))
    assert np.sqrt(np.square(z_mean - exact).mean()) < 0.05
    np.testing.assert_allclose(np.exp(z_log_sigma).mean(axis=0), deviation, rtol=0.03)
    assert z_log_sigma.std(axis=0).max() < 0.1  # the posterior's width is the same for every image


def test_active_units_are_the_eigenvalues_above_the_noise(trained):
    covariance = np.cov(trained.images.reshape(N, D).T, bias=True)
    assert (np.linalg.eigvalsh(covariance) > SIGMA**2).sum() == 3
    assert active_units(trained.model, trained.images) == 3


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_importance_sampled_nll_is_exact(trained, off):
    """Paired with the exact value of each image, against the estimate's own error; also where q(z|x) is far off.

    off: added to z_mean and z_log_sigma, whatever the image. A q that is too wide keeps the weights bounded.
    """
    model, images = trained.model, trained.images[:1000]
    bias = model.table.view("encoder.dense1.bias")
    bias += off
    try:
        estimate = importance_sampling(model, images, 1000)
    finally:
        bias -= off
    difference = estimate.nll - exact_nll(model, images)
    assert abs(difference.mean()) < 3 * difference.std(ddof=1) / np.sqrt(len(images))
    assert abs(difference.mean()) < 3 * estimate.mean_mc_error()
    np.testing.assert_allclose(difference.std(), np.sqrt(np.square(estimate.mc_error).mean()), rtol=0.1)
    gap = (estimate.neg_elbo - estimate.nll).mean()
    assert gap > 0.5 if off else gap < 0.05  # where q is off, the bound alone would be half a nat wrong


def test_reported_standard_error_holds_for_other_images(trained):
    """nll ± nll_stderr is a statement about images not seen: 3 standard errors cover the exact mean of the others."""
    report = evaluate(trained.model, trained.images[:1000], samples=64)
    exact = exact_nll(trained.model, trained.images[1000:])
    assert abs(report["nll"] - exact.mean()) < 3 * report["nll_stderr"]
    np.testing.assert_allclose(report["nll_stderr"], exact.std() / np.sqrt(1000), rtol=0.1)
    assert report["nll_mc_error"] < report["nll_stderr"] / 10
