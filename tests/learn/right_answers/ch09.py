"""Chapter 09: right answers as learners write them, with loops, lists, other formulas; three to an exercise."""

import itertools

import numba
import numpy as np


def places_by_counting(sizes):
    starts, end = [], 0
    for size in sizes:
        starts.append(end)
        end += size
        while end % 64:
            end += 1
    return [*starts, np.int64(end)]


def adam_of_arrays(grads, t, lr, eps, values, m, v):
    m *= 0.9
    m += 0.1 * grads
    v += 0.001 * (grads**2 - v)
    values -= lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps)


def adam_with_copies(grads, t, lr, eps, values, m, v):
    m_new, v_new = 0.9 * m + 0.1 * grads, 0.999 * v + 0.001 * np.square(grads)
    step = lr * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    values[:] = values - step * m_new / (np.sqrt(v_new) + eps * np.sqrt(1 - 0.999**t))
    m[:], v[:] = m_new, v_new


@numba.njit
def adam_compiled(grads, t, lr, eps, values, m, v):
    first, second = 1 / (1 - 0.9**t), 1 / (1 - 0.999**t)
    for i in range(grads.size):
        m[i] += 0.1 * (grads[i] - m[i])
        v[i] += 0.001 * (grads[i] * grads[i] - v[i])
        values[i] -= lr * m[i] * first / (np.sqrt(v[i] * second) + eps)


def philox_round_by_divmod(c0, c1, c2, c3, k0, k1):
    p, low_p = divmod(c0 * 0xD2511F53, 2**32)
    q, low_q = divmod(c2 * 0xCD9E8D57, 2**32)
    return [q ^ c1 ^ k0, low_q, p ^ c3 ^ k1, low_p]


def philox_round_in_numpy(c0, c1, c2, c3, k0, k1):
    products = np.array([c2, c0], np.uint64) * np.array([0xCD9E8D57, 0xD2511F53], np.uint64)
    high, low = products >> np.uint64(32), products & np.uint64(0xFFFFFFFF)
    high ^= np.array([c1, c3], np.uint64) ^ np.array([k0, k1], np.uint64)
    return tuple(np.stack([high, low], axis=1).ravel())


def philox_round_by_text(c0, c1, c2, c3, k0, k1):
    p, q = f"{c0 * 0xD2511F53:064b}", f"{c2 * 0xCD9E8D57:064b}"
    return int(q[:32], 2) ^ c1 ^ k0, int(q[32:], 2), int(p[:32], 2) ^ c3 ^ k1, int(p[32:], 2)


def box_muller_complex(a, b):
    u = ((a >> 8).astype(float) + 1) / 2**24
    z = np.sqrt(-2 * np.log(u)) * np.exp(2j * np.pi * (b >> 8) / 2**24)
    return z.real, z.imag


def box_muller_one_by_one(a, b):
    points = []
    for first, second in zip(a.tolist(), b.tolist(), strict=True):
        r = (-2 * np.log((first // 256 + 1) / 16777216)) ** 0.5
        angle = second // 256 / 16777216 * 2 * np.pi
        points.append((r * np.cos(angle), r * np.sin(angle)))
    return tuple(np.array(points).T)


def box_muller_by_waves(a, b):
    r = np.sqrt(-2 * np.log(((a >> 8) + 1) / 2**24))
    return [r * wave((b >> 8) * (np.pi * 2**-23)) for wave in (np.cos, np.sin)]


ANSWERS = {
    "places": (
        places_by_counting,
        lambda sizes: np.cumsum([0] + [-(-s // 64) * 64 for s in sizes]),
        lambda sizes: list(itertools.accumulate(sizes, lambda end, size: end + size + -size % 64, initial=0)),
    ),
    "adam": (adam_of_arrays, adam_with_copies, adam_compiled),
    "epoch_and_cursor": (
        lambda step, n, batch_size: [(step - 1) // n, (step - 1) * batch_size % (n * batch_size)],
        lambda step, per_epoch, batch_size: tuple(np.array(divmod(step - 1, per_epoch)) * (1, batch_size)),
        lambda step, n, batch_size: (int((step - 1) / n), (step - 1 - n * ((step - 1) // n)) * batch_size),
    ),
    "philox_round": (philox_round_by_divmod, philox_round_in_numpy, philox_round_by_text),
    "box_muller": (box_muller_complex, box_muller_one_by_one, box_muller_by_waves),
}
