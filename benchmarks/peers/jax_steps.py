"""The two reference VAEs in JAX: one jitted function from parameters and indices to parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tinyvae import datasets
from tinyvae.bench.cases import BATCH, CONV_VAE_DENSE, DENSE_VAE
from tinyvae.bench.job import Job, step_job

LAYOUT = ("NHWC", "HWIO", "NHWC")
BETA1, BETA2, EPS, LR = 0.9, 0.999, 1e-8, 1e-3


def convolve(p: Any, x: Any) -> Any:
    """4×4, stride 2, padding 1: half the side."""
    return lax.conv_general_dilated(x, p["w"], (2, 2), ((1, 1), (1, 1)), dimension_numbers=LAYOUT) + p["b"]


def spread(p: Any, x: Any) -> Any:
    """The transposed convolution: twice the side."""
    return lax.conv_transpose(x, p["w"], (2, 2), ((2, 2), (2, 2)), dimension_numbers=LAYOUT) + p["b"]


def apply(p: Any, x: Any) -> Any:
    """A dense layer."""
    return x @ p["w"] + p["b"]


def initial(model: str, dtype: str) -> list[dict[str, Any]]:
    """Weight and bias of every layer, uniform in ±1/√fan_in."""
    rng = np.random.default_rng(0)

    def layer(shape: tuple[int, ...], fan_in: int) -> dict[str, Any]:
        w, b = (rng.uniform(-1, 1, s).astype(dtype) / np.sqrt(fan_in).astype(dtype) for s in (shape, shape[-1:]))
        return {"w": jnp.asarray(w), "b": jnp.asarray(b)}

    dense = [layer(widths, widths[0]) for widths in (DENSE_VAE if model == "vae" else CONV_VAE_DENSE)]
    if model == "vae":
        return dense
    first, second = (layer((4, 4, n, m), 16 * n) for n, m in pairwise((1, 32, 64)))
    third, fourth = (layer((4, 4, n, m), 16 * m) for n, m in pairwise((64, 32, 1)))
    return [first, second, *dense, third, fourth]


def encode(p: Any, x: Any) -> Any:
    """[z_mean | z_log_sigma]."""
    if len(p) == 4:
        return apply(p[1], jax.nn.relu(apply(p[0], x)))
    h = jax.nn.relu(convolve(p[0], x.reshape(-1, 28, 28, 1)))
    h = jax.nn.relu(convolve(p[1], h)).reshape(-1, 3136)
    return apply(p[3], jax.nn.relu(apply(p[2], h)))


def decode(p: Any, z: Any) -> Any:
    """Logits of 784 pixels."""
    if len(p) == 4:
        return apply(p[3], jax.nn.relu(apply(p[2], z)))
    h = jax.nn.relu(apply(p[5], jax.nn.relu(apply(p[4], z)))).reshape(-1, 7, 7, 64)
    return spread(p[7], jax.nn.relu(spread(p[6], h))).reshape(-1, 784)


def negative_elbo(p: Any, x: Any, key: Any) -> Any:
    """−ELBO in nats per image, the encoder giving log-sigma, one sample of noise."""
    z_mean, z_log_sigma = jnp.split(encode(p, x), 2, 1)
    z = z_mean + jnp.exp(z_log_sigma) * jax.random.normal(key, z_mean.shape, z_mean.dtype)
    logits = decode(p, z)
    recon = (jnp.maximum(logits, 0) - x * logits + jnp.log1p(jnp.exp(-jnp.abs(logits)))).sum()
    kl = 0.5 * (z_mean * z_mean + jnp.exp(2 * z_log_sigma) - 1 - 2 * z_log_sigma).sum()
    return (recon + kl) / x.shape[0]


def make_step(dtype: str) -> Callable[..., Any]:
    """(p, m, v, t, key, data, index) → (p, m, v, t, key, loss): gather, scale, loss and gradient, Adam."""
    each = jax.tree_util.tree_map

    def step(p: Any, m: Any, v: Any, t: Any, key: Any, data: Any, index: Any) -> Any:
        x = data[index].astype(dtype) / 255
        key, noise = jax.random.split(key)
        loss, grads = jax.value_and_grad(negative_elbo)(p, x, noise)
        t = t + 1
        m = each(lambda a, g: BETA1 * a + (1 - BETA1) * g, m, grads)
        v = each(lambda a, g: BETA2 * a + (1 - BETA2) * g * g, v, grads)
        scale, root = LR / (1 - BETA1**t), 1 / (1 - BETA2**t)
        p = each(lambda a, m, v: a - scale * m / (jnp.sqrt(v * root) + EPS), p, m, v)
        return p, m, v, t, key, loss

    return jax.jit(step, donate_argnums=(0, 1, 2, 3, 4))


def jax_step(model: str, dtype: str) -> Job:
    """A training step by JAX."""
    jax.config.update("jax_enable_x64", dtype == "float64")
    step, p = make_step(dtype), initial(model, dtype)
    zeros = [jax.tree_util.tree_map(jnp.zeros_like, p) for _ in range(2)]
    state: list[Any] = [p, *zeros, jnp.zeros((), dtype), jax.random.PRNGKey(0), None]
    images = np.ascontiguousarray(datasets.load("mnist").train_images)
    data = jnp.asarray(images.reshape(len(images), -1))
    order, cursor = np.random.default_rng(0).permutation(len(images)).astype(np.int32), [0]

    def run() -> None:
        at = cursor[0]
        cursor[0] = at + BATCH if at + 2 * BATCH <= len(order) else 0
        state[:] = step(*state[:5], data, order[at : at + BATCH])
        jax.block_until_ready(state)

    return step_job(run, lambda: float(state[5]))
