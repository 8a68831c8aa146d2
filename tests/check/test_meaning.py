"""The bugs that keep coming back in this field, each with the test that stops it; and what random numbers mean.
A gradient check sees none of these where a wrong gradient matches a wrong forward pass."""

import math

import numpy as np
import pytest

from tinyvae import kernels, zoo
from tinyvae.config import TrainConfig
from tinyvae.device import open_device
from tinyvae.kernels import OPS
from tinyvae.kernels.check import assert_close
from tinyvae.kernels.clock import COUNTERS, LR, NORM, ROW, SEED, STEP, Clock, Stream
from tinyvae.layers import (
    Activation,
    Bernoulli,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Flatten,
    Gaussian,
    Latent,
    Reshape,
    Sequential,
    SiLU,
    Site,
)
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


def set_posterior(model, z_mean, z_log_sigma):
    """Every image is encoded as this z_mean and z_log_sigma."""
    model.device.fill(model.table.view("encoder.dense2.weight"), 0)
    bias = np.concatenate([z_mean, z_log_sigma]).astype(model.dtype)
    model.device.put(bias, model.table.view("encoder.dense2.bias"))


def draws(model, samples, x):
    """z (samples, latent) of one image, and its KL per dimension, as evaluation draws them."""
    batch = model.batch("evaluate", 1, samples)
    model.device.put(np.asarray(x, model.dtype)[None] / 255, batch.x)
    z = batch.twins["latent"].forward(batch.twins["encoder"].forward(batch.x))
    return host(model, z), host(model, batch.kl)[0]


MEAN, LOG_SIGMA = np.array([0.5, -1.0, 2.0]), np.array([-1.5, 0.4, 0.0])


# ------------------------------------------------------------------------------------------------ latent and KL


def test_exp_of_log_variance_used_as_the_standard_deviation(device):
    """The variance of z over many eps is exp(2·z_log_sigma), for what `encode` calls z_log_sigma."""
    model, n = build(device), 40_000
    set_posterior(model, MEAN, LOG_SIGMA)
    (image,) = pictures(1)
    z_mean, z_log_sigma = (a[0] for a in model.encode(image[None]))
    np.testing.assert_allclose(np.hstack([z_mean, z_log_sigma]), np.hstack([MEAN, LOG_SIGMA]))
    z, _ = draws(model, n, image)
    sigma = np.exp(z_log_sigma)
    assert (np.abs(z.mean(0) - z_mean) < 4 * sigma / math.sqrt(n)).all()
    assert (np.abs(z.var(0) - sigma**2) < 4 * sigma**2 * math.sqrt(2 / n)).all()


def test_kl_equals_monte_carlo(device):
    """KL = E_q [log q(z) − log p(z)], per dimension, within four standard errors."""
    model, n = build(device), 40_000
    set_posterior(model, MEAN, LOG_SIGMA)
    z, kl = draws(model, n, pictures(1)[0])
    log_q = -0.5 * ((z - MEAN) / np.exp(LOG_SIGMA)) ** 2 - LOG_SIGMA
    terms = log_q + 0.5 * z * z
    assert (np.abs(terms.mean(0) - kl) < 4 * terms.std(0) / math.sqrt(n)).all()


