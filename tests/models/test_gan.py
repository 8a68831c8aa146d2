"""GAN, VAE-GAN and AAE: losses written down again, whose gradients a turn fills, what a player does that moves alone.
What all models share is in test_models.py; here stands what models of several players do instead."""

import json

import numpy as np
import pytest

import tinyvae
from tinyvae import gradcheck, zoo
from tinyvae.app.cli import main
from tinyvae.app.run import open_run
from tinyvae.check.differences import Plan
from tinyvae.check.table import checks
from tinyvae.config import TrainConfig
from tinyvae.datasets import as_dataset
from tinyvae.errors import ConfigError, DataError, ShapeError
from tinyvae.kernels import lacking
from tinyvae.layers import Dense, Flatten, Reshape, Sequential
from tinyvae.models import GAN, VAEGAN, AdversarialAutoEncoder
from tinyvae.training.step import Feed, Step, evaluate_pass
from tinyvae.training.trainer import train

SHAPE = (3, 2, 1)
NAMES = pytest.mark.parametrize("name", ["dense-gan", "gan"])
PLACES = {check.name.split()[0]: check.places for check in checks(("model",))}
EVERY = pytest.mark.parametrize("name", ["dense-gan", "gan", "vae-gan", "aae"])


def build(device="numpy", name="dense-gan", dtype="float64", **options):
    absent = lacking(device) & set(PLACES[name])
    if absent:
        pytest.skip(f"the {device} column lacks {', '.join(absent)}")
    return zoo.build(name, SHAPE, 2, (5,), device=device, dtype=dtype, seed=3, **options)


