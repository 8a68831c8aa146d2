"""What a gradient check cannot see: forward and backward may agree with each other and mean something else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..device import NumpyDevice, open_device
from ..errors import TinyvaeError
from ..kernels import BY_CODE, IDENTITY
from ..kernels.check import Runner
from ..kernels.clock import Stream
from ..layers.conv import Conv2d
from ..layers.dense import Dense
from ..layers.join import Sequential
from ..layers.latent import Latent
from ..layers.reshape import Flatten, Reshape
from ..models import VAE, zoo
from ..training.step import Feed, evaluate_pass
from .harness import STEP_OF_NOISE, LayerHarness

Array = Any  # of the device, or of NumPy where a model gives it


class MeaningError(TinyvaeError):
    """Something computes another thing than it says."""


def require(condition: bool, sentence: str) -> None:
    """A MeaningError unless `condition`; NaN must be excluded by the caller's way of asking (not x <= limit)."""
    if not condition:
        raise MeaningError(sentence)


@dataclass(frozen=True)
class Meaning:
    """A check by name: the ops and classes it is about, and run(device) → what was measured; MeaningError if wrong."""

    name: str
    places: tuple[str, ...]
    run: Callable[[str], str]


# ---------------------------------------------------------------------------------------------- latent


def variance_of_z(device: str) -> str:
    """Over many eps, z has mean z_mean and variance exp(2 z_log_sigma), for what `encode` gives as z_log_sigma."""
    n, model = 60_000, small_vae(device)
    mean, log_sigma = np.array([0.5, -1.0, 2.0]), np.array([-1.5, 0.4, 0.0])
    weight, bias = [name for name in model.table.names() if name.startswith("encoder")][-2:]
    model.device.fill(model.table.view(weight), 0)  # every image has this posterior
    model.device.put(np.concatenate([mean, log_sigma]), model.table.view(bias))
    x = np.random.default_rng(9).uniform(0, 1, (1, *model.image_shape))
    encoded = np.concatenate(model.encode(x), axis=1)[0]  # type: ignore[arg-type]
    apart = float(np.abs(encoded - np.concatenate([mean, log_sigma])).max())
    require(apart <= 1e-12, f"encode gives z_mean and z_log_sigma that are {apart:.3g} away from the encoder's output")
    batch = model.batch("evaluate", 1, n)
    model.device.put(x, batch.x)
    z = model.device.get(batch.twins["latent"].forward(batch.twins["encoder"].forward(batch.x)))
    sigma = np.exp(log_sigma)
    ratio = ", ".join(f"{r:.3f}" for r in z.var(axis=0) / sigma**2)
    require(
        float(np.abs(z.var(axis=0) / sigma**2 - 1).max()) <= 4 * math.sqrt(2 / n),
        f"the variance of z over {n} draws is {ratio} times exp(2 z_log_sigma); is exp(log-variance) taken for sigma?",
    )
    shift = float((np.abs(z.mean(axis=0) - mean) / sigma).max())
    require(shift <= 4 / math.sqrt(n), f"the mean of z over {n} draws is {shift:.3g} sigma away from z_mean")
    return f"variance / exp(2 z_log_sigma) = {ratio}"


def kl_is_monte_carlo(device: str) -> str:
    """The analytic KL equals the mean of log q(z) − log p(z) over the op's draws z."""
    n, rng = 200_000, np.random.default_rng(1)
    mean, log_sigma = np.array([[0.7, -1.2, 0.1]]), np.array([[0.4, -0.9, 0.05]])
    h, eps = np.concatenate([mean, log_sigma], axis=1), rng.standard_normal((n, 3))
    z, kl = Runner(device)("latent", h, eps, z=(n, 3), kl=(1, 3))
    terms = -0.5 * ((z - mean) / np.exp(log_sigma)) ** 2 - log_sigma + 0.5 * z**2
    apart = np.abs(kl[0] - terms.mean(axis=0)) / (terms.std(axis=0) / math.sqrt(n))
    both = f"analytic {kl.sum():.4f}, Monte Carlo {terms.mean(axis=0).sum():.4f} nats"
    require(bool(np.all(apart <= 4)), f"the KL is not that of N(z_mean, exp(z_log_sigma)²) to N(0, I): {both}")
    return both


