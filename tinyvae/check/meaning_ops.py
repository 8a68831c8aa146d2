"""Meaning checks of the ops that have no gradient: optimisers, clipping, objective, clock, Philox, batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..kernels import clock
from ..kernels.check import Runner
from .meaning import Meaning, require

# ---------------------------------------------------------------------------------------------- optimisers


def adam_by_hand(device: str) -> str:
    """Twelve steps of three numbers with a changing learning rate and clip factor equal Adam written for one number."""
    run, beta1, beta2, eps = Runner(device), 0.9, 0.99, 1e-8
    rng, start = np.random.default_rng(1), np.array([0.3, -0.2, 1e-9])
    gradients = rng.standard_normal((12, 3)) * np.array([1.0, 1e-3, 1e-8])  # the last of the size of eps
    values, m, v = start.copy(), np.zeros(3), np.zeros(3)
    meant, first, second = [float(s) for s in start], [0.0] * 3, [0.0] * 3
    for t, g in enumerate(gradients, start=1):
        lr, clip = 1e-2 / t, 1.0 if t % 3 else 0.5
        rates = np.zeros(clock.RATES)
        rates[clock.LR], rates[clock.CLIP] = lr, clip
        rates[clock.CORRECTION1], rates[clock.CORRECTION2] = 1 / (1 - beta1**t), 1 / (1 - beta2**t)
        values, m, v = run("adam", g, rates, beta1, beta2, eps, values, m, v)
        for i in range(3):
            gi = clip * float(g[i])
            first[i] = beta1 * first[i] + (1 - beta1) * gi
            second[i] = beta2 * second[i] + (1 - beta2) * gi * gi
            unbiased = second[i] / (1 - beta2**t)
            meant[i] -= lr * first[i] / (1 - beta1**t) / (math.sqrt(unbiased) + eps)
        apart = float(np.abs(values - meant).max())
        words = "the step, bias correction, the place of eps, the learning rate or the clip factor is wrong"
        require(apart <= 1e-12, f"after {t} steps Adam is {apart:.3g} away from algorithm 1 done by hand: {words}")
        if t == 1:  # m / √v is ±1 at first, whatever the gradient's size
            moved = abs(float(values[0] - start[0]))
            require(abs(moved - 1e-2) <= 1e-9, f"Adam's first step has length {moved:.6g}, not the learning rate 0.01")
    return f"12 steps within {apart:.0e}"


def sgd_by_hand(device: str) -> str:
    """Five steps with momentum equal the same in scalars."""
    run, values, m = Runner(device), np.array([0.5]), np.zeros(1)
    meant, speed = 0.5, 0.0
    for t in range(1, 6):
        rates = np.zeros(clock.RATES)
        rates[[clock.LR, clock.CLIP]] = 0.1 / t, 1 / t
        values, m = run("sgd", np.array([float(t)]), rates, 0.9, values, m)
        speed = 0.9 * speed + (1 / t) * t
        meant -= 0.1 / t * speed
        require(abs(values[0] - meant) <= 1e-12, f"after {t} steps SGD is at {values[0]:.9g}, by hand at {meant:.9g}")
    return "5 steps"


def clipping(device: str) -> str:
    """One global norm; gradients above max_norm are scaled to it, those below are left alone, 0 clips nothing."""
    run, g = Runner(device), np.array([3.0, -4.0, 12.0])
    for max_norm, factor in ((6.5, 0.5), (13.0, 1.0), (20.0, 1.0), (0.0, 1.0)):
        rates = run("grad_norm", g, max_norm, np.zeros(clock.RATES))
        require(abs(rates[clock.NORM] - 13) <= 1e-12, f"the norm of (3, −4, 12) is {rates[clock.NORM]:.6g}, not 13")
        given = rates[clock.CLIP]
        require(
            abs(given - factor) <= 1e-12, f"norm 13, max_norm {max_norm:g}: the factor is {given:.6g}, not {factor:g}"
        )
    return "norm 13, factors ½ and 1"


def objective_in_words(device: str) -> str:
    """loss = mean nll + Σ weight · mean kl, kl itself unweighted; a ragged epoch gives the mean over images."""
    rng, weight = np.random.default_rng(2), np.array([0.5, 3.0])
    nll, kl = rng.uniform(1, 9, 10), rng.uniform(0, 2, (5, 2))
    sums, run = np.zeros(4), Runner(device)
    sums, metrics = run("objective", nll[:6], kl[:3], weight, sums, metrics=(3,))
    first_nll, first_kl = float(np.mean(nll[:6])), kl[:3].mean(axis=0)
    loss = first_nll + 0.5 * first_kl[0] + 3 * first_kl[1]
    require(abs(metrics[0] - loss) <= 1e-12, f"the loss is {metrics[0]:.6g}, mean nll + weighted mean kl is {loss:.6g}")
    require(abs(metrics[1] - first_nll) <= 1e-12, f"recon is {metrics[1]:.6g}, the mean over rows is {first_nll:.6g}")
    total = float(first_kl.sum())
    sentence = f"kl is {metrics[2]:.6g}, the sum over dimensions of the mean over images, without beta, is {total:.6g}"
    require(abs(metrics[2] - total) <= 1e-12, sentence)
    sums, _ = run("objective", nll[6:], kl[3:], weight, sums, metrics=(3,))  # a last batch of 2 images after one of 3
    epoch = float(nll.reshape(5, 2).mean(axis=1).mean())
    sentence = (
        f"recon over batches of 3 and 2 is {sums[1] / sums[3]:.6g}, over the 5 images {epoch:.6g}: weight by images"
    )
    require(abs(sums[1] / sums[3] - epoch) <= 1e-12 and sums[3] == 5, sentence)
    return f"ragged mean {epoch:.4f}"


# ---------------------------------------------------------------------------------------------- clock


def tick_formula(device: str) -> str:
    """Thirty ticks of two players against the formulas of schedules, warm-up, corrections and KL weight."""
    run, counters = Runner(device), np.zeros(clock.COUNTERS, np.uint64)
    plan, rates = np.zeros(clock.PLAN_HEAD + 2 * clock.PLAN), np.zeros(2 * clock.RATES + 2)
    plan[[clock.STEPS_PER_EPOCH, clock.BATCH_SIZE, clock.BETA, clock.BETA_WARMUP]] = 4, 32, 2.0, 10
    one, two = plan[clock.PLAN_HEAD :][: clock.PLAN], plan[clock.PLAN_HEAD + clock.PLAN :]
    columns = [
        clock.KIND, clock.BASE_LR, clock.LR_WARMUP, clock.TOTAL, clock.PERIOD, clock.GAMMA,
        clock.BETA1, clock.BETA2, clock.EVERY,
    ]  # fmt: skip
    one[columns] = clock.SCHEDULES["cosine"], 1e-3, 5, 30, 1, 0, 0.9, 0.999, 1
    two[columns] = clock.SCHEDULES["step"], 2e-3, 0, 10, 4, 0.1, 0.5, 0.9, 3
    for step in range(1, 31):
        counters, rates = run("tick", plan, counters, rates)
        place = (step, (step - 1) // 4, (step - 1) % 4 * 32)
        given = tuple(int(counters[c]) for c in (clock.STEP, clock.EPOCH, clock.CURSOR))
        require(given == place, f"at step {step} the clock says step, epoch, cursor = {given}, meant is {place}")
        t = (step - 1) // 3 + 1
        done = min(1.0, max(0.0, (step - 1 - 5) / 25))
        meant = {
            "cosine rate": (rates[clock.LR], 1e-3 * (step / 5 if step <= 5 else 0.5 * (1 + math.cos(math.pi * done)))),
            "correction of beta1": (rates[clock.CORRECTION1], 1 / (1 - 0.9**step)),
            "correction of beta2": (rates[clock.CORRECTION2], 1 / (1 - 0.999**step)),
            "stepwise rate": (rates[clock.RATES + clock.LR], 2e-3 * 0.1 ** ((t - 1) // 4)),
            "correction of a player of every third step": (rates[clock.RATES + clock.CORRECTION1], 1 / (1 - 0.5**t)),
            "KL weight": (rates[2 * clock.RATES], 2.0 * min(1.0, step / 10)),
        }
        for name, (found, wanted) in meant.items():
            require(abs(found - wanted) <= 1e-12 * abs(wanted), f"step {step}: {name} {found:.9g}, meant {wanted:.9g}")
    return "30 steps, 2 players"


# ---------------------------------------------------------------------------------------------- randomness

KNOWN = (  # Random123's kat_vectors for philox4x32-10: counter, key, words
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


def philox_scalar(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 of one counter in plain integers (Salmon et al. 2011)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _word(position: int, step: int, stream: int, seed: int) -> int:
    block = position // 4
    counter = (block & 0xFFFFFFFF, block >> 32, step & 0xFFFFFFFF, stream)
    return philox_scalar(counter, (seed & 0xFFFFFFFF, seed >> 32))[position % 4]


def _counters(step: int = 0, row: int = 0, seed: int = 0, cursor: int = 0) -> np.ndarray:
    counters = np.zeros(clock.COUNTERS, np.uint64)
    counters[clock.STEP], counters[clock.ROW], counters[clock.CURSOR] = step, row, cursor
    counters[clock.SEED] = np.uint64(seed)
    return counters


def philox_known_answers(device: str) -> str:
    """The published answers, and every counter word in its place: position low and high, step, stream, seed."""
    for counter, key, words in KNOWN:
        require(philox_scalar(counter, key) == words, "the scalar Philox of this check is broken")
    run = Runner(device)
    zero = tuple(int(w) for w in run("philox_bits", _counters(), 0, out=(1, 4))[0])
    require(zero == KNOWN[0][2], f"Philox of counter 0 and key 0 gives {zero}, published is {KNOWN[0][2]}")
    seed, row = 0x299F31D0A4093822, 0x243F6A88 << 26
    bits = run("philox_bits", _counters(0x13198A2E, row, seed), 0x707344, out=(3, 7))
    for r in range(3):
        for j in range(7):
            meant = _word((row + r) * 7 + j, 0x13198A2E, 0x707344, seed)
            require(int(bits[r, j]) == meant, f"word ({r}, {j}) is {int(bits[r, j]):#x}, meant is {meant:#x}")
    return "published words and 21 others"


def noise_from_words(device: str) -> str:
    """Uniforms, normals (Box & Muller) and Bernoulli draws are what their formulas make of the words."""
    run, counters, n = Runner(device), _counters(step=5, row=2, seed=77), 9
    words = [_word(2 * n + j, 5, 16, 77) >> 8 for j in range(-2 * n % 4 - 4, n + 4)]
    offset = 4 - (-2 * n % 4)
    uniform = run("philox_uniform", counters, 16, out=(1, n))[0]
    normal = run("philox_normal", counters, 16, out=(1, n))[0]
    p = np.linspace(0, 1, n)[None]
    drawn = run("philox_bernoulli", p, counters, 16, out=(1, n))[0]
    for j in range(n):
        here = offset + j
        lane = (2 * n + j) % 4
        a, b = (words[here], words[here + 1]) if lane % 2 == 0 else (words[here - 1], words[here])
        angle = 2 * math.pi * b * 2.0**-24
        radius = math.sqrt(-2 * math.log((a + 1) * 2.0**-24))
        meant = radius * (math.cos(angle) if lane % 2 == 0 else math.sin(angle))
        require(abs(normal[j] - meant) <= 1e-12, f"normal {j} is {normal[j]:.9g}, Box–Muller gives {meant:.9g}")
        u = words[here] * 2.0**-24
        require(uniform[j] == u, f"uniform {j} is {uniform[j]:.9g}, (word >> 8) · 2⁻²⁴ is {u:.9g}")
        require(drawn[j] == float(u < p[0, j]), f"Bernoulli draw {j} with p = {p[0, j]:.3g} and uniform {u:.3g}")
    return f"{n} draws of each"


N = 200_000
_erf = np.vectorize(math.erf)


def _drawn(run: Runner, op: str, step: int = 0, stream: int = 16, seed: int = 5) -> np.ndarray:
    return np.asarray(run(op, _counters(step=step, seed=seed), stream, out=(N // 100, 100)))


def _kolmogorov(sample: np.ndarray, cdf: Callable[[np.ndarray], np.ndarray]) -> float:
    """√n · the largest distance between the sample's distribution and `cdf`; above 1.95 with probability 0.001."""
    ordered = np.sort(sample.ravel())
    steps, values = np.arange(ordered.size + 1) / ordered.size, cdf(ordered)
    return math.sqrt(ordered.size) * float(max(np.abs(values - steps[1:]).max(), np.abs(values - steps[:-1]).max()))


