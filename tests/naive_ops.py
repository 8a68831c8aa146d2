"""Naive twins of the ops: scalar loops and the math module, written from the equations and sharing no line with them.
They know plain Python numbers; slow on purpose, so only for tiny shapes."""

import itertools
import math

import numpy as np

LEAKY_SLOPE = 0.2


def activation(name, a):
    """act(a) of one number."""
    if name == "relu":
        return a if a > 0 else 0.0
    if name == "leaky_relu":
        return a if a > 0 else LEAKY_SLOPE * a
    if name == "elu":
        return a if a > 0 else math.exp(a) - 1
    if name == "tanh":
        return math.tanh(a)
    if name == "sigmoid":
        return 1 / (1 + math.exp(-a)) if a > -700 else 0.0
    if name == "softplus":
        return math.log(1 + math.exp(a)) if a < 30 else a
    return a


def activation_slope(name, a):
    """act'(a) of one number, from its input (the op takes the output)."""
    if name == "relu":
        return 1.0 if a > 0 else 0.0
    if name == "leaky_relu":
        return 1.0 if a > 0 else LEAKY_SLOPE
    if name == "elu":
        return 1.0 if a > 0 else math.exp(a)
    if name == "tanh":
        return 1 / math.cosh(a) ** 2
    if name == "sigmoid":
        return math.exp(-abs(a)) / (1 + math.exp(-abs(a))) ** 2
    if name == "softplus":
        return activation("sigmoid", a)
    return 1.0


def silu(a):
    return a * activation("sigmoid", a)


def silu_slope(a):
    s = activation("sigmoid", a)
    return s + a * activation_slope("sigmoid", a)


# ------------------------------------------------------------------------------------------------ products


def dense(x, w, b, act):
    (B, K), N = x.shape, w.shape[1]
    y = np.zeros((B, N))
    for i, j in np.ndindex(B, N):
        total = math.fsum(float(x[i, k]) * float(w[k, j]) for k in range(K))
        y[i, j] = activation(act, total + (float(b[j]) if b.size else 0.0))
    return y


def dense_grad_x(grad_y, w):
    B, K = len(grad_y), len(w)
    grad_x = np.zeros((B, K))
    for i, k in np.ndindex(B, K):
        grad_x[i, k] = math.fsum(float(g) * float(a) for g, a in zip(grad_y[i], w[k], strict=True))
    return grad_x


def dense_grad_w(x, grad_y):
    grad_w = np.zeros((x.shape[1], grad_y.shape[1]))
    for k, j in np.ndindex(grad_w.shape):
        grad_w[k, j] = math.fsum(float(a) * float(g) for a, g in zip(x[:, k], grad_y[:, j], strict=True))
    return grad_w, grad_y.sum(axis=0)


# ------------------------------------------------------------------------------------------------ convolution


def taps(x_shape, w_shape, out_hw, stride, padding):
    """The seven loops: every (n, i, j, u, v, c, f) with the (p, q) of x that it reads, those outside left out."""
    (B, H, W, C), (KH, KW, _, F) = x_shape, w_shape
    ranges = (range(B), range(out_hw[0]), range(out_hw[1]), range(KH), range(KW), range(C), range(F))
    for n, i, j, u, v, c, f in itertools.product(*ranges):
        p, q = i * stride[0] + u - padding[0], j * stride[1] + v - padding[1]
        if 0 <= p < H and 0 <= q < W:
            yield n, i, j, u, v, c, f, p, q


def conv2d(x, w, b, stride, padding, out_hw):
    y = np.zeros((len(x), *out_hw, w.shape[3]))
    for n, i, j, u, v, c, f, p, q in taps(x.shape, w.shape, out_hw, stride, padding):
        y[n, i, j, f] += x[n, p, q, c] * w[u, v, c, f]
    return y + b if b.size else y


