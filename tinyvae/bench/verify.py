"""How an op's row of the table is put to the test, on any device: guard bands, examples and their variants, float32
bounds. It knows the form of a call and the size of its terms, not how any device computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .. import kernels
from ..device import NumpyDevice, open_device
from ..errors import TinyvaeError
from ..kernels import IDENTITY, OPS, SIGMOID, SOFTPLUS, TANH
from ..kernels.clock import (
    CLIP,
    CORRECTION1,
    CORRECTION2,
    KL_BETA,
    KL_CAPACITY,
    KL_FREE,
    LR,
    PLAN,
    PLAN_HEAD,
    RATES,
)
from ..kernels.reference_objective import LEAST_LOG_SCALE, LEAST_LOG_SIGMA, LEVELS

Arrays = dict[str, np.ndarray]

VARIANTS: dict[str, list[dict[str, Any]]] = {  # options and lengths beside those of the table, for the ragged example
    "activate": [{"act": act} for act in range(7)],
    "act_grad": [{"act": act} for act in range(7)],
    "dense": [{"no_b": True}, *({"act": act} for act in range(7))],
    "dense_grad_w": [{"no_grad_b": True}, {"add": 1}],
    "bias_grad": [{"add": 1}],
    "conv2d": [{"no_b": True}, *({"act": act} for act in range(7))],
    "conv2d_grad_x": [{"no_b": True}, *({"act": act} for act in range(7))],
    "conv2d_grad_w": [{"no_grad_b": True}, {"add": 1}],
    "bernoulli_nll": [{"no_grad_logits": True}],
    "gaussian_nll": [{"no_grad_mean": True}, {"sigma": 1.3}],
    "continuous_bernoulli_nll": [{"no_grad_logits": True}],
    "gaussian_scalar_nll": [{"no_grad_mean": True, "no_grad_log_sigma": True}],
    "gaussian_pixel_nll": [{"no_grad_outputs": True}],
    "gaussian_optimal_nll": [{"no_grad_mean": True}],
    "discretized_logistic_nll": [{"no_grad_outputs": True}],
    "categorical_nll": [{"no_grad_logits": True}],
    "grad_norm": [{"max_norm": 0.0}, {"max_norm": 1e9}],
    "gather_binary": [{"dynamic": 0}],
    "importance_grad": [{"doubly": 1}],
    "batch_norm_grad": [{"add": 1}, {"no_grad_gamma": True, "no_grad_beta": True}, {"no_grad_x": True}],
    "layer_norm_grad": [{"add": 1}, {"no_grad_gamma": True, "no_grad_beta": True}, {"no_grad_x": True}],
    "spectral_norm": [{"iterations": 3}],
    "spectral_norm_grad": [{"add": 1}],
    "dropout": [{"rate": 0.0}],
}


class WrongResult(TinyvaeError, AssertionError):
    """An op gave what it must not give, or wrote where it must not write."""


def require(holds: bool, sentence: str) -> None:
    """A WrongResult unless it holds."""
    if not holds:
        raise WrongResult(sentence)


# ---------------------------------------------------------------------------------------------- examples


def cases() -> Iterator[tuple[str, str]]:
    """(op, label) for every row of the table: its three examples, and the variants of the ragged one."""
    for name, op in OPS.items():
        for label in op.examples:
            yield name, label
        for i in range(len(VARIANTS.get(name, ()))):
            yield name, f"ragged {i}"


def example(name: str, label: str, dtype: Any, seed: int = 0) -> list[Any]:
    """Host arguments of a case of the table; see `example_at`."""
    label, _, variant = label.partition(" ")
    options = VARIANTS[name][int(variant)] if variant else {}
    return example_at(name, dict(OPS[name].examples[label]) | options, dtype, seed)


def example_at(name: str, lengths: Mapping[str, Any], dtype: Any, seed: int = 0) -> list[Any]:
    """Host arguments at these lengths and options. Inputs hold float32 numbers whatever the dtype; outputs hold NaN."""
    op = replace(OPS[name], examples={"case": lengths})
    arguments = op.example("case", dtype, seed)
    for arg, value in zip(op.args, arguments, strict=True):
        if arg.role in ("in", "inout") and value.dtype == np.float64:
            value[...] = value.astype(np.float32)
        if arg.role == "out" and lengths.get("add"):  # added to: as much an input
            value[...] = np.random.default_rng(seed + 1).standard_normal(value.shape).astype(np.float32)
    return arguments


def widened(arguments: Sequence[Any]) -> list[Any]:
    """The same arguments with every float32 array in float64."""
    return [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in arguments]


def depth_of(name: str, label: str) -> int:
    """The reduction depth of a case, as the table states it."""
    return OPS[name].depth(OPS[name].examples[label.split(" ")[0]])


# ---------------------------------------------------------------------------------------------- calls


class Guarded:
    """An array on the device in the middle of a larger buffer of NaN (of the largest number, for integers)."""

    def __init__(self, device: NumpyDevice, host: np.ndarray, guard: int) -> None:
        self.device, self.shape = device, host.shape
        poison = np.nan if host.dtype.kind == "f" else np.iinfo(host.dtype).max
        whole = np.full(host.size + 2 * guard, poison, host.dtype)
        self.inside = slice(guard, guard + host.size)
        whole[self.inside] = host.reshape(-1)
        self.before, self.buffer = whole, device.put(whole)
        self.array = self.buffer[self.inside].reshape(host.shape)

    def get(self) -> np.ndarray:
        """A NumPy copy of the array."""
        return self.device.get(self.buffer)[self.inside].reshape(self.shape)

    def bands_intact(self) -> bool:
        """Whether every byte around the array is as it was."""
        after, before = self.device.get(self.buffer).copy(), self.before.copy()
        after[self.inside] = before[self.inside] = 0
        return after.tobytes() == before.tobytes()

    def unchanged(self) -> bool:
        """Whether every byte of the array is as it was."""
        return self.device.get(self.buffer).tobytes() == self.before.tobytes()


def call(name: str, arguments: Sequence[Any], device: str = "numpy", guard: int = 64) -> Arrays:
    """Calls the op through its checked function on guarded copies. Returns {argument: array} of what it wrote.

    Fails where a guard band or an input changed.
    """
    op, dev = OPS[name], open_device(device)
    guarded = [a if arg.role == "option" else Guarded(dev, a, guard) for arg, a in zip(op.args, arguments, strict=True)]
    returned = getattr(kernels.load(device), name)(*(g.array if isinstance(g, Guarded) else g for g in guarded))
    dev.sync()
    require(returned is None, f"{name} returns {returned!r}")
    written = {}
    for arg, g in zip(op.args, guarded, strict=True):
        if not isinstance(g, Guarded):
            continue
        require(g.bands_intact(), f"{name} on {device} writes beside {arg.name}")
        if arg.role == "in":
            require(g.unchanged(), f"{name} on {device} changes its input {arg.name}")
        elif arg.role != "work":
            written[arg.name] = g.get()
    return written


def call_reference(name: str, arguments: Sequence[Any]) -> Arrays:
    """The numpy column on copies; {argument: array} of what it wrote."""
    copies = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
    kernels.meaning(name)(*copies)
    return {arg.name: a for arg, a in zip(OPS[name].args, copies, strict=True) if arg.role in ("inout", "out")}


def assert_close(name: str, got: Arrays, want: Arrays, magnitudes: Arrays, depth: int, dtype: Any) -> None:
    """|got − want| ≤ (4·√depth + ulp) · ε · Σ|terms|, ε = 2⁻²⁴ or 2⁻⁵³; equal where the table states an ulp of 0.

    NaN anywhere is a failure: the comparison asks for what is within the bound, not for what is beyond it.
    """
    ulp = OPS[name].ulp
    for argument, array in got.items():
        given, expected = array.shape, want[argument].shape
        require(given == expected, f"{name}: {argument} has shape {given}, expected {expected}")
        if not array.size:
            continue
        require(bool(np.isfinite(array).all()), f"{name}: {argument} is not finite, or not fully written")
        if ulp == 0 or array.dtype.kind != "f":
            require(np.array_equal(array, want[argument]), f"{name}: {argument} is not equal to the reference's")
            continue
        unit = 2.0**-24 if dtype == np.float32 else 2.0**-52  # float64 is compared with float64: both round
        bound = (4 * math.sqrt(depth) + ulp) * unit * magnitudes[argument]
        difference = np.abs(array.astype(np.float64) - want[argument])
        within = difference <= bound
        where = np.unravel_index(np.argmin(within), array.shape)
        place = [int(i) for i in where]
        off = f"{name}: {argument}{place} is off by {difference[where]:.3g} > {bound[where]:.3g}"
        require(bool(within.all()), off)


def assert_near(name: str, got: Arrays, want: Arrays, magnitudes: Arrays) -> None:
    """The same for products of factors rounded to 11 bits: ‖difference‖ ≤ 10⁻³·‖want‖, each one ≤ 2⁻⁹·Σ|terms|."""
    for argument, array in ((k, a) for k, a in got.items() if a.size):
        require(bool(np.isfinite(array).all()), f"{name}: {argument} is not finite, or not fully written")
        difference = np.abs(array.astype(np.float64) - want[argument])
        off = float(np.linalg.norm(difference) / np.linalg.norm(want[argument]))
        require(off <= 1e-3, f"{name}: {argument} is off by {off:.2g} of its norm")
        require(bool((difference <= magnitudes[argument] / 512).all()), f"{name}: an element of {argument} is off")


def verify_op(name: str, device: str, dtype: Any) -> None:
    """A WrongResult unless the op, on every case of the table, is within the bound of the float64 reference."""
    for label in (label for op, label in cases() if op == name):
        arguments = example(name, label, dtype)
        want = call_reference(name, widened(arguments))
        got = call(name, arguments, device)
        assert_close(name, got, want, magnitudes(name, arguments), depth_of(name, label), dtype)


# ---------------------------------------------------------------------------------------------- Σ|terms|


def magnitudes(name: str, arguments: Sequence[Any]) -> Arrays:
    """Σ|terms| of each output, in float64: what the rounding of a sum is proportional to."""
    op, a = OPS[name], {arg.name: v for arg, v in zip(OPS[name].args, widened(arguments), strict=True)}
    if op.linear:
        absolute = {
            arg.name: IDENTITY if arg.name == "act" else np.abs(v) if isinstance(v, np.ndarray) else v
            for arg, v in zip(op.args, a.values(), strict=True)
        }
        sums = call_reference(name, list(absolute.values()))
        if a.get("act") in (SIGMOID, SOFTPLUS):  # not 0 at 0, so an error of their own beside that of the sum
            sums = {k: v + 1 for k, v in sums.items()}
        return sums
    after = {k: np.abs(v) for k, v in call_reference(name, widened(arguments)).items()}
    return after | (TERMS[name](a) if name in TERMS else {})


def _repeat(array: np.ndarray, rows: int) -> np.ndarray:
    return np.repeat(array, rows // len(array), axis=0)


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(a / 2))


def _act_grad(a: dict[str, Any]) -> Arrays:
    y = np.abs(a["y"])
    factor = {TANH: 1 + y * y, SIGMOID: y + y * y, SOFTPLUS: np.abs(np.expm1(-a["y"]))}.get(a["act"], 1 + y)
    return {"grad": np.abs(a["grad"]) * factor}


def _silu_grad(a: dict[str, Any]) -> Arrays:
    x = a["x"]
    return {"grad": np.abs(a["grad"]) * _sigmoid(x) * (1 + np.abs(x) * (1 - _sigmoid(x)))}


def _latent(a: dict[str, Any]) -> Arrays:
    L = a["kl"].shape[1]
    mean, log_sigma = np.abs(a["h"][:, :L]), a["h"][:, L:]
    z = _repeat(mean, len(a["eps"])) + _repeat(np.exp(log_sigma), len(a["eps"])) * np.abs(a["eps"])
    return {"z": z, "kl": 0.5 * (1 + 2 * np.abs(log_sigma) + mean**2 + np.exp(2 * log_sigma))}


def _latent_grad(a: dict[str, Any]) -> Arrays:
    B, L = len(a["h"]), a["h"].shape[1] // 2
    mean, log_sigma, weight = np.abs(a["h"][:, :L]), a["h"][:, L:], a["kl_weight"] / B
    grad_z, eps = np.abs(a["grad_z"]).reshape(B, -1, L), np.abs(a["eps"]).reshape(B, -1, L)
    down = weight * np.abs(np.expm1(2 * log_sigma))
    return {"grad_h": np.hstack([grad_z.sum(1) + weight * mean, (grad_z * eps).sum(1) * np.exp(log_sigma) + down])}


def _bernoulli(a: dict[str, Any]) -> Arrays:
    logits, x, scale = a["logits"], _repeat(a["x"], len(a["logits"])), np.abs(a["row_scale"])[:, None]
    terms = np.logaddexp(0, logits) + np.abs(x * logits)
    return {"nll": terms.sum(1), "grad_logits": scale * (_sigmoid(logits) + x)}


def _gaussian(a: dict[str, Any]) -> Arrays:
    difference, sigma = np.abs(a["mean"] - _repeat(a["x"], len(a["mean"]))), a["sigma"]
    constant = abs(math.log(sigma)) + 0.5 * math.log(2 * math.pi)
    return {
        "nll": (difference**2 / (2 * sigma**2) + constant).sum(1),
        "grad_mean": difference * np.abs(a["row_scale"])[:, None] / sigma**2,
    }


def _continuous_bernoulli(a: dict[str, Any]) -> Arrays:
    """1 for each pixel: what is near 1 is taken the logarithm of, and the mean is a difference of what is."""
    logits, x, scale = a["logits"], _repeat(a["x"], len(a["logits"])), np.abs(a["row_scale"])[:, None]
    return {"nll": (1 + np.abs(logits) * (1 + x)).sum(1), "grad_logits": scale * (2 + x)}


def _gaussian_scalar(a: dict[str, Any]) -> Arrays:
    difference, log_sigma = np.abs(a["mean"] - _repeat(a["x"], len(a["mean"]))), a["log_sigma"][0]
    scale, precision = np.abs(a["row_scale"])[:, None], np.exp(-2 * log_sigma)
    return {
        "nll": (difference**2 * precision / 2 + abs(log_sigma) + 0.5 * math.log(2 * math.pi)).sum(1),
        "grad_mean": scale * difference * precision,
        "grad_log_sigma": scale * (1 + difference**2 * precision).sum(1, keepdims=True),
    }


def _gaussian_pixel(a: dict[str, Any]) -> Arrays:
    """What cancels where sigma is made from its output is of the size of the least sigma's logarithm."""
    outputs, scale = a["outputs"], np.abs(a["row_scale"])[:, None]
    size = np.abs(outputs[:, 0::2]) + _repeat(a["x"], len(outputs))
    log_sigma = np.logaddexp(0, outputs[:, 1::2] - LEAST_LOG_SIGMA) + LEAST_LOG_SIGMA
    wide = 1 + np.abs(outputs[:, 1::2]) - 2 * LEAST_LOG_SIGMA
    squares = size**2 * np.exp(-2 * log_sigma) * wide
    both = scale[..., None] * np.stack([size * np.exp(-2 * log_sigma) * wide, 1 + squares], axis=2)
    return {"nll": (squares + wide).sum(1), "grad_outputs": both.reshape(outputs.shape)}


