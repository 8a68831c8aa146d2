"""Chapter 09, flat buffers and counters: places in a buffer, fused Adam, the clock, a round of Philox, Box–Muller.
It knows the arithmetic, its typical mistakes and its hints; the text is in tutorials/."""

from __future__ import annotations

import numpy as np

from ..exercise import Chapter, Exercise, Mistake

SIZES = ((6, 64, 100), (313600, 400), (65, 1, 128, 20))
STEPS = ((1, 3, 128), (469, 469, 128), (940, 469, 64))  # step, steps in an epoch, batch size
ADAM = ((5, 1, 0.1), (7, 4, 0.01), (3, 30, 0.5))  # numbers, t, lr
ONE, OTHER, MASK = 0xD2511F53, 0xCD9E8D57, 0xFFFFFFFF


def places(sizes):
    """Where each tensor begins in a flat buffer, one after another, each on the next multiple of 64; and where all end.

    sizes: how many numbers each tensor has, at least 1. Returns a list of len(sizes) + 1 whole numbers: the first is 0,
    the last the buffer's length, which is a multiple of 64 too.
    """
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + (size + 63) // 64 * 64)
    return starts


def adam(grads, t, lr, eps, values, m, v):
    """Adam's step number t, in place and in one pass: with g = grads[i], for each number i

    m ← 0.9 m + 0.1 g,  v ← 0.999 v + 0.001 g²,  values ← values − lr · (m / (1 − 0.9ᵗ)) / (√(v / (1 − 0.999ᵗ)) + eps).

    grads, values, m, v: (n,); the last three are changed. t: from 1. Returns nothing.
    """
    for i in range(len(grads)):
        m[i] = 0.9 * m[i] + 0.1 * grads[i]
        v[i] = 0.999 * v[i] + 0.001 * grads[i] ** 2
        values[i] -= lr * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + eps)


def epoch_and_cursor(step, per_epoch, batch_size):
    """The epoch that a step belongs to, and the place of its batch's first image in the order of that epoch.

    step: counted from 1 over the whole run. per_epoch: steps in an epoch. Returns (epoch, cursor), both from 0.
    """
    return (step - 1) // per_epoch, (step - 1) % per_epoch * batch_size


def philox_round(c0, c1, c2, c3, k0, k1):
    """One of the ten rounds of Philox4x32 on the counter (c0, c1, c2, c3) with the key (k0, k1).

    With the 64-bit products p = 0xD2511F53 · c0 and q = 0xCD9E8D57 · c2 the new counter is
    (high(q) ^ c1 ^ k0, low(q), high(p) ^ c3 ^ k1, low(p)): high and low are the upper and the lower 32 bits, ^ is
    exclusive or. All arguments are whole numbers below 2³². Returns four such numbers.
    """
    p, q = 0xD2511F53 * c0, 0xCD9E8D57 * c2
    return (q >> 32) ^ c1 ^ k0, q & 0xFFFFFFFF, (p >> 32) ^ c3 ^ k1, p & 0xFFFFFFFF


def box_muller(a, b):
    """Two independent standard normals of each pair of random words: r cos θ and r sin θ with

    r = √(−2 ln u),  u = ((a >> 8) + 1) · 2⁻²⁴ in (0, 1],  and  θ = 2π · (b >> 8) · 2⁻²⁴.

    a, b: (n,) uint32. Returns two arrays (n,).
    """
    r = np.sqrt(-2 * np.log(((a >> 8) + 1.0) * 2.0**-24))
    angle = 2 * np.pi * (b >> 8) * 2.0**-24
    return r * np.cos(angle), r * np.sin(angle)


def _adam_cases(rng: np.random.Generator, case: int) -> tuple:
    n, t, lr = ADAM[case]
    values, m = rng.standard_normal(n), rng.standard_normal(n)
    return rng.standard_normal(n), t, lr, 1e-2, values, m, rng.random(n)


def _moved(g, t, lr, eps, values, m, v, corrections=(0.9, 0.999), inside=0.0, root=np.sqrt, sign=-1, square=2):
    """Adam's step, and the ways it is usually missed."""
    m[:], v[:] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**square
    first, second = (1 - c**t for c in corrections)
    values += sign * lr * (m / first) / (root(v / second + inside) + eps * (not inside))


def _moved_by_old(g, t, lr, eps, values, m, v):
    before = values - lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    adam(g, t, lr, eps, values, m, v)
    values[:] = before


