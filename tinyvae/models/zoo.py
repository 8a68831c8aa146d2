"""The zoo: a table of named models, and how one is built from its options."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any

from ..config import DEFAULT_DEVICE, ModelConfig, require_choice
from ..errors import ConfigError
from .aae import AdversarialAutoEncoder
from .ae import AutoEncoder
from .beta_vae import BetaVAE
from .cvae import CVAE
from .dae import DenoisingAutoEncoder
from .gan import GAN
from .iwae import IWAE
from .model import Model, Part
from .networks import (
    Networks,
    conv_decoder,
    conv_discriminator,
    conv_encoder,
    conv_generator,
    dense_decoder,
    dense_discriminator,
    dense_encoder,
    dense_generator,
)
from .vae import VAE
from .vaegan import VAEGAN


@dataclass(frozen=True)
class Entry:
    """A row of the zoo: the class, its networks, and one line for `--help` and the README."""

    model: type[Model]
    networks: Networks
    purpose: str


DENSE = Networks(dense_encoder, dense_decoder, (400,))
CONV = Networks(conv_encoder, conv_decoder, (256,))
DENSE_GAME = Networks(dense_discriminator, dense_generator, (400,))
CONV_GAME = Networks(conv_discriminator, conv_generator, (256,))
JOINED = Networks(conv_encoder, conv_generator, (256,))

ZOO: dict[str, Entry] = {
    "ae": Entry(AutoEncoder, DENSE, "dense autoencoder, 784-400-20 on MNIST"),
    "vae": Entry(VAE, DENSE, "dense variational autoencoder, 784-400-20 on MNIST"),
    "dae": Entry(DenoisingAutoEncoder, DENSE, "denoising autoencoder: whole images from damaged"),
    "beta-vae": Entry(BetaVAE, DENSE, "VAE with a KL divergence that counts 4 times"),
    "cvae": Entry(CVAE, DENSE, "conditional VAE: the label is given"),
    "iwae": Entry(IWAE, DENSE, "importance weighted: a tighter bound from 5 draws per image"),
    "conv-ae": Entry(AutoEncoder, CONV, "convolutional autoencoder"),
    "conv-vae": Entry(VAE, CONV, "convolutional variational autoencoder"),
    "dense-gan": Entry(GAN, DENSE_GAME, "dense generative adversarial network"),
    "gan": Entry(GAN, CONV_GAME, "convolutional GAN, in the manner of DCGAN"),
    "vae-gan": Entry(VAEGAN, JOINED, "VAE whose images a discriminator compares"),
    "aae": Entry(AdversarialAutoEncoder, DENSE, "AE whose codes a discriminator compares"),
    "conv-aae": Entry(AdversarialAutoEncoder, CONV, "convolutional adversarial autoencoder"),
}
SCORING = tuple(name for name, entry in ZOO.items() if entry.model.can.likelihood)
"""The models with a likelihood of images, which can be chosen."""


def own_options(name: str) -> dict[str, Field[Any]]:
    """The options of one model that ModelConfig does not have."""
    common = {option.name for option in fields(ModelConfig)}
    return {f.name: f for f in fields(ZOO[name].model.Config) if f.name not in common}


def every_option() -> list[Field[Any]]:
    """The options of all models, those of ModelConfig first."""
    found = {option.name: option for option in fields(ModelConfig)}
    for name in ZOO:
        found |= own_options(name)
    return list(found.values())


def defaults() -> dict[str, Any]:
    """Every option of every model with its default."""
    return {option.name: option.default for option in every_option()}


def configure(model: str = "vae", **options: Any) -> ModelConfig:
    """The configuration of the model called `model`. An option of other models is left out at its default, as in the
    files of earlier versions, and a ConfigError otherwise."""
    require_choice("model", model, tuple(ZOO))
    kind, every = ZOO[model].model.Config, defaults()
    taken = {f.name for f in fields(kind)}
    for name, value in options.items():
        if name not in every:
            raise ConfigError(f"{name}={value!r} is an option of no model; there are {', '.join(every)}")
        if name not in taken and value != every[name]:
            models = ", ".join(other for other in ZOO if name in own_options(other))
            raise ConfigError(f"{name}={value!r} is an option of {models}, not of {model}")
    return kind(model=model, **{name: value for name, value in options.items() if name in taken})


def from_plain(plain: Mapping[str, Any]) -> ModelConfig:
    """The configuration that a file holds as a dictionary."""
    return configure(**plain)


def build(
    name: str = "vae",
    image_shape: tuple[int, int, int] = (28, 28, 1),
    latent_dim: int = 20,
    hidden: tuple[int, ...] = (),
    likelihood: str = "bernoulli",
    sigma: float = 1.0,
    *,
    device: str = DEFAULT_DEVICE,
    precision: str = "fp32",
    **options: Any,
) -> Model:
    """The model called `name` for images (H, W, C). hidden: widths of the hidden dense layers, () for the default.

    precision: "tf32" for products on a GPU's tensor cores. options: those of ModelConfig and of the model's Config.
    """
    config = configure(
        name, image_shape=image_shape, latent_dim=latent_dim, hidden=hidden, likelihood=likelihood,
        sigma=sigma, **options,
    )  # fmt: skip
    return from_config(config, device, precision)


def _signature() -> inspect.Signature:
    """That of `build`, with the options of every model by name."""
    here = inspect.signature(build, eval_str=True)
    kept = [p for p in here.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
        for f in every_option()
        if f.name != "model" and f.name not in here.parameters
    ]
    return here.replace(parameters=[*kept, *more])


build.__signature__ = _signature()  # type: ignore[attr-defined]


def from_config(config: ModelConfig, device: str = DEFAULT_DEVICE, precision: str = "fp32") -> Model:
    """The model that a configuration describes."""
    entry, config = fitted(config)
    return entry.model.build(config, entry.networks, device, precision)


def layers_of(config: ModelConfig) -> list[Part]:
    """The layers of the model that a configuration describes, each with the shapes of its inputs."""
    entry, config = fitted(config)
    return entry.model.layers(config, entry.networks)


def fitted(config: ModelConfig) -> tuple[Entry, ModelConfig]:
    """The row that a configuration names, and the configuration as one of the row's class; or a ConfigError."""
    require_choice("model", config.model, tuple(ZOO))
    entry = ZOO[config.model]
    if type(config) is not entry.model.Config:
        config = configure(**vars(config))
    for name in () if entry.model.can.likelihood else ("likelihood", "sigma"):
        if getattr(config, name) != getattr(ModelConfig, name):
            raise ConfigError(f"{name}={getattr(config, name)!r}: {config.model} scores no pixels; leave it out")
    return entry, config
