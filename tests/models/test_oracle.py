"""The dense VAE of the zoo against naive_vae.py: loss, gradients, ten optimiser steps, and every random number.
Both are float64; the oracle shares no line with the package."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_vae import (
    BINARISE,
    EVALUATE,
    INIT,
    LAYER,
    SAMPLE,
    WEIGHTS,
    adam,
    clipped,
    draw,
    initial_weights,
    learning_rate,
    loss_and_grads,
    normal,
    philox,
    shuffled,
    uniform,
    word,
)

from tinyvae import kernels, zoo
from tinyvae.config import TrainConfig
from tinyvae.device import open_device
from tinyvae.kernels.clock import COUNTERS, ROW, SEED, STEP, Stream
from tinyvae.training.step import Feed, Step, evaluate_pass

SHAPE, HIDDEN, LATENT, MODEL_SEED = (5, 4, 1), 7, 3, 0xDEADBEEF12345678
TENSORS = [f"{part}.dense{i}.{t}" for part in ("encoder", "decoder") for i in (1, 2) for t in ("weight", "bias")]
NAMES = dict(zip(WEIGHTS, TENSORS, strict=True))
TOLERANCE = 1e-10


def build(device="numpy", shape=SHAPE, hidden=HIDDEN, latent=LATENT, **options):
    options = {"dtype": "float64", "seed": MODEL_SEED} | options
    return zoo.build("vae", shape, latent, (hidden,), device=device, **options)


def weights_of(model):
    return {k: model.device.get(model.table.view(name)) for k, name in NAMES.items()}


def grads_of(model):
    return {k: model.device.get(model.table.grad(name)) for k, name in NAMES.items()}


def assert_same(got, expected):
    """Every entry within 1e-10 of the largest of its tensor, and within 1e-10 of itself plus rounding of the sum."""
    for k, want in expected.items():
        assert np.isfinite(got[k]).all(), k
        np.testing.assert_allclose(got[k], want, rtol=TOLERANCE, atol=TOLERANCE * np.abs(want).max(), err_msg=k)


def images(n, shape=SHAPE, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def bind(model, x, step):
    """A training batch that holds x (B, D), with the clock at `step`."""
    batch = model.batch("train", len(x))
    model.device.put(x.reshape(batch.x.shape), batch.x)
    model.clock.set(step=step)
    return batch


@pytest.mark.parametrize(
    ("shape", "hidden", "latent", "rows"),
    [(SHAPE, HIDDEN, LATENT, 6), ((1, 1, 1), 1, 1, 1), ((28, 28, 1), 400, 20, 33)],
)
@pytest.mark.parametrize("sigma", [None, 0.6])
def test_loss_and_every_gradient(device, shape, hidden, latent, rows, sigma):
    likelihood = {"likelihood": "gaussian", "sigma": sigma} if sigma else {}
    model = build(device, shape, hidden, latent, **likelihood)
    x = np.random.default_rng(2).random((rows, int(np.prod(shape))))
    batch = bind(model, x, step=7)
    beta = 0.3
    model.device.fill(model.clock.kl_weight, beta)
    model.loss_and_grad(model.players[0], batch)
    eps = draw(normal, (rows, latent), 7, LAYER, MODEL_SEED)
    expected, grads = loss_and_grads(weights_of(model), x, eps, beta, sigma)
    np.testing.assert_allclose(model.device.get(batch.metrics), expected, rtol=TOLERANCE)
    assert_same(grads_of(model), grads)


VARIANTS = {
    "beta, warm-up": {"beta": 2.5, "warmup": 2},
    "clipping, Gaussian": {"clip": 3.0, "sigma": 0.6, "lr": 0.01},
    "cosine": {"schedule": "cosine", "lr": 0.02, "beta": 0.5, "epochs": 12},
    "step": {"schedule": "step", "lr": 0.02, "epochs": 4},
    "binarised at each visit": {"binarize": "dynamic", "lr": 0.01},
    "binarised once": {"binarize": "static", "lr": 0.01, "clip": 0.5},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_ten_adam_steps(device, name):
    """Eleven images in batches of four, so that every third batch has three; shuffled anew in each epoch."""
    options = dict(VARIANTS[name])
    sigma = options.pop("sigma", None)
    lr, binarize = options.setdefault("lr", 1e-3), options.setdefault("binarize", "none")
    config = TrainConfig(batch_size=4, **options)
    model = build(device, **({"likelihood": "gaussian", "sigma": sigma} if sigma else {}))
    pixels = images(11)
    feed = Feed(model, pixels, binarize)
    step = Step(model, feed, config)
    assert step.per_epoch == 3

    w = initial_weights((20, HIDDEN, 2 * LATENT, LATENT, HIDDEN, 20), MODEL_SEED)
    assert_same(weights_of(model), w)
    m, v = ({k: np.zeros_like(a) for k, a in w.items()} for _ in range(2))
    factors = []
    for t in range(1, 11):
        epoch, place = divmod(t - 1, 3)
        if place == 0:
            feed.shuffle(MODEL_SEED, epoch)
            order = shuffled(11, MODEL_SEED, epoch)
        batch = step.run()

        chosen = order[4 * place : 4 * place + 4]
        x = pixels[chosen].reshape(len(chosen), 20) / 255
        if binarize == "dynamic":
            x = (draw(uniform, x.shape, t, BINARISE, MODEL_SEED) < x).astype(float)
        elif binarize == "static":
            x = (draw(uniform, (11, 20), 0, BINARISE, MODEL_SEED)[chosen] < x).astype(float)
        eps = draw(normal, (len(chosen), LATENT), t, LAYER, MODEL_SEED)
        warm = 3 * config.warmup
        beta = config.beta * (min(1, t / warm) if warm else 1)
        expected, grads = loss_and_grads(w, x, eps, beta, sigma)
        grads, factor = clipped(grads, config.clip)
        factors.append(factor)
        adam(w, grads, m, v, t, learning_rate(config.schedule, lr, t, 3 * config.epochs))
        np.testing.assert_allclose(model.device.get(batch.metrics), expected, rtol=TOLERANCE, err_msg=f"step {t}")
    assert_same(weights_of(model), w)
    if config.clip:  # the clip was felt, or the test shows nothing
        assert min(factors) < 0.9


def test_ten_steps_of_gradient_descent(device):
    config = TrainConfig(batch_size=4, optimizer="sgd", lr=1e-3, clip=20.0)
    model, pixels = build(device), images(8)
    step = Step(model, Feed(model, pixels), config)
    w, velocity = weights_of(model), None
    for t in range(1, 11):
        step.run()
        chosen = slice(0, 4) if t % 2 else slice(4, 8)
        eps = draw(normal, (4, LATENT), t, LAYER, MODEL_SEED)
        _, grads = loss_and_grads(w, pixels[chosen].reshape(4, 20) / 255, eps)
        grads, _ = clipped(grads, 20.0)
        velocity = {k: g + (0.9 * velocity[k] if velocity else 0) for k, g in grads.items()}
        w = {k: w[k] - 1e-3 * velocity[k] for k in w}
    assert_same(weights_of(model), w)


def test_evaluation_pass(device):
    """Step 0, its own binarisation, one place per image: whatever the batch size."""
    model, pixels = build(device), images(11)
    got = evaluate_pass(model, Feed(model, pixels, "static", evaluation=True), batch_size=4)
    x = (draw(uniform, (11, 20), 0, EVALUATE, MODEL_SEED) < pixels.reshape(11, 20) / 255).astype(float)
    eps = draw(normal, (11, LATENT), 0, LAYER, MODEL_SEED)
    (loss, recon, kl), _ = loss_and_grads(weights_of(model), x, eps)
    want = {"loss": loss, "neg_elbo": recon + kl, "recon": recon, "kl": kl}
    assert got.keys() == want.keys()
    np.testing.assert_allclose([got[k] for k in want], list(want.values()), rtol=TOLERANCE)


def test_public_methods():
    model, pixels = build(), images(5)
    w, x = weights_of(model), pixels.reshape(5, 20) / 255
    h = np.maximum(x @ w["W1"] + w["b1"], 0) @ w["W2"] + w["b2"]
    z_mean, z_log_sigma = model.encode(pixels)
    np.testing.assert_allclose(np.hstack([z_mean, z_log_sigma]), h, rtol=TOLERANCE)

    def decode(z):
        return 1 / (1 + np.exp(-(np.maximum(z @ w["W3"] + w["b3"], 0) @ w["W4"] + w["b4"]))).reshape(-1, 20)

    flat = h[:, :LATENT]
    np.testing.assert_allclose(model.reconstruct(pixels).reshape(5, 20), decode(flat), rtol=TOLERANCE)
    sampled = decode(draw(normal, (4, LATENT), 0, SAMPLE, 99))
    np.testing.assert_allclose(model.sample(4, seed=99).reshape(4, 20), sampled, rtol=TOLERANCE)
    strip = decode(np.linspace(flat[:2], flat[2:4], 5, axis=1).reshape(-1, LATENT))
    got = model.interpolate(pixels[:2], pixels[2:4], steps=5)
    np.testing.assert_allclose(got.reshape(-1, 20), strip, rtol=TOLERANCE)


# ------------------------------------------------------------------------------------------------ Philox


def run_random(device, name, seed, step, row, stream, shape, dtype):
    """A Philox op's output as a NumPy array."""
    counters = np.zeros(COUNTERS, np.uint64)
    counters[[SEED, STEP, ROW]] = np.array([seed, step, row], np.uint64)
    dev = open_device(device)
    out = dev.put(np.zeros(shape, dtype))
    getattr(kernels.load(device), name)(dev.put(counters), stream, out)
    return dev.get(out)