def _gaussian_optimal(a: dict[str, Any]) -> Arrays:
    mean, x = a["mean"], _repeat(a["x"], len(a["mean"]))
    variance = np.maximum(((mean - x) ** 2).mean(1, keepdims=True), math.exp(2 * LEAST_LOG_SIGMA))
    nll = mean.shape[1] * (2 + np.abs(np.log(variance[:, 0])) + 0.5 * math.log(2 * math.pi))
    return {"nll": nll, "grad_mean": np.abs(a["row_scale"])[:, None] * (np.abs(mean) + x) / variance}


def _discretized_logistic(a: dict[str, Any]) -> Arrays:
    outputs, scale = a["outputs"], np.abs(a["row_scale"])[:, None]
    log_scale = np.logaddexp(0, outputs[:, 1::2] - LEAST_LOG_SCALE) + LEAST_LOG_SCALE
    wide, rate = 1 + np.abs(outputs[:, 1::2]) - 2 * LEAST_LOG_SCALE, np.exp(-log_scale)
    size = wide * (1 + (np.abs(outputs[:, 0::2]) + _repeat(a["x"], len(outputs)) + 1 / LEVELS) * rate)
    both = scale[..., None] * np.stack([size * rate, size], axis=2)
    return {"nll": size.sum(1), "grad_outputs": both.reshape(outputs.shape)}


