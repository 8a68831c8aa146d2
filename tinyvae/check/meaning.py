"""What a gradient check cannot see: forward and backward may agree with each other and mean something else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import kernels
from ..device import open_device
from ..errors import TinyvaeError
from ..kernels import ACTIVATIONS, IDENTITY
from ..kernels.clock import Stream
from ..layers import Conv2d, Dense, Flatten, Latent, Reshape, Sequential
from ..models import VAE
from .harness import STEP_OF_NOISE, LayerHarness, Runner

NONE = np.zeros(0)


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
    """Over many eps, z has mean z_mean and variance exp(2 z_log_sigma): log sigma, not the log of the variance."""
    n, sigma = 60_000, np.exp(np.array([-1.0, 0.0, 0.6]))
    mean = np.array([0.5, -1.0, 2.0])
    harness = LayerHarness(Latent(3), ((6,),), 1, samples=n, device=device)
    harness.given = [np.concatenate([mean, np.log(sigma)])[None]]
    z = harness.forward()
    worst = float(np.abs(z.var(axis=0) / sigma**2 - 1).max())
    shift = float((np.abs(z.mean(axis=0) - mean) / sigma).max())
    ratio = ", ".join(f"{r:.3f}" for r in z.var(axis=0) / sigma**2)
    require(
        worst <= 5 * math.sqrt(2 / n),
        f"the variance of z over {n} draws is {ratio} times exp(2 z_log_sigma); is exp(log-variance) taken for sigma?",
    )
    require(shift <= 5 / math.sqrt(n), f"the mean of z over {n} draws is {shift:.3g} sigma away from z_mean")
    return f"variance / exp(2 z_log_sigma) = {ratio}"


def kl_is_monte_carlo(device: str) -> str:
    """The analytic KL equals the mean of log q(z) − log p(z) over draws z of q = N(z_mean, exp(z_log_sigma)²)."""
    n, rng = 200_000, np.random.default_rng(1)
    mean, log_sigma = np.array([[0.7, -1.2, 0.1]]), np.array([[0.4, -0.9, 0.05]])
    kl = Runner(device)("latent", np.concatenate([mean, log_sigma], 1), np.zeros((1, 3)), z=(1, 3), kl=(1, 3))[1][0]
    eps = rng.standard_normal((n, 3))
    z = mean + np.exp(log_sigma) * eps
    terms = -0.5 * eps**2 - log_sigma + 0.5 * z**2
    apart = np.abs(kl - terms.mean(axis=0)) / (terms.std(axis=0) / math.sqrt(n))
    both = f"analytic {kl.sum():.4f}, Monte Carlo {terms.mean(axis=0).sum():.4f} nats"
    require(bool(np.all(apart <= 5)), f"the KL is not that of N(z_mean, exp(z_log_sigma)²) to N(0, I): {both}")
    return both


def kl_sign(device: str) -> str:
    """KL ≥ 0 everywhere and 0 exactly at z_mean = 0, z_log_sigma = 0."""
    h = np.random.default_rng(2).standard_normal((50, 6))
    h[0] = 0
    kl = Runner(device)("latent", h, np.zeros((50, 3)), z=(50, 3), kl=(50, 3))[1]
    require(bool(np.all(kl >= -1e-12)), f"a KL divergence is {kl.min():.4g}, below 0: its sign is wrong")
    require(bool(np.all(np.abs(kl[0]) <= 1e-12)), f"KL at z_mean = 0, z_log_sigma = 0 is {kl[0, 0]:.4g}, not 0")
    return f"least of {kl.size} is {kl[1:].min():.2e}, zero at (0, 0)"


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
    logits = np.array([[1000.0, 1000.0, -1000.0, -1000.0, 40.0, -40.0]])
    x = np.array([[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]])
    for dtype in (np.float64, np.float32):
        run = Runner(device, dtype)
        nll, grad = run("bernoulli_nll", logits, x, np.ones(1), nll=(1,), grad_logits=logits.shape)
        good = bool(np.isfinite(nll).all() and np.isfinite(grad).all())
        require(good, f"logits of ±1000 give nll {nll[0]} and gradient {grad[0].tolist()} in {np.dtype(dtype)}")
        require(abs(nll[0] - 2080) <= 1e-3, f"logits of ±1000 and ±40 cost {nll[0]:.6g} nats, not 2080")
        right = np.array([1, 0, 0, -1, 1, -1])
        require(bool(np.abs(grad - right).max() <= 1e-6), f"gradient at logits ±1000 is {grad[0].tolist()}")
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
    meant: dict[str, Callable[[float], float]] = {
        "identity": lambda v: v,
        "relu": lambda v: max(v, 0.0),
        "leaky_relu": lambda v: v if v > 0 else 0.2 * v,
        "elu": lambda v: v if v > 0 else math.expm1(v),
        "tanh": math.tanh,
        "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
        "softplus": lambda v: math.log1p(math.exp(v)),
    }
    for name, act in ACTIVATIONS.items():
        y = Runner(device)("activate", x, act, y=x.shape)
        for value, given in zip(x, y, strict=True):
            right = meant[name](float(value))
            good = abs(given - right) <= 1e-12 * max(1, abs(right))
            require(good, f"{name}({value:g}) = {given:.9g}, the formula says {right:.9g}")
    y = Runner(device)("silu", x, y=x.shape)
    require(bool(np.abs(y - x / (1 + np.exp(-x))).max() <= 1e-12), "silu(x) is not x · sigmoid(x)")
    return f"{len(ACTIVATIONS) + 1} functions at {len(x)} points"


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


def loss_of(model: VAE, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """metrics (3,) and all gradients of a batch."""
    batch = model.batch("train", len(x))
    model.device.put(x, batch.x)
    model.loss_and_grad(model.players[0], batch)
    return model.device.get(batch.metrics), model.device.get(model.table.grads)


def repeated_batch(device: str) -> str:
    """Given the same eps for the repeated rows, a repeated batch has the loss and the gradients of the batch."""
    model, x = small_vae(device), np.random.default_rng(6).uniform(0, 1, (3, 3, 4, 1))
    whole = kernels.load(device, unchecked=True).philox_normal

    def repeated(counters: object, stream: int, out: np.ndarray) -> None:  # the first three rows again and again
        whole(counters, stream, out[:3])
        for start in range(3, len(out), 3):
            model.device.put(model.device.get(out[:3]), out[start : start + 3])

    vars(model.kernels)["philox_normal"] = repeated
    (once, grads), (twice, grads_twice) = loss_of(model, x), loss_of(model, np.concatenate([x, x, x]))
    sentence = f"a batch costs {once[0]:.6f} and the same batch repeated three times {twice[0]:.6f}: a sum, not a mean"
    require(bool(np.abs(once - twice).max() <= 1e-9), sentence)
    apart = float(np.abs(grads - grads_twice).max())
    require(apart <= 1e-9, f"the gradients of a repeated batch are {apart:.3g} away from those of the batch")
    return f"{once[0]:.4f} = {twice[0]:.4f} nats"


def one_objective(device: str) -> str:
    """Training and evaluation give the same figures for the same images, noise and KL weight."""
    model, x = small_vae(device), np.random.default_rng(7).uniform(0, 1, (4, 3, 4, 1))
    model.device.fill(model.clock.kl_weight, 0.25)
    model.clock.set(step=0)
    figures = []
    for role in ("train", "evaluate"):
        batch = model.batch(role, len(x))
        model.device.put(x, batch.x)
        model.loss(batch)
        figures.append(model.device.get(batch.metrics))
    sentence = f"loss, recon, kl are {figures[0]} in training and {figures[1]} in evaluation at the same noise"
    require(bool(np.abs(figures[0] - figures[1]).max() <= 1e-12), sentence)
    loss, recon, kl = figures[0]
    require(abs(loss - recon - 0.25 * kl) <= 1e-9, f"loss {loss:.6f} is not recon {recon:.6f} + beta · kl {kl:.6f}")
    return f"{loss:.4f} nats in both"


def public_arrays_are_copies(device: str) -> str:
    """encode, decode, reconstruct and sample give arrays of their own: a second call leaves the first result alone."""
    model, rng = small_vae(device), np.random.default_rng(8)
    a, b = rng.uniform(0, 1, (2, 20, 3, 4, 1))
    z_a, z_b = rng.standard_normal((2, 20, 3))
    calls: list[tuple[str, Callable[[], np.ndarray], Callable[[], object]]] = [
        ("encode", lambda: model.encode(a)[0], lambda: model.encode(b)),
        ("decode", lambda: model.decode(z_a), lambda: model.decode(z_b)),
        ("reconstruct", lambda: model.reconstruct(a), lambda: model.reconstruct(b)),
        ("sample", lambda: model.sample(20, seed=1), lambda: model.sample(20, seed=2)),
    ]
    for name, first, second in calls:
        kept = first()
        before = kept.copy()
        second()
        require(np.array_equal(kept, before), f"{name}: the first result changed at the second call; return a copy")
    return f"{len(calls)} methods"


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