KNOWN = [  # Random123's kat_vectors for philox4x32-10: counter, key, words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
     (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter, key, words):
    assert philox(counter, key) == words
    c0, c1, step, stream = counter
    block = np.array([c0 + (c1 << 32)], np.uint64)
    got = kernels.ops.noise._philox(block, step, stream, key[0] + (key[1] << 32))
    assert tuple(int(word[0]) for word in got) == words


def test_philox_known_answer_through_the_op(device):
    got = run_random(device, "philox_bits", 0, 0, 0, 0, (1, 4), np.uint32)
    assert tuple(got[0]) == KNOWN[0][2]


@given(
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**32 - 1),
    stream=st.integers(0, 2**31),
    row=st.one_of(st.integers(0, 40), st.integers(2**30, 2**59)),
    rows=st.integers(1, 3),
    width=st.integers(1, 9),
)
def test_philox_ops(device, seed, step, stream, row, rows, width):
    """Integers equal and normals to rounding, at any row: also where the flat position needs more than 32 bits."""
    shape, place = (rows, width), (step, stream, seed, row * width)
    got = run_random(device, "philox_bits", seed, step, row, stream, shape, np.uint32)
    np.testing.assert_array_equal(got, draw(word, shape, *place))
    for dtype in (np.float32, np.float64):
        got = run_random(device, "philox_uniform", seed, step, row, stream, shape, dtype)
        np.testing.assert_array_equal(got, draw(uniform, shape, *place))
        got = run_random(device, "philox_normal", seed, step, row, stream, shape, dtype)
        eps = 16 * np.finfo(dtype).eps
        np.testing.assert_allclose(got, draw(normal, shape, *place), rtol=eps, atol=6 * eps)  # radius at most 5.8


def test_streams_have_the_documented_numbers():
    assert (Stream.INIT, Stream.SHUFFLE, Stream.BINARISE, Stream.EVALUATE, Stream.SAMPLE, Stream.LAYER) == (
        INIT, 1, BINARISE, EVALUATE, SAMPLE, LAYER,
    )  # fmt: skip


@given(count=st.integers(1, 60), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 10**6))
def test_shuffle(count, seed, epoch):
    model = build(shape=(1, 2, 1), hidden=1, latent=1)
    feed = Feed(model, images(count, (1, 2, 1)))
    feed.shuffle(seed, epoch)
    assert model.device.get(feed.order).tolist() == shuffled(count, seed, epoch)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1])
def test_initial_weights(seed):
    """The same float64 numbers on every device, rounded in float32."""
    want = initial_weights((20, HIDDEN, 2 * LATENT, LATENT, HIDDEN, 20), seed)
    for dtype in ("float64", "float32"):
        got = weights_of(build(seed=seed, dtype=dtype))
        for k in WEIGHTS:
            assert got[k].dtype == dtype
            np.testing.assert_allclose(got[k], want[k], rtol=np.finfo(dtype).eps)