def _categorical(a: dict[str, Any]) -> Arrays:
    logits, scale = a["logits"].reshape(len(a["logits"]), -1, LEVELS), np.abs(a["row_scale"])[:, None]
    size = 1 + 2 * np.abs(logits).max(2)
    shares = np.exp(logits - np.logaddexp.reduce(logits, 2, keepdims=True)) * size[..., None]
    shares = shares.reshape(len(logits), -1)
    chosen = np.abs(call_reference("categorical_nll", list(a.values()))["grad_logits"])
    return {"nll": (math.log(LEVELS) + size).sum(1), "grad_logits": scale * shares + (chosen if chosen.size else 0)}


def _aimed_objective(a: dict[str, Any]) -> Arrays:
    nll, kl, rates = np.abs(a["nll"]).mean(), np.abs(a["kl"]).mean(0), a["rates"]
    cost = rates[KL_BETA] * (kl.sum() + rates[KL_CAPACITY] + rates[KL_FREE] * len(kl))
    metrics = np.array([nll + cost, nll, kl.sum()])
    return {"metrics": metrics, "sums": np.abs(a["sums"]) + len(a["kl"]) * np.array([*metrics, 1])}


def _objective(a: dict[str, Any]) -> Arrays:
    nll, kl = np.abs(a["nll"]).mean(), np.abs(a["kl"]).mean(0)
    metrics = np.array([nll + a["kl_weight"] @ kl, nll, kl.sum()])
    return {"metrics": metrics, "sums": np.abs(a["sums"]) + len(a["kl"]) * np.array([*metrics, 1])}