def pictures(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


def filled(model, x):
    batch = model.batch("train", len(x))
    model.device.put(model.as_images(x), batch.x)
    return batch


def modes(n):
    """Two pictures, in turn: the left column white, or the right one."""
    x = np.zeros((n, *SHAPE), np.uint8)
    x[::2, :, 0], x[1::2, :, 1] = 255, 255
    return x


def dense(x, model, layer, act):
    weight, bias = (model.device.get(model.table.view(f"{layer}.{name}")) for name in ("weight", "bias"))
    return act(x.reshape(len(x), -1) @ weight + bias)


def logits(x, model):
    h = dense(x, model, "discriminator.dense1", lambda v: np.where(v > 0, v, 0.2 * v))
    return dense(h, model, "discriminator.dense2", lambda v: v)


# ------------------------------------------------------------------------------------------------ losses and gradients


def test_both_losses_by_hand(device):
    """−log D(x), −log(1 − D(G(z))) and −log D(G(z)) from the weights, with z as it was drawn."""
    model, x = build(device), pictures(4)
    batch = filled(model, x)
    model.loss(batch)
    found = model.device.get(batch.metrics)
    z = model.device.get(batch.twins["prior"].z)
    h = dense(z, model, "generator.dense1", lambda v: np.maximum(v, 0))
    fake = dense(h, model, "generator.dense2", lambda v: 1 / (1 + np.exp(-v)))
    on_real, on_fake = (1 / (1 + np.exp(-logits(images, model))) for images in (x / 255, fake))
    real, made, judged = (-np.log(p).mean() for p in (on_real, 1 - on_fake, on_fake))
    np.testing.assert_allclose(found, [real + made, real, made, judged, judged, 0], rtol=1e-12)
    losses = {player.name: model.loss_of(player, batch) for player in model.players}
    assert losses == pytest.approx({"discriminator": real + made, "generator": judged}, rel=1e-12)
    np.testing.assert_allclose(model.decode(z), fake.reshape(4, *SHAPE), rtol=1e-12)
    np.testing.assert_allclose(model.judge(x), logits(x / 255, model)[:, 0], rtol=1e-12)
    figures = model.figures(model.device.get(model.sums["train"]))
    assert figures == pytest.approx(
        {"loss_d": real + made, "loss_g": judged, "d_real": np.exp(-real), "d_fake": np.exp(-judged)}, rel=1e-12
    )


def test_figures_of_a_vae_gan_are_means_over_the_images():
    """Of sums over 5 images, a row [loss, part, part, images] for each of the four losses."""
    model = build(name="vae-gan")
    sums = 5 * np.array([[0, 3, 2, 1], [0, 0.1, 0.2, 1], [0.7, 0.3, 0, 1], [0.4, 0, 0, 1]])
    d_real, d_recon, d_fake = np.exp([-0.3, -0.2, -0.1])
    expected = {"recon": 3, "kl": 2, "loss_d": 1.1, "d_real": d_real, "d_recon": d_recon, "d_fake": d_fake}
    assert model.figures(sums.ravel()) == pytest.approx(expected, rel=1e-12)


def test_figures_of_an_adversarial_autoencoder_are_means_over_the_images():
    """Of sums over 5 images: [loss, recon, −log D(z), images] and [loss_d, on draws of the prior, on codes, images]."""
    model = build(name="aae")
    sums = 5 * np.array([[4, 3, 0.5, 1], [0.9, 0.2, 0.7, 1]])
    expected = {"loss": 4, "recon": 3, "loss_g": 0.5, "loss_d": 0.9, "d_real": np.exp(-0.2), "d_fake": np.exp(-0.5)}
    assert model.figures(sums.ravel()) == pytest.approx(expected, rel=1e-12)


def test_a_discriminator_that_cannot_tell():
    """D = ½ everywhere: 2 ln 2 and ln 2, the fixed point of the game."""
    model = build()
    for tensor in ("weight", "bias"):
        model.device.fill(model.table.view(f"discriminator.dense2.{tensor}"), 0)
    figures = evaluate_pass(model, Feed(model, pictures(5)))
    assert figures == pytest.approx({"loss_d": 2 * np.log(2), "loss_g": np.log(2), "d_real": 0.5, "d_fake": 0.5})


@EVERY
def test_gradients_of_every_player(device, name):
    """In float64, each player's loss with the others frozen."""
    report = gradcheck(
        build(device, name), plan=Plan() if name == "dense-gan" else Plan(elements=0, sampled=8, directions=2)
    )
    assert report.ok, report
    checked = {row.subject if hasattr(row, "subject") else str(row) for row in report.rows}
    for part in {"discriminator", "generator", "encoder", "decoder", "features", "head"} & set(build(name=name).parts):
        assert any(part in row for row in checked), checked


@EVERY
def test_a_turn_leaves_the_other_players_gradients_alone(device, name):
    model = build(device, name)
    batch = filled(model, pictures(3))
    for player in model.players:
        model.device.fill(model.table.grads, np.nan)
        model.loss_and_grad(player, batch)
        for tensor in model.table.names():
            grad = model.device.get(model.table.grad(tensor))
            its_own = tensor.split(".")[0] in player.parts
            assert np.isfinite(grad).all() if its_own else np.isnan(grad).all(), tensor


@EVERY
def test_a_step_takes_every_gradient_at_one_point(device, name):
    """The players move one after the other, yet each by the gradient that it has where all of them stood."""
    model, x = build(device, name), pictures(4)
    step, before = Step(model, Feed(model, x), TrainConfig(batch_size=4, optimizer="sgd", lr=0.5)), {}
    step.tick(model.clock.plan, model.clock.counters, model.clock.rates)
    batch = filled(model, x)
    for player in model.players:
        model.loss_and_grad(player, batch)
        for tensor in model.table.names():
            if tensor.split(".")[0] in player.parts:
                value, grad = (model.device.get(a(tensor)).copy() for a in (model.table.view, model.table.grad))
                before[tensor] = value - 0.5 * grad
    model.clock.set(step=0, cursor=0, epoch=0)
    step.run()
    for tensor, expected in before.items():
        np.testing.assert_allclose(model.device.get(model.table.view(tensor)), expected, rtol=1e-9, atol=1e-12)


def test_against_torch():
    """Both losses and every gradient, differentiated by torch."""
    torch = pytest.importorskip("torch")
    F, model, x = torch.nn.functional, build(), pictures(4)
    batch = filled(model, x)
    ours = {}
    for player in model.players:
        model.loss_and_grad(player, batch)
        ours[player.name] = {n: model.table.grad(n).copy() for n in model.table.names() if n.startswith(player.name)}
    leaves = {n: torch.tensor(model.table.view(n), requires_grad=True) for n in model.table.names()}

    def linear(v, layer):
        return v @ leaves[f"{layer}.weight"] + leaves[f"{layer}.bias"]

    def judge(images):
        return linear(F.leaky_relu(linear(images, "discriminator.dense1"), 0.2), "discriminator.dense2")

    z = torch.tensor(batch.twins["prior"].z)
    fake = torch.sigmoid(linear(torch.relu(linear(z, "generator.dense1")), "generator.dense2"))
    on_real, on_fake = judge(torch.tensor(x.reshape(4, -1) / 255)), judge(fake)
    cost, one = F.binary_cross_entropy_with_logits, torch.ones(4, 1, dtype=torch.float64)
    losses = {"discriminator": cost(on_real, one) + cost(on_fake, 0 * one), "generator": cost(on_fake, one)}
    for name, loss in losses.items():
        found = torch.autograd.grad(loss, [leaves[n] for n in ours[name]], retain_graph=True)
        for (tensor, grad), theirs in zip(ours[name].items(), found, strict=True):
            np.testing.assert_allclose(grad, theirs.numpy(), rtol=1e-10, atol=1e-14, err_msg=tensor)


def test_vae_gan_against_torch():
    """Losses and every gradient of the three players, differentiated by torch, from dense layers in every part."""
    torch = pytest.importorskip("torch")
    F, x = torch.nn.functional, pictures(4)
    layers = (
        Sequential(Flatten(), Dense(6, 5, "tanh"), Dense(5, 4)), Sequential(Dense(2, 6, "sigmoid"), Reshape(*SHAPE)),
        Sequential(Flatten(), Dense(6, 7, "leaky_relu")), Sequential(Dense(7, 1)),
    )  # fmt: skip
    model = VAEGAN(*layers, 2, SHAPE, device="numpy", dtype="float64", seed=3, gamma=0.3)
    batch, ours = filled(model, x), {}
    model.clock.kl_weight[:] = 0.7
    for player in model.players:
        model.loss_and_grad(player, batch)
        moved = {n: model.table.grad(n).copy() for n in model.table.names() if n.split(".")[0] in player.parts}
        ours[player.name] = (model.loss_of(player, batch), moved)
    leaves = {n: torch.tensor(model.table.view(n), requires_grad=True) for n in model.table.names()}

    def linear(v, layer):
        return v @ leaves[f"{layer}.weight"] + leaves[f"{layer}.bias"]

    def features(images):
        return F.leaky_relu(linear(images, "features.dense1"), 0.2)

    pixels, eps, z_p = (
        torch.tensor(a) for a in (x.reshape(4, -1) / 255, batch.twins["latent"].eps, batch.twins["prior"].z)
    )
    h = linear(torch.tanh(linear(pixels, "encoder.dense1")), "encoder.dense2")
    mean, log_sigma = h[:, :2], h[:, 2:]
    kl = -0.5 * (1 + 2 * log_sigma - mean**2 - torch.exp(2 * log_sigma)).sum(1).mean()
    recon, drawn = (torch.sigmoid(linear(z, "decoder.dense1")) for z in (mean + torch.exp(log_sigma) * eps, z_p))
    f = [features(v) for v in (pixels, recon, drawn)]
    likeness = (0.5 * (f[0] - f[1]) ** 2 + 0.5 * np.log(2 * np.pi)).sum(1).mean()
    on_real, on_recon, on_drawn = (linear(v, "head.dense1") for v in f)
    losses = {
        "encoder": 0.7 * kl + likeness,
        "decoder": 0.3 * likeness + F.softplus(-on_recon).mean() + F.softplus(-on_drawn).mean(),
        "discriminator": F.softplus(-on_real).mean() + F.softplus(on_recon).mean() + F.softplus(on_drawn).mean(),
    }
    for name, loss in losses.items():
        value, moved = ours[name]
        assert value == pytest.approx(loss.item(), rel=1e-10)
        found = torch.autograd.grad(loss, [leaves[n] for n in moved], retain_graph=True)
        for (tensor, grad), theirs in zip(moved.items(), found, strict=True):
            np.testing.assert_allclose(grad, theirs.numpy(), rtol=1e-9, atol=1e-13, err_msg=tensor)
    figures = model.figures(model.sums["train"])
    expected = {"recon": likeness, "kl": kl, "loss_d": losses["discriminator"]}
    for name, on in (("d_real", on_real), ("d_recon", on_recon), ("d_fake", on_drawn)):
        expected[name] = torch.exp(-F.softplus(-on).mean())
    assert figures == pytest.approx({name: value.item() for name, value in expected.items()}, rel=1e-10)


def test_adversarial_autoencoder_against_torch():
    """Both losses and every gradient, differentiated by torch."""
    torch = pytest.importorskip("torch")
    F, x = torch.nn.functional, pictures(4)
    discriminator = Sequential(Dense(2, 5, "leaky_relu"), Dense(5, 1))
    layers = Sequential(Flatten(), Dense(6, 2)), Sequential(Dense(2, 6), Reshape(*SHAPE)), discriminator
    model = AdversarialAutoEncoder(*layers, 2, SHAPE, device="numpy", dtype="float64", seed=3, gamma=3.0)
    batch, ours = filled(model, x), {}
    for player in model.players:
        model.loss_and_grad(player, batch)
        moved = {n: model.table.grad(n).copy() for n in model.table.names() if n.split(".")[0] in player.parts}
        ours[player.name] = (model.loss_of(player, batch), moved)
    leaves = {n: torch.tensor(model.table.view(n), requires_grad=True) for n in model.table.names()}

    def linear(v, layer):
        return v @ leaves[f"{layer}.weight"] + leaves[f"{layer}.bias"]

    def judge(z):
        return linear(F.leaky_relu(linear(z, "discriminator.dense1"), 0.2), "discriminator.dense2")

    pixels = torch.tensor(x.reshape(4, -1) / 255)
    z = linear(pixels, "encoder.dense1")
    logits = linear(z, "decoder.dense1")
    recon = F.binary_cross_entropy_with_logits(logits, pixels, reduction="sum") / 4
    real, codes = judge(torch.tensor(batch.twins["prior"].z)), judge(z)
    fooling, loss_d = F.softplus(-codes).mean(), F.softplus(-real).mean() + F.softplus(codes).mean()
    for name, loss in {"autoencoder": recon + 3 * fooling, "discriminator": loss_d}.items():
        value, moved = ours[name]
        assert value == pytest.approx(loss.item(), rel=1e-10)
        found = torch.autograd.grad(loss, [leaves[n] for n in moved], retain_graph=True)
        for (tensor, grad), theirs in zip(moved.items(), found, strict=True):
            np.testing.assert_allclose(grad, theirs.numpy(), rtol=1e-9, atol=1e-13, err_msg=tensor)
    expected = {"loss": recon + 3 * fooling, "recon": recon, "loss_g": fooling, "loss_d": loss_d}
    expected |= {"d_real": torch.exp(-F.softplus(-real).mean()), "d_fake": torch.exp(-fooling)}
    assert model.figures(model.sums["train"]) == pytest.approx({k: v.item() for k, v in expected.items()}, rel=1e-10)


# ------------------------------------------------------------------------------------------------ noise


def test_z_is_drawn_anew_at_each_step_and_normal():
    model = build()
    batch, drawn = filled(model, pictures(400)), []
    for step in (1, 2, 1):
        model.clock.set(step=step)
        model.loss(batch)
        drawn.append(batch.twins["prior"].z.copy())
    assert np.array_equal(drawn[0], drawn[2])
    assert not np.isclose(drawn[0], drawn[1]).any(axis=1).all()
    assert abs(drawn[0].mean()) < 4 / np.sqrt(800)
    assert abs(drawn[0].var() - 1) < 4 * np.sqrt(2 / 800)


@EVERY
def test_evaluation_does_not_depend_on_the_batch_size(device, name):
    model = build(device, name)
    feed = Feed(model, pictures(13))
    whole, pieces = evaluate_pass(model, feed, 13), evaluate_pass(model, feed, 4)
    assert whole == pytest.approx(pieces, rel=1e-12)


# ------------------------------------------------------------------------------------------------ playing


@NAMES
def test_a_player_alone_gets_better(device, name):
    """Pictures of two modes: the discriminator's loss falls while it alone moves, and then the generator's."""
    model, x = build(device, name, "float32"), modes(16)
    step, batch = Step(model, Feed(model, x), TrainConfig(batch_size=16, lr=1e-2)), filled(model, x)
    for player, state in reversed(list(zip(model.players, step.optimizers, strict=True))):
        before, losses = {n: model.device.get(model.table.view(n)).copy() for n in model.table.names()}, []
        for _ in range(150):
            step.tick(model.clock.plan, model.clock.counters, model.clock.rates)
            model.loss_and_grad(player, batch)
            state.update()
            losses.append(model.loss_of(player, batch))
        assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5]), player.name
        for tensor, value in before.items():
            same = np.array_equal(model.device.get(model.table.view(tensor)), value)
            assert same != tensor.startswith(player.name), tensor


