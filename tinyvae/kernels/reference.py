"""The meaning of every op in NumPy: the page to read first. Faster columns must give what these functions give.
It knows arrays only: no layer, no model, no device."""

from __future__ import annotations

import numpy as np

from .clock import (
    BASE_LR,
    BATCH_SIZE,
    BETA,
    BETA1,
    BETA2,
    BETA_CYCLE,
    BETA_WARMUP,
    CAPACITY,
    CLIP,
    CORRECTION1,
    CORRECTION2,
    COSINE,
    CURSOR,
    EPOCH,
    EVERY,
    FREE_BITS,
    GAMMA,
    KIND,
    KL_BETA,
    KL_CAPACITY,
    KL_FREE,
    LR,
    LR_WARMUP,
    NORM,
    PERIOD,
    PLAN,
    PLAN_HEAD,
    RATES,
    ROW,
    SEED,
    STEP,
    STEPS_PER_EPOCH,
    STEPWISE,
    TOTAL,
)

IDENTITY, RELU, LEAKY_RELU, ELU, TANH, SIGMOID, SOFTPLUS = range(7)
LEAKY_SLOPE = 0.2
LOG_2PI = 1.8378770664093453
LEAST_M, LEAST_V = 1e-30, 1e-36  # an optimiser's moments below are 0; both are far above float32's subnormal numbers

# ---------------------------------------------------------------------------------------------- activations


def _activated(x, act):
    """act(x), elementwise; x may be a temporary, but it is never changed."""
    if act == RELU:
        return np.maximum(x, 0)
    if act == LEAKY_RELU:
        return np.where(x > 0, x, x * x.dtype.type(LEAKY_SLOPE))
    if act == ELU:
        return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    if act == TANH:
        return np.tanh(x)
    if act == SIGMOID:
        return _sigmoid(x)
    if act == SOFTPLUS:
        return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return x