def _importance_weights(a: dict[str, Any]) -> Arrays:
    """A weight is as good as its logarithm is, whose terms are those of the bound."""
    R, L, B = len(a["z"]), a["z"].shape[1], len(a["h"])
    ratio = _repeat(np.abs(a["h"][:, L:]), R) + 0.5 * (a["eps"] ** 2 + a["z"] ** 2)
    terms = np.abs(a["nll"]) + ratio @ a["kl_weight"]
    largest = terms.reshape(B, -1).max(axis=1)
    want = call_reference("importance_weights", list(a.values()))
    return {"weight": want["weight"] * (1 + 2 * _repeat(largest, R)), "bound": 1 + largest}


def _importance_grad(a: dict[str, Any]) -> Arrays:
    B, L = len(a["h"]), a["h"].shape[1] // 2
    eps, z, grad_z = (np.abs(a[name]).reshape(B, -1, L) for name in ("eps", "z", "grad_z"))
    weight, sigma = a["weight"].reshape(B, -1, 1), np.exp(a["h"][:, None, L:])
    share = weight / B * a["kl_weight"]
    path, direct = grad_z + share * z, share.sum(1)
    if a["doubly"]:
        path, direct = (1 + a["kl_weight"] * (1 + weight)) * (path + share * eps / sigma), 0 * direct
    return {"grad_h": np.hstack([path.sum(1), (path * eps * sigma).sum(1) + direct])}