def test_kl_reported_with_the_wrong_sign(device):
    """Never negative, zero only at (0, 0), and it grows away from there."""
    k, dev = kernels.load(device), open_device(device)
    grid = np.array([(m, s) for m in np.linspace(-3, 3, 13) for s in np.linspace(-2, 2, 9)])
    z, kl = (dev.put(np.zeros((len(grid), 1))) for _ in range(2))
    k.latent(dev.put(grid), dev.put(np.zeros((len(grid), 1))), z, kl)
    got = dev.get(kl)[:, 0]
    assert got.min() == 0
    assert np.argwhere(got < 1e-12).tolist() == np.argwhere((grid == 0).all(1)).tolist()
    np.testing.assert_allclose(got, (grid[:, 0] ** 2 + np.exp(2 * grid[:, 1]) - 1) / 2 - grid[:, 1], atol=1e-14)


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


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_kl_and_reconstruction_reduced_differently(device, name, likelihood):
    """A batch repeated, with the same eps for the repeated rows, has the batch's loss and gradients."""
    model, images = build(device, name, likelihood=likelihood, sigma=0.7), pictures(3)
    eps = np.random.default_rng(1).standard_normal((3, LATENT))
    results = []
    for repeats in (1, 2, 5):
        batch = model.batch("train", 3 * repeats)
        model.device.put(np.tile(images, (repeats, 1, 1, 1)) / 255, batch.x)
        if "latent" in batch.twins:
            batch.twins["latent"].philox_normal = lambda counters, stream, out, r=repeats: model.device.put(
                np.tile(eps, (r, 1)), out
            )
        model.loss_and_grad(model.players[0], batch)
        results.append((host(model, batch.metrics), host(model, model.table.grads)))
    for metrics, grads in results[1:]:
        np.testing.assert_allclose(metrics, results[0][0], rtol=1e-12)
        np.testing.assert_allclose(grads, results[0][1], rtol=1e-9, atol=1e-12)


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
def test_sigmoid_then_log(device, dtype):
    """Value and gradient are finite, and right, at logits of ±1000."""
    dev, k = open_device(device), kernels.load(device)
    logits = np.array([[1000, 1000, 1000, -1000, -1000, -1000, 0]], dtype)
    x = np.array([[0, 1, 0.5, 0, 1, 0.5, 0.5]], dtype)
    nll, grad = dev.put(np.zeros(1, dtype)), dev.put(np.zeros((1, 7), dtype))
    k.bernoulli_nll(dev.put(logits), dev.put(x), dev.put(np.ones(1, dtype)), nll, grad)
    np.testing.assert_allclose(dev.get(nll), 1000 + 500 + 1000 + 500 + math.log(2), rtol=1e-6)
    np.testing.assert_array_equal(dev.get(grad)[0], [1, 0, 0.5, 0, -1, -0.5, 0])


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


# ------------------------------------------------------------------------------------------------ gradients


LAYERS = {
    "dense": (lambda: Dense(5, 3, "tanh"), (5,)),
    "conv2d": (lambda: Conv2d(2, 3, (2, 3), (1, 2), (1, 0), "softplus"), (4, 5, 2)),
    "convtranspose2d": (lambda: ConvTranspose2d(2, 3, (2, 3), (4, 9), (1, 3), (0, 1), "sigmoid"), (3, 3, 2)),
    "silu": (SiLU, (4, 3)),
    "activation": (lambda: Activation("elu"), (4, 3)),
    "flatten": (Flatten, (2, 3, 1)),
    "reshape": (lambda: Reshape(3, 2, 1), (2, 3)),
    "latent": (lambda: Latent(3), (6,)),
    "bernoulli": (Bernoulli, (2, 3, 1)),
    "gaussian": (lambda: Gaussian(0.7), (2, 3, 1)),
    "sequential": (lambda: Sequential(Dense(5, 4, "tanh"), SiLU(), Dense(4, 3)), (5,)),
}


def bound(name, rows=3):
    """(twin, table, forward's inputs) of a layer in float64, KL weight 0: then backward is linear in its cotangent."""
    make, shape = LAYERS[name]
    layer, dev, rng = make(), open_device("numpy"), np.random.default_rng(3)
    shapes = (shape, shape) if name in ("bernoulli", "gaussian") else (shape,)
    layer.declare(*shapes)
    table, clock = ParamTable({"part": layer}, "float64", dev, 1), Clock(dev, 1, 3, 1)
    dev.fill(clock.kl_weight, 0)
    twin = layer.bind(Site(table, kernels.load("numpy", unchecked=True), clock, rows, path="part"))
    xs = [rng.standard_normal((rows, *s)) for s in shapes]
    if name in ("bernoulli", "gaussian"):
        xs[1] = rng.random(xs[1].shape)
        dev.fill(twin.row_scale, 1)  # 1 / rows as a rule, since the loss is a mean
    return twin, table, xs