def conv2d_grad_x(grad_y, w, b, stride, padding, in_hw):
    grad_x = np.zeros((len(grad_y), *in_hw, w.shape[2]))
    for n, i, j, u, v, c, f, p, q in taps(grad_x.shape, w.shape, grad_y.shape[1:3], stride, padding):
        grad_x[n, p, q, c] += grad_y[n, i, j, f] * w[u, v, c, f]
    return grad_x + b if b.size else grad_x


def conv2d_grad_w(x, grad_y, kernel, stride, padding):
    grad_w = np.zeros((*kernel, x.shape[3], grad_y.shape[3]))
    for n, i, j, u, v, c, f, p, q in taps(x.shape, grad_w.shape, grad_y.shape[1:3], stride, padding):
        grad_w[u, v, c, f] += x[n, p, q, c] * grad_y[n, i, j, f]
    return grad_w, grad_y.sum(axis=(0, 1, 2))


# ------------------------------------------------------------------------------------------------ latent, likelihood


def latent(h, eps):
    (B, L2), (R, L) = h.shape, eps.shape
    assert L2 == 2 * L
    z, kl = np.zeros((R, L)), np.zeros((B, L))
    for r, i in np.ndindex(R, L):
        image = r // (R // B)
        z[r, i] = h[image, i] + math.exp(h[image, L + i]) * eps[r, i]
    for n, i in np.ndindex(B, L):
        mean, sigma = h[n, i], math.exp(h[n, L + i])
        kl[n, i] = math.log(1 / sigma) + (sigma**2 + mean**2) / 2 - 1 / 2
    return z, kl


def latent_grad(h, eps, grad_z, kl_weight):
    (B, _), (R, L) = h.shape, eps.shape
    grad_h = np.zeros(h.shape)
    for n, i in np.ndindex(B, L):
        sigma, weight = math.exp(h[n, L + i]), kl_weight[i] / B
        grad_h[n, i] = weight * h[n, i]
        grad_h[n, L + i] = weight * (sigma**2 - 1)
        for r in range(n * (R // B), (n + 1) * (R // B)):
            grad_h[n, i] += grad_z[r, i]
            grad_h[n, L + i] += grad_z[r, i] * eps[r, i] * sigma
    return grad_h


def bernoulli_nll(logits, x, row_scale):
    R, P = logits.shape
    nll, grad = np.zeros(R), np.zeros((R, P))
    for r, j in np.ndindex(R, P):
        target, p = float(x[r // (R // len(x)), j]), activation("sigmoid", float(logits[r, j]))
        nll[r] -= target * math.log(p) + (1 - target) * math.log1p(-p)
        grad[r, j] = row_scale[r] * (p - target)
    return nll, grad


def gaussian_nll(mean, x, sigma, row_scale):
    R, P = mean.shape
    nll, grad = np.zeros(R), np.zeros((R, P))
    for r, j in np.ndindex(R, P):
        d = float(mean[r, j]) - float(x[r // (R // len(x)), j])
        nll[r] -= math.log(math.exp(-d * d / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi)))
        grad[r, j] = row_scale[r] * d / sigma**2
    return nll, grad


# geometries that index arithmetic gets wrong first
HARD = {  # B, C, F, (H, W), kernel, stride, padding
    "stride above kernel": (2, 3, 2, (7, 6), (2, 1), (3, 4), (0, 0)),
    "rows never read": (2, 1, 3, (6, 8), (3, 3), (4, 4), (0, 0)),
    "kernel as large as the image": (3, 2, 1, (4, 5), (4, 5), (1, 1), (0, 0)),
    "kernel larger than the image": (1, 2, 3, (2, 1), (4, 3), (1, 2), (1, 1)),
    "windows wholly in the padding": (1, 2, 2, (3, 2), (1, 2), (1, 1), (2, 3)),
    "one by one": (2, 3, 4, (3, 5), (1, 1), (1, 1), (0, 0)),
    "single pixel": (3, 1, 2, (1, 1), (1, 1), (2, 3), (0, 0)),
    "non-square everything": (2, 3, 5, (5, 9), (2, 4), (1, 3), (1, 2)),
}