def _moments(name: str, sample: np.ndarray, meant: dict[str, tuple[float, float, float]]) -> None:
    """{moment: (found, meant, variance of one term)}: each within four standard errors."""
    for moment, (found, right, variance) in meant.items():
        good = abs(found - right) <= 4 * math.sqrt(variance / N)
        require(good, f"the {moment} of {N} {name} is {found:.4f}, meant is {right:.4g}")


def uniform_statistics(device: str) -> str:
    """200,000 uniforms lie in [0, 1), with the moments and the distribution of the uniform."""
    u = _drawn(Runner(device), "philox_uniform")
    require(bool(u.min() >= 0 and u.max() < 1), f"uniforms lie between {u.min():.6g} and {u.max():.6g}, not in [0, 1)")
    _moments("uniforms", u, {"mean": (u.mean(), 0.5, 1 / 12), "variance": (u.var(), 1 / 12, 1 / 180)})
    distance = _kolmogorov(u, lambda a: a)
    require(distance <= 1.95, f"{N} uniforms are not uniformly distributed: Kolmogorov's distance is {distance:.2f}")
    return f"mean {u.mean():.4f}, distance {distance:.2f}"


def normal_statistics(device: str) -> str:
    """200,000 normals have the moments and the distribution of N(0, 1); the radius ends at √(48 ln 2)."""
    z = _drawn(Runner(device), "philox_normal")
    moments = {"mean": (z.mean(), 0.0, 1.0), "second moment": ((z**2).mean(), 1.0, 2.0)}
    moments |= {"third moment": ((z**3).mean(), 0.0, 15.0), "fourth moment": ((z**4).mean(), 3.0, 96.0)}
    require(bool(np.isfinite(z).all()), "a normal is not finite")
    _moments("normals", z, moments)
    distance = _kolmogorov(z, lambda a: 0.5 * (1 + _erf(a / math.sqrt(2))))
    require(distance <= 1.95, f"{N} normals are not normally distributed: Kolmogorov's distance is {distance:.2f}")
    require(bool(4 < np.abs(z).max() < 5.8), f"the largest of {N} normals is {np.abs(z).max():.3g}, not 4 to 5.8")
    return f"mean {z.mean():.4f}, variance {z.var():.4f}, distance {distance:.2f}"