def test_both_together_learn_the_two_modes():
    """After a short game nearly every sample is one of the two pictures, and both occur."""
    model = zoo.build("dense-gan", SHAPE, 2, (32,), device="numpy", seed=1)
    step = Step(model, Feed(model, modes(64)), TrainConfig(batch_size=64, lr=2e-3))
    for _ in range(1500):
        step.run()
    left, right = (model.sample(200, seed=0)[:, :, i, 0].mean(axis=1) for i in (0, 1))
    assert (np.abs(left - right) > 0.8).mean() > 0.8
    assert 0.1 < (left > right).mean() < 0.9


# ------------------------------------------------------------------------------------------------ runs and files


@EVERY
def test_resumed_training_is_the_uninterrupted_one(device, name, tmp_path):
    """Two epochs, and one with another resumed, of 20 pictures in ragged batches: the same bits and the same rows."""
    data, rows = as_dataset(pictures(23)), []
    for run, epochs in (("whole", (2,)), ("parts", (1, 2))):
        for n in epochs:
            model = build(device, name, "float32")
            found = train(model, data, epochs=n, batch_size=8, out=tmp_path / run, resume=n == 2 and run == "parts")
        rows.append([{k: v for k, v in row.items() if k != "seconds"} for row in found])
    assert rows[0] == rows[1]
    assert list(rows[0][0]["test"]) == list(model.figure_names)
    saved = [tinyvae.load(tmp_path / run / "checkpoint.safetensors", device) for run in ("whole", "parts")]
    for buffer in ("values", "state"):
        assert len({model.device.get(getattr(model.table, buffer)).tobytes() for model in saved}) == 1
    again = saved[0]
    assert (type(again), again.config) == (type(model), model.config)
    assert again.sample(3, seed=2).tobytes() == model.sample(3, seed=2).tobytes()


