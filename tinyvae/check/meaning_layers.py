"""What the ops and layers of normalisation, noise, labels and importance weighting mean, beside their gradients."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.check import Runner
from ..kernels.clock import COUNTERS, CURSOR, SEED, STEP
from ..layers.normalise import BatchNorm
from .harness import LayerHarness
from .meaning import Meaning, require


def normalised(device: str) -> str:
    """Normalised numbers have mean 0 and variance 1: of each column for batch_norm, of each row for layer_norm."""
    run, x = Runner(device), 3 + 2 * np.random.default_rng(1).standard_normal((40, 30))
    one, zero = np.ones(30), np.zeros(30)
    given = {
        "batch_norm": (run("batch_norm", x, one, zero, 1e-9, 0.1, zero, one, mean=(30,), rstd=(30,), y=x.shape)[-1], 0),
        "layer_norm": (run("layer_norm", x, one, zero, 1e-9, mean=(40,), rstd=(40,), y=x.shape)[-1], 1),
    }
    for name, (y, axis) in given.items():
        apart = max(np.abs(y.mean(axis)).max(), np.abs(y.var(axis) - 1).max())
        along = ("column", "row")[axis]
        require(bool(apart <= 1e-8), f"{name}: mean 0 and variance 1 of each {along} are missed by {apart:.2g}")
    return "mean 0, variance 1"


def running_statistics(device: str) -> str:
    """After many batches running_mean and running_var are those of the data, and evaluation normalises by them."""
    harness = LayerHarness(BatchNorm(), ((2,),), 20, device=device)
    rng, table = np.random.default_rng(2), harness.table
    for _ in range(300):
        harness.twin.forward(harness.device.put(rng.normal((1.0, -2.0), (0.5, 3.0), (20, 2))))
    mean, var = (harness.device.get(table.view(f"layer.running_{name}")) for name in ("mean", "var"))
    spread = np.array([0.5, 3.0])
    good = np.all(np.abs(mean - (1, -2)) <= 0.2 * spread) and np.all(np.abs(var / spread**2 - 1) <= 0.35)
    require(bool(good), f"running mean {mean}, variance {var} of data with mean 1, −2 and variance 0.25, 9")
    run, x = Runner(device), rng.standard_normal((3, 2))
    y = run("batch_norm_frozen", x, mean, var, np.full(2, 2.0), np.full(2, 0.5), 1e-5, y=x.shape)
    apart = np.abs(y - (0.5 + 2 * (x - mean) / np.sqrt(var + 1e-5))).max()
    require(bool(apart <= 1e-12), f"evaluation is {apart:.2g} away from normalising by the running statistics")
    return f"mean {mean[0]:.2f}, {mean[1]:.2f}; variance {var[0]:.2f}, {var[1]:.2f}"


def unit_spectral_norm(device: str) -> str:
    """The largest singular value of W / sigma comes to 1, from a first step that is at most a few times too large.

    A zero weight stays zero, and u with it.
    """
    run, rng = Runner(device), np.random.default_rng(5)
    shapes, worst = {"v": (30,), "sigma": (1,), "normalised": (30, 20)}, 0.0
    for scale in (1e-6, 1.0, 1e4):
        weight, u = scale * rng.standard_normal((30, 20)), rng.uniform(-1, 1, 20)
        first = float(np.linalg.svd(run("spectral_norm", weight, 1, u, **shapes)[3], compute_uv=False)[0])
        require(1 - 1e-12 <= first <= 3, f"after one iteration the largest singular value is {first:.3g}, not 1 … 3")
        u, v, sigma, normalised = run("spectral_norm", weight, 400, u, **shapes)
        largest = np.linalg.svd(normalised, compute_uv=False)[0]
        require(bool(abs(largest - 1) <= 1e-6), f"the largest singular value of W / sigma is {largest:.7g}, not 1")
        require(bool(abs(v @ weight @ u / sigma[0] - 1) <= 1e-12), "sigma is not vᵀ W u")
        worst = max(worst, first)
    given = rng.uniform(-1, 1, 20)
    u, _, sigma, normalised = run("spectral_norm", np.zeros((30, 20)), 2, given, **shapes)
    good = not normalised.any() and np.array_equal(u, given) and sigma[0] == 1
    require(bool(good), "a zero weight must stay as it is: sigma 1, u the one that came in")
    return f"1; {worst:.2f} after one iteration"


def _counters(step: int = 3, cursor: int = 0) -> np.ndarray:
    counters = np.zeros(COUNTERS, np.uint64)
    counters[[STEP, SEED, CURSOR]] = step, 11, cursor
    return counters


def dropped(device: str) -> str:
    """A share `rate` is left out, the rest is scaled: in the mean y is x. Another step leaves out others."""
    run, n, rate = Runner(device), 40_000, 0.3
    x = np.ones((100, n // 100))
    y = run("dropout", x, _counters(), 16, rate, 1 / (1 - rate), y=x.shape)
    share = float((y == 0).mean())
    require(
        abs(share - rate) <= 5 * math.sqrt(rate * (1 - rate) / n), f"{share:.4f} of the numbers left out, not {rate}"
    )
    kept = y[y != 0]
    require(bool(np.abs(kept - 1 / 0.7).max() <= 1e-12), f"what stays is scaled by {kept[0]:.6g}, not 1 / (1 − rate)")
    other = run("dropout", x, _counters(4), 16, rate, 1 / (1 - rate), y=x.shape)
    require(not np.array_equal(y, other), "the next step leaves out the same numbers again")
    return f"{share:.4f} left out"


def disturbed(device: str) -> str:
    """x + sigma · eps: the difference has mean 0 and standard deviation sigma."""
    x = np.full((200, 200), 0.7)
    eps = (Runner(device)("add_noise", x, _counters(), 16, 0.25, y=x.shape) - x) / 0.25
    good = abs(eps.mean()) <= 5 / 200 and abs(eps.var() - 1) <= 5 * math.sqrt(2) / 200
    require(
        bool(good), f"the noise has mean {eps.mean():.3f} and variance {eps.var():.3f} in units of sigma, not 0 and 1"
    )
    return f"mean {eps.mean():.3f}, variance {eps.var():.3f}"


def labels_of_images(device: str) -> str:
    """gather_labels gives the labels of the images that gather takes; in concat_label row r has image r // k's."""
    run, order = Runner(device), np.array([3, 1, 4, 0, 2])
    y = run("gather_labels", np.array([2, 0, 1, 2, 3]), order, _counters(cursor=1), y=(3, 4))
    require(np.array_equal(y, np.eye(4)[[0, 3, 2]]), f"labels of images 1, 4, 0 are 0, 3, 2, one-hot, not {y.tolist()}")
    rows = run("concat_label", np.zeros((6, 2)), y, y=(6, 6))
    good = np.array_equal(rows[:, 2:], np.repeat(y, 2, axis=0))
    require(good, "with two rows per image, row r must be given the label of image r // 2")
    return "one-hot, by image"