def kl_sign(device: str) -> str:
    """KL ≥ 0 everywhere, 0 exactly at z_mean = 0, z_log_sigma = 0, and its formula elsewhere."""
    h = np.array([(m, s) for m in np.linspace(-3, 3, 13) for s in np.linspace(-2, 2, 9)])
    n = len(h)
    kl = Runner(device)("latent", h, np.zeros((n, 1)), z=(n, 1), kl=(n, 1))[1][:, 0]
    require(bool(np.all(kl >= 0)), f"a KL divergence is {kl.min():.4g}, below 0: its sign is wrong")
    zero = (h == 0).all(axis=1)
    require(bool(np.all(kl[zero] == 0)), f"KL at z_mean = 0, z_log_sigma = 0 is {kl[zero][0]:.4g}, not 0")
    require(bool(np.all(kl[~zero] >= 1e-12)), "the KL is 0 at another place than z_mean = 0, z_log_sigma = 0")
    apart = float(np.abs(kl - ((h[:, 0] ** 2 + np.exp(2 * h[:, 1]) - 1) / 2 - h[:, 1])).max())
    require(apart <= 1e-14 * 30, f"the KL is {apart:.3g} away from ½ (z_mean² + sigma² − 1) − log sigma")
    return f"least of {n} is {kl[~zero].min():.2e}, zero at (0, 0)"


def noise_is_fixed(device: str) -> str:
    """The same clock gives the same z; another step, another row and another layer give other noise."""
    harness = LayerHarness(Sequential(Latent(2), Dense(2, 4), Latent(2)), ((4,),), 4, device=device)
    harness.given = [np.zeros((4, 4))]
    outer, inner = harness.latents[1], harness.latents[0]

    def eps(step: int) -> tuple[np.ndarray, np.ndarray]:
        harness.clock.set(step=step)
        harness.forward()
        return harness.device.get(inner.eps), harness.device.get(outer.eps)

    first, other = eps(STEP_OF_NOISE)
    require(np.array_equal(first, eps(STEP_OF_NOISE)[0]), "two forward passes at the same step drew different noise")
    require(not np.allclose(first, eps(STEP_OF_NOISE + 1)[0]), "the next step drew the same noise again")
    require(not np.allclose(first, other), "two latent layers share their noise: each takes a stream of its own")
    require(not np.allclose(first[0], first[1]), "two rows of a batch share their noise")
    return "fixed by step and layer"


# ---------------------------------------------------------------------------------------------- likelihoods


def zero_logits(device: str) -> str:
    """Zero logits on 784 pixels cost 784 · ln 2 = 543.43 nats, whatever the image: summed, not averaged."""
    x = np.random.default_rng(3).uniform(0, 1, (2, 784))
    nll = Runner(device)("bernoulli_nll", np.zeros((2, 784)), x, np.ones(2), nll=(2,), grad_logits=(2, 784))[0]
    cost = 784 * math.log(2)
    reduced = "averaged over the pixels?" if abs(nll[0] - math.log(2)) < 1e-6 else "it must be summed over the pixels"
    sentence = f"zero logits on 784 pixels cost {nll[0]:.4f} nats, not 784 · ln 2 = {cost:.4f}; {reduced}"
    require(bool(np.all(np.abs(nll - cost) <= 1e-9)), sentence)
    return f"{nll[0]:.2f} nats"


def bernoulli_is_a_distribution(device: str) -> str:
    """exp(−nll) over all images of 3 binary pixels sums to 1, and P(pixel = 1) is the sigmoid of its logit."""
    images = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)], np.float64)
    logits = np.tile([0.3, -1.7, 2.2], (8, 1))
    nll = Runner(device)("bernoulli_nll", logits, images, np.ones(8), nll=(8,), grad_logits=(8, 3))[0]
    total, p = float(np.exp(-nll).sum()), float(np.exp(-nll) @ images[:, 0])
    require(abs(total - 1) <= 1e-12, f"the probabilities of all images sum to {total:.6g}, not 1")
    sigmoid = 1 / (1 + math.exp(-0.3))
    require(abs(p - sigmoid) <= 1e-12, f"P(pixel = 1) at logit 0.3 is {p:.6g}, not sigmoid(0.3) = {sigmoid:.6g}")
    return f"sums to {total:.12f}"


