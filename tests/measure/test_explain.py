"""`tinyvae explain` against numbers worked out by hand, for the ways in which the field's programs write their losses.
It trains nothing, but for one case: the loss that it names must have the minimum of the loss that it explains."""

import math

import numpy as np
import pytest

import tinyvae
from tinyvae.app.cli import main
from tinyvae.errors import ConfigError

explain = tinyvae.explain_objective
LOG_2PI = math.log(2 * math.pi)

CONVENTIONS = {  # name: (options, beta, sigma), worked out by hand
    # Keras: 784 · (mean over pixels of the cross-entropy) + KL summed over latents, mean of both over the batch
    "keras, bce": ({"recon": "bce", "pixels": "mean", "recon_weight": 784}, 1.0, None),
    "keras, reduce_sum": ({"recon": "bce"}, 1.0, None),
    # Keras: 784 · reduce_mean(bce), but the KL a mean over the two latents too: half of the KL is missing
    "keras, reduce_mean": (
        {"recon": "bce", "pixels": "mean", "recon_weight": 784, "latents": "mean", "latent_dim": 2}, 1 / 2, None
    ),
    # Keras: 784 · mse + KL is Σ d² + KL = 2 (½ Σ d² + ½ KL)
    "keras, mse": ({"recon": "mse", "pixels": "mean", "recon_weight": 784}, 1 / 2, math.sqrt(1 / 2)),
    # PyTorch's examples/vae: both terms summed over everything; the batch cancels
    "pytorch, bce": ({"recon": "bce", "batch": "sum", "kl_batch": "sum"}, 1.0, None),
    # the same with F.binary_cross_entropy's default, a mean: the KL weighs 784 · 128 times
    "pytorch, a mean forgotten": (
        {"recon": "bce", "pixels": "mean", "kl_batch": "sum", "batch_size": 128}, 784.0 * 128, None
    ),
    # PyTorch-Lightning style: F.mse_loss, a mean over everything, + kld_weight · mean over the batch of the KL
    "lightning, 0.00025": (
        {"recon": "mse", "pixels": "mean", "kl_weight": 0.00025, "image_shape": (64, 64, 3)}, 1.536, math.sqrt(1.536)
    ),
    # the same with kld_weight = batch / number of training images = 64 / 162,770
    "lightning, M_N": (
        {"recon": "mse", "pixels": "mean", "kl_weight": 64 / 162770, "image_shape": (64, 64, 3)},
        64 / 162770 * 12288 / 2, math.sqrt(2.41577),
    ),
    "half a squared error": ({"recon": "mse", "recon_weight": 0.5, "kl_weight": 4.0}, 4.0, 2.0),
    "summed squared error, KL averaged over 10 latents": (
        {"recon": "mse", "latents": "mean", "latent_dim": 10}, 1 / 20, math.sqrt(1 / 20)
    ),
    "recon summed over the batch, KL averaged": (
        {"recon": "bce", "batch": "sum", "batch_size": 100, "kl_weight": 50}, 0.5, None
    ),
    # 1 · RMSE + 0.001 · KL at an RMSE of 0.1: RMSE acts as Σ d² / (2 · 0.1 · 784)
    "rmse": ({"recon": "rmse", "pixels": "mean", "kl_weight": 0.001, "rmse": 0.1}, 0.0784, 0.28),
    # the root of the sum is 28 times the root of the mean
    "root of the summed error": ({"recon": "rmse", "kl_weight": 0.028, "rmse": 0.1}, 0.0784, 0.28),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
def test_conventions_by_hand(name):
    options, beta, sigma = CONVENTIONS[name]
    found = explain(**options)
    assert found.beta == pytest.approx(beta, rel=1e-12)
    assert found.sigma == (None if sigma is None else pytest.approx(sigma, rel=1e-5))
    if options["recon"] == "mse":
        assert f"--likelihood mse --beta {beta:.4g}" in str(found)


@pytest.mark.parametrize("recon", ["bce", "mse"])
def test_a_factor_before_the_whole_loss_changes_nothing(recon):
    one, ten = (explain(recon, recon_weight=w, kl_weight=3 * w) for w in (1.0, 10.0))
    assert one.beta == pytest.approx(ten.beta, rel=1e-12)


def test_the_rmse_that_is_not_known():
    found = explain("rmse", pixels="mean", kl_weight=0.001)
    assert (found.beta, found.sigma, found.recon) == (None, None, None)
    assert "beta = sigma² = 0.784 · RMSE" in str(found)
    own = explain("rmse", pixels="mean", kl_weight=0.001, rmse=0.784)
    assert own.sigma == pytest.approx(0.784)


def test_an_rmse_has_the_slope_of_the_squared_error_that_is_named():
    """The gradient of RMSE + k · KL is proportional to that of ½ Σ d² + beta · KL."""
    rng, k, h = np.random.default_rng(0), 0.002, 1e-6
    d = rng.standard_normal(48)
    rmse = math.sqrt(np.mean(d**2))
    found = explain("rmse", (4, 4, 3), pixels="mean", kl_weight=k, rmse=rmse)
    moved = d + h * (np.arange(48) == 5)
    slope = (math.sqrt(np.mean(moved**2)) - rmse) / h
    assert slope / k == pytest.approx(d[5] / found.beta, rel=1e-5)


def test_nats_and_bits():
    """10,000 and 3,000 nats over a batch of 128; a mean squared error with the sigma that it implies."""
    found = explain("bce", batch="sum", kl_batch="sum", batch_size=128, recon_value=10_000, kl_value=3_000)
    assert (found.recon, found.kl) == (78.125, 23.4375)
    assert found.neg_elbo == 101.5625
    assert found.bits_per_pixel == pytest.approx(101.5625 / 784 / math.log(2), rel=1e-12)
    found = explain("mse", pixels="mean", kl_weight=1 / 784 / 8, recon_value=0.04, kl_value=16, pixel_range=2.0)
    assert found.sigma == pytest.approx(0.25)  # beta = 784 / 784 / 16
    assert found.rmse == pytest.approx(0.2)
    nats = 784 * (0.04 / (2 * 0.0625) + math.log(0.25) + 0.5 * LOG_2PI)
    assert found.recon == pytest.approx(nats, rel=1e-12)
    bits = ((nats + 16) / 784 + math.log(255 / 2)) / math.log(2)
    assert found.bits_per_pixel == pytest.approx(bits, rel=1e-12)
    found = explain("mse", pixels="mean", kl_value=2, latents="mean", latent_dim=5)
    assert (found.kl, found.recon, found.neg_elbo) == (10, None, None)
    assert explain("rmse", pixels="mean", batch="sum", batch_size=4, kl_batch="sum", recon_value=0.4).rmse == 0.1


@pytest.mark.parametrize(("pixel_range", "beta"), [(1.0, 0.5), (2.0, 0.125), (255.0, 0.5 / 255**2)])
def test_the_range_of_pixels(pixel_range, beta):
    """Errors on [−1, 1] are twice as large, their squares four times."""
    found = explain("mse", pixel_range=pixel_range)
    assert found.beta == 0.5
    assert f"--beta {beta:.4g}" in str(found)


def test_the_named_beta_has_the_same_minimum():
    """The loss of --likelihood mse with that beta is theirs, times P/2 and but for a constant."""
    images = np.random.default_rng(0).random((8, 3, 2, 1), np.float32)
    found = explain("mse", (3, 2, 1), pixels="mean", kl_weight=0.1)
    assert found.beta == pytest.approx(0.3)
    model = tinyvae.zoo.build("vae", (3, 2, 1), 2, (4,), "mse", device="numpy", dtype="float64")
    row = tinyvae.train(model, images, epochs=1, batch_size=8, beta=found.beta, optimizer="sgd", lr=1e-9)[0]["train"]
    squares = 2 * (row["recon"] - 3 * LOG_2PI)  # summed over the six pixels
    theirs = squares / 6 + 0.1 * row["kl"]
    assert row["loss"] - 3 * LOG_2PI == pytest.approx(theirs * 6 / 2, rel=1e-6)


BAD = {
    "recon": ({"recon": "l1"}, "recon='l1' is not known; use one of 'bce', 'mse', 'rmse'"),
    "pixels": ({"pixels": "none"}, "pixels='none' is not known"),
    "latent_dim": ({"latents": "mean"}, "latent_dim=None: the KL is averaged over the latents, so give --latent-dim N"),
    "batch_size": ({"batch": "sum"}, "batch_size=None: a term is summed over the batch, so give --batch-size N"),
    "recon_weight": ({"recon_weight": 0}, "recon_weight=0 must be a number above 0"),
    "kl_weight": ({"kl_weight": -1.0}, "kl_weight=-1.0 must be a number of at least 0"),
    "image_shape": ({"image_shape": (28, 28, 0)}, "image_shape=0 must be an integer of at least 1 each"),
    "rmse": ({"recon": "rmse", "rmse": 0.0}, "rmse=0.0 must be a number above 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_use_is_one_sentence(name):
    options, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        explain(**options)


def test_the_command(capsys):
    options = ["--recon", "mse", "--image-size", "64", "--channels", "3", "--pixels", "mean", "--kl-weight", "0.00025"]
    assert main(["explain", *options]) == 0
    out = capsys.readouterr().out
    assert "effective beta  1.536 at unit variance" in out
    assert "implied sigma   1.239" in out
    assert "124 % of the pixels' range" in out
    assert main(["explain", "--kl-weight", "0"]) == 0
    assert "there is no KL in the loss" in capsys.readouterr().out
    assert main(["explain", "--batch", "sum"]) == 2
