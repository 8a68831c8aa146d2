"""The latent explorer: a run's decoder, codes and test images in one HTML file that any browser opens, offline.
It knows what the page needs of a model; what the page does with it stands in explorer/, in HTML, CSS and JavaScript."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..config import require_int
from ..datasets import Dataset
from ..errors import ConfigError, DataError
from ..kernels import BY_CODE, IDENTITY
from ..layers.conv import Conv2d, ConvTranspose2d
from ..layers.dense import Activation, Dense, SiLU
from ..layers.join import Sequential
from ..layers.layer import Layer
from ..layers.likelihood import Bernoulli, Gaussian, GaussianOptimal, GaussianScalar
from ..layers.normalise import EPSILON, BatchNorm
from ..layers.reshape import Flatten, Reshape
from ..measure.aggregate import dimension_kl
from ..measure.latent_space import fit_prior
from ..models import Model

PAGE = Path(__file__).parent / "explorer"
INSERT = re.compile(r"/\* insert (\S+) \*/")
POINTS = 1000  # test images whose codes are shown
PIXELS = 4_000_000  # bytes of test images in the file, about: fewer of them where they are large

# The kinds of layers that explorer/decoder.js evaluates. Exact types: a subclass computes something else.
KINDS: dict[type[Layer], str] = {
    Dense: "dense", Conv2d: "conv2d", ConvTranspose2d: "conv_transpose2d", Activation: "activation",
    SiLU: "activation", Reshape: "reshape", Flatten: "reshape", BatchNorm: "scale",
}  # fmt: skip
MEANS: dict[type[Layer], str] = {
    Bernoulli: "sigmoid", Gaussian: "identity", GaussianScalar: "identity", GaussianOptimal: "identity",
}  # fmt: skip


class Run(Protocol):
    """What the page needs of an opened run: its configuration, its model and its data."""

    config: Any
    model: Model
    data: Dataset


def write_page(run: Run, path: Path, count: int | None = None) -> str:
    """Writes the explorer of `run` to `path`, atomically, and returns one line that says what is in the file.

    count: test images whose codes are shown; None for a thousand, or fewer where they are large.
    """
    contents = describe_run(run, count)
    text = page(contents)
    if path.is_dir():
        raise ConfigError(f"--out {path} is a folder; name the HTML file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    shown, weights = contents["codes"]["shape"][0], contents["weights"]
    what = "draws and their images" if contents["drawn"] else "test images and their codes"
    return f"{shown:,} {what}, {weights:,} weights as float32, {len(text) / 1e6:.1f} MB"


def page(contents: dict[str, Any]) -> str:
    """The page with its style, its scripts and `contents` put in."""
    # in a script element, "<" could end the element or open a comment
    data = json.dumps(contents, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")

    made = {"run.json": data, "activations.js": activations()}

    def insert(match: re.Match[str]) -> str:
        return made.get(match[1]) or (PAGE / match[1]).read_text("utf-8").rstrip()

    return INSERT.sub(insert, (PAGE / "page.html").read_text("utf-8"))


def activations() -> str:
    """The activations as a table of JavaScript functions, by name."""
    functions = {act.name: act.javascript for act in BY_CODE}
    functions["silu"] = "(x) => x * ACTIVATIONS.sigmoid(x)"
    lines = "".join(f"  {name}: {function},\n" for name, function in functions.items())
    return f"const ACTIVATIONS = {{\n{lines}}};"


def describe_run(run: Run, count: int | None = None) -> dict[str, Any]:
    """What the page knows of a run, ready for JSON.

    layers       the decoder's, from z to the likelihood's outputs; mean: what makes an image of these
    codes        z_mean of the first `count` test images; images: these, uint8; labels, label_names: theirs, or null
    drawn        true where there is no encoder: codes are then `count` draws from N(0, I), images what they decode to
    activity     per dimension, how much it is used: the KL in nats (VAE), or the codes' variance
    prior        null for N(0, I); otherwise mean and factor of a Gaussian, z = mean + factor · eps
    """
    model, data = run.model, run.data
    if model.can.labels:
        raise ConfigError(
            f"the page tells its decoder no label, and {type(model).__name__} needs one; "
            "use tinyvae latent or tinyvae interpolate"
        )
    if count is None:
        count = min(POINTS, max(1, PIXELS // int(np.prod(model.image_shape))))
    require_int("count", count, 1, ", the number of test images to show")
    if model.can.codes:
        z_mean, z_log_sigma = model.encode(data.test_images)
        images, labels = data.test_images[:count], data.test_labels
    else:
        z_mean, z_log_sigma, labels = model.draw_prior(count, model.seed), None, None
        images = model.decode(z_mean)
    use = activity(z_mean, z_log_sigma)
    if not (np.isfinite(use).all() and np.isfinite(images).all()):
        raise DataError("the codes of the test images are not finite: the run has diverged; train it anew")
    part = "decoder" if "decoder" in model.parts else "generator"
    layers = list(describe_layers(model, part, model.parts[part]))
    prior = None if model.prior else fit_prior(model, data.train_images)
    return {
        "model": run.config.model.model,
        "data": Path(run.config.data).name,
        "image_shape": list(model.image_shape),
        "latent_dim": model.latent_dim,
        "layers": layers,
        "weights": sum(int(np.prod(layer[name]["shape"])) for layer in layers for name in ("weight", "bias")),
        "mean": mean_of(model) if model.can.likelihood else "identity",  # a generator ends in pixels
        "drawn": not model.can.codes,
        "codes": packed(z_mean[:count], "<f4"),
        "images": packed(images if images.dtype == np.uint8 else np.rint(images * 255), "u1"),
        "labels": None if labels is None else [int(label) for label in labels[:count]],
        "label_names": None if data.label_names is None else list(data.label_names),
        "activity": use.tolist(),
        "activity_name": "variance" if z_log_sigma is None else "KL",
        "prior": None if prior is None else {"mean": prior.mean.tolist(), "factor": factor(prior.covariance).tolist()},
    }


def describe_layers(model: Model, path: str, layer: Layer) -> Iterator[dict[str, Any]]:
    """The layers of a part in order, with their weights; a ConfigError for one that the page cannot evaluate."""
    if type(layer) is Sequential:
        for name, inner in layer.layers.items():
            yield from describe_layers(model, f"{path}.{name}", inner)
        return
    if type(layer) not in KINDS:
        known = ", ".join(kind.__name__ for kind in KINDS)
        raise ConfigError(f"{path}: the page cannot evaluate {layer}; it knows {known} and Sequential")
    act = getattr(layer, "act", IDENTITY)
    weight, bias = (parameter(model, f"{path}.{name}") for name in ("weight", "bias"))
    if type(layer) is BatchNorm:
        gamma, beta, mean, variance = (
            parameter(model, f"{path}.{name}") for name in ("gamma", "beta", "running_mean", "running_var")
        )
        weight = gamma / np.sqrt(variance + EPSILON)
        bias = beta - mean * weight
    yield {
        "kind": KINDS[type(layer)],
        "path": path,
        "in": list(layer.in_shapes[0]),
        "out": list(layer.out_shape),
        "act": "silu" if type(layer) is SiLU else BY_CODE[act].name,
        "stride": list(getattr(layer, "stride", ())),
        "padding": list(getattr(layer, "padding", ())),
        "weight": packed(weight, "<f4"),
        "bias": packed(bias, "<f4"),
    }


def mean_of(model: Model) -> str:
    """The activation that turns the decoder's outputs into the likelihood's mean image."""
    if type(model.likelihood) not in MEANS:
        known = " and ".join(kind.__name__ for kind in MEANS)
        raise ConfigError(f"likelihood: the page cannot show the mean of {model.likelihood}; it knows {known}")
    return MEANS[type(model.likelihood)]


def parameter(model: Model, name: str) -> np.ndarray:
    """A parameter, or a tensor of the state, by its name; of length 0 where the model has none of that name."""
    return model.device.get(model.table.view(name)) if name in model.table.places else np.empty(0)


def packed(array: np.ndarray, dtype: str) -> dict[str, Any]:
    """An array as JSON holds it: its shape, and its bytes in base64. Always float32: float16 would cost the page's
    images their fourth decimal."""
    return {"shape": list(array.shape), "data": base64.b64encode(array.astype(dtype).tobytes()).decode()}


def activity(z_mean: np.ndarray, z_log_sigma: np.ndarray | None) -> np.ndarray:
    """How much each dimension is used (latent,): its mean KL divergence in nats, or without a sigma the variance."""
    return z_mean.astype(np.float64).var(axis=0) if z_log_sigma is None else dimension_kl(z_mean, z_log_sigma)


def factor(covariance: np.ndarray) -> np.ndarray:
    """A matrix F (latent, latent) with F Fᵀ = covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0))