def gaussian_is_a_density(device: str) -> str:
    """exp(−nll) integrates to 1 over a pixel, for any sigma: the normalising constants are there."""
    x = np.linspace(-12, 13, 50_001)[:, None]
    texts = []
    for sigma in (0.4, 1.0, 1.5):
        run, mean = Runner(device), np.full_like(x, 0.3)
        nll = run("gaussian_nll", mean, x, np.ones(len(x)), sigma, nll=(len(x),), grad_mean=x.shape)[0]
        total = float(np.exp(-nll).sum() * (x[1, 0] - x[0, 0]))
        sentence = f"with sigma = {sigma} the density integrates to {total:.6g}, not 1: is log sigma + ½ log 2π there?"
        require(abs(total - 1) <= 1e-9, sentence)
        texts.append(f"{total:.9f}")
    return "integrates to " + ", ".join(texts)


def extreme_logits(device: str) -> str:
    """Value and gradient are finite and right at logits of ±1000, in float64 and float32: no log of a sigmoid."""
    logits = np.array([[1000.0, 1000.0, 1000.0, -1000.0, -1000.0, -1000.0, 40.0, -40.0, 0.0]])
    x = np.array([[0.0, 1.0, 0.5, 0.0, 1.0, 0.5, 0.0, 1.0, 0.5]])
    cost = 1000 + 500 + 1000 + 500 + 40 + 40 + math.log(2)
    for dtype in (np.float64, np.float32):
        run = Runner(device, dtype)
        nll, grad = run("bernoulli_nll", logits, x, np.ones(1), nll=(1,), grad_logits=logits.shape)
        good = bool(np.isfinite(nll).all() and np.isfinite(grad).all())
        require(good, f"logits of ±1000 give nll {nll[0]} and gradient {grad[0].tolist()} in {np.dtype(dtype)}")
        good = abs(nll[0] / cost - 1) <= 1e-6
        require(bool(good), f"logits of ±1000, ±40 and 0 cost {nll[0]:.6g} nats, not {cost:.6g}")
        good = np.array_equal(grad[0, :6], [1, 0, 0.5, 0, -1, -0.5]) and grad[0, 8] == 0
        good &= bool(np.abs(grad[0, 6:8] - (1, -1)).max() <= 1e-6)
        require(good, f"gradient at logits of ±1000, ±40 and 0 is {grad[0].tolist()}")
    return "finite and right at ±1000"


def rows_of_images(device: str) -> str:
    """With k samples per image, row r is scored against image r // k."""
    x = np.random.default_rng(4).uniform(0, 1, (2, 5))
    mean = np.repeat(x, 3, axis=0)  # every row equals its image
    for op, extra in (("gaussian_nll", (1.0,)), ("bernoulli_nll", ())):
        label = "grad_mean" if extra else "grad_logits"
        outputs = mean if extra else np.log(mean / (1 - mean))
        grad = Runner(device)(op, outputs, x, np.ones(6), *extra, **{"nll": (6,), label: (6, 5)})[1]
        sentence = f"{op}: rows that equal their image have a gradient: row r must be scored against image r // k"
        require(bool(np.abs(grad).max() <= 1e-12), sentence)
    return "row r belongs to image r // k"


# ---------------------------------------------------------------------------------------------- the maps


def activation_values(device: str) -> str:
    """Every activation at a few points, against the textbook formula."""
    x = np.array([-30.0, -1.5, -0.1, 0.0, 0.1, 1.5, 30.0])
    for act, activation in enumerate(BY_CODE):
        y = Runner(device)("activate", x, act, y=x.shape)
        for value, given in zip(x, y, strict=True):
            right = activation.formula(float(value))
            good = abs(given - right) <= 1e-12 * max(1, abs(right))
            require(good, f"{activation.name}({value:g}) = {given:.9g}, the formula says {right:.9g}")
    y = Runner(device)("silu", x, y=x.shape)
    require(bool(np.abs(y - x / (1 + np.exp(-x))).max() <= 1e-12), "silu(x) is not x · sigmoid(x)")
    return f"{len(BY_CODE) + 1} functions at {len(x)} points"


def conv_is_a_cross_correlation(device: str) -> str:
    """conv2d equals its formula in six loops: the kernel is not flipped, padding is zero, stride (h, w) in order."""
    rng = np.random.default_rng(5)
    x, w, b = rng.standard_normal((2, 5, 6, 2)), rng.standard_normal((3, 2, 2, 3)), rng.standard_normal(3)
    (sh, sw), (ph, pw) = (2, 1), (1, 2)
    OH, OW = (5 + 2 * ph - 3) // sh + 1, (6 + 2 * pw - 2) // sw + 1
    y = Runner(device)("conv2d", x, w, b, (sh, sw), (ph, pw), IDENTITY, y=(2, OH, OW, 3))
    meant = np.tile(b, (2, OH, OW, 1))
    for i, j, u, v in np.ndindex(OH, OW, 3, 2):
        p, q = i * sh + u - ph, j * sw + v - pw
        if 0 <= p < 5 and 0 <= q < 6:
            meant[:, i, j] += x[:, p, q] @ w[u, v]
    apart = float(np.abs(y - meant).max())
    require(apart <= 1e-12, f"conv2d is {apart:.3g} away from its formula: a flipped kernel, padding or stride?")
    return f"within {apart:.0e} of six loops"


