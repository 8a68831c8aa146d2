"""Runs that the tests of the explorer write pages of: tiny models with lively weights, on images of random bars.
They are trained on nothing, as a page has to show any decoder."""

import base64
import json
import re
from pathlib import Path

import numpy as np

from tinyvae import zoo
from tinyvae.app.run import Run
from tinyvae.config import ModelConfig, RunConfig
from tinyvae.datasets.dataset import as_dataset
from tinyvae.layers import Activation, Conv2d, ConvTranspose2d, Dense, Flatten, Reshape, Sequential, SiLU
from tinyvae.models import VAE

GREY, COLOUR, ODD = (12, 10, 1), (8, 9, 3), (11, 13, 1)


def bars(n, shape, seed=0):
    """n images (n, *shape) uint8 with one bright bar each, and the bar's place as label, 0 to 4."""
    rng = np.random.Generator(np.random.Philox(seed))
    labels = rng.integers(0, 5, n)
    images = rng.integers(0, 60, (n, *shape))
    for i, label in enumerate(labels):
        images[i, :, 2 * label : 2 * label + 2] += rng.integers(60, 190, shape[2])
    return images.astype(np.uint8), labels


def make_run(model, shape, names=None, labelled=True):
    """A Run around `model`, as if opened from a folder."""
    model.table.values[...] *= 2.5  # from the initial range to one in which codes and images differ
    images, labels = bars(90, shape)
    data = as_dataset(images, labels if labelled else None, holdout=0.5, name="bars", label_names=names)
    config = RunConfig(data="bars.npz", model=model.config or ModelConfig(image_shape=shape), device="numpy")
    return Run(Path("nowhere"), config, model, data, [])


def zoo_run(name, shape, latent_dim, **options):
    return make_run(zoo.build(name, shape, latent_dim, (16,), device="numpy", **options), shape)


def every_layer():
    """A VAE whose decoder has each kind of layer and each activation that the page knows, also without a bias."""
    H, W, C = ODD
    encoder = Sequential(Flatten(), Dense(H * W * C, 6))
    decoder = Sequential(
        Dense(3, 10, "tanh"), SiLU(), Dense(10, 5 * 6 * 2, "elu", bias=False), Reshape(5, 6, 2),
        Conv2d(2, 3, (3, 2), (1, 1), (1, 1), "softplus"), Activation("sigmoid"),
        ConvTranspose2d(3, 2, 4, (11, 13), (2, 2), (1, 2), "leaky_relu", bias=False),
        Conv2d(2, 2, 3, 1, 1, "relu"), Flatten(), Reshape(H, W, 2), Conv2d(2, C, 1, bias=False),
    )  # fmt: skip
    return make_run(VAE(encoder, decoder, 3, ODD, device="numpy"), ODD)


def gan_run(name, shape):
    """A GAN whose BatchNorm, where it has one, has seen means and variances of its own."""
    run, rng = zoo_run(name, shape, 2), np.random.Generator(np.random.Philox(1))
    for tensor in run.model.table.names("state"):
        run.model.table.view(tensor)[...] = rng.uniform(0.3, 2, run.model.table.view(tensor).shape)
    return run


RUNS = {
    "vae of 2 dimensions": lambda: zoo_run("vae", GREY, 2),
    "vae of 13 dimensions, in colour": lambda: zoo_run("vae", COLOUR, 13, likelihood="mse"),
    "vae of 1 dimension": lambda: zoo_run("vae", GREY, 1),
    "conv-ae of 2 dimensions": lambda: zoo_run("conv-ae", ODD, 2),
    "conv-vae in float64": lambda: zoo_run("conv-vae", COLOUR, 3, dtype="float64"),
    "every layer": every_layer,
}
DRAWN = {
    "gan of 2 dimensions": lambda: gan_run("gan", ODD),
    "dense-gan of 2 dimensions": lambda: gan_run("dense-gan", GREY),
}  # without codes of images


def contents(text):
    """What a page holds, out of its HTML."""
    return json.loads(re.search(r'<script type="application/json" id="run">(.*?)</script>', text, re.DOTALL)[1])


def array(packed, dtype="<f4"):
    """An array out of its shape and base64."""
    return np.frombuffer(base64.b64decode(packed["data"]), dtype).reshape(packed["shape"])
