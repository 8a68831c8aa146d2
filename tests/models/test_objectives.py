"""Every likelihood and every way to weigh the KL, in a whole model: gradients, training, saving, resuming, the log.
A likelihood that gets a name in NAMED is tested by being there. What each op means is tested with the ops."""

import json

import numpy as np
import pytest

import tinyvae
from tinyvae import gradcheck, kernels, zoo
from tinyvae.app.cli import main
from tinyvae.check import Plan
from tinyvae.config import Adam, TrainConfig
from tinyvae.errors import ConfigError, KernelError
from tinyvae.kernels.clock import KL_BETA, RATES
from tinyvae.layers import Bernoulli, ContinuousBernoulli, GaussianOptimal, make_likelihood
from tinyvae.layers.likelihood import NAMED
from tinyvae.training import checkpoint
from tinyvae.training.step import Feed, Step, make_plan

ALL = pytest.mark.parametrize("likelihood", NAMED)
FEW = Plan(elements=60, sampled=30, directions=4)
SHAPE = (5, 4, 1)


def bars(n=24, seed=0):
    """Grey bars, one column of four: few enough to be learned by heart."""
    rng = np.random.default_rng(seed)
    images = np.full((n, *SHAPE), 30, np.uint8)
    images[np.arange(n), :, rng.integers(0, 4, n)] = 220
    return images


def noise(n, seed=0):
    """Pictures that no small model can learn."""
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), np.uint8)


def build(likelihood="bernoulli", name="vae", device="numpy", seed=3, latent_dim=3, hidden=(12,), **options):
    return zoo.build(name, SHAPE, latent_dim, hidden, likelihood, 0.3, device=device, seed=seed, **options)


# ---------------------------------------------------------------------------------------------- likelihoods


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("name", ["ae", "vae", "conv-vae"])
@ALL
def test_gradients_of_the_whole_objective(likelihood, name, device):
    """Two channels, so that the order of the outputs matters; the parameters of the likelihood are among the arrays."""
    if name == "conv-vae" and likelihood == "categorical":
        pytest.skip("a convolution of 512 channels out has too many products for a check of seconds")
    model = zoo.build(name, (3, 2, 2), 2, (3,), likelihood, 0.4, device=device, dtype="float64", seed=2)
    report = gradcheck(model, batch=3, seed=2, plan=FEW)
    assert report.ok, report


@ALL
def test_one_batch_is_learned_by_heart(likelihood):
    """With a KL that weighs little the mean image comes out as it went in, whatever outputs stand for it."""
    model, x = build(likelihood, device="numba", hidden=(40,)), bars(8)
    before = np.abs(model.reconstruct(x) - x / 255).mean()
    rows = tinyvae.train(model, x_only(x), epochs=250, batch_size=8, beta=0.01, lr=0.02, schedule="cosine")
    after = np.abs(model.reconstruct(x) - x / 255).mean()
    assert after < min(0.03, 0.2 * before), f"{before:.3f} before, {after:.3f} after"
    assert rows[-1]["train"]["loss"] < rows[0]["train"]["loss"]
    assert np.isfinite(model.sample(4, seed=0)).all()


def x_only(x):
    return tinyvae.datasets.Dataset("bars", x, x)


