"""The ops of further layers with their gradients, as two plain functions of arrays, in the form of pairs.py."""

from __future__ import annotations

import numpy as np

from ..kernels.check import Runner
from ..kernels.clock import COUNTERS, SEED, STEP
from .pairs import SIZES, Arrays, Pair, Plain

EPSILON = 1e-3


def norm_pair(name: str, axis: int) -> Pair:
    """batch_norm (axis 0) or layer_norm (axis 1)."""

    def make(run: Runner) -> tuple[Plain, Plain, None]:
        def statistics(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> Arrays:
            kept = (x.shape[1 - axis],)
            shapes = {"mean": kept, "rstd": kept, "y": x.shape}
            if axis:
                return run(name, x, gamma, beta, EPSILON, **shapes)
            return run(name, x, gamma, beta, EPSILON, 0.1, np.zeros(kept), np.ones(kept), **shapes)[2:]

        def forward(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
            return statistics(x, gamma, beta)[2]

        def backward(grad_y: np.ndarray, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> Arrays:
            mean, rstd, _ = statistics(x, gamma, beta)
            shapes = {"grad_gamma": gamma.shape, "grad_beta": beta.shape, "grad_x": x.shape}
            grad_gamma, grad_beta, grad_x = run(f"{name}_grad", x, mean, rstd, gamma, grad_y, 0, **shapes)
            return grad_x, grad_gamma, grad_beta

        return forward, backward, None

    return Pair(name, (name, f"{name}_grad"), make, _norm_arrays, ("x", "gamma", "beta"))


def _norm_arrays(rng: np.random.Generator, size: int) -> Arrays:
    R, C = ((1, 3), (5, 4), (9, 2))[size]
    return rng.standard_normal((R, C)), 1 + 0.3 * rng.standard_normal(C), rng.standard_normal(C)


def _frozen(run: Runner) -> tuple[Plain, Plain, None]:
    """batch_norm_frozen is linear in x and in gamma."""

    def forward(x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
        return run("batch_norm_frozen", x, mean, var, gamma, np.zeros(gamma.shape), EPSILON, y=x.shape)

    def backward(grad_y: np.ndarray, x: np.ndarray, gamma: np.ndarray, mean: np.ndarray, var: np.ndarray) -> Arrays:
        rstd = 1 / np.sqrt(var + EPSILON)
        return grad_y * gamma * rstd, (grad_y * (x - mean) * rstd).sum(axis=0)

    return forward, backward, None


def _frozen_arrays(rng: np.random.Generator, size: int) -> Arrays:
    x, gamma, mean = _norm_arrays(rng, size)
    return x, gamma, mean, rng.uniform(0.1, 2, mean.shape)


def _spectral(run: Runner) -> tuple[Plain, Plain, None]:
    """W / sigma with power iteration at its end, where the derivative that holds u and v constant is the whole one."""

    def normalise(weight: np.ndarray, u: np.ndarray) -> Arrays:
        K, N = weight.shape
        return run("spectral_norm", weight, 25, u, v=(K,), sigma=(1,), normalised=(K, N))

    def forward(weight: np.ndarray, u: np.ndarray) -> np.ndarray:
        return normalise(weight, u)[3]

    def backward(grad_y: np.ndarray, weight: np.ndarray, u: np.ndarray) -> np.ndarray:
        u, v, sigma, normalised = normalise(weight, u)
        return run("spectral_norm_grad", grad_y, normalised, u, v, sigma, 0, grad_weight=weight.shape)

    return forward, backward, None


def _spectral_arrays(rng: np.random.Generator, size: int) -> Arrays:
    """A singular value of about 3 and others under 1, so that 25 iterations are enough."""
    K, N = ((1, 3), (5, 4), (7, 2))[size]
    left, right = rng.standard_normal(K), rng.standard_normal(N)
    large = 3 * np.outer(left, right) / np.linalg.norm(left) / np.linalg.norm(right)
    return large + 0.2 * rng.uniform(-1, 1, (K, N)), rng.standard_normal(N)


def _counters() -> np.ndarray:
    counters = np.zeros(COUNTERS, np.uint64)
    counters[[STEP, SEED]] = 3, 5
    return counters


def noise_pair(op: str, options: tuple[float, ...], self_adjoint: bool) -> Pair:
    """dropout, whose gradient is the op itself, or add_noise, which has the identity's."""

    def make(run: Runner) -> tuple[Plain, Plain, None]:
        def forward(x: np.ndarray) -> np.ndarray:
            return run(op, x, _counters(), 16, *options, y=x.shape)

        def backward(grad_y: np.ndarray, x: np.ndarray) -> np.ndarray:
            return run(op, grad_y, _counters(), 16, *options, y=x.shape) if self_adjoint else grad_y

        return forward, backward, None

    return Pair(op, (op,), make, lambda rng, size: (rng.standard_normal(SIZES[size][:2]),), ("x",))


def _add(run: Runner) -> tuple[Plain, Plain, None]:
    def forward(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return run("add", a, b, y=a.shape)

    def backward(grad_y: np.ndarray, a: np.ndarray, b: np.ndarray) -> Arrays:
        return grad_y, grad_y

    return forward, backward, None


def _concat(run: Runner) -> tuple[Plain, Plain, None]:
    def forward(x: np.ndarray, label: np.ndarray) -> np.ndarray:
        return run("concat_label", x, label, y=(len(x), x.shape[1] + label.shape[1]))

    def backward(grad_y: np.ndarray, x: np.ndarray, label: np.ndarray) -> np.ndarray:
        return run("concat_label_grad", grad_y, grad_x=x.shape)

    return forward, backward, None


def _concat_arrays(rng: np.random.Generator, size: int) -> Arrays:
    (B, K, N), k = SIZES[size], (1, 3, 2)[size]
    return rng.standard_normal((B * k, K)), rng.standard_normal((B, N))


def upsample_pair(fh: int, fw: int) -> Pair:
    """Enlarging by fh and fw."""

    def make(run: Runner) -> tuple[Plain, Plain, None]:
        def forward(x: np.ndarray) -> np.ndarray:
            B, H, W, C = x.shape
            return run("upsample", x, y=(B, fh * H, fw * W, C))

        def backward(grad_y: np.ndarray, x: np.ndarray) -> np.ndarray:
            return run("upsample_grad", grad_y, grad_x=x.shape)

        return forward, backward, None

    def arrays(rng: np.random.Generator, size: int) -> Arrays:
        return (rng.standard_normal(((1, 1, 2, 1), (2, 3, 2, 3), (3, 2, 4, 2))[size]),)

    return Pair(f"upsample {fh}×{fw}", ("upsample", "upsample_grad"), make, arrays, ("x",))


def _draw(h: np.ndarray, eps: np.ndarray) -> np.ndarray:
    """z_mean + exp(z_log_sigma) · eps, without the op `latent`, whose mistakes are another pair's."""
    L, k = eps.shape[1], len(eps) // len(h)
    mean, log_sigma = np.repeat(h[:, :L], k, axis=0), np.repeat(h[:, L:], k, axis=0)
    return mean + np.exp(log_sigma) * eps


def _importance(run: Runner) -> tuple[Plain, Plain, None]:
    """−mean(bound) for a nll that is linear in z, Σ slope · z, and a kl_weight of 0.5, 0.8, 1.1, … per dimension."""

    def weights(h: np.ndarray, eps: np.ndarray, slope: np.ndarray) -> Arrays:
        z, beta = _draw(h, eps), 0.5 + 0.3 * np.arange(eps.shape[1])
        shapes = {"weight": (len(z),), "bound": (len(h),)}
        return z, beta, *run("importance_weights", h, eps, z, (z * slope).sum(axis=1), beta, **shapes)

    def forward(h: np.ndarray, eps: np.ndarray, slope: np.ndarray) -> float:
        return -float(weights(h, eps, slope)[3].mean())

    def backward(grad_y: np.ndarray, h: np.ndarray, eps: np.ndarray, slope: np.ndarray) -> Arrays:
        z, beta, weight, _ = weights(h, eps, slope)
        share = weight[:, None] / len(h)
        grad_h = run("importance_grad", h, eps, z, share * slope, weight, beta, 0, grad_h=h.shape)
        return grad_y * grad_h, grad_y * share * z

    return forward, backward, None


def _importance_arrays(rng: np.random.Generator, size: int) -> Arrays:
    B, k, L = ((1, 1, 1), (3, 4, 2), (2, 3, 5))[size]
    R = B * k
    return 0.6 * rng.standard_normal((B, 2 * L)), rng.standard_normal((R, L)), rng.standard_normal((R, L))


def _two(rng: np.random.Generator, size: int) -> Arrays:
    n = (1, 37, 8)[size]
    return rng.standard_normal(n), rng.standard_normal(n)


LAYER_PAIRS: tuple[Pair, ...] = (
    norm_pair("batch_norm", 0),
    norm_pair("layer_norm", 1),
    Pair("batch_norm_frozen", ("batch_norm_frozen",), _frozen, _frozen_arrays, ("x", "gamma")),
    Pair("spectral_norm", ("spectral_norm", "spectral_norm_grad"), _spectral, _spectral_arrays, ("weight",)),
    noise_pair("dropout", (0.4, 1 / 0.6), True),
    noise_pair("add_noise", (0.5,), False),
    Pair("add", ("add",), _add, _two, ("a", "b")),
    Pair("concat_label", ("concat_label", "concat_label_grad"), _concat, _concat_arrays, ("x",)),
    upsample_pair(2, 2),
    upsample_pair(1, 3),
    Pair(
        "importance weights", ("importance_weights", "importance_grad"), _importance, _importance_arrays,
        ("h", "slope"),
    ),
)  # fmt: skip