def gradients(twin, table, xs, cotangent):
    """[grad_x, parameter gradients] of Σ cotangent · y."""
    twin.forward(*xs)
    grad_x = twin.backward(cotangent.copy())
    return np.concatenate([np.ravel(grad_x), np.ravel(table.grads)]).copy()


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("name", LAYERS)
def test_upstream_gradient_ignored_or_averaged(name, scale):
    """A random cotangent of scale 1 and 100: the directional derivative of Σ cotangent · y is the gradient's."""
    twin, table, xs = bound(name)
    rng = np.random.default_rng(4)
    y = np.array(twin.forward(*xs))
    cotangent, dx = scale * rng.standard_normal(y.shape), rng.standard_normal(xs[0].shape)
    dw = rng.standard_normal(table.values.shape)

    def moved(h):
        table.values[...] += h * dw
        value = float((cotangent * twin.forward(xs[0] + h * dx, *xs[1:])).sum())
        table.values[...] -= h * dw
        return value

    numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5
    analytic = gradients(twin, table, xs, cotangent) @ np.concatenate([dx.ravel(), dw])
    assert analytic == pytest.approx(numeric, rel=1e-7, abs=1e-7 * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_backward_is_linear_in_its_cotangent(name):
    twin, table, xs = bound(name)
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, *np.shape(twin.forward(*xs))))
    separate = gradients(twin, table, xs, a) - 100 * gradients(twin, table, xs, b)
    np.testing.assert_allclose(gradients(twin, table, xs, a - 100 * b), separate, rtol=1e-9, atol=1e-11)
    assert not gradients(twin, table, xs, 0 * a).any()


def test_transposed_gradient_hidden_by_a_square_shape():
    """The shapes that the tests above and the op table use are not square, so that a transposed index shows."""
    for name in LAYERS:
        _, table, _ = bound(name)
        for tensor in table.names():
            shape = table.view(tensor).shape
            assert len(set(shape)) == len(shape) or name.startswith("conv"), (name, shape)
    for op in ("dense", "dense_grad_x", "dense_grad_w", "conv2d", "conv2d_grad_x", "conv2d_grad_w"):
        for label in ("ragged",):
            shape = [v for k, v in OPS[op].examples[label].items() if k.isupper()]
            assert len(set(shape)) == len(shape), (op, label)


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


@pytest.mark.parametrize("name", ["vae", "conv-vae"])
def test_noise_redrawn_between_two_evaluations_of_the_loss(device, name):
    """The same counter gives the same bits; another step gives other noise."""
    model = build(device, name)
    batch = model.batch("train", 4)
    Feed(model, pictures(4)).fill(batch)
    values = []
    for step in (3, 3, 4, 3):
        model.clock.set(step=step)
        model.loss(batch)
        values.append(host(model, batch.metrics).tobytes())
    assert values[0] == values[1] == values[3]
    assert values[0] != values[2]


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


def test_buffer_aliasing_seen_by_the_user(device):
    """Public methods called twice give independent arrays: the second call does not change the first's result."""
    model, a, b = build(device), pictures(5, seed=1), pictures(5, seed=2)
    z = np.random.default_rng(0).standard_normal((5, LATENT))
    calls = {
        "encode": lambda x, z: model.encode(x),
        "decode": lambda x, z: (model.decode(z),),
        "reconstruct": lambda x, z: (model.reconstruct(x),),
        "sample": lambda x, z: (model.sample(5, seed=int(x[0, 0, 0, 0])),),
        "interpolate": lambda x, z: (model.interpolate(x[0], x[1], 3),),
    }
    for name, method in calls.items():
        first = method(a, z)
        kept = [array.copy() for array in first]
        second = method(b, -z)
        for array, copy, other in zip(first, kept, second, strict=True):
            np.testing.assert_array_equal(array, copy, err_msg=name)
            assert not np.array_equal(array, other), name
            assert array.flags.owndata or array.base.flags.owndata, name
        for array in second:
            array[...] = np.nan
        for array, copy in zip(method(a, z), kept, strict=True):
            np.testing.assert_array_equal(array, copy, err_msg=name)


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