def _importance_objective(a: dict[str, Any]) -> Arrays:
    metrics = np.array([np.abs(a["bound"]).mean(), np.abs(a["nll"]).mean(), np.abs(a["kl"]).mean(0).sum()])
    return {"metrics": metrics, "sums": np.abs(a["sums"]) + len(a["kl"]) * np.array([*metrics, 1])}


def _norm(a: dict[str, Any], axis: int) -> Arrays:
    """Forward: y's terms are x and the mean, times rstd, which is as good as the variance it comes from."""
    mean = np.abs(a["x"]).mean(axis, keepdims=True)
    spread = np.abs(a["x"]) + mean
    rstd = 1 / np.sqrt(a["x"].var(axis, keepdims=True) + a["epsilon"])
    rstd = rstd * (1 + rstd**2 * np.square(spread).mean(axis, keepdims=True))
    found = {"mean": mean.ravel(), "rstd": rstd.ravel()}
    if axis == 0:
        old, R = 1 - a["momentum"], max(1, len(a["x"]) - 1)
        found["running_mean"] = old * np.abs(a["running_mean"]) + a["momentum"] * mean[0]
        found["running_var"] = old * np.abs(a["running_var"]) + a["momentum"] * np.square(spread).sum(0) / R
    return found | {"y": np.abs(a["gamma"]) * spread * rstd + np.abs(a["beta"])}