@ALL
def test_a_repeated_image_has_the_loss_of_the_image(likelihood):
    """Every image alone, all of them at once, and all of them twice: the same mean, gradients too."""
    model = build(likelihood, "ae", dtype="float64")
    x = noise(4)

    def figures(images):
        batch = model.batch("train", len(images))
        model.device.put(images / 255, batch.x)
        model.loss_and_grad(model.players[0], batch)
        return batch.metrics.copy(), model.table.grads.copy()

    whole, twice = figures(x), figures(np.concatenate([x, x]))
    alone = [figures(x[i : i + 1]) for i in range(4)]
    for which in (0, 1):
        np.testing.assert_allclose(twice[which], whole[which], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(np.mean([a[which] for a in alone], axis=0), whole[which], rtol=1e-9, atol=1e-9)


@ALL
def test_importance_samples_have_rows_of_their_own(likelihood):
    """Three rows for an image cost what they cost one by one, and are weighed one by one on the way back."""
    layer = make_likelihood(likelihood, 0.3)
    report = gradcheck(layer, (3, 2, 2), batch=2, samples=3, plan=FEW)
    assert report.ok, report
    model = build(likelihood)
    figures = tinyvae.measure.evaluate.evaluate(model, bars(5), samples=20)
    assert np.isfinite(figures["nll"])
    assert figures["nll"] <= figures["neg_elbo"] + 3 * figures["nll_mc_error"] + 1


@pytest.fixture
def no_pictures(monkeypatch):
    """Training from the command line without the seconds of its pictures."""
    monkeypatch.setattr("tinyvae.app.run.draw_pictures", lambda run: [])


@ALL
def test_the_command_line_trains_saves_loads_and_resumes_bit_for_bit(likelihood, tmp_path, no_pictures, capsys):
    np.savez(tmp_path / "bars.npz", train_images=bars(20), test_images=bars(6, seed=1))
    options = ["train", "--data", tmp_path / "bars.npz", "--likelihood", likelihood, "--device", "numpy"]
    options += ["--hidden", 8, "--latent-dim", 2, "--batch-size", 8, "--lr", 0.01]

    def run(folder, *more):
        assert main([str(o) for o in (*more, "--out", tmp_path / folder)]) == 0
        rows = [json.loads(line) for line in (tmp_path / folder / "metrics.jsonl").read_text().splitlines()]
        stored = (tmp_path / folder / "checkpoint.safetensors").read_bytes()
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows], stored

    whole, saved = run("whole", *options, "--epochs", 3)
    run("cut", *options, "--epochs", 1)
    resumed, again = run("cut", "train", "--resume", "--epochs", 3)
    assert resumed == whole
    assert strip(again, tmp_path) == strip(saved, tmp_path)
    loaded = tinyvae.load(tmp_path / "whole" / "checkpoint.safetensors", device="numpy")
    assert repr(loaded.likelihood) == repr(make_likelihood(likelihood))
    assert loaded.reconstruct(bars(2)).shape == (2, *SHAPE)
    for row in whole:
        for part in ("train", "test"):
            assert row[part]["neg_elbo"] == pytest.approx(row[part]["recon"] + row[part]["kl"], rel=1e-12)
    capsys.readouterr()
    assert main(["evaluate", str(tmp_path / "whole"), "--samples", "2"]) == 0
    assert np.isfinite(json.loads(capsys.readouterr().out)["nll"])


def strip(contents, tmp_path):
    """A checkpoint's tensors: its header holds how long the run took."""
    path = tmp_path / "one.safetensors"
    path.write_bytes(contents)
    _, arrays = checkpoint._read(path)
    return {name: array.tobytes() for name, array in arrays.items()}


def test_a_learned_sigma_is_a_parameter_that_reaches_the_error():
    """At the optimum sigma² is the mean squared error of the training images."""
    model, x = build("gaussian-scalar", "ae", device="numba", latent_dim=1, hidden=(3,)), noise(32)
    assert "likelihood.log_sigma" in model.table.places
    tinyvae.train(model, x_only(x), epochs=400, batch_size=32, lr=0.01)
    sigma = float(np.exp(model.table.view("likelihood.log_sigma")[0]))
    error = float(np.sqrt(np.square(model.reconstruct(x) - x / 255).mean()))
    assert sigma == pytest.approx(error, rel=0.02)
    assert sigma < 0.5
    before = model.table.grads.copy()  # evaluation writes none
    model.loss(model.batch("evaluate", 2))
    assert np.array_equal(model.table.grads, before)


def test_the_rmse_of_the_log():
    """One image: the optimal Gaussian logs its RMSE, and so does a fixed one."""
    x = bars(1)
    for name in ("rmse", "mse", "gaussian"):
        model = build(name, "ae")
        row = tinyvae.train(model, x_only(x), epochs=1, lr=1e-12)[0]["test"]
        error = float(np.sqrt(np.square(model.reconstruct(x) - x / 255).mean()))
        assert row["rmse"] == pytest.approx(error, rel=1e-4)


def test_the_mean_of_a_continuous_bernoulli_is_not_its_p():
    logits = np.array([[-3.0, -0.5, 0.0, 1e-12, 0.5, 3.0]])
    mean, p = ContinuousBernoulli().mean(logits), Bernoulli().mean(logits)
    assert (np.abs(mean - 0.5) <= np.abs(p - 0.5)).all()  # nearer to ½ at the same logit
    assert mean[0, 2] == 0.5
    np.testing.assert_allclose(mean, 1 - ContinuousBernoulli().mean(-logits), rtol=1e-12)
    for dtype in (np.float32, np.float64):
        assert ContinuousBernoulli().mean(logits.astype(dtype)).dtype == dtype