@pytest.mark.parametrize("name", ["vae", "conv-vae", "ae"])
def test_validation_and_training_on_different_objectives(device, name):
    """One function computes both: at the same noise and KL weight they agree to the last bit."""
    model, images = build(device, name), pictures(6)
    model.device.fill(model.clock.kl_weight, 0.25)
    feed = Feed(model, images)
    figures = evaluate_pass(model, feed, 6)
    evaluated = host(model, model.batch("evaluate", 6).metrics)
    batch = model.batch("train", 6)
    model.clock.set(step=0, row=0, cursor=0)
    feed.fill(batch)
    model.loss_and_grad(model.players[0], batch)
    assert host(model, batch.metrics).tobytes() == evaluated.tobytes()
    assert figures["loss"] == pytest.approx(evaluated[0], rel=1e-14)


# ------------------------------------------------------------------------------------------------ statistics


def random_op(device, name, shape, seed=1, step=1, stream=16, row=0):
    dev = open_device(device)
    counters = np.zeros(COUNTERS, np.uint64)
    counters[[SEED, STEP, ROW]] = np.array([seed, step, row], np.uint64)
    out = dev.put(np.zeros(shape))
    getattr(kernels.load(device), name)(dev.put(counters), stream, out)
    return dev.get(out)


N = 200_000
erf = np.vectorize(math.erf)


def kolmogorov(sample, cdf):
    """√n · the largest distance between the sample's distribution and `cdf`; above 1.95 with probability 0.001."""
    ordered = np.sort(sample.ravel())
    steps = np.arange(ordered.size + 1) / ordered.size
    values = cdf(ordered)
    return math.sqrt(ordered.size) * max(np.abs(values - steps[1:]).max(), np.abs(values - steps[:-1]).max())


def test_uniforms_are_uniform(device):
    u = random_op(device, "philox_uniform", (N // 100, 100))
    assert u.min() >= 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / math.sqrt(12 * N)
    assert abs(u.var() - 1 / 12) < 4 / math.sqrt(180 * N)
    assert kolmogorov(u, lambda a: a) < 1.95


def test_normals_are_normal(device):
    z = random_op(device, "philox_normal", (N // 100, 100))
    assert np.isfinite(z).all()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 4 * math.sqrt(variance / N), f"moment {power}"
    assert kolmogorov(z, lambda a: 0.5 * (1 + erf(a / math.sqrt(2)))) < 1.95
    assert 4 < np.abs(z).max() < 5.8  # the radius ends at √(48 ln 2)


def test_neighbours_steps_streams_and_seeds_are_not_correlated(device):
    z = random_op(device, "philox_normal", (N // 100, 100)).ravel()
    others = {
        "the next": np.roll(z, 1),
        "the pair's other half": z.reshape(-1, 2)[:, ::-1].ravel(),
        "the next block": np.roll(z, 4),
        "the next step": random_op(device, "philox_normal", (N // 100, 100), step=2).ravel(),
        "the next stream": random_op(device, "philox_normal", (N // 100, 100), stream=17).ravel(),
        "the next seed": random_op(device, "philox_normal", (N // 100, 100), seed=2).ravel(),
    }
    for name, other in others.items():
        for power in (1, 2):
            a, b = z**power, other**power
            correlation = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
            bar = 4 * math.sqrt(2 / N)  # products of the pair's halves are counted twice
            assert abs(correlation) < bar, f"{name}, power {power}"


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


@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_binarisation_has_the_pixels_as_probabilities(device, kind):
    model = build(device, shape=(16, 16, 1))
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(4, axis=0)
    feed = Feed(model, images if kind == "uint8" else images / 255, "dynamic")
    n = 4 * 500
    share = fills(model, feed, 4, range(500)).mean(axis=(0, 1))
    p = np.arange(256) / 255
    assert share[0] == 0  # black is never on, white always
    assert share[255] == 1
    z = (share - p)[1:-1] / np.sqrt(p * (1 - p) / n)[1:-1]
    assert np.abs(z).max() < 4
    assert abs((z**2).mean() - 1) < 4 * math.sqrt(2 / 254)


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