def _norm_frozen(a: dict[str, Any]) -> Arrays:
    spread = (np.abs(a["x"]) + np.abs(a["mean"])) / np.sqrt(a["var"] + a["epsilon"])
    return {"y": np.abs(a["gamma"]) * spread + np.abs(a["beta"])}


def _norm_grad(a: dict[str, Any], axis: int) -> Arrays:
    mean, rstd = (np.expand_dims(a[name], axis) for name in ("mean", "rstd"))
    n, g, gamma = rstd * (np.abs(a["x"]) + np.abs(mean)), np.abs(a["grad_y"]), np.abs(a["gamma"])
    along = {"grad_gamma": (g * n).sum(0), "grad_beta": g.sum(0)}
    if a["add"]:
        along = {name: terms + np.abs(a[name]) for name, terms in along.items()}
    g = gamma * g
    means = [part.mean(axis, keepdims=True) for part in (g, g * n)]
    return along | {"grad_x": rstd * (g + means[0] + n * means[1])}


def _spectral_norm(a: dict[str, Any]) -> Arrays:
    """An iteration goes on with the errors of the one before; sigma and what it divides are as good as u is."""
    size, u, terms_u = np.abs(a["weight"]), a["u"], np.abs(a["u"])
    for _ in range(a["iterations"]):
        turned = a["weight"] @ u
        terms_v = size @ terms_u / np.linalg.norm(turned)
        turned = turned / np.linalg.norm(turned) @ a["weight"]
        sigma = np.linalg.norm(turned)
        u, terms_u = turned / sigma, terms_v @ size / sigma
    along = np.abs(u) @ terms_u
    return {"v": terms_v, "u": terms_u, "sigma": np.array([sigma * along]), "normalised": size / sigma * along}