def test_trains_from_the_command_line(tmp_path, capsys):
    np.savez(tmp_path / "set.npz", images=pictures(40))
    out = tmp_path / "run"
    arguments = ["--model", "dense-gan", "--data", str(tmp_path / "set.npz"), "--epochs", "1", "--batch-size", "8"]
    arguments += ["--latent-dim", "2", "--hidden", "6", "--device", "numpy"]
    assert main(["train", *arguments, "--out", str(out)]) == 0
    assert "loss_d" in capsys.readouterr().err
    assert sorted(p.name for p in out.glob("*.png")) == ["loss.png", "samples.png"]
    assert main(["train", "--resume", "--out", str(out), "--epochs", "2"]) == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [set(row["train"]) for row in rows] == [{"loss_d", "loss_g", "d_real", "d_fake"}] * 2
    assert main(["sample", str(out), "--count", "4", "--seed", "1"]) == 0
    assert isinstance(open_run(out).model, GAN)
    capsys.readouterr()
    assert main(["reconstruct", str(out)]) == 2
    assert "GAN has none; use sample or explore" in capsys.readouterr().err


def test_what_a_gan_cannot_do():
    model, x = build(), pictures(2)
    for call in (model.encode, model.reconstruct, lambda x: model.interpolate(x, x)):
        with pytest.raises(ConfigError, match=r"a GAN has no encoder.*use sample"):
            call(x)
    with pytest.raises(DataError, match=r"z must be \(N, 2\)"):
        model.decode(np.zeros(2))
    with pytest.raises(ConfigError, match="early_stop=1: GAN has no loss that falls"):
        train(model, pictures(20), epochs=1, validation=4, early_stop=1)
    with pytest.raises(ConfigError, match="likelihood='gaussian': dense-gan scores no pixels"):
        build(likelihood="gaussian")
    generator = Sequential(Dense(2, 6), Reshape(*SHAPE))
    with pytest.raises(ShapeError, match=r"discriminator: expected outputs \(1,\), got \(2,\)"):
        GAN(generator, Sequential(Flatten(), Dense(6, 2)), 2, SHAPE, device="numpy")