def flatten_order(device: str) -> str:
    """Flatten is in (H, W, C) order and Reshape undoes it."""
    layer = Sequential(Flatten(), Reshape(3, 2, 4))
    flat = LayerHarness(Flatten(), ((3, 2, 4),), 2, device=device)
    y, x = flat.forward(), flat.given[0]
    require(np.array_equal(y, x.reshape(2, 24)), "Flatten does not give the pixels in (H, W, C) order")
    both = LayerHarness(layer, ((3, 2, 4),), 2, device=device)
    require(np.array_equal(both.forward(), both.given[0]), "Reshape after Flatten does not give the image back")
    return "(H, W, C)"


# ---------------------------------------------------------------------------------------------- models


def small_vae(device: str, rows_seed: int = 0) -> VAE:
    """A VAE of a few numbers, in float64."""
    encoder = Sequential(Conv2d(1, 2, 2, act="tanh"), Flatten(), Dense(12, 6))
    decoder = Sequential(Dense(3, 12), Reshape(3, 4, 1))
    return VAE(encoder, decoder, 3, (3, 4, 1), device=device, dtype="float64", seed=rows_seed)


MODELS = ("vae", "conv-vae", "ae")


def repeated_batch(device: str) -> str:
    """Given the same eps for the repeated rows, a repeated batch has the loss and the gradients of the batch."""
    rng = np.random.default_rng(6)
    x, noise = rng.uniform(0, 1, (3, 5, 3, 2)), rng.standard_normal((3, 3))
    for name, likelihood in product(MODELS, ("bernoulli", "gaussian")):
        model = zoo.build(name, (5, 3, 2), 3, (6,), likelihood, 0.7, device=device, dtype="float64")
        found = []
        for repeats in (1, 2, 5):
            batch, eps = model.batch("train", 3 * repeats), np.tile(noise, (repeats, 1))
            model.device.put(np.tile(x, (repeats, 1, 1, 1)), batch.x)
            if "latent" in batch.twins:
                draw = partial(_write, model.device, eps)
                batch.twins["latent"].philox_normal = draw
            model.loss_and_grad(model.players[0], batch)
            found.append((model.device.get(batch.metrics), model.device.get(model.table.grads)))
        once, grads = found[0]
        for metrics, repeated in found[1:]:
            costs = f"a batch costs {once[0]:.6f} and the same batch repeated {metrics[0]:.6f}: a sum, not a mean"
            require(np.allclose(metrics, once, rtol=1e-12, atol=0), f"{name}, {likelihood}: {costs}")
            apart = float(np.abs(repeated - grads).max())
            sentence = f"the gradients of a repeated batch are {apart:.3g} away from those of the batch"
            require(np.allclose(repeated, grads, rtol=1e-9, atol=1e-12), f"{name}, {likelihood}: {sentence}")
    return f"{len(MODELS)} models, 2 likelihoods"


def _write(device: NumpyDevice, eps: np.ndarray, counters: Array, stream: int, out: Array) -> None:
    """In the place of philox_normal."""
    device.put(eps, out)


def one_objective(device: str) -> str:
    """Training and evaluation give the same bits for the same images, noise and KL weight."""
    images = np.random.default_rng(7).integers(0, 256, (6, 5, 3, 2), np.uint8)
    for name in MODELS:
        model = zoo.build(name, (5, 3, 2), 3, (6,), device=device, dtype="float64")
        model.device.fill(model.clock.kl_weight, 0.25)
        feed = Feed(model, images)
        logged = evaluate_pass(model, feed, 6)["loss"]
        evaluated = model.device.get(model.batch("evaluate", 6).metrics)
        batch = model.batch("train", 6)
        model.clock.set(step=0, row=0, cursor=0)
        feed.fill(batch)
        model.loss_and_grad(model.players[0], batch)
        trained = model.device.get(batch.metrics)
        sentence = f"loss, recon, kl are {trained} in training and {evaluated} in evaluation at the same noise"
        require(trained.tobytes() == evaluated.tobytes(), f"{name}: {sentence}")
        require(abs(logged / trained[0] - 1) <= 1e-14, f"{name}: the logged loss is {logged:.9g}, not {trained[0]:.9g}")
        if "latent" in model.parts:
            loss, recon, kl = trained
            good = abs(loss - recon - 0.25 * kl) <= 1e-9
            require(bool(good), f"{name}: loss {loss:.6f} is not recon {recon:.6f} + beta · kl {kl:.6f}")
    return f"the same bits, {len(MODELS)} models"