def _spectral_norm_grad(a: dict[str, Any]) -> Arrays:
    g = np.abs(a["grad_normalised"])
    terms = (g + (g * np.abs(a["normalised"])).sum() * np.abs(np.outer(a["v"], a["u"]))) / a["sigma"]
    return {"grad_weight": terms + np.abs(a["grad_weight"]) if a["add"] else terms}


def _add_noise(a: dict[str, Any]) -> Arrays:
    radius = _normal({"counters": a["counters"], "stream": a["stream"], "out": a["y"]})["out"]
    return {"y": np.abs(a["x"]) + a["sigma"] * radius}


def _adam(a: dict[str, Any]) -> Arrays:
    rates = a["rates"]
    g = np.abs(a["grads"]) * rates[CLIP]
    m = np.abs(a["beta1"] * a["m"]) + (1 - a["beta1"]) * g
    v = a["beta2"] * a["v"] + (1 - a["beta2"]) * g * g
    update = rates[LR] * rates[CORRECTION1] * m / (np.sqrt(v * rates[CORRECTION2]) + a["eps"])
    return {"m": m, "v": v, "values": np.abs(a["values"]) + update}


def _sgd(a: dict[str, Any]) -> Arrays:
    m = np.abs(a["momentum"] * a["m"]) + np.abs(a["grads"]) * a["rates"][CLIP]
    return {"m": m, "values": np.abs(a["values"]) + a["rates"][LR] * m}


def _tick(a: dict[str, Any]) -> Arrays:
    """A correction c = 1 / (1 − βᵗ) is only as good as the difference, whose terms are c (1 + βᵗ) times as large."""
    rates = np.abs(call_reference("tick", list(a.values()))["rates"])
    players = rates[: (a["plan"].size - PLAN_HEAD) // PLAN * RATES].reshape(-1, RATES)
    players[:, [CORRECTION1, CORRECTION2]] *= 2 * players[:, [CORRECTION1, CORRECTION2]] - 1
    return {"rates": rates}


def _normal(a: dict[str, Any]) -> Arrays:
    """The radius of each Box–Muller pair: a cosine near 0 is only as good as its angle."""
    counters, (R, width) = a["counters"], a["out"].shape
    positions = np.arange(R * width).reshape(R, width)  # the example's ROW is 0
    flat = np.empty((1, R * width + 1))
    kernels.reference.philox_uniform(counters, a["stream"], flat)
    return {"out": np.sqrt(-2 * np.log(flat[0] + 2.0**-24))[positions - positions % 2]}


TERMS: dict[str, Callable[[dict[str, Any]], Arrays]] = {
    "act_grad": _act_grad,
    "silu_grad": _silu_grad,
    "latent": _latent,
    "latent_grad": _latent_grad,
    "bernoulli_nll": _bernoulli,
    "gaussian_nll": _gaussian,
    "continuous_bernoulli_nll": _continuous_bernoulli,
    "gaussian_scalar_nll": _gaussian_scalar,
    "gaussian_pixel_nll": _gaussian_pixel,
    "gaussian_optimal_nll": _gaussian_optimal,
    "discretized_logistic_nll": _discretized_logistic,
    "categorical_nll": _categorical,
    "objective": _objective,
    "aimed_objective": _aimed_objective,
    "importance_weights": _importance_weights,
    "importance_grad": _importance_grad,
    "importance_objective": _importance_objective,
    "batch_norm": lambda a: _norm(a, 0),
    "batch_norm_frozen": _norm_frozen,
    "batch_norm_grad": lambda a: _norm_grad(a, 0),
    "layer_norm": lambda a: _norm(a, 1),
    "layer_norm_grad": lambda a: _norm_grad(a, 1),
    "spectral_norm": _spectral_norm,
    "spectral_norm_grad": _spectral_norm_grad,
    "add_noise": _add_noise,
    "adam": _adam,
    "sgd": _sgd,
    "tick": _tick,
    "philox_normal": _normal,
}
