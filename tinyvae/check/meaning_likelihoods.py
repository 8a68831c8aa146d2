"""What the likelihoods of grey pixels, unknown sigma and grey levels, and the objective with a target KL, mean."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.check import Runner
from ..kernels.clock import KL_BETA, KL_CAPACITY, KL_FREE, RATES
from ..kernels.ops.likelihood import LEAST_LOG_SIGMA, LEVELS
from ..layers.likelihood import Categorical, ContinuousBernoulli, DiscretizedLogistic
from .meaning import Meaning, require

LOGITS = (0.0, 1e-9, -1e-4, 0.3, -0.999, 1.001, 4.0, -25.0)


def _densities(device: str, op: str, outputs: list[float], x: np.ndarray, label: str) -> np.ndarray:
    """exp(−nll) of one pixel at each x (n,), for the outputs of that pixel."""
    rows = np.tile(outputs, (len(x), 1))
    nll = Runner(device)(op, rows, x[:, None], np.ones(len(x)), **{"nll": (len(x),), label: rows.shape})[0]
    return np.exp(-nll)


def continuous_bernoulli_is_a_density(device: str) -> str:
    """exp(−nll) integrates to 1 over [0, 1] for logits near 0 and far from it, and its mean is the layer's `mean`."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x, weights = (nodes + 1) / 2, weights / 2
    for logit in LOGITS:
        density = _densities(device, "continuous_bernoulli_nll", [logit], x, "grad_logits")
        total, mean = float(density @ weights), float(density * x @ weights)
        sentence = f"at logit {logit:g} the density integrates to {total:.9g}, not 1: is log C(p) there, with its sign?"
        require(abs(total - 1) <= 1e-12, sentence)
        given = float(ContinuousBernoulli().mean(np.array([[logit]]))[0, 0])
        require(abs(given - mean) <= 1e-12, f"mean({logit:g}) is {given:.9g}, the density's mean {mean:.9g}")
    zero = np.array([[-1e4, 1e4]])
    nll = Runner(device)(
        "continuous_bernoulli_nll", zero, np.array([[0.0, 1.0]]), np.ones(1), nll=(1,), grad_logits=(1, 2)
    )
    require(
        abs(nll[0][0] + 2 * math.log(1e4)) <= 1e-9, f"logits of ±10,000 cost {nll[0][0]:.6g} nats, not −2 log 10,000"
    )
    return f"integrates to 1 at {len(LOGITS)} logits, mean right"


def free_gaussians_are_densities(device: str) -> str:
    """Gaussians whose sigma is learned integrate to 1, whatever sigma; that of a pixel is never below exp(−6)."""
    for s in (-30.0, -6.0, -1.0, 0.8):
        sigma = math.exp(np.logaddexp(0, s - LEAST_LOG_SIGMA) + LEAST_LOG_SIGMA)
        x = 0.3 + sigma * np.linspace(-9, 9, 2001)
        density = _densities(device, "gaussian_pixel_nll", [0.3, s], x, "grad_outputs")
        total, variance = (float(density @ w) * (x[1] - x[0]) for w in (np.ones_like(x), (x - 0.3) ** 2))
        require(abs(total - 1) <= 1e-9, f"gaussian_pixel_nll at s = {s:g} integrates to {total:.9g}, not 1")
        require(
            abs(variance / sigma**2 - 1) <= 1e-9, f"at s = {s:g} the variance is {variance:.6g}, not {sigma**2:.6g}"
        )
    run = Runner(device)
    for rho in (-2.0, 0.5):
        x = 0.3 + math.exp(rho) * np.linspace(-9, 9, 2001)
        given, n = (np.full((len(x), 1), 0.3), x[:, None], np.ones(len(x)), np.array([rho])), len(x)
        nll = run("gaussian_scalar_nll", *given, nll=(n,), grad_mean=(n, 1), grad_log_sigma=(n, 1))[0]
        total = float(np.exp(-nll).sum()) * (x[1] - x[0])
        require(abs(total - 1) <= 1e-9, f"gaussian_scalar_nll at log_sigma = {rho:g} integrates to {total:.9g}, not 1")
    return "integrate to 1"


def optimal_is_the_least(device: str) -> str:
    """No fixed sigma gives a lower cost than the optimal one, and sigma = the row's RMSE gives the same."""
    run, rng = Runner(device), np.random.default_rng(1)
    mean, x, ones = rng.standard_normal((4, 9)), rng.uniform(0, 1, (2, 9)), np.ones(4)
    least = run("gaussian_optimal_nll", mean, x, ones, nll=(4,), grad_mean=mean.shape)[0]
    own = np.sqrt(((mean - np.repeat(x, 2, axis=0)) ** 2).mean(axis=1))
    for row, rmse in enumerate(own):
        for factor in (0.5, 0.99, 1.0, 1.01, 2.0):
            sigma = float(factor * rmse)
            fixed = run("gaussian_nll", mean, x, ones, sigma, nll=(4,), grad_mean=mean.shape)[0][row]
            apart = float(fixed - least[row])
            good = abs(apart) <= 1e-11 if factor == 1 else apart > 0
            require(good, f"sigma = {factor:g} · RMSE costs {apart:.4g} nats more than the optimal sigma")
    perfect = run("gaussian_optimal_nll", x, x, np.ones(2), nll=(2,), grad_mean=x.shape)[0]
    floor = 9 * (LEAST_LOG_SIGMA + 0.5 * math.log(2 * math.pi))
    require(bool(np.abs(perfect - floor).max() <= 1e-9), f"a perfect row costs {perfect[0]:.6g} nats, not {floor:.6g}")
    return "the least of all sigmas"


