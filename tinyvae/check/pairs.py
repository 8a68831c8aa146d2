"""Every op that has a gradient as two functions of arrays: forward(*arrays), backward(grad_y, *arrays)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels import ACTIVATIONS, BY_CODE, IDENTITY, TANH, output_size
from ..kernels.check import Runner
from ..kernels.ops.likelihood import LEVELS

Arrays = tuple[np.ndarray, ...]
Plain = Callable[..., Any]


@dataclass(frozen=True)
class Pair:
    """One map and its gradient. `make(run)` gives forward, backward and kinks (or None) for a Runner.

    arrays(rng, size): inputs, of several odd sizes 0, 1, 2. wrt: the names of those with a gradient.
    """

    name: str
    ops: tuple[str, ...]
    make: Callable[[Runner], tuple[Plain, Plain, Plain | None]]
    arrays: Callable[[np.random.Generator, int], Arrays]
    wrt: tuple[str, ...]


SIZES = ((1, 2, 3), (3, 5, 4), (7, 3, 1))  # B, K, N: no square shapes, where a transposed gradient would hide
NONE = np.zeros(0)


def activation_pair(name: str, act: int) -> Pair:
    """y = act(x) with act_grad."""

    def make(run: Runner) -> tuple[Plain, Plain, Plain | None]:
        def forward(x: np.ndarray) -> np.ndarray:
            return run("activate", x, act, y=x.shape)

        def backward(grad_y: np.ndarray, x: np.ndarray) -> np.ndarray:
            return run("act_grad", forward(x), act, grad_y)

        return forward, backward, (lambda x: x) if BY_CODE[act].kinked else None

    return Pair(f"activate {name}", ("activate", "act_grad"), make, _vector, ("x",))


def _vector(rng: np.random.Generator, size: int) -> Arrays:
    return (2 * rng.standard_normal((1, 37, 8)[size]),)


def _silu(run: Runner) -> tuple[Plain, Plain, None]:
    def forward(x: np.ndarray) -> np.ndarray:
        return run("silu", x, y=x.shape)

    def backward(grad_y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return run("silu_grad", x, grad_y)

    return forward, backward, None


def dense_pair(name: str, act: int, bias: bool = True) -> Pair:
    """y = act(x w + b) with dense_grad_x, dense_grad_w and act_grad."""

    def make(run: Runner) -> tuple[Plain, Plain, Plain | None]:
        def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
            return run("dense", x, w, b, act, y=(len(x), w.shape[1]))

        def backward(grad_y: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> Arrays:
            if act != IDENTITY:
                y = forward(x, w, b)
                grad_y = run("act_grad", y.reshape(-1), act, grad_y.reshape(-1)).reshape(y.shape)
            grad_x = run("dense_grad_x", grad_y, w, grad_x=x.shape)
            grad_w, grad_b = run("dense_grad_w", x, grad_y, 0, grad_w=w.shape, grad_b=b.shape)
            return grad_x, grad_w, grad_b

        return forward, backward, forward if BY_CODE[act].kinked else None

    def arrays(rng: np.random.Generator, size: int) -> Arrays:
        B, K, N = SIZES[size]
        return rng.standard_normal((B, K)), rng.standard_normal((K, N)), rng.standard_normal(N) if bias else NONE

    ops = ("dense", "dense_grad_x", "dense_grad_w", "act_grad")
    return Pair(f"dense {name}", ops, make, arrays, ("x", "w", "b"))


def _bias(run: Runner) -> tuple[Plain, Plain, None]:
    def forward(b: np.ndarray, x: np.ndarray) -> np.ndarray:
        return x + b

    def backward(grad_y: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
        return run("bias_grad", grad_y, 0, grad_b=b.shape)

    return forward, backward, None


def _bias_arrays(rng: np.random.Generator, size: int) -> Arrays:
    B, _, N = SIZES[size]
    return rng.standard_normal(N), rng.standard_normal((B, N))


# B, (H, W), C, F, kernel, stride, padding: unequal in height and width, so that a swap shows
GEOMETRIES = (
    (1, (3, 4), 1, 2, (2, 2), (1, 1), (0, 0)),
    (2, (5, 7), 2, 3, (3, 2), (1, 2), (2, 0)),
    (3, (6, 5), 3, 2, (4, 3), (2, 1), (1, 1)),
)


def _small(size: int) -> tuple[int, ...]:
    B, (H, W), _, F, kernel, stride, padding = GEOMETRIES[size]
    sizes = [output_size(n, kernel[i], stride[i], padding[i]) for i, n in enumerate((H, W))]
    return B, sizes[0], sizes[1], F


def _geometry(w: np.ndarray) -> int:
    return next(i for i, g in enumerate(GEOMETRIES) if g[4] == w.shape[:2])


def _conv(run: Runner) -> tuple[Plain, Plain, None]:
    def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        size = _geometry(w)
        *_, stride, padding = GEOMETRIES[size]
        return run("conv2d", x, w, b, stride, padding, TANH, y=_small(size))

    def backward(grad_y: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> Arrays:
        *_, stride, padding = GEOMETRIES[_geometry(w)]
        grad_y = grad_y * (1 - forward(x, w, b) ** 2)
        grad_x = run("conv2d_grad_x", grad_y, w, NONE, stride, padding, IDENTITY, grad_x=x.shape)
        grad_w, grad_b = run("conv2d_grad_w", x, grad_y, stride, padding, 0, grad_w=w.shape, grad_b=b.shape)
        return grad_x, grad_w, grad_b

    return forward, backward, None


def _conv_arrays(rng: np.random.Generator, size: int) -> Arrays:
    B, (H, W), C, F, kernel, _, _ = GEOMETRIES[size]
    return rng.standard_normal((B, H, W, C)), 0.4 * rng.standard_normal((*kernel, C, F)), rng.standard_normal(F)


def _conv_transposed(run: Runner) -> tuple[Plain, Plain, None]:
    """conv2d_grad_x as the forward pass: conv2d is its grad_x, conv2d_grad_w with swapped roles its grad_w."""

    def forward(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        B, (H, W), C, _, _, stride, padding = GEOMETRIES[_geometry(w)]
        return run("conv2d_grad_x", x, w, b, stride, padding, TANH, grad_x=(B, H, W, C))

    def backward(grad_y: np.ndarray, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> Arrays:
        *_, stride, padding = GEOMETRIES[_geometry(w)]
        grad_y = grad_y * (1 - forward(x, w, b) ** 2)
        grad_x = run("conv2d", grad_y, w, NONE, stride, padding, IDENTITY, y=x.shape)
        grad_w, _ = run("conv2d_grad_w", grad_y, x, stride, padding, 0, grad_w=w.shape, grad_b=(0,))
        return grad_x, grad_w, run("bias_grad", grad_y.reshape(-1, w.shape[2]), 0, grad_b=b.shape)

    return forward, backward, None


def _conv_transposed_arrays(rng: np.random.Generator, size: int) -> Arrays:
    _, _, C, F, kernel, _, _ = GEOMETRIES[size]
    return rng.standard_normal(_small(size)), 0.4 * rng.standard_normal((*kernel, C, F)), rng.standard_normal(C)


def _sample(run: Runner) -> tuple[Plain, Plain, None]:
    """z = z_mean + exp(z_log_sigma) · eps."""

    def forward(z_mean: np.ndarray, z_log_sigma: np.ndarray, eps: np.ndarray) -> np.ndarray:
        h = np.concatenate([z_mean, z_log_sigma], axis=1)
        return run("latent", h, eps, z=eps.shape, kl=z_mean.shape)[0]

    def backward(grad_y: np.ndarray, z_mean: np.ndarray, z_log_sigma: np.ndarray, eps: np.ndarray) -> Arrays:
        h = np.concatenate([z_mean, z_log_sigma], axis=1)
        grad_h = run("latent_grad", h, eps, grad_y, np.zeros(z_mean.shape[1]), grad_h=h.shape)
        return grad_h[:, : z_mean.shape[1]], grad_h[:, z_mean.shape[1] :]

    return forward, backward, None


def _sample_arrays(rng: np.random.Generator, size: int) -> Arrays:
    B, L = ((1, 1), (3, 2), (2, 5))[size]
    R = B * (1, 1, 3)[size]
    return rng.standard_normal((B, L)), 0.6 * rng.standard_normal((B, L)), rng.standard_normal((R, L))


def _kl(run: Runner) -> tuple[Plain, Plain, None]:
    """The mean over the batch of KL(N(z_mean, exp(z_log_sigma)²) ‖ N(0, I)), weighted by 1, 1.5, 2, … per dimension."""

    def weights(z_mean: np.ndarray) -> np.ndarray:
        return 1 + 0.5 * np.arange(z_mean.shape[1])

    def forward(z_mean: np.ndarray, z_log_sigma: np.ndarray) -> float:
        h, none = np.concatenate([z_mean, z_log_sigma], axis=1), np.zeros_like(z_mean)
        return float(np.mean(run("latent", h, none, z=none.shape, kl=none.shape)[1] @ weights(z_mean)))

    def backward(grad_y: np.ndarray, z_mean: np.ndarray, z_log_sigma: np.ndarray) -> Arrays:
        h, none = np.concatenate([z_mean, z_log_sigma], axis=1), np.zeros_like(z_mean)
        grad_h = run("latent_grad", h, none, none, grad_y * weights(z_mean), grad_h=h.shape)
        return grad_h[:, : z_mean.shape[1]], grad_h[:, z_mean.shape[1] :]

    return forward, backward, None


def _kl_arrays(rng: np.random.Generator, size: int) -> Arrays:
    return _sample_arrays(rng, size)[:2]


def nll_pair(name: str, label: str, options: tuple[float, ...] = (), per_pixel: int = 1) -> Pair:
    """nll (R,) with the gradient of the same pass, `label`; the cotangent is its row_scale. Some pixels are 0 and 1."""

    def make(run: Runner) -> tuple[Plain, Plain, None]:
        def forward(outputs: np.ndarray, x: np.ndarray) -> np.ndarray:
            return _score(outputs, x, np.ones(len(outputs)))[0]

        def backward(grad_y: np.ndarray, outputs: np.ndarray, x: np.ndarray) -> np.ndarray:
            return _score(outputs, x, grad_y)[1]

        def _score(outputs: np.ndarray, x: np.ndarray, row_scale: np.ndarray) -> Arrays:
            return run(name, outputs, x, row_scale, *options, **{"nll": (len(outputs),), label: outputs.shape})

        return forward, backward, None

    def arrays(rng: np.random.Generator, size: int) -> Arrays:
        B, R, P = ((1, 1, 1), (3, 3, 5), (2, 6, 7))[size]
        return 2 * rng.standard_normal((R, per_pixel * P)), pixels(rng, B, P)

    return Pair(name, (name,), make, arrays, ("outputs",))


def pixels(rng: np.random.Generator, B: int, P: int) -> np.ndarray:
    """Grey pixels (B, P), about a third of them 0 or 1."""
    return np.clip(rng.uniform(-0.25, 1.25, (B, P)), 0, 1)


def _gaussian_scalar(run: Runner) -> tuple[Plain, Plain, None]:
    """nll of one sigma; its gradient is the sum of the rows' shares."""

    def score(mean: np.ndarray, log_sigma: np.ndarray, x: np.ndarray, row_scale: np.ndarray) -> Arrays:
        R, op = len(mean), "gaussian_scalar_nll"
        return run(op, mean, x, row_scale, log_sigma, nll=(R,), grad_mean=mean.shape, grad_log_sigma=(R, 1))

    def forward(mean: np.ndarray, log_sigma: np.ndarray, x: np.ndarray) -> np.ndarray:
        return score(mean, log_sigma, x, np.ones(len(mean)))[0]

    def backward(grad_y: np.ndarray, mean: np.ndarray, log_sigma: np.ndarray, x: np.ndarray) -> Arrays:
        _, grad_mean, shares = score(mean, log_sigma, x, grad_y)
        return grad_mean, shares.sum(axis=0)

    return forward, backward, None