@ALL
def test_decoders_give_as_many_outputs_as_the_likelihood_takes(likelihood):
    layer = make_likelihood(likelihood)
    for name in zoo.SCORING:
        model = zoo.build(name, (6, 3, 2), 2, (3,), likelihood, device="numpy")
        assert model.parts["decoder"].out_shape == (6, 3, 2 * layer.outputs_per_channel)
        labels = np.arange(3) if model.classes else None
        assert model.decode(np.zeros((3, 2)), labels).shape == (3, 6, 3, 2)


def test_names():
    assert isinstance(make_likelihood("rmse"), GaussianOptimal)
    assert repr(make_likelihood("mse")) == "Gaussian(sigma=1)"
    with pytest.raises(
        ConfigError, match="likelihood='l2' is not known; use one of 'bernoulli', 'continuous-bernoulli'"
    ):
        make_likelihood("l2")


# ---------------------------------------------------------------------------------------------- against PyTorch


@pytest.mark.parametrize("likelihood", ["continuous-bernoulli", "gaussian-scalar", "gaussian-pixel", "gaussian-optimal",
                                        "discretized-logistic", "categorical"])  # fmt: skip
def test_likelihoods_against_torch(likelihood):
    """Written with torch's distributions and functions, differentiated by torch."""
    torch = pytest.importorskip("torch")
    F, rng, layer = torch.nn.functional, np.random.default_rng(0), make_likelihood(likelihood)
    n, k, B, P = layer.outputs_per_channel, 2, 3, 5
    outputs = torch.tensor(rng.standard_normal((B * k, n * P)), requires_grad=True)
    x, scale = torch.tensor(rng.integers(0, 256, (B, P)) / 255), torch.tensor(rng.uniform(0.2, 1.8, B * k))
    x.view(-1)[0], x.view(-1)[1] = 0, 1
    target, log_sigma = x.repeat_interleave(k, 0), torch.tensor([-0.3], dtype=torch.float64, requires_grad=True)
    each = outputs.reshape(B * k, P, n)
    normal = torch.distributions.Normal
    if likelihood == "continuous-bernoulli":
        # its own Taylor expansion of log C near ½ is coarser than 1e-9: kept out of the way
        cost = -torch.distributions.ContinuousBernoulli(logits=outputs, lims=(0.4999999, 0.5000001)).log_prob(target)
    elif likelihood == "gaussian-scalar":
        cost = -normal(outputs, log_sigma.exp()).log_prob(target)
    elif likelihood == "gaussian-pixel":
        cost = -normal(each[..., 0], torch.exp(F.softplus(each[..., 1] + 6) - 6)).log_prob(target)
    elif likelihood == "gaussian-optimal":
        sigma = ((outputs - target) ** 2).mean(1, keepdim=True).sqrt().expand_as(outputs)
        cost = -normal(outputs, sigma).log_prob(target)
    elif likelihood == "discretized-logistic":
        least = -7 - np.log(2)
        rate = torch.exp(-(F.softplus(each[..., 1] - least) + least))
        upper = torch.sigmoid((target + 1 / 510 - each[..., 0]) * rate)
        lower = torch.sigmoid((target - 1 / 510 - each[..., 0]) * rate)
        cost = -torch.log(torch.where(target == 1, 1.0, upper) - torch.where(target == 0, 0.0, lower))
    else:
        level = torch.round(target * 255).long()
        cost = F.cross_entropy(each.reshape(-1, 256), level.reshape(-1), reduction="none").reshape(B * k, P)
    nll = cost.sum(1)
    (nll * scale).sum().backward()
    given, shares = [outputs.detach().numpy(), x.numpy(), scale.numpy()], np.empty((B * k, 1))
    if likelihood == "gaussian-scalar":
        given.append(log_sigma.detach().numpy())
    got, grad = np.empty(B * k), np.empty((B * k, n * P))
    written = [got, grad, shares] if likelihood == "gaussian-scalar" else [got, grad]
    getattr(kernels.load("numpy"), layer.op_name())(*given, *written)
    np.testing.assert_allclose(got, nll.detach().numpy(), rtol=1e-8)
    np.testing.assert_allclose(grad, outputs.grad.numpy(), rtol=1e-6, atol=1e-8)
    if likelihood == "gaussian-scalar":
        np.testing.assert_allclose(shares.sum(), log_sigma.grad.numpy()[0], rtol=1e-9)