def public_arrays_are_copies(device: str) -> str:
    """encode, decode, reconstruct, sample and interpolate give arrays of their own: neither a second call nor writing
    into its result changes what was given before, or what will be."""
    model, rng = small_vae(device), np.random.default_rng(8)
    a, b = rng.uniform(0, 1, (2, 20, 3, 4, 1))
    z_a, z_b = rng.standard_normal((2, 20, 3))
    calls: list[tuple[str, Callable[[Array, Array, int], Array]]] = [
        ("encode", lambda x, z, seed: model.encode(x)[0]),
        ("encode", lambda x, z, seed: model.encode(x)[1]),
        ("decode", lambda x, z, seed: model.decode(z)),
        ("reconstruct", lambda x, z, seed: model.reconstruct(x)),
        ("sample", lambda x, z, seed: model.sample(20, seed=seed)),
        ("interpolate", lambda x, z, seed: model.interpolate(x[0], x[1], 3)),
    ]
    for name, call in calls:
        kept = call(a, z_a, 1)
        before = kept.copy()
        other = call(b, z_b, 2)
        require(np.array_equal(kept, before), f"{name}: the first result changed at the second call; return a copy")
        require(not np.array_equal(kept, other), f"{name}: other arguments gave the same result")
        require(bool(kept.flags.owndata or kept.base.flags.owndata), f"{name}: the result is part of a buffer")
        other[...] = np.nan
        again = call(a, z_a, 1)
        require(np.array_equal(again, before), f"{name}: writing into a result changed what the next call gives")
    return f"{len(calls)} results"


def initial_noise_stream(device: str) -> str:
    """Weights, sampling and a layer's noise come from different streams of the same seed."""
    d = open_device(device)
    run, counters = Runner(device), np.zeros(5, np.uint64)
    streams = (Stream.INIT, Stream.SHUFFLE, Stream.BINARISE, Stream.EVALUATE, Stream.SAMPLE, Stream.LAYER)
    words = [run("philox_bits", counters, int(s), out=(1, 4)).tobytes() for s in streams]
    require(len(set(words)) == len(words), f"two random streams of device {d.name} give the same words")
    return f"{len(words)} streams"


MODEL_PLACES = ("Model", "objective", "latent", "latent_grad", "bernoulli_nll", "philox_normal", "conv2d_grad_w")

MEANINGS: tuple[Meaning, ...] = (
    Meaning("variance of z", ("latent", "philox_normal"), variance_of_z),
    Meaning("KL equals Monte Carlo", ("latent",), kl_is_monte_carlo),
    Meaning("KL sign and zero", ("latent",), kl_sign),
    Meaning("noise is fixed", ("philox_normal", "Latent"), noise_is_fixed),
    Meaning("zero logits cost 543.43", ("bernoulli_nll",), zero_logits),
    Meaning("Bernoulli sums to 1", ("bernoulli_nll",), bernoulli_is_a_distribution),
    Meaning("Gaussian integrates to 1", ("gaussian_nll",), gaussian_is_a_density),
    Meaning("logits of ±1000", ("bernoulli_nll",), extreme_logits),
    Meaning("rows belong to images", ("bernoulli_nll", "gaussian_nll"), rows_of_images),
    Meaning("activations", ("activate", "silu"), activation_values),
    Meaning("kernel is not flipped", ("conv2d",), conv_is_a_cross_correlation),
    Meaning("Flatten's order", ("Flatten", "Reshape"), flatten_order),
    Meaning("repeated batch", MODEL_PLACES, repeated_batch),
    Meaning("one objective", MODEL_PLACES, one_objective),
    Meaning("results are copies", ("Model",), public_arrays_are_copies),
    Meaning("streams differ", ("philox_bits",), initial_noise_stream),
)