def normals_are_uncorrelated(device: str) -> str:
    """Neither normals nor their squares are correlated with the next, the pair's other half, other steps, streams …"""
    run = Runner(device)
    z = _drawn(run, "philox_normal").ravel()
    others = {
        "the next": np.roll(z, 1), "the pair's other half": z.reshape(-1, 2)[:, ::-1].ravel(),
        "the next block": np.roll(z, 4), "the next step": _drawn(run, "philox_normal", step=1).ravel(),
        "the next stream": _drawn(run, "philox_normal", stream=17).ravel(),
        "the next seed": _drawn(run, "philox_normal", seed=6).ravel(),
    }  # fmt: skip
    for name, other in others.items():
        for power in (1, 2):
            a, b = z**power, other**power
            correlation = ((a - a.mean()) * (b - b.mean())).mean() / (a.std() * b.std())
            # products of the pair's halves are counted twice
            good = abs(correlation) <= 4 * math.sqrt(2 / N)
            require(bool(good), f"a normal and that of {name}, to the power {power}: correlation {correlation:.4f}")
    return f"{len(others)} neighbours"


# ---------------------------------------------------------------------------------------------- batches


def gather_in_order(device: str) -> str:
    """x[b] = scale · images[order[cursor + b]]."""
    images = np.arange(20, dtype=np.uint8).reshape(5, 4) * 12
    order = np.array([3, 1, 4, 0, 2], np.int64)
    x = Runner(device)("gather", images, order, _counters(cursor=2), 1 / 255, x=(3, 4))
    sentence = "gather must take images[order[cursor + b]] and scale them"
    require(bool(np.abs(x - images[[4, 0, 2]] / 255).max() <= 1e-15), sentence)
    return "in order, scaled"