# ---------------------------------------------------------------------------------------------- the KL's weight


def weights(config, per_epoch, device="numpy"):
    """The KL weight of each step of a run."""
    model = build()
    model.set_plan(make_plan(config, [(Adam(), 1)], per_epoch))
    found = []
    for _ in range(config.epochs * per_epoch):
        model.kernels.tick(model.clock.plan, model.clock.counters, model.clock.rates)
        found.append(float(model.clock.kl_weight[0]))
        assert model.clock.rates[KL_BETA] == model.clock.kl_weight[0]
    return found


def test_cycles_begin_anew():
    """Twelve steps, three cycles of four, a half of each warming up; by hand."""
    found = weights(TrainConfig(epochs=4, cycles=3, beta=2.0), per_epoch=3)
    assert found == [1, 2, 2, 2] * 3
    assert weights(TrainConfig(epochs=4, cycles=3, cycle_share=1.0), 3) == [0.25, 0.5, 0.75, 1] * 3
    cycle = [4 / 15, 8 / 15, 0.8, 1, 1]  # nine steps are a cycle of five and one that is cut short
    assert weights(TrainConfig(epochs=3, cycles=2, cycle_share=0.75), 3) == pytest.approx([*cycle, *cycle[:4]])
    assert weights(TrainConfig(epochs=2, warmup=1), 3) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])


def test_one_cycle_is_a_warm_up():
    assert weights(TrainConfig(epochs=4, cycles=1, cycle_share=0.5), 3) == weights(TrainConfig(epochs=4, warmup=2), 3)


def test_a_capacity_is_reached_and_held():
    """KL stands at 4 nats at the end, though nothing but the capacity asks for it; it grows over the warm-up."""
    data = x_only(bars(64))
    rows = tinyvae.train(
        build(device="numba"), data, epochs=80, batch_size=16, lr=5e-3, beta=30.0, capacity=4.0, warmup=40
    )
    assert rows[-1]["train"]["kl"] == pytest.approx(4.0, abs=0.4)
    assert rows[19]["train"]["kl"] == pytest.approx(2.0, abs=0.4)
    last = rows[-1]["train"]
    assert last["loss"] - last["recon"] < 30 * 0.4
    assert last["neg_elbo"] == pytest.approx(last["recon"] + last["kl"], rel=1e-12)


def test_free_bits_keep_every_latent_variable_in_use():
    """With a beta that switches all of them off, each stays at about its free bits."""
    data, options = x_only(bars(64)), dict(epochs=60, batch_size=16, lr=5e-3, beta=20.0)
    assert tinyvae.train(build("gaussian", device="numba"), data, **options)[-1]["train"]["kl"] < 0.01
    model = build("gaussian", device="numba")
    kept = tinyvae.train(model, data, free_bits=0.5, **options)[-1]["train"]
    mean, log_sigma = model.encode(data.train_images)
    each = (0.5 * (mean**2 + np.exp(2 * log_sigma) - 1) - log_sigma).mean(axis=0)
    np.testing.assert_allclose(each, 0.5, atol=0.15)
    assert kept["kl"] == pytest.approx(1.5, abs=0.3)
    assert kept["loss"] - kept["recon"] == pytest.approx(20 * 1.5, abs=2)  # three dimensions at 0.5 nats, weight 20
    assert kept["neg_elbo"] == pytest.approx(kept["recon"] + kept["kl"], rel=1e-12)


AIMS = {
    "free bits": dict(free_bits=0.3, beta=2.0, warmup=1),
    "a capacity": dict(capacity=2.5, beta=9.0, warmup=3),
    "cycles": dict(cycles=3, beta=2.0),
}


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("aim", AIMS)
def test_a_run_goes_on_bit_for_bit_in_the_middle_of_an_epoch(aim, device, tmp_path):
    config = TrainConfig(epochs=6, batch_size=8, lr=0.02, **AIMS[aim])

    def fresh():
        model = build(device=device)
        return model, Step(model, Feed(model, bars(20)), config)

    model, step = fresh()
    for number in range(16):
        if number == 7:
            checkpoint.save(model, tmp_path / "seven", step)
        step.run()
    other, later = fresh()
    checkpoint.restore(tmp_path / "seven", other, later)
    for _ in range(9):
        later.run()
    for mine, theirs in ((model.table.values, other.table.values), (model.clock.rates, other.clock.rates),
                         (model.sums["train"], other.sums["train"])):  # fmt: skip
        assert mine.tobytes() == theirs.tobytes()


