"""The bugs that keep coming back in this field, where whole models and training steps show them.

What ops, layers and small models mean is checked by the package (tinyvae/check/meaning*.py): test_gradients.py
runs these checks on every device, test_museum.py shows that each of them can fail."""

import math

import numpy as np
import pytest

from tinyvae import zoo
from tinyvae.config import TrainConfig
from tinyvae.device import open_device
from tinyvae.kernels import OPS
from tinyvae.kernels.check import assert_close
from tinyvae.kernels.clock import LR, NORM, STEP, Stream
from tinyvae.layers import Latent, Sequential
from tinyvae.layers.params import ParamTable
from tinyvae.training.step import Feed, OptimizerState, Step, evaluate_pass

SHAPE, LATENT = (5, 3, 2), 3
LN2_784 = 784 * math.log(2)  # 543.43 nats


def build(device="numpy", name="vae", shape=SHAPE, dtype="float64", **options):
    return zoo.build(name, shape, LATENT, (6,), device=device, dtype=dtype, **options)


def pictures(n, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def host(model, array):
    return model.device.get(array)


# ------------------------------------------------------------------------------------------------ the objective


def test_neg_elbo_does_not_know_beta(device):
    """loss = recon + beta · kl is minimised; neg_elbo = recon + kl is reported whatever beta is."""
    model, images = build(device), pictures(7)
    plain = evaluate_pass(model, Feed(model, images))
    assert plain["loss"] == pytest.approx(plain["neg_elbo"], rel=1e-14)
    model.device.fill(model.clock.kl_weight, 4.0)
    weighted = evaluate_pass(model, Feed(model, images))
    assert weighted["neg_elbo"] == plain["neg_elbo"] == plain["recon"] + plain["kl"]
    assert weighted["loss"] == pytest.approx(plain["recon"] + 4 * plain["kl"], rel=1e-14)
    assert plain["kl"] > 0


# ------------------------------------------------------------------------------------------------ units


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
def test_zero_logits_on_784_pixels_cost_543_nats(device, name):
    model = build(device, name, shape=(28, 28, 1))
    last = [n for n in model.table.names() if n.startswith("decoder")][-2:]
    for tensor in last:
        model.device.fill(model.table.view(tensor), 0)
    figures = evaluate_pass(model, Feed(model, pictures(3, (28, 28, 1))))
    assert figures["recon"] == pytest.approx(LN2_784, rel=1e-12)
    assert round(LN2_784, 2) == 543.43


def test_more_samples_per_image_leave_the_units_alone(device):
    """k rows per image: the loss is a mean over rows, so many samples estimate the same number."""
    model, images = build(device), pictures(4)
    values = {}
    for samples in (1, 2000):
        batch = model.batch("evaluate", 4, samples)
        model.device.put(images / 255, batch.x)
        model.loss(batch)
        values[samples] = host(model, batch.metrics)
    assert values[1][2] == pytest.approx(values[2000][2], rel=1e-12)  # the KL is exact
    assert values[1][1] == pytest.approx(values[2000][1], rel=0.05)


# ------------------------------------------------------------------------------------------------ likelihoods


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_survives_enormous_weights(dtype):
    """Logits in the thousands: loss and every gradient stay finite."""
    model = build(dtype=dtype)
    model.device.fill(model.table.view("decoder.dense2.bias"), 1000)
    model.table.view("decoder.dense2.bias")[::2] *= -1
    batch = model.batch("train", 4)
    Feed(model, pictures(4)).fill(batch)
    model.loss_and_grad(model.players[0], batch)
    assert np.isfinite(host(model, batch.metrics)).all()
    assert np.isfinite(host(model, model.table.grads)).all()
    assert np.isfinite(model.reconstruct(pictures(4))).all()


def test_gaussian_is_half_the_squared_error_plus_a_constant(device):
    """The constant is in: ½ log 2π per pixel, and rmse is read back from recon."""
    model, images = build(device, likelihood="mse"), pictures(6)
    figures = evaluate_pass(model, Feed(model, images))
    pixels = math.prod(SHAPE)
    squared = (figures["recon"] - pixels * 0.5 * math.log(2 * math.pi)) * 2
    assert figures["rmse"] == pytest.approx(math.sqrt(squared / pixels))
    assert 0.1 < figures["rmse"] < 2


# ------------------------------------------------------------------------------------------------ verification


def test_transposed_gradient_hidden_by_a_square_shape():
    """The shapes that the op table uses are not square, so that a transposed index shows."""
    for op in ("dense", "dense_grad_x", "dense_grad_w", "conv2d", "conv2d_grad_x", "conv2d_grad_w"):
        shape = [v for k, v in OPS[op].examples["ragged"].items() if k.isupper()]
        assert len(set(shape)) == len(shape), op


def test_verification_that_nan_passes():
    """The comparison that all op tests use fails on NaN, on either side, and on infinities."""
    one = {"y": np.ones(3)}
    for bad in (np.nan, np.inf, -np.inf):
        wrong = {"y": np.array([1, bad, 1])}
        for got, want, size in ((wrong, one, one), (wrong, wrong, one), (wrong, one, wrong)):
            with pytest.raises(AssertionError):
                assert_close("silu", got, want, size, 1, np.float64)
    assert_close("silu", one, one, one, 1, np.float64)


# ------------------------------------------------------------------------------------------------ noise


def test_noise_differs_between_images_layers_and_steps(device):
    model = build(device)
    batch = model.batch("train", 50)
    model.device.fill(batch.x, 0)
    drawn = []
    for step in (1, 2):
        model.clock.set(step=step)
        batch.twins["latent"].forward(batch.twins["encoder"].forward(batch.x))
        drawn.append(host(model, batch.twins["latent"].eps))
    assert len(np.unique(np.concatenate(drawn))) == 2 * 50 * LATENT
    table = declared(Sequential(Latent(4), Latent(2)), (8,))
    assert table.streams == {"part.latent1": Stream.LAYER, "part.latent2": Stream.LAYER + 1}


def declared(layer, shape):
    layer.declare(shape)
    return ParamTable({"part": layer}, "float64", open_device("numpy"), 0)


def test_evaluation_noise_is_not_training_noise(device):
    """Step 0 belongs to evaluation; training starts at 1."""
    model = build(device)
    step = Step(model, Feed(model, pictures(4)), TrainConfig(batch_size=4))
    batch = step.run()
    trained = host(model, batch.twins["latent"].eps)
    assert model.clock.get()[STEP] == 1
    assert model.eval_clock.get()[STEP] == 0
    evaluate_pass(model, Feed(model, pictures(4)))
    assert not np.isin(host(model, model.batch("evaluate", 4).twins["latent"].eps), trained).any()
    np.testing.assert_array_equal(host(model, batch.twins["latent"].eps), trained)


# ------------------------------------------------------------------------------------------------ recorded steps


class Tape:
    """Kernels that can be recorded, as a captured CUDA graph is: while recording, calls are noted and not run."""

    def __init__(self, inner):
        self.inner, self.tape = inner, None

    def __getattr__(self, name):
        run = getattr(self.inner, name)

        def call(*arguments):
            if self.tape is None:
                run(*arguments)
            else:
                self.tape.append((run, arguments))

        return call

    def record(self, step):
        self.tape, tape = [], self.tape
        step()
        self.tape, tape = tape, self.tape

        def replay():
            for run, arguments in tape:
                run(*arguments)

        return replay


CHANGING = {"schedule": "cosine", "beta": 2.0, "warmup": 3, "clip": 3.0, "epochs": 10, "binarize": "dynamic"}


def run_steps(device, name, how, monkeypatch):
    """Twenty steps, shuffled in each epoch; `how`: plain, recorded by the device, or replayed from a tape."""
    model = build(device, name, dtype="float32")
    if how == "tape":
        model.kernels = Tape(model.kernels)
        monkeypatch.setattr(model.device, "record", model.kernels.record)
    elif how == "plain":
        monkeypatch.setattr(model.device, "record", lambda step: step)
    config = TrainConfig(batch_size=4, **CHANGING)
    feed = Feed(model, pictures(11), config.binarize)
    step = Step(model, feed, config)
    rows, rates = [], []
    for i in range(20):
        if i % step.per_epoch == 0:
            feed.shuffle(0, step.epoch)
        rows.append(host(model, step.run().metrics))
        rates.append(host(model, model.clock.rates))
    return np.array(rows), host(model, model.table.values), host(model, model.sums["train"]), np.array(rates)


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
def test_host_scalar_frozen_in_a_captured_graph(device, name, monkeypatch):
    """Twenty captured steps equal twenty plain ones, with learning rate, beta, clip and ragged batches changing."""
    plain = run_steps(device, name, "plain", monkeypatch)
    rates = plain[3]
    assert len(np.unique(rates[:, LR])) > 15
    assert len(np.unique(rates[:, NORM])) == 20
    if name != "ae":
        assert len(np.unique(rates[:, -1])) == 9  # beta grows over 3 epochs of 3 steps
    for how in ("recorded", "tape"):
        for got, want in zip(run_steps(device, name, how, monkeypatch), plain, strict=True):
            assert got.tobytes() == want.tobytes(), how


def test_the_tape_notices_a_frozen_scalar(monkeypatch):
    """The test above can fail: a learning rate read on the host is frozen by the recording."""
    plain = run_steps("numpy", "vae", "plain", monkeypatch)[1].tobytes()
    update = OptimizerState.update

    def update_from_host_copy(self):
        rates, self.rates = self.rates, np.array(self.rates)
        update(self)
        self.rates = rates

    monkeypatch.setattr(OptimizerState, "update", update_from_host_copy)
    assert run_steps("numpy", "vae", "plain", monkeypatch)[1].tobytes() == plain
    assert run_steps("numpy", "vae", "tape", monkeypatch)[1].tobytes() != plain


# ------------------------------------------------------------------------------------------------ batches


def test_public_methods_leave_their_arguments_alone():
    model = build()
    x, z = pictures(4), np.random.default_rng(0).standard_normal((4, LATENT))
    floats = x / 255
    before = [array.tobytes() for array in (x, z, floats)]
    model.encode(x), model.reconstruct(floats), model.decode(z), model.interpolate(x, x[::-1])
    assert before == [array.tobytes() for array in (x, z, floats)]


def test_training_does_not_notice_public_methods(device):
    """Encoding, sampling and evaluation between two steps leave the next step's bits alone."""
    finals = []
    for disturb in (False, True):
        model = build(device, dtype="float32")
        step = Step(model, Feed(model, pictures(9)), TrainConfig(batch_size=4))
        for _ in range(5):
            step.run()
            if disturb:
                model.reconstruct(pictures(3)), model.sample(2), evaluate_pass(model, Feed(model, pictures(3)))
        finals.append(host(model, model.table.values).tobytes())
    assert finals[0] == finals[1]


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
def test_last_ragged_batch_in_training(device, name):
    """Eleven images in batches of four: all are seen once, and the epoch's mean weighs each image alike."""
    model, images = build(device, name), pictures(11)
    feed = Feed(model, images)
    step = Step(model, feed, TrainConfig(batch_size=4))
    feed.shuffle(0, 0)
    seen, rows = [], []
    for _ in range(step.per_epoch):
        batch = step.run()
        seen += [np.rint(x * 255).astype(np.uint8).tobytes() for x in host(model, batch.x)]
        rows.append((batch.rows, *host(model, batch.metrics)))
    assert [row[0] for row in rows] == [4, 4, 3]
    assert sorted(seen) == sorted(x.tobytes() for x in images)
    table = np.array(rows)
    mean = (table[:, :1] * table[:, 1:]).sum(0) / 11
    figures = model.figures(host(model, model.sums["train"]))
    np.testing.assert_allclose([figures["loss"], figures["recon"]], mean[:2], rtol=1e-13)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_any_number_of_images_trains(count):
    """Fewer images than the batch size, as many, and one more."""
    model = build()
    step = Step(model, Feed(model, pictures(count)), TrainConfig(batch_size=4))
    rows = [step.run().rows for _ in range(4)]
    assert rows == {1: [1] * 4, 3: [3] * 4, 4: [4] * 4, 5: [4, 1, 4, 1]}[count]


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
@pytest.mark.parametrize("binarize", ["none", "static"])
def test_last_ragged_batch_in_evaluation(device, name, binarize):
    """The figures do not depend on the batch size."""
    model, images = build(device, name), pictures(11)
    feed = Feed(model, images, binarize, evaluation=True)
    want = evaluate_pass(model, feed, 11)
    for batch_size in (1, 3, 4, 10, 12, 256):
        got = evaluate_pass(model, feed, batch_size)
        assert got.keys() == want.keys()
        for k in want:
            assert got[k] == pytest.approx(want[k], rel=1e-12), (k, batch_size)


def test_evaluation_weighs_images_alike(device):
    """The mean over all images is the mean of the parts, each weighted by its images."""
    model, images = build(device, "ae"), pictures(11)  # no noise, so a part can be evaluated alone
    whole = evaluate_pass(model, Feed(model, images), 4)["recon"]
    parts = [evaluate_pass(model, Feed(model, part))["recon"] * len(part) for part in (images[:8], images[8:])]
    assert whole == pytest.approx(sum(parts) / 11, rel=1e-13)


# ------------------------------------------------------------------------------------------------ binarisation


def fills(model, feed, n, steps):
    """What the feed gives at each of `steps`, (len(steps), n, pixels)."""
    batch, seen = model.batch("train", n), []
    for step in steps:
        model.clock.set(step=step, cursor=0)
        feed.fill(batch)
        seen.append(host(model, batch.x).reshape(n, -1))
    return np.array(seen)


def test_static_binarisation_is_the_same_at_each_visit(device):
    """Whatever the step, and wherever shuffling puts the image."""
    model, images = build(device), pictures(8)
    feed = Feed(model, images, "static")
    first, second = fills(model, feed, 8, [1, 2])
    np.testing.assert_array_equal(first, second)
    assert set(np.unique(first)) == {0, 1}
    feed.shuffle(5, 3)
    order = host(model, feed.order)
    assert order.tolist() != list(range(8))
    np.testing.assert_array_equal(fills(model, feed, 8, [7])[0], first[order])


def test_dynamic_binarisation_differs_at_each_visit(device):
    model, images = build(device), pictures(8)
    visits = fills(model, Feed(model, images, "dynamic"), 8, [1, 2, 1])
    assert (visits[0] != visits[1]).any(axis=1).all()
    np.testing.assert_array_equal(visits[0], visits[2])  # the step decides, so a resumed run repeats it


def test_evaluation_set_is_binarised_once(device):
    """Also where training draws at each visit; and from a stream of its own."""
    model, images = build(device), pictures(8)
    feeds = {
        name: Feed(model, images, binarize, evaluation)
        for name, binarize, evaluation in (
            ("static", "static", False), ("test static", "static", True), ("test dynamic", "dynamic", True),
        )
    }  # fmt: skip
    seen = {name: fills(model, feed, 8, [0, 1, 2]) for name, feed in feeds.items()}
    for name in seen:
        assert (seen[name] == seen[name][0]).all(), name
    np.testing.assert_array_equal(seen["test static"], seen["test dynamic"])
    assert (seen["test static"] != seen["static"]).any()


def test_no_binarisation_keeps_grey_values(device):
    model, images = build(device), pictures(8)
    for source in (images, images / 255, (images / 255).astype(np.float32)):
        got = fills(model, Feed(model, source), 8, [1])[0]
        np.testing.assert_allclose(got, images.reshape(8, -1) / 255, rtol=1e-7)
    everywhere = build(device, dtype="float32")
    got = fills(everywhere, Feed(everywhere, images), 8, [1])[0]
    assert got.dtype == np.float32
    assert got.max() <= 1
    np.testing.assert_allclose(got, images.reshape(8, -1) / 255, rtol=2e-7)