@pytest.mark.parametrize("name", ["dense-gan", "gan", "vae-gan"])
def test_a_discriminator_with_spectral_norm(name, tmp_path):
    """Asked for by name, in every layer with a weight; right in its gradients, and found again in a file."""
    model, x = build(name=name, spectral=True), pictures(3)
    judges = [model.parts[part] for part in {"discriminator", "features", "head"} & set(model.parts)]
    kinds = {type(layer).__name__ for judge in judges for layer in judge.layers.values()}
    assert "SpectralNorm" in kinds
    assert not {"Dense", "Conv2d"} & kinds
    report = gradcheck(model, plan=Plan(elements=0, sampled=8, directions=2))
    assert report.ok, report
    tinyvae.save(model, tmp_path / "a.safetensors")
    again = tinyvae.load(tmp_path / "a.safetensors", "numpy")
    assert again.config.spectral
    assert again.judge(x).tobytes() == model.judge(x).tobytes()


@pytest.mark.parametrize(("side", "asked", "found"), [(28, None, False), (64, None, True), (64, False, False)])
def test_large_images_have_spectral_norm_unless_told_otherwise(side, asked, found):
    model = zoo.build("gan", (side, side, 1), 2, (5,), device="numpy", spectral=asked)
    assert ("spectralnorm1" in model.parts["discriminator"].layers) == found


@EVERY
@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3)], ids=str)
def test_shapes(name, shape):
    model = zoo.build(name, shape, 8, device="numpy", seed=1)
    images = model.sample(2, seed=0)
    assert images.shape == (2, *shape)
    assert 0 < images.min() < images.max() < 1
