"""The oracle: a dense VAE with one hidden layer each way, its gradients, Adam and Philox, from the mathematics.
It knows no layers, no buffers and nothing of tinyvae; all of it is float64 and slow on purpose."""

import math

import numpy as np

WEIGHTS = ("W1", "b1", "W2", "b2", "W3", "b3", "W4", "b4")  # encoder, then decoder, in order of declaration
INIT, SHUFFLE, BINARISE, EVALUATE, SAMPLE, LAYER = 0, 1, 2, 3, 4, 16  # streams

# ------------------------------------------------------------------------------------------------ the model


def sigmoid(a):
    return 0.5 * (1 + np.tanh(a / 2))


def loss_and_grads(w, x, eps, kl_weight=1.0, sigma=None):
    """([loss, recon, kl], gradients) of a batch x (B, D), in nats per image. sigma: None for Bernoulli pixels."""
    B, L = eps.shape
    a1 = x @ w["W1"] + w["b1"]
    h1 = np.where(a1 > 0, a1, 0)
    h2 = h1 @ w["W2"] + w["b2"]
    mu, s = h2[:, :L], np.exp(h2[:, L:])  # s is the standard deviation
    z = mu + s * eps
    a3 = z @ w["W3"] + w["b3"]
    h3 = np.where(a3 > 0, a3, 0)
    out = h3 @ w["W4"] + w["b4"]

    if sigma is None:
        recon = np.sum(np.logaddexp(0, out) - x * out) / B
        d_out = (sigmoid(out) - x) / B
    else:
        recon = np.sum((x - out) ** 2 / (2 * sigma**2) + math.log(sigma * math.sqrt(2 * math.pi))) / B
        d_out = (out - x) / sigma**2 / B
    kl = np.sum(mu**2 + s**2 - 1 - 2 * np.log(s)) / (2 * B)

    d_h3 = d_out @ w["W4"].T
    d_a3 = d_h3 * (a3 > 0)
    d_z = d_a3 @ w["W3"].T
    d_mu = d_z + kl_weight * mu / B
    d_log_s = d_z * eps * s + kl_weight * (s**2 - 1) / B
    d_h2 = np.hstack([d_mu, d_log_s])
    d_a1 = (d_h2 @ w["W2"].T) * (a1 > 0)
    grads = {
        "W1": x.T @ d_a1, "b1": d_a1.sum(0), "W2": h1.T @ d_h2, "b2": d_h2.sum(0),
        "W3": z.T @ d_a3, "b3": d_a3.sum(0), "W4": h3.T @ d_out, "b4": d_out.sum(0),
    }  # fmt: skip
    return np.array([recon + kl_weight * kl, recon, kl]), grads


# ------------------------------------------------------------------------------------------------ training


def clipped(grads, max_norm):
    """All gradients scaled so that their common norm is at most max_norm; 0 leaves them."""
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    factor = max_norm / norm if max_norm and norm > max_norm else 1.0
    return {k: factor * g for k, g in grads.items()}, factor


def adam(w, grads, m, v, t, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    """Update t = 1, 2, … of Adam; m and v are dictionaries like w, and all three are changed."""
    for k, g in grads.items():
        m[k] = beta1 * m[k] + (1 - beta1) * g
        v[k] = beta2 * v[k] + (1 - beta2) * g**2
        m_hat, v_hat = m[k] / (1 - beta1**t), v[k] / (1 - beta2**t)
        w[k] = w[k] - lr * m_hat / (np.sqrt(v_hat) + eps)


def learning_rate(schedule, base, t, total):
    """The rate of update t = 1 … total. cosine: 5 % warm-up, then half a wave; step: a tenth after each third."""
    if schedule == "step":
        return base / 10 ** ((t - 1) // math.ceil(total / 3))
    if schedule == "cosine":
        warm = round(0.05 * total)
        return base * t / warm if t <= warm else base * (1 + math.cos(math.pi * (t - 1 - warm) / (total - warm))) / 2
    return base


# ------------------------------------------------------------------------------------------------ Philox


def philox(counter, key):
    """Philox4x32-10 of Salmon et al. 2011, figure 4, in Python integers: four words from four and two."""
    (x0, x1, x2, x3), (k0, k1) = counter, key
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * x0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * x2, 2**32)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x0, x1, x2, x3


def word(position, step, stream, seed):
    """The word at a flat position."""
    block, lane = divmod(position, 4)
    return philox((block % 2**32, block // 2**32, step % 2**32, stream), (seed % 2**32, seed // 2**32))[lane]


def uniform(position, step, stream, seed):
    """In [0, 1), a multiple of 2⁻²⁴."""
    return (word(position, step, stream, seed) // 256) / 2**24


def normal(position, step, stream, seed):
    """Box & Muller: even positions take the cosine of their pair, odd ones the sine."""
    even = position - position % 2
    radius = math.sqrt(-2 * math.log(uniform(even, step, stream, seed) + 2**-24))
    angle = 2 * math.pi * uniform(even + 1, step, stream, seed)
    return radius * (math.sin(angle) if position % 2 else math.cos(angle))


def draw(kind, shape, step, stream, seed, start=0):
    """An array of `word`, `uniform` or `normal` from flat position `start`."""
    count = math.prod(shape)
    return np.array([kind(start + i, step, stream, seed) for i in range(count)]).reshape(shape)


def shuffled(count, seed, epoch):
    """The order of an epoch: images sorted by their words."""
    return sorted(range(count), key=lambda i: word(i, epoch, SHUFFLE, seed))


def initial_weights(sizes, seed):
    """Uniform in ±1/√fan_in for the layer sizes (D, H, 2L, L, H, D); one Philox step for each tensor."""
    w, pairs = {}, [(sizes[0], sizes[1]), (sizes[1], sizes[2]), (sizes[3], sizes[4]), (sizes[4], sizes[5])]
    for i, (n_in, n_out) in enumerate(pairs):
        for ordinal, shape in ((2 * i, (n_in, n_out)), (2 * i + 1, (n_out,))):
            w[WEIGHTS[ordinal]] = (2 * draw(uniform, shape, ordinal, INIT, seed) - 1) / math.sqrt(n_in)
    return w