def _gaussian_scalar_arrays(rng: np.random.Generator, size: int) -> Arrays:
    B, R, P = ((1, 1, 1), (3, 3, 5), (2, 6, 7))[size]
    return rng.standard_normal((R, P)), 0.7 * rng.standard_normal(1), pixels(rng, B, P)


def _scale_rows(run: Runner) -> tuple[Plain, Plain, None]:
    """Linear in grad and its own adjoint."""

    def forward(grad: np.ndarray, row_weight: np.ndarray) -> np.ndarray:
        return row_weight[:, None] * grad

    def backward(grad_y: np.ndarray, grad: np.ndarray, row_weight: np.ndarray) -> np.ndarray:
        return run("scale_rows", row_weight, grad_y)

    return forward, backward, None


def _scale_rows_arrays(rng: np.random.Generator, size: int) -> Arrays:
    B, K, _ = SIZES[size]
    return rng.standard_normal((B, K)), rng.standard_normal(B)


CONV_OPS = ("conv2d", "conv2d_grad_x", "conv2d_grad_w")
_SCALAR = ("mean", "log_sigma")

PAIRS: tuple[Pair, ...] = (
    *(activation_pair(name, act) for name, act in ACTIVATIONS.items()),
    Pair("silu", ("silu", "silu_grad"), _silu, _vector, ("x",)),
    *(dense_pair(name, ACTIVATIONS[name]) for name in ("identity", "relu", "softplus")),
    dense_pair("without bias", IDENTITY, bias=False),
    Pair("bias_grad", ("bias_grad",), _bias, _bias_arrays, ("b",)),
    Pair("conv2d", CONV_OPS, _conv, _conv_arrays, ("x", "w", "b")),
    Pair("conv2d transposed", (*CONV_OPS, "bias_grad"), _conv_transposed, _conv_transposed_arrays, ("x", "w", "b")),
    Pair("latent z", ("latent", "latent_grad"), _sample, _sample_arrays, ("z_mean", "z_log_sigma")),
    Pair("latent kl", ("latent", "latent_grad"), _kl, _kl_arrays, ("z_mean", "z_log_sigma")),
    nll_pair("bernoulli_nll", "grad_logits"),
    nll_pair("gaussian_nll", "grad_mean", (0.7,)),
    nll_pair("continuous_bernoulli_nll", "grad_logits"),
    Pair("gaussian_scalar_nll", ("gaussian_scalar_nll",), _gaussian_scalar, _gaussian_scalar_arrays, _SCALAR),
    nll_pair("gaussian_pixel_nll", "grad_outputs", per_pixel=2),
    nll_pair("gaussian_optimal_nll", "grad_mean"),
    nll_pair("discretized_logistic_nll", "grad_outputs", per_pixel=2),
    nll_pair("categorical_nll", "grad_logits", per_pixel=LEVELS),
    Pair("scale_rows", ("scale_rows",), _scale_rows, _scale_rows_arrays, ("grad",)),
)


def pairs_of(ops: Sequence[str]) -> list[Pair]:
    """The pairs in which one of these ops stands."""
    return [pair for pair in PAIRS if set(ops) & set(pair.ops)]