def binarised(device: str) -> str:
    """Pixels are 0 or 1, on with the probability of their grey value; static draws stay, dynamic ones are made anew."""
    run, n = Runner(device), 4000
    images = np.tile(np.array([[0, 51, 128, 230, 255]], np.uint8), (n, 1))
    order = np.arange(n, dtype=np.int64)[::-1].copy()

    def draw(step: int, dynamic: int, order: np.ndarray = order) -> np.ndarray:
        return run("gather_binary", images, order, _counters(step), 1 / 255, 2, dynamic, x=(n, 5))

    x, p = draw(1, 1), images[0] / 255
    require(bool(np.all((x == 0) | (x == 1))), "a binarised pixel is neither 0 nor 1")
    apart = np.abs(x.mean(axis=0) - p)
    shares = ", ".join(f"{s:.3f}" for s in x.mean(axis=0))
    sentence = f"pixels of grey value 0, 0.2, 0.502, 0.902, 1 are on with frequency {shares}"
    require(bool(np.all(apart <= 5 * np.sqrt(p * (1 - p) / n))), sentence)
    require(not np.array_equal(x, draw(2, 1)), "dynamic binarisation drew the same at the next visit")
    still = draw(1, 0)
    require(
        np.array_equal(still, draw(2, 0)), "static binarisation drew anew at the next visit: it must not use the step"
    )
    turned = draw(1, 0, order[::-1].copy())
    require(np.array_equal(still, turned[::-1]), "static binarisation depends on the order: draws belong to the image")
    grey = np.arange(256, dtype=np.uint8)[None].repeat(2000, axis=0)
    for source, scale in ((grey, 1 / 255), (grey / 255, 1.0)):
        order = np.arange(len(grey), dtype=np.int64)
        share = run("gather_binary", source, order, _counters(3), scale, 2, 1, x=grey.shape).mean(axis=0)
        require(share[0] == 0 and share[255] == 1, "black must never be on, and white always")
        p = np.arange(1, 255) / 255
        z = (share[1:-1] - p) / np.sqrt(p * (1 - p) / len(grey))
        good = np.abs(z).max() < 4 and abs((z**2).mean() - 1) < 4 * math.sqrt(2 / 254)
        require(bool(good), f"a grey value is on {np.abs(z).max():.2f} standard errors off its probability")
    return f"on with frequency {shares}"


OP_MEANINGS: tuple[Meaning, ...] = (
    Meaning("adam by hand", ("adam",), adam_by_hand),
    Meaning("sgd by hand", ("sgd",), sgd_by_hand),
    Meaning("clipping", ("grad_norm",), clipping),
    Meaning("objective", ("objective",), objective_in_words),
    Meaning("tick", ("tick",), tick_formula),
    Meaning("Philox known answers", ("philox_bits",), philox_known_answers),
    Meaning(
        "draws from words", ("philox_uniform", "philox_normal", "philox_bernoulli"), noise_from_words
    ),
    Meaning("uniforms", ("philox_uniform",), uniform_statistics),
    Meaning("normals", ("philox_normal",), normal_statistics),
    Meaning("normals are uncorrelated", ("philox_normal",), normals_are_uncorrelated),
    Meaning("gather", ("gather",), gather_in_order),
    Meaning("binarisation", ("gather_binary",), binarised),
)  # fmt: skip