def levels_sum_to_one(device: str) -> str:
    """The probabilities of all 256 grey levels sum to 1, and their mean is the layer's `mean`."""
    x, rng = np.arange(LEVELS) / (LEVELS - 1), np.random.default_rng(2)
    for m, s in ((0.5, -3.0), (0.2, -30.0), (0.0, -2.0), (1.1, -5.0), (-0.3, 0.4), (0.7, 30.0)):
        p = _densities(device, "discretized_logistic_nll", [m, s], x, "grad_outputs")
        require(
            abs(p.sum() - 1) <= 1e-9, f"logistic m = {m:g}, s = {s:g}: the levels' probabilities sum to {p.sum():.9g}"
        )
        given = float(DiscretizedLogistic().mean(np.array([[m, s]]))[0, 0])
        require(abs(given - float(p @ x)) <= 1e-9, f"its mean is {given:.9g}, that of the levels {float(p @ x):.9g}")
    logits = list(3 * rng.standard_normal(LEVELS))
    p = _densities(device, "categorical_nll", logits, x, "grad_logits")
    require(abs(p.sum() - 1) <= 1e-12, f"the categories' probabilities sum to {p.sum():.9g}, not 1")
    given = float(Categorical().mean(np.array([logits]))[0, 0])
    require(abs(given - float(p @ x)) <= 1e-12, f"the categorical mean is {given:.9g}, that of the levels {p @ x:.9g}")
    return f"{LEVELS} levels sum to 1"


def logistic_by_hand(device: str) -> str:
    """Levels inside have the difference of two values of the logistic function; the ends have all that lies beyond."""

    def cdf(t: float) -> float:
        return 1 / (1 + math.exp(-t))

    m, s = 0.31, -2.4
    scale, half = math.exp(np.logaddexp(0, s + 7 + math.log(2)) - 7 - math.log(2)), 1 / 510
    for level in (0, 1, 79, 254, 255):
        c = level / 255
        below = 0.0 if level == 0 else cdf((c - half - m) / scale)
        upto = 1.0 if level == 255 else cdf((c + half - m) / scale)
        x = np.array([c, c + 0.3 / 255 if level < 255 else c])  # what lies between two levels goes to the nearest
        p = _densities(device, "discretized_logistic_nll", [m, s], x, "grad_outputs")
        for given in p:
            sentence = f"P(level {level}) is {given:.9g}, the share of the logistic is {upto - below:.9g}"
            require(abs(given - (upto - below)) <= 1e-12, sentence)
    return "5 levels"


def targeted_objective_in_words(device: str) -> str:
    """Free bits and a capacity, term by term, with the weights of the KL's gradient; metrics and sums as ever."""
    nll, kl = np.array([3.0, 5.0, 4.0, 6.0]), np.array([[0.1, 2.0, 0.9], [0.3, 1.0, 0.5]])  # means 0.2, 1.5, 0.7
    rates, run = np.zeros(RATES), Runner(device)
    cases = (  # beta, capacity, free bits, cost of the KL, weights
        (2.0, 0.0, 0.5, 2 * (0.5 + 1.5 + 0.7), (0, 2, 2)),
        (2.0, 0.0, 0.0, 2 * 2.4, (2, 2, 2)),
        (3.0, 1.4, 0.0, 3 * 1.0, (3, 3, 3)),
        (3.0, 4.0, 0.0, 3 * 1.6, (-3, -3, -3)),
    )
    for beta, capacity, free, cost, weights in cases:
        rates[[KL_BETA, KL_CAPACITY, KL_FREE]] = beta, capacity, free
        sums, weight, metrics = run("targeted_objective", nll, kl, rates, np.ones(4), kl_weight=(3,), metrics=(3,))
        what = f"capacity {capacity:g}, free bits {free:g}: "
        apart = np.abs(metrics - [4.5 + cost, 4.5, 2.4]).max()
        require(bool(apart <= 1e-12), f"{what}metrics are {metrics}, meant are {4.5 + cost:g}, 4.5, 2.4")
        require(
            bool(np.abs(weight - weights).max() <= 1e-12), f"{what}the KL weights are {weight}, meant are {weights}"
        )
        require(bool(np.abs(sums - 1 - 2 * np.array([*metrics, 1])).max() <= 1e-12), f"{what}the sums are {sums}")
    return f"{len(cases)} cases"


LIKELIHOOD_MEANINGS: tuple[Meaning, ...] = (
    Meaning("continuous Bernoulli", ("continuous_bernoulli_nll",), continuous_bernoulli_is_a_density),
    Meaning("learned sigmas", ("gaussian_pixel_nll", "gaussian_scalar_nll"), free_gaussians_are_densities),
    Meaning("optimal sigma", ("gaussian_optimal_nll",), optimal_is_the_least),
    Meaning("grey levels", ("discretized_logistic_nll", "categorical_nll"), levels_sum_to_one),
    Meaning("discretised logistic", ("discretized_logistic_nll",), logistic_by_hand),
)
TARGETED = Meaning("targeted objective", ("targeted_objective",), targeted_objective_in_words)