@pytest.mark.parametrize("aim", ["free bits", "a capacity"])
def test_both_devices_take_the_same_steps(aim):
    rows = [
        tinyvae.train(build(device=device, dtype="float64"), x_only(bars(20)), epochs=3, batch_size=8, **AIMS[aim])
        for device in ("numpy", "numba")
    ]
    for one, two in zip(*rows, strict=True):
        for part in ("train", "test"):
            assert one[part] == pytest.approx(two[part], rel=1e-9)


def test_an_autoencoder_has_no_kl_to_aim_at():
    with pytest.raises(ConfigError, match=r"free_bits=1.0: AutoEncoder has no KL divergence; leave it out"):
        tinyvae.train(build(name="ae"), x_only(bars(20)), epochs=1, free_bits=1.0)


def test_training_again_without_an_aim_has_none():
    model, data = build(), x_only(bars(20))
    tinyvae.train(model, data, epochs=1, capacity=3.0, beta=5.0)
    row = tinyvae.train(model, data, epochs=1, beta=0.5)[0]["train"]
    assert row["loss"] == pytest.approx(row["recon"] + 0.5 * row["kl"], rel=1e-6)


def test_validation_compares_epochs_of_one_objective(tmp_path):
    """While a cycle warms up no epoch is the best one: its loss is lower for the KL that it leaves out."""
    model = build()
    options = dict(epochs=4, batch_size=8, cycles=1, cycle_share=1.0, validation=4, lr=0.01)
    tinyvae.train(model, x_only(bars(20)), out=tmp_path / "cycle", **options)
    best = checkpoint.read_info(tmp_path / "cycle" / "best.safetensors")["extra"]["best"]
    rows = [json.loads(line) for line in (tmp_path / "cycle" / "metrics.jsonl").read_text().splitlines()]
    assert best == rows[-1]["validation"]["loss"]
    assert min(row["validation"]["loss"] for row in rows[:-1]) < 1.1 * best


def test_a_device_without_the_ops_says_so_when_they_are_bound(monkeypatch):
    """Op, device and layer; every op that the cuda column lacks belongs to a likelihood or to the objective."""
    lacking = kernels.lacking("cuda")
    column = {name: op for name, op in kernels.COLUMNS["numpy"].items() if name not in lacking}
    monkeypatch.setitem(kernels.COLUMNS, "fake", column)
    refused = set()
    for likelihood in NAMED:
        model = build(likelihood)
        model.kernels = kernels.load("fake", unchecked=True)
        op = model.likelihood.op_name()
        if op in lacking:
            refused.add(op)
            with pytest.raises(KernelError, match=f"layer 'likelihood': op '{op}' has no version for device 'fake'"):
                model.batch("train", 2)
        else:
            model.batch("train", 2)
    model = build()
    model.kernels = kernels.load("fake", unchecked=True)
    model.set_plan(make_plan(TrainConfig(warmup=2), [(Adam(), 1)], 5))
    with pytest.raises(
        KernelError, match="layer 'objective': op 'targeted_objective' has no version for device 'fake'"
    ):
        model.set_plan(make_plan(TrainConfig(free_bits=0.1), [(Adam(), 1)], 5))
    assert refused == {name for name in lacking if name.endswith("_nll")}


BAD = {
    "cycles": (dict(cycles=-1), "cycles=-1 must be an integer of at least 0"),
    "cycle_share": (dict(cycle_share=1.5), "cycle_share=1.5 must be at most 1"),
    "cycle_share 0": (dict(cycle_share=0), "cycle_share=0 must be a number above 0"),
    "capacity": (dict(capacity=-1.0), "capacity=-1.0 must be a number of at least 0"),
    "free_bits": (dict(free_bits=float("nan")), "free_bits=nan must be a number of at least 0"),
    "two ramps": (dict(cycles=2, warmup=1), "cycles=2 and warmup=1 exclude each other; drop one"),
    "cycles and capacity": (dict(cycles=2, capacity=3.0), "cycles=2 and capacity=3.0 exclude each other"),
    "two aims": (dict(capacity=3.0, free_bits=0.1), "capacity=3.0 and free_bits=0.1 exclude each other"),
}


@pytest.mark.parametrize("name", BAD)
def test_options_that_cannot_work(name):
    options, message = BAD[name]
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**options)


def test_the_clock_has_room_for_what_it_tells():
    assert build().clock.rates.size == RATES + 3