def upsampled(device: str) -> str:
    """Each pixel becomes a block: y[i, j] = x[i // 2, j // 3]."""
    x = np.arange(12.0).reshape(1, 2, 3, 2)
    y = Runner(device)("upsample", x, y=(1, 4, 9, 2))
    for i, j in np.ndindex(4, 9):
        same = np.array_equal(y[0, i, j], x[0, i // 2, j // 3])
        require(same, f"pixel ({i}, {j}) of the enlarged image is not pixel ({i // 2}, {j // 3}) of the image")
    return "blocks of 2×3"


def weights_by_hand(device: str) -> str:
    """Weights and bound from the densities themselves, for two images with three draws; they survive any cost."""
    run, rng = Runner(device), np.random.default_rng(3)
    h, eps, nll = 0.5 * rng.standard_normal((2, 4)), rng.standard_normal((6, 2)), rng.uniform(0, 2, 6)
    z, _ = run("latent", h, eps, z=(6, 2), kl=(2, 2))
    weight, bound = run("importance_weights", h, eps, z, nll, np.ones(2), weight=(6,), bound=(2,))
    w = np.zeros(6)
    for r in range(6):
        w[r] = math.exp(-nll[r])
        for i in range(2):
            mean, sigma, c = h[r // 3, i], math.exp(h[r // 3, 2 + i]), z[r, i]
            w[r] *= math.exp(-c * c / 2) / (math.exp(-(((c - mean) / sigma) ** 2) / 2) / sigma)  # p(z) / q(z|x)
    share, level = w.reshape(2, 3) / w.reshape(2, 3).sum(axis=1, keepdims=True), np.log(w.reshape(2, 3).mean(axis=1))
    apart = max(np.abs(weight - share.ravel()).max(), np.abs(bound - level).max())
    require(bool(apart <= 1e-12), f"weights or bound are {apart:.2g} away from p(x|z) p(z) / q(z|x) by hand")
    far, moved = run("importance_weights", h, eps, z, nll + 5000, np.ones(2), weight=(6,), bound=(2,))
    good = np.abs(far - weight).max() <= 1e-9 and np.abs(moved - bound + 5000).max() <= 1e-9
    require(bool(good), "at a cost of 5,000 nats more the weights are others: the largest must be divided out first")
    return f"within {apart:.0e}"


def importance_loss(device: str) -> str:
    """loss = −mean(bound), recon and kl means; the sums over an epoch are weighted by images."""
    bound, nll, kl = np.array([-3.0, -5.0]), np.array([2.0, 4, 6, 8]), np.array([[1.0, 2], [3, 4]])
    sums, metrics = Runner(device)("importance_objective", bound, nll, kl, np.ones(4), metrics=(3,))
    good = np.allclose(metrics, (4, 5, 5), rtol=1e-14) and np.allclose(sums, (9, 11, 11, 3), rtol=1e-14)
    require(bool(good), f"metrics are {metrics}, sums {sums}; by hand (4, 5, 5) and (9, 11, 11, 3)")
    return "by hand"


LAYER_MEANINGS: tuple[Meaning, ...] = (
    Meaning("normalised", ("batch_norm", "layer_norm"), normalised),
    Meaning("running statistics", ("batch_norm", "batch_norm_frozen", "BatchNorm"), running_statistics),
    Meaning("numbers left out", ("dropout",), dropped),
    Meaning("noise of a size", ("add_noise",), disturbed),
    Meaning("labels belong to images", ("gather_labels", "concat_label"), labels_of_images),
    Meaning("enlarged pixels", ("upsample",), upsampled),
    Meaning("importance weights by hand", ("importance_weights",), weights_by_hand),
    Meaning("importance weighted loss", ("importance_objective",), importance_loss),
)
UNIT_NORM = Meaning("largest singular value", ("spectral_norm", "SpectralNorm"), unit_spectral_norm)