def _sigmoid(x):
    """1 / (1 + exp(-x)) without overflow: exp is only taken of -|x|."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def activate(x, act, y):
    """y = act(x).

    x, y: (n,). act: IDENTITY, RELU, LEAKY_RELU (slope 0.2), ELU, TANH, SIGMOID or SOFTPLUS.
    """
    y[...] = _activated(x, act)


def act_grad(y, act, grad):
    """grad ← grad · act'(x), with act'(x) written in terms of y = act(x).

    y, grad: (n,). RELU: [y > 0]. LEAKY_RELU: 1 or 0.2. ELU: 1 or y + 1. TANH: 1 − y². SIGMOID: y (1 − y).
    SOFTPLUS: 1 − exp(−y).
    """
    if act == RELU:
        grad *= y > 0
    elif act == LEAKY_RELU:
        grad *= np.where(y > 0, y.dtype.type(1), y.dtype.type(LEAKY_SLOPE))
    elif act == ELU:
        grad *= np.where(y > 0, 1, y + 1)
    elif act == TANH:
        grad *= 1 - y * y
    elif act == SIGMOID:
        grad *= y * (1 - y)
    elif act == SOFTPLUS:
        grad *= -np.expm1(-y)


def silu(x, y):
    """y = x · sigmoid(x). x, y: (n,). Elfwing et al. 2018, equation 2. Its derivative does not follow from y."""
    y[...] = x * _sigmoid(x)


def silu_grad(x, grad):
    """grad ← grad · s (1 + x (1 − s)) with s = sigmoid(x). x, grad: (n,)."""
    s = _sigmoid(x)
    grad *= s * (1 + x * (1 - s))


# ---------------------------------------------------------------------------------------------- dense


def dense(x, w, b, act, y):
    """y = act(x w + b).

    x: (B, K). w: (K, N). b: (N,), or length 0 for none. y: (B, N).
    """
    np.matmul(x, w, out=y)
    if b.size:
        y += b
    if act != IDENTITY:
        y[...] = _activated(y, act)


def dense_grad_x(grad_y, w, work, grad_x):
    """grad_x = grad_y wᵀ. grad_y: (B, N). w: (K, N). grad_x: (B, K)."""
    np.matmul(grad_y, w.T, out=grad_x)


def dense_grad_w(x, grad_y, add, work, grad_w, grad_b):
    """grad_w = xᵀ grad_y, grad_b = Σ_B grad_y; with add = 1 both are added to what is there.

    x: (B, K). grad_y: (B, N). grad_w: (K, N). grad_b: (N,), or length 0 for none.
    """
    if add:
        grad_w += x.T @ grad_y
    else:
        np.matmul(x.T, grad_y, out=grad_w)
    if grad_b.size:
        bias_grad(grad_y, add, work, grad_b)


def bias_grad(grad_y, add, work, grad_b):
    """grad_b = Σ_R grad_y; with add = 1 it is added to what is there. grad_y: (R, N). grad_b: (N,)."""
    total = grad_y.sum(axis=0)
    grad_b[...] = grad_b + total if add else total


# ---------------------------------------------------------------------------------------------- convolution


def _windows(x, KH, KW, stride, padding):
    """Every window that the kernel sees, as a view of the zero-padded x: (B, OH, OW, KH, KW, C)."""
    (ph, pw), (sh, sw) = padding, stride
    x = np.pad(x, ((0, 0), (ph, ph), (pw, pw), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (KH, KW), axis=(1, 2))  # (B, H', W', C, KH, KW)
    return windows[:, ::sh, ::sw].transpose(0, 1, 2, 4, 5, 3)


def conv2d(x, w, b, stride, padding, act, work, y):
    """y[n, i, j, f] = act(b[f] + Σ_{u, v, c} x[n, i·sh + u − ph, j·sw + v − pw, c] · w[u, v, c, f]).

    x: (B, H, W, C), taken as 0 outside. w: (KH, KW, C, F). b: (F,), or length 0 for none. stride (sh, sw), padding
    (ph, pw). y: (B, OH, OW, F) with OH = (H + 2 ph − KH) // sh + 1, OW alike.
    """
    KH, KW, C, F = w.shape
    patches = _windows(x, KH, KW, stride, padding).reshape(-1, KH * KW * C)  # one row per output pixel
    dense(patches, w.reshape(KH * KW * C, F), b, act, y.reshape(-1, F))


def conv2d_grad_x(grad_y, w, b, stride, padding, act, work, grad_x):
    """grad_x[n, p, q, c] = act(b[c] + Σ grad_y[n, i, j, f] · w[u, v, c, f]) over i·sh + u − ph = p, j·sw + v − pw = q.

    The adjoint of conv2d. As a gradient it is called with b of length 0 and act = IDENTITY; with a bias and an
    activation it is the forward pass of the transposed convolution.
    grad_y: (B, OH, OW, F). w: (KH, KW, C, F). b: (C,), or length 0 for none. grad_x: (B, H, W, C).
    """
    (sh, sw), (ph, pw) = stride, padding
    KH, KW, C, F = w.shape
    B, OH, OW, _ = grad_y.shape
    H, W = grad_x.shape[1:3]
    padded = np.zeros((B, H + 2 * ph, W + 2 * pw, C), grad_x.dtype)
    taps = (grad_y.reshape(-1, F) @ w.reshape(-1, F).T).reshape(B, OH, OW, KH, KW, C)
    for u in range(KH):
        for v in range(KW):
            padded[:, u : u + sh * OH : sh, v : v + sw * OW : sw] += taps[:, :, :, u, v]
    grad_x[...] = padded[:, ph : ph + H, pw : pw + W]
    if b.size:
        grad_x += b
    if act != IDENTITY:
        grad_x[...] = _activated(grad_x, act)


def conv2d_grad_w(x, grad_y, stride, padding, add, work, grad_w, grad_b):
    """grad_w[u, v, c, f] = Σ_{n, i, j} x[n, i·sh + u − ph, j·sw + v − pw, c] · grad_y[n, i, j, f]; grad_b = Σ grad_y.

    With add = 1 both are added to what is there.
    x: (B, H, W, C). grad_y: (B, OH, OW, F). grad_w: (KH, KW, C, F). grad_b: (F,), or length 0 for none.
    """
    KH, KW, C, F = grad_w.shape
    patches = _windows(x, KH, KW, stride, padding).reshape(-1, KH * KW * C)
    dense_grad_w(patches, grad_y.reshape(-1, F), add, work, grad_w.reshape(KH * KW * C, F), grad_b)


# ---------------------------------------------------------------------------------------------- latent


def latent(h, eps, z, kl):
    """z = z_mean + exp(z_log_sigma) · eps, and the KL divergence of each dimension to a standard normal.

    kl = −½ (1 + 2 z_log_sigma − z_mean² − exp(2 z_log_sigma)): Kingma & Welling 2013, equation 10 and appendix B,
    with sigma = exp(z_log_sigma), the standard deviation and not the variance.
    h: (B, 2·latent), z_mean in the first half, z_log_sigma in the second. eps, z: (R, latent), R = B·k, row r of image
    r // k. kl: (B, latent), nats.
    """
    B, L = kl.shape
    mean, log_sigma = h[:, :L], h[:, L:]
    k = z.shape[0] // B
    np.multiply(np.exp(log_sigma)[:, None], eps.reshape(B, k, L), out=z.reshape(B, k, L))
    z.reshape(B, k, L)[...] += mean[:, None]
    kl[...] = -0.5 * (1 + 2 * log_sigma - mean * mean - np.exp(2 * log_sigma))


def latent_grad(h, eps, grad_z, kl_weight, grad_h):
    """The pathwise gradient and the KL gradient, joined.

    grad_mean      = Σ_k grad_z                              + kl_weight / B · z_mean
    grad_log_sigma = Σ_k grad_z · eps · exp(z_log_sigma)     + kl_weight / B · (exp(2 z_log_sigma) − 1)
    The loss is averaged over the batch, hence 1/B; grad_z carries its own 1/R already.
    h, grad_h: (B, 2·latent). eps, grad_z: (R, latent). kl_weight: (latent,) float64.
    """
    B, L = h.shape[0], h.shape[1] // 2
    mean, log_sigma = h[:, :L], h[:, L:]
    weight = (kl_weight / B).astype(h.dtype)
    grad_z, eps = grad_z.reshape(B, -1, L), eps.reshape(B, -1, L)
    grad_h[:, :L] = grad_z.sum(axis=1) + weight * mean
    grad_h[:, L:] = (grad_z * eps).sum(axis=1) * np.exp(log_sigma) + weight * np.expm1(2 * log_sigma)


# ---------------------------------------------------------------------------------------------- likelihood


def bernoulli_nll(logits, x, row_scale, nll, grad_logits):
    """nll = Σ_P softplus(logits) − x · logits, and grad_logits = row_scale · (sigmoid(logits) − x), in one pass.

    The cross-entropy −Σ x log p + (1 − x) log(1 − p) at p = sigmoid(logits), from the logits: never a log of 0.
    logits: (R, P). x: (B, P) in [0, 1], row r belongs to image r // k, k = R / B. row_scale, nll: (R,).
    grad_logits: (R, P), or (0, P) where no gradient is wanted.
    """
    k = logits.shape[0] // x.shape[0]
    target = x if k == 1 else np.repeat(x, k, axis=0)
    e = np.exp(-np.abs(logits))
    terms = np.log1p(e)
    terms += np.maximum(logits, 0)
    terms -= target * logits
    np.sum(terms, axis=1, out=nll)
    if grad_logits.size:
        np.divide(np.where(logits >= 0, logits.dtype.type(1), e), 1 + e, out=grad_logits)
        grad_logits -= target
        grad_logits *= row_scale[:, None]


def gaussian_nll(mean, x, row_scale, sigma, nll, grad_mean):
    """nll = Σ_P (x − mean)² / (2 sigma²) + log sigma + ½ log 2π, grad_mean = row_scale · (mean − x) / sigma².

    With sigma = 1 that is half the squared error plus a constant: MSE training is this likelihood.
    mean: (R, P). x: (B, P), row r belongs to image r // k. row_scale, nll: (R,). sigma: a positive number.
    grad_mean: (R, P), or (0, P) where no gradient is wanted.
    """
    R, P = mean.shape
    k = R // x.shape[0]
    difference = mean - (x if k == 1 else np.repeat(x, k, axis=0))
    constant = P * (np.log(sigma) + 0.5 * LOG_2PI)
    nll[...] = (difference * difference).sum(axis=1) * (0.5 / sigma**2) + constant
    if grad_mean.size:
        np.multiply(difference, (row_scale / sigma**2).astype(mean.dtype)[:, None], out=grad_mean)


def scale_rows(row_weight, grad):
    """grad[r] ← row_weight[r] · grad[r]. row_weight: (R,). grad: (R, P)."""
    grad *= row_weight[:, None]


def objective(nll, kl, kl_weight, sums, metrics):
    """The loss of one batch, in nats per image, and the running sums over an epoch.

    metrics = [loss, recon, kl]: recon = mean of nll over rows, kl = Σ_latent of its mean over images,
    loss = recon + Σ_latent kl_weight · (its mean). sums += B · [loss, recon, kl, 1].
    nll: (R,). kl: (B, latent). kl_weight: (latent,), sums: (4,), metrics: (3,), these three float64.
    """
    B = kl.shape[0]
    recon = nll.mean(dtype=np.float64)
    kl_mean = kl.mean(axis=0, dtype=np.float64)  # (latent,)
    metrics[0] = recon + kl_weight @ kl_mean
    metrics[1] = recon
    metrics[2] = kl_mean.sum()
    sums[:3] += B * metrics
    sums[3] += B


# ---------------------------------------------------------------------------------------------- optimisers


def grad_norm(grads, max_norm, work, rates):
    """rates[NORM] = ‖grads‖₂ and rates[CLIP] = min(1, max_norm / ‖grads‖₂); max_norm = 0 clips nothing.

    grads: (n,), all gradients of a player. rates: (8,) float64. Pascanu et al. 2013, algorithm 1.
    """
    norm = np.sqrt(np.sum(np.square(grads, dtype=np.float64)))
    rates[NORM] = norm
    rates[CLIP] = max_norm / norm if 0 < max_norm < norm else 1.0


def adam(grads, rates, beta1, beta2, eps, values, m, v):
    """Adam, Kingma & Ba 2014, algorithm 1: with g = rates[CLIP] · grads,

    m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,
    values ← values − rates[LR] · (m · rates[CORRECTION1]) / (√(v · rates[CORRECTION2]) + eps).
    The corrections 1 / (1 − βᵗ) come from the clock. At last m is set to 0 where |m| < LEAST_M and v where v < LEAST_V:
    where gradients stay 0 they would decay into subnormal numbers, with which many processors calculate slowly.
    grads, values, m, v: (n,). rates: (8,) float64.
    """
    dtype = grads.dtype.type
    g = grads * dtype(rates[CLIP])
    m *= dtype(beta1)
    m += dtype(1 - beta1) * g
    v *= dtype(beta2)
    g *= g
    g *= dtype(1 - beta2)
    v += g
    np.multiply(v, dtype(rates[CORRECTION2]), out=g)
    np.sqrt(g, out=g)
    g += dtype(eps)
    np.divide(m, g, out=g)
    g *= dtype(rates[LR] * rates[CORRECTION1])
    values -= g
    m[np.abs(m) < LEAST_M] = 0
    v[v < LEAST_V] = 0


def sgd(grads, rates, momentum, values, m):
    """Gradient descent with momentum: m ← momentum · m + rates[CLIP] · grads, values ← values − rates[LR] · m.

    At last m is set to 0 where |m| < LEAST_M, as in `adam`. grads, values, m: (n,). rates: (8,) float64.
    Sutskever et al. 2013, equation 1, in PyTorch's form.
    """
    dtype = grads.dtype.type
    m *= dtype(momentum)
    m += grads * dtype(rates[CLIP])
    values -= m * dtype(rates[LR])
    m[np.abs(m) < LEAST_M] = 0


# ---------------------------------------------------------------------------------------------- the clock


def tick(plan, counters, rates):
    """One step forward: counters, learning rates, Adam's corrections and KL weights of the step that follows.

    STEP ← STEP + 1, counted from 1; EPOCH = (STEP − 1) // steps_per_epoch; CURSOR = (STEP − 1) % steps_per_epoch · B.
    KL weight: BETA · ramp, ramp = min(1, STEP / BETA_WARMUP), begun anew every BETA_CYCLE steps (0: never). A CAPACITY
    takes the ramp instead, and the weight is BETA throughout. A player that moves every n steps is at its update
    t = (STEP − 1) // n + 1; its corrections are 1 / (1 − βᵗ), its learning rate BASE_LR · min(1, t / LR_WARMUP) times
    1 (CONSTANT), GAMMA^((t − 1) // PERIOD) (STEPWISE) or ½ (1 + cos(π · done)) (COSINE), done = the share of the
    updates after warm-up that lie behind.
    plan: (7 + 9·players,), rates: (8·players + latent,), float64. counters: (5,) uint64.
    """
    step = int(counters[STEP]) + 1
    per_epoch = int(plan[STEPS_PER_EPOCH])
    counters[STEP] = step
    counters[EPOCH] = (step - 1) // per_epoch
    counters[CURSOR] = (step - 1) % per_epoch * int(plan[BATCH_SIZE])
    place = (step - 1) % int(plan[BETA_CYCLE]) + 1 if plan[BETA_CYCLE] > 0 else step
    ramp = min(1.0, place / plan[BETA_WARMUP]) if plan[BETA_WARMUP] > 0 else 1.0
    beta = plan[BETA] * (1.0 if plan[CAPACITY] > 0 else ramp)
    players = (plan.size - PLAN_HEAD) // PLAN
    for p in range(players):
        row, rate = plan[PLAN_HEAD + p * PLAN :][:PLAN], rates[p * RATES :][:RATES]
        t = (step - 1) // int(row[EVERY]) + 1
        warm = row[LR_WARMUP]
        scale = min(1.0, t / warm) if warm > 0 else 1.0
        if row[KIND] == STEPWISE:
            scale *= row[GAMMA] ** ((t - 1) // row[PERIOD])
        elif row[KIND] == COSINE and t > warm:
            scale *= 0.5 * (1 + np.cos(np.pi * min(1.0, (t - 1 - warm) / max(1.0, row[TOTAL] - warm))))
        rate[LR] = row[BASE_LR] * scale
        rate[CORRECTION1] = 1 / (1 - row[BETA1] ** t)
        rate[CORRECTION2] = 1 / (1 - row[BETA2] ** t)
        rate[KL_BETA], rate[KL_CAPACITY], rate[KL_FREE] = beta, plan[CAPACITY] * ramp, plan[FREE_BITS]
    rates[players * RATES :] = beta


# ---------------------------------------------------------------------------------------------- randomness


def _philox(block, step, stream, seed):
    """Philox4x32-10 (Salmon et al. 2011): ten rounds over the counter (block low, block high, step, stream).

    block: uint64 array of any shape. Returns four uint64 arrays of that shape that hold 32-bit words.
    """
    mask = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1 = block & mask, block >> half
    c2 = np.full_like(block, int(step) & 0xFFFFFFFF)
    c3 = np.full_like(block, int(stream) & 0xFFFFFFFF)
    k0, k1 = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & mask, (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _words(first, width, step, stream, seed):
    """The 32-bit words at flat positions first[r] + 0 … width − 1, and for each whether its lane is odd.

    A block of four lanes serves four positions; rows need not start at a multiple of four.
    Returns pairs (even lane's word, odd lane's word) of each position's Box–Muller pair, and the lane.
    """
    first = np.asarray(first, np.uint64)
    blocks = first[:, None] // np.uint64(4) + np.arange((width + 3) // 4 + 1, dtype=np.uint64)  # (R, blocks)
    lanes = np.stack(_philox(blocks, step, stream, seed), axis=-1).reshape(len(first), -1)  # (R, 4·blocks)
    columns = (first[:, None] % np.uint64(4)).astype(np.int64) + np.arange(width)  # (R, width)
    return lanes, columns


def _bits(first, width, step, stream, seed):
    lanes, columns = _words(first, width, step, stream, seed)
    return np.take_along_axis(lanes, columns, axis=1)


def _row_starts(counters, out):
    """The flat position of each row's first element: the rows of `out` start at row ROW of the whole array."""
    R, width = out.shape
    return (counters[ROW] + np.arange(R, dtype=np.uint64)) * np.uint64(width)


def philox_bits(counters, stream, out):
    """out[r, j] = the Philox word at flat position (ROW + r)·width + j of (SEED, STEP, stream).

    Key = SEED's two halves; counter words = (position//4 low, position//4 high, STEP, stream); lane = position % 4.
    counters: (5,) uint64. out: (R, width) uint32.
    """
    out[...] = _bits(_row_starts(counters, out), out.shape[1], counters[STEP], stream, counters[SEED])


def philox_uniform(counters, stream, out):
    """out = (word >> 8) · 2⁻²⁴, uniform in [0, 1). counters: (5,) uint64. out: (R, width)."""
    bits = _bits(_row_starts(counters, out), out.shape[1], counters[STEP], stream, counters[SEED])
    out[...] = (bits >> np.uint64(8)) * 2.0**-24


def philox_normal(counters, stream, out):
    """Standard normals by Box & Muller 1958 over the lane pairs (0, 1) and (2, 3) of each Philox block.

    With words a, b of a pair: r = √(−2 log(((a >> 8) + 1) · 2⁻²⁴)), θ = 2π (b >> 8) · 2⁻²⁴; the even lane gets r cos θ,
    the odd lane r sin θ. counters: (5,) uint64. out: (R, width).
    """
    width = out.shape[1]
    lanes, columns = _words(_row_starts(counters, out), width, counters[STEP], stream, counters[SEED])
    radius = np.sqrt(-2 * np.log(((lanes[:, 0::2] >> np.uint64(8)) + np.uint64(1)) * 2.0**-24))
    angle = (lanes[:, 1::2] >> np.uint64(8)) * (2.0**-24 * 2 * np.pi)
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(lanes.shape)
    out[...] = np.take_along_axis(normals, columns, axis=1)


def philox_bernoulli(p, counters, stream, out):
    """out = 1 where uniform < p, else 0. p, out: (R, width). counters: (5,) uint64."""
    bits = _bits(_row_starts(counters, out), out.shape[1], counters[STEP], stream, counters[SEED])
    out[...] = (bits >> np.uint64(8)) * 2.0**-24 < p


# ---------------------------------------------------------------------------------------------- batches


def gather(images, order, counters, scale, x):
    """x[b] = scale · images[order[CURSOR + b]].

    images: (N, P) uint8, or of x's dtype. order: (M,) int64. counters: (5,) uint64. x: (B, P).
    """
    cursor = int(counters[CURSOR])
    np.multiply(images[order[cursor : cursor + x.shape[0]]], x.dtype.type(scale), out=x)


def gather_binary(images, order, counters, scale, stream, dynamic, x):
    """x[b] = 1 where uniform < scale · images[order[CURSOR + b]], else 0: a stochastic binarisation.

    dynamic = 1 draws anew at each visit, at the flat position in x and the clock's STEP; dynamic = 0 draws once per
    image, at the flat position in `images` and step 0. Salakhutdinov & Murray 2008; Burda et al. 2015, section 5.
    images: (N, P) uint8, or of x's dtype. order: (M,) int64. counters: (5,) uint64. x: (B, P).
    """
    B, P = x.shape
    cursor = int(counters[CURSOR])
    chosen = order[cursor : cursor + B]
    if dynamic:
        bits = _bits(_row_starts(counters, x), P, counters[STEP], stream, counters[SEED])
    else:
        bits = _bits(chosen.astype(np.uint64) * np.uint64(P), P, 0, stream, counters[SEED])
    x[...] = (bits >> np.uint64(8)) * 2.0**-24 < images[chosen] * float(scale)
