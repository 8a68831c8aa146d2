"""The importance weighted autoencoder: what k = 1 is, what more draws give, and the doubly reparameterised gradient.
Weights and loss are written down again here from the densities."""

import numpy as np
import pytest

from tinyvae import gradcheck, zoo
from tinyvae.errors import ConfigError
from tinyvae.layers import Dense, Flatten, Reshape, Sequential
from tinyvae.measure.evaluate import importance_sampling
from tinyvae.models import IWAE, VAE
from tinyvae.training.step import Feed, evaluate_pass

SHAPE = (3, 2, 1)


def layers():
    return Sequential(Flatten(), Dense(6, 4)), Sequential(Dense(2, 6, "tanh"), Dense(6, 6), Reshape(*SHAPE))


def pictures(n, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (n, *SHAPE))


def filled(model, x, role="train"):
    batch = model.batch(role, len(x))
    model.device.put(x, batch.x)
    return batch


def run(model, x):
    """Metrics and every gradient by name."""
    batch = filled(model, x)
    model.loss_and_grad(model.players[0], batch)
    grads = {name: model.device.get(model.table.grad(name)) for name in model.table.names()}
    return model.device.get(batch.metrics), grads


def build(device="numpy", dtype="float64", cls=IWAE, **options):
    return cls(*layers(), 2, SHAPE, device=device, dtype=dtype, seed=3, **options)


def test_one_draw_is_the_vae_with_the_kl_of_the_draw(device):
    """The loss is nll + log q(z|x) − log p(z); with the VAE's draw and the analytic KL in its place, the VAE's."""
    x = pictures(4)
    ours, theirs = build(device, samples=1), build(device, cls=VAE)
    metrics, _ = run(ours, x)
    want, _ = run(theirs, x)
    np.testing.assert_allclose(metrics[1:], want[1:], rtol=1e-12)  # recon and kl: the same weights, the same eps
    latent = ours.batch("train", 4).twins["latent"]
    h, z = ours.device.get(latent.h), ours.device.get(latent.z)
    log_q = -0.5 * ((z - h[:, :2]) / np.exp(h[:, 2:])) ** 2 - h[:, 2:]
    np.testing.assert_allclose(metrics[0], want[1] + (log_q + 0.5 * z * z).sum() / 4, rtol=1e-12)


def draws_of_grad_h(model, x, rows=100, steps=100):
    """(rows · steps, 4): the gradient of one image with respect to h, draw by draw."""
    found = []
    for step in range(steps):
        model.clock.set(step=step)
        run(model, np.repeat(x, rows, axis=0))
        found.append(model.device.get(model.batch("train", rows).twins["latent"].grad_h) * rows)
    return np.concatenate(found)


def test_the_mean_gradient_of_one_draw_is_the_vaes():
    """Over 10,000 draws: the KL of the draw and the analytic one have the same expected gradient."""
    ours, theirs = (draws_of_grad_h(m, pictures(1)) for m in (build(samples=1), build(cls=VAE)))
    apart = np.abs(ours.mean(axis=0) - theirs.mean(axis=0))
    assert (apart <= 4 * (ours - theirs).std(axis=0) / 100).all()  # the same eps: the difference's own error
    assert ((ours - theirs).std(axis=0) > 0.01).all()


def test_the_bound_gets_tighter_with_more_draws(device):
    """The loss falls with k, from the negative ELBO towards −log p(x)."""
    x, found = pictures(200), {}
    for k in (1, 5, 50):
        model = build(device, samples=k)
        model.device.put(3 * model.device.get(model.table.values), model.table.values)  # so that q is a poor fit
        model.loss(filled(model, x))
        loss, recon, kl = model.device.get(model.batch("train", 200).metrics)
        found[k] = loss
        if k > 1:
            assert loss < recon + kl
    assert found[50] < found[5] < found[1]
    nll = importance_sampling(model, x, 2000).nll.mean()
    assert nll - 0.05 < found[50] < found[1]
    assert abs(nll - found[50]) < 0.5 * abs(nll - found[1])


def test_evaluation_does_not_depend_on_the_batch_size(device):
    model, x = build(device, samples=3), (pictures(13) * 255).astype(np.uint8)
    feed = Feed(model, x)
    whole, pieces = evaluate_pass(model, feed, 13), evaluate_pass(model, feed, 4)
    assert whole == pytest.approx(pieces, rel=1e-12)


def test_doubly_reparameterised_has_the_same_mean_and_less_noise(device):
    """Over 10,000 draws (100 steps of 100 equal images) each encoder gradient is within 4 standard errors of the plain
    estimate's, and its variance is lower. The decoder's gradients are the same."""
    draws, grads = [], []
    for doubly in (False, True):
        model = build(device, samples=5, doubly=doubly)
        model.device.put(2 * model.device.get(model.table.values), model.table.values)
        draws.append(draws_of_grad_h(model, pictures(1)))
        grads.append(run(model, pictures(3))[1])
    plain, doubled = draws
    assert len(plain) == 10_000
    error = np.hypot(plain.std(axis=0), doubled.std(axis=0)) / 100
    assert (np.abs(plain.mean(axis=0) - doubled.mean(axis=0)) <= 4 * error).all()
    noise = doubled.var(axis=0) / plain.var(axis=0)
    assert (noise < 1).all(), noise
    for name, grad in grads[1].items():
        assert np.array_equal(grad, grads[0][name]) == name.startswith("decoder")


def test_where_q_is_exact_the_doubly_reparameterised_gradient_is_zero(device):
    """The decoder ignores z, so the posterior is the prior: at q = N(0, I) all weights are equal, without noise."""
    model = build(device, samples=3, doubly=True)
    for name in ("encoder.dense1.weight", "encoder.dense1.bias", "decoder.dense1.weight"):
        model.device.fill(model.table.view(name), 0)
    _, grads = run(model, pictures(4))
    assert all(np.abs(grads[name]).max() < 1e-14 for name in grads if name.startswith("encoder"))
    plain = build(device, samples=3)
    plain.device.put(model.device.get(model.table.values), plain.table.values)
    _, noisy = run(plain, pictures(4))
    assert np.abs(noisy["encoder.dense1.bias"]).max() > 1e-3


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("doubly", [False, True], ids=["plain", "doubly"])
def test_gradients(device, samples, doubly):
    """Every element: the plain estimate against the loss, the doubly reparameterised one against its surrogate."""
    report = gradcheck(build(device, samples=samples, doubly=doubly))
    assert report.ok, report


def test_the_surrogate_is_not_the_loss():
    """The check above can fail: against the loss itself the doubly reparameterised gradient is wrong."""
    model = build(samples=4, doubly=True)
    model.frozen = lambda batch: None
    assert not gradcheck(model).ok


def test_options():
    model = zoo.build("iwae", SHAPE, 2, (4,), samples=7, doubly=True)
    assert (model.samples, model.doubly, model.batch("train", 3).samples) == (7, True, 7)
    assert model.batch("train", 3).twins["decoder"].twins[0].y.shape[0] == 21
    for option, value in (("samples", 0), ("samples", 2.5)):
        with pytest.raises(ConfigError, match=option):
            zoo.build("iwae", SHAPE, 2, (4,), **{option: value})
    with pytest.raises(ConfigError, match="samples=3 is an option of iwae, not of vae"):
        zoo.build("vae", SHAPE, 2, (4,), samples=3)