def _moved_only_values(g, t, lr, eps, values, m, v):
    adam(g, t, lr, eps, values, m.copy(), v.copy())


def _words(rng: np.random.Generator, count: int) -> list[int]:
    return [int(word) for word in rng.integers(0, 2**32, count)]


def _pairs(rng: np.random.Generator, case: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = rng.integers(0, 2**32, (2, (4, 1, 9)[case]), dtype=np.uint32)
    a[0] = 0  # the word that has no logarithm
    return a, b


def _normals(a, b, scale=2.0, turn=2 * np.pi, root=np.sqrt, log=np.log, one=1.0):
    with np.errstate(divide="ignore"):
        r = root(-scale * log(((a >> 8) + one) * 2.0**-24))
    angle = turn * (b >> 8) * 2.0**-24
    return r * np.cos(angle), r * np.sin(angle)


def _packed(sizes, step):
    """Starts where each tensor takes step(size) numbers."""
    return [0, *np.cumsum([step(s) for s in sizes])]


CHAPTER = Chapter(
    "09",
    "Flat buffers, fused steps, randomness by counter",
    "09_flat_buffers_and_counters.md",
    (
        Exercise(
            places,
            lambda rng, case: (list(SIZES[case]),),
            (
                Mistake("starts without any gap: the tensors do not begin on multiples of 64",
                        lambda sizes: _packed(sizes, lambda s: s)),
                Mistake("64 numbers too many behind a tensor that ends on a multiple of 64 already",
                        lambda sizes: _packed(sizes, lambda s: (s // 64 + 1) * 64)),
                Mistake("the sizes rounded up: each start is the sum of all those before it",
                        lambda sizes: [0, *((s + 63) // 64 * 64 for s in sizes)]),
                Mistake("sizes rounded down: the next tensor begins inside the one before",
                        lambda sizes: _packed(sizes, lambda s: s // 64 * 64)),
                Mistake("starts on multiples of 64 bytes, which are 16 numbers of float32: 64 numbers are meant",
                        lambda sizes: _packed(sizes, lambda s: (s + 15) // 16 * 16)),
                Mistake("the starts alone: the buffer's length is missing", lambda sizes: places(sizes)[:-1]),
                Mistake("the right starts, but a buffer that ends with its last number: no multiple of 64",
                        lambda sizes: [*places(sizes)[:-1], places(sizes)[-2] + sizes[-1]]),
            ),
            (
                "Each tensor begins where the one before ends, rounded up to the next multiple of 64.",
                "Rounding a whole number up: add 63, divide by 64 without the rest, multiply by 64.",
                "Begin with [0]; for each size append the last start plus the size rounded up.",
            ),
            tolerance=0.0,
        ),
        Exercise(
            adam,
            _adam_cases,
            (
                Mistake("Adam without the corrections 1 − 0.9ᵗ and 1 − 0.999ᵗ: its first steps are wrong",
                        lambda g, t, lr, eps, w, m, v: _moved(g, t, lr, eps, w, m, v, corrections=(0.0, 0.0))),
                Mistake("Adam with eps under the root", lambda g, t, lr, eps, w, m, v:
                        _moved(g, t, lr, eps, w, m, v, inside=eps)),
                Mistake("Adam without the root: it divides by v", lambda g, t, lr, eps, w, m, v:
                        _moved(g, t, lr, eps, w, m, v, root=lambda x: x)),
                Mistake("Adam uphill: the step is added", lambda g, t, lr, eps, w, m, v:
                        _moved(g, t, lr, eps, w, m, v, sign=1)),
                Mistake("a step with the m and v of the step before: they must be new when they are used",
                        _moved_by_old),
                Mistake("the right values, but m and v stay what they were: write them into the arrays",
                        _moved_only_values),
                Mistake("Adam with 0.9 in both corrections", lambda g, t, lr, eps, w, m, v:
                        _moved(g, t, lr, eps, w, m, v, corrections=(0.9, 0.9))),
            ),
            (
                "One loop over i. First the new m[i] and v[i], then the step, which uses the new ones.",
                "Assign to m[i], v[i], values[i] (or to m[:] …): m = … would only name another array.",
                "The step is lr · m̂ / (√v̂ + eps), with the corrected m̂ and v̂; it is taken away from values.",
            ),
            writes=("values", "m", "v"),
            tolerance=1e-6,
        ),
        Exercise(
            epoch_and_cursor,
            lambda rng, case: STEPS[case],
            (
                Mistake("both one step too late: steps are counted from 1",
                        lambda s, n, B: (s // n, s % n * B)),
                Mistake("the right cursor and the next epoch: epochs are counted from 0",
                        lambda s, n, B: ((s - 1) // n + 1, (s - 1) % n * B)),
                Mistake("the batch's number in the epoch where its first image's place belongs",
                        lambda s, n, B: ((s - 1) // n, (s - 1) % n)),
                Mistake("a cursor that never begins again", lambda s, n, B: ((s - 1) // n, (s - 1) * B)),
                Mistake("the right epoch, but the cursor of the next batch", lambda s, n, B: ((s - 1) // n, s % n * B)),
                Mistake("the cursor first and the epoch behind", lambda s, n, B: ((s - 1) % n * B, (s - 1) // n)),
            ),
            (
                "How many steps lie behind when step number `step` begins? One fewer than its number.",
                "Whole epochs behind: // per_epoch. Batches of this epoch behind: % per_epoch.",
                "Each batch behind has moved the cursor by batch_size images.",
            ),
            tolerance=0.0,
        ),
        Exercise(
            philox_round,
            lambda rng, case: tuple(_words(rng, 6)),
            (
                Mistake("the round with the upper and lower halves of the products changed round",
                        lambda c0, c1, c2, c3, k0, k1: ((OTHER * c2 & MASK) ^ c1 ^ k0, OTHER * c2 >> 32,
                                                        (ONE * c0 & MASK) ^ c3 ^ k1, ONE * c0 >> 32)),
                Mistake("the round without the key", lambda c0, c1, c2, c3, k0, k1: philox_round(c0, c1, c2, c3, 0, 0)),
                Mistake("the round with the two halves of the key changed round",
                        lambda c0, c1, c2, c3, k0, k1: philox_round(c0, c1, c2, c3, k1, k0)),
                Mistake("the round with the two products changed round: the one of c2 goes to the front",
                        lambda *words: philox_round(*words)[2:] + philox_round(*words)[:2]),
                Mistake("the round without c1 and c3",
                        lambda c0, c1, c2, c3, k0, k1: philox_round(c0, 0, c2, 0, k0, k1)),
                Mistake("the round with products cut to 32 bits too early: their upper half is lost",
                        lambda c0, c1, c2, c3, k0, k1: (c1 ^ k0, OTHER * c2 & MASK, c3 ^ k1, ONE * c0 & MASK)),
                Mistake("the round with a plus where the exclusive or belongs",
                        lambda c0, c1, c2, c3, k0, k1: ((OTHER * c2 >> 32) + c1 + k0 & MASK, OTHER * c2 & MASK,
                                                        (ONE * c0 >> 32) + c3 + k1 & MASK, ONE * c0 & MASK)),
            ),
            (
                "Python's whole numbers have no end, so both products are exact: take their halves afterwards.",
                "high(p) is p >> 32, low(p) is p & 0xFFFFFFFF.",
                "The halves of q = 0xCD9E8D57 · c2 go to the front, those of p to the back; ^ brings in c1 and c3.",
            ),
            tolerance=0.0,
        ),
        Exercise(
            box_muller,
            _pairs,
            (
                Mistake("normals from u = (a >> 8) · 2⁻²⁴ without the + 1: infinite where the word is 0",
                        lambda a, b: _normals(a, b, one=0.0)),
                Mistake("normals of half the variance: the 2 in −2 ln u is missing",
                        lambda a, b: _normals(a, b, scale=1.0)),
                Mistake("points on a half circle: the angle is π instead of 2π times the uniform number",
                        lambda a, b: _normals(a, b, turn=np.pi)),
                Mistake("an angle without 2π", lambda a, b: _normals(a, b, turn=1.0)),
                Mistake("r without its root", lambda a, b: _normals(a, b, root=lambda x: x)),
                Mistake("sine and cosine changed round", lambda a, b: _normals(a, b)[::-1]),
                Mistake("the logarithm to the base 10", lambda a, b: _normals(a, b, log=np.log10)),
            ),
            (
                "A pair of normals is a point in the plane: its angle is uniform, its distance is not.",
                "Add the 1 before you multiply by 2⁻²⁴: then u is never 0 and its logarithm never infinite.",
                "r from a, the angle from b; np.log is the natural logarithm.",
            ),
            tolerance=1e-6,
        ),
    ),
)  # fmt: skip
