"""The zoo: a table of named builders, each a few layers put together for a given image shape.
It knows architectures and nothing of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..config import DEFAULT_DEVICE, ModelConfig, require_choice
from ..errors import ConfigError
from ..layers import (
    Activation,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Flatten,
    Layer,
    Reshape,
    Sequential,
    Shape,
    SpectralNorm,
    WithLabel,
    make_likelihood,
)
from ..layers.layer import size_of
from . import (
    CVAE,
    GAN,
    IWAE,
    VAE,
    VAEGAN,
    AdversarialAutoEncoder,
    AutoEncoder,
    BetaVAE,
    DenoisingAutoEncoder,
    Model,
)

CONV_CHANNELS = 32  # of the first stage; each further stage doubles it
LARGE = 32  # pixels of the longer side, above which a discriminator has spectral normalisation unless told otherwise
CONV_SMALL = 8  # stages halve the image until its longer side is at most this


def relu_layers(widths: list[int], act: str = "relu") -> list[Dense]:
    """Dense layers with ReLU, or with `act`, from each width to the next."""
    return [Dense(n, m, act) for n, m in pairwise(widths)]


def dense_encoder(image_shape: Shape, hidden: tuple[int, ...], n_out: int) -> Sequential:
    """Flatten, then ReLU layers of the widths `hidden`, then n_out numbers."""
    widths = [size_of(image_shape), *hidden]
    return Sequential(Flatten(), *relu_layers(widths), Dense(widths[-1], n_out))


def dense_decoder(image_shape: Shape, hidden: tuple[int, ...], latent_dim: int, per_channel: int = 1) -> Sequential:
    """The encoder mirrored: `hidden` in reverse, then `per_channel` outputs per pixel and channel."""
    widths, shape = [latent_dim, *reversed(hidden)], outputs_shape(image_shape, per_channel)
    return Sequential(*relu_layers(widths), Dense(widths[-1], size_of(shape)), Reshape(*shape))


def outputs_shape(image_shape: Shape, per_channel: int) -> Shape:
    """The shape of a decoder's outputs: (H, W, C · per_channel)."""
    return (*image_shape[:-1], image_shape[-1] * per_channel)


def conv_stages(image_shape: Shape, act: str = "relu") -> list[Conv2d]:
    """Convolutions 4×4, stride 2, padding 1, that halve the image and double the channels: 32, 64, 128, …

    At least one stage, then more until the longer side is at most 8; a side of 1 keeps its length.
    """
    H, W, channels = image_shape
    stages: list[Conv2d] = []
    while not stages or max(H, W) > CONV_SMALL:
        kernel, stride = (4 if H > 1 else 1, 4 if W > 1 else 1), (2 if H > 1 else 1, 2 if W > 1 else 1)
        padding = (1 if H > 1 else 0, 1 if W > 1 else 0)
        width = CONV_CHANNELS << len(stages)
        stages.append(Conv2d(channels, width, kernel, stride, padding, act))
        H, W, channels = stages[-1].declare((H, W, channels))
    return stages


def conv_encoder(image_shape: Shape, hidden: tuple[int, ...], n_out: int) -> Sequential:
    """`conv_stages`, then the dense encoder on what they leave."""
    stages = conv_stages(image_shape)
    return Sequential(*stages, *dense_encoder(stages[-1].out_shape, hidden, n_out).layers.values())


def conv_decoder(image_shape: Shape, hidden: tuple[int, ...], latent_dim: int, per_channel: int = 1) -> Sequential:
    """The encoder mirrored: dense layers, then transposed convolutions back to the image's pixels."""
    stages = conv_stages(image_shape)
    small = stages[-1].out_shape
    widths = [latent_dim, *reversed(hidden), size_of(small)]
    mirrored = [mirror(s, "relu") for s in reversed(stages[1:])]
    return Sequential(*relu_layers(widths), Reshape(*small), *mirrored, mirror(stages[0], "identity", per_channel))


def mirror(stage: Conv2d, act: str, per_channel: int = 1, bias: bool = True) -> ConvTranspose2d:
    """The transposed convolution from the shape that a declared stage gives back to the shape that it takes."""
    H, W, channels = stage.in_shapes[0]
    return ConvTranspose2d(
        stage.c_out, channels * per_channel, stage.kernel, (H, W), stage.stride, stage.padding, act, bias
    )


# ---------------------------------------------------------------------------------------------- two players


def normed(*layers: Layer) -> tuple[Layer, ...]:
    """The layers, which need no bias and no activation then, BatchNorm of each channel and ReLU."""
    return (*layers, BatchNorm(), Activation("relu"))


def dense_discriminator(image_shape: Shape, hidden: tuple[int, ...], n_out: int) -> Sequential:
    """Flatten, then dense layers with LeakyReLU of the widths `hidden`, then n_out numbers: one, the logit."""
    widths = [size_of(image_shape), *hidden]
    return Sequential(Flatten(), *relu_layers(widths, "leaky_relu"), Dense(widths[-1], n_out))


def dense_generator(image_shape: Shape, hidden: tuple[int, ...], latent_dim: int) -> Sequential:
    """The dense decoder with a sigmoid for each pixel and channel."""
    widths = [latent_dim, *reversed(hidden)]
    return Sequential(*relu_layers(widths), Dense(widths[-1], size_of(image_shape), "sigmoid"), Reshape(*image_shape))


def conv_features(image_shape: Shape) -> Sequential:
    """`conv_stages` with LeakyReLU: what a VAE-GAN compares images by."""
    return Sequential(*conv_stages(image_shape, "leaky_relu"))


def conv_discriminator(image_shape: Shape, hidden: tuple[int, ...], n_out: int) -> Sequential:
    """`conv_features`, then the dense discriminator on what they leave."""
    features = conv_features(image_shape)
    shape = features.declare(image_shape)
    return Sequential(*features.layers.values(), *dense_discriminator(shape, hidden, n_out).layers.values())


def judging(network: Sequential, spectral: bool) -> Sequential:
    """A discriminator as it is, or every layer with a weight under SpectralNorm, so that it cannot run away."""
    if not spectral:
        return network
    return Sequential(*[SpectralNorm(x) if isinstance(x, Dense | Conv2d) else x for x in network.layers.values()])


def conv_generator(image_shape: Shape, hidden: tuple[int, ...], latent_dim: int) -> Sequential:
    """The convolutions mirrored; BatchNorm and ReLU behind every map of channels but the last, a sigmoid there.

    The discriminator has none, unlike DCGAN's: it judges an image by itself, in training as in evaluation. `hidden` is
    for the layers in front of it; here z goes straight to the smallest map, as DCGAN has it.
    """
    stages = conv_stages(image_shape)
    small = stages[-1].out_shape
    first = normed(Dense(latent_dim, size_of(small), bias=False), Reshape(*small))
    middle = [layer for s in reversed(stages[1:]) for layer in normed(mirror(s, "identity", bias=False))]
    return Sequential(*first, *middle, mirror(stages[0], "sigmoid"))


@dataclass(frozen=True)
class Entry:
    """A row of the zoo: how to build, the default hidden widths, and one line for `--help` and the README.

    Of a GAN the discriminator stands in the encoder's place, with one output, and the generator in the decoder's.
    A VAE-GAN's discriminator is `conv_features` and a dense head; that of an AAE has two layers of the last width.
    own: the options of ModelConfig that this model takes and others do not.
    """

    model: type[Any]
    encoder: Callable[[Shape, tuple[int, ...], int], Sequential]
    decoder: Callable[..., Sequential]  # (image_shape, hidden, latent_dim, and of a decoder outputs per channel)
    hidden: tuple[int, ...]
    purpose: str
    own: tuple[str, ...] = ()


ZOO: dict[str, Entry] = {
    "ae": Entry(AutoEncoder, dense_encoder, dense_decoder, (400,), "dense autoencoder, 784-400-20 on MNIST"),
    "vae": Entry(VAE, dense_encoder, dense_decoder, (400,), "dense variational autoencoder, 784-400-20 on MNIST"),
    "dae": Entry(
        DenoisingAutoEncoder,
        dense_encoder,
        dense_decoder,
        (400,),
        "denoising autoencoder: whole images from damaged",
        ("noise", "noise_amount"),
    ),
    "beta-vae": Entry(BetaVAE, dense_encoder, dense_decoder, (400,), "VAE with a KL divergence that counts 4 times"),
    "cvae": Entry(CVAE, dense_encoder, dense_decoder, (400,), "conditional VAE: the label is given", ("classes",)),
    "iwae": Entry(
        IWAE,
        dense_encoder,
        dense_decoder,
        (400,),
        "importance weighted: a tighter bound from 5 draws per image",
        ("samples", "doubly"),
    ),
    "conv-ae": Entry(AutoEncoder, conv_encoder, conv_decoder, (256,), "convolutional autoencoder"),
    "conv-vae": Entry(VAE, conv_encoder, conv_decoder, (256,), "convolutional variational autoencoder"),
    "dense-gan": Entry(
        GAN, dense_discriminator, dense_generator, (400,), "dense generative adversarial network", ("spectral",)
    ),
    "gan": Entry(
        GAN, conv_discriminator, conv_generator, (256,), "convolutional GAN, in the manner of DCGAN", ("spectral",)
    ),
    "vae-gan": Entry(
        VAEGAN, conv_encoder, conv_generator, (256,), "VAE whose images a discriminator compares", ("gamma", "spectral")
    ),
    "aae": Entry(
        AdversarialAutoEncoder, dense_encoder, dense_decoder, (400,), "AE whose codes a discriminator compares",
        ("gamma",),
    ),
    "conv-aae": Entry(
        AdversarialAutoEncoder, conv_encoder, conv_decoder, (256,), "convolutional adversarial autoencoder", ("gamma",)
    ),
}  # fmt: skip
CORRIDORS = tuple(name for name, entry in ZOO.items() if entry.model not in (GAN, VAEGAN))
"""The models with a likelihood of images, which can be chosen."""
OWN = sorted({name for entry in ZOO.values() for name in entry.own})


def build(
    name: str = "vae",
    image_shape: tuple[int, int, int] = (28, 28, 1),
    latent_dim: int = 20,
    hidden: tuple[int, ...] = (),
    likelihood: str = "bernoulli",
    sigma: float = 1.0,
    device: str = DEFAULT_DEVICE,
    dtype: str = "float32",
    seed: int = 0,
    precision: str = "fp32",
    samples: int = 5,
    doubly: bool = False,
    noise: str = "masking",
    noise_amount: float = 0.25,
    classes: int = 10,
    gamma: float | None = None,
    spectral: bool | None = None,
) -> Model:
    """The model called `name` for images (H, W, C). hidden: widths of the hidden dense layers, () for the default.

    precision: "tf32" for products on a GPU's tensor cores. The last seven are for some models only: see ModelConfig.
    """
    config = ModelConfig(
        name, image_shape, latent_dim, hidden, likelihood, sigma, dtype, seed, samples, doubly, noise, noise_amount,
        classes, gamma, spectral,
    )  # fmt: skip
    return from_config(config, device, precision)


def from_config(config: ModelConfig, device: str = DEFAULT_DEVICE, precision: str = "fp32") -> Model:
    """The model that a configuration describes."""
    layers = [layer for layer, _ in parts_of(config)]
    entry = ZOO[config.model]
    for name in OWN:
        if name not in entry.own and getattr(config, name) != getattr(ModelConfig, name):
            models = ", ".join(model for model, other in ZOO.items() if name in other.own)
            raise ConfigError(f"{name}={getattr(config, name)!r} is an option of {models}, not of {config.model}")
    scored = (config.likelihood, config.sigma) if config.model in CORRIDORS else ()
    where = (device, config.dtype, config.seed, config, precision)
    own = {name: getattr(config, name) for name in entry.own if name != "spectral"}  # which the layers have by now
    return entry.model(*layers, config.latent_dim, config.image_shape, *scored, *where, **own)


def parts_of(config: ModelConfig) -> Sequence[tuple[Layer, Shape]]:
    """The layers of the model that a configuration describes, as its class takes them, each with its input's shape."""
    require_choice("model", config.model, tuple(ZOO))
    entry, image, latent = ZOO[config.model], config.image_shape, config.latent_dim
    hidden, codes = config.hidden or entry.hidden, (latent,)
    if config.model not in CORRIDORS:
        for name in ("likelihood", "sigma"):
            if getattr(config, name) != getattr(ModelConfig, name):
                raise ConfigError(f"{name}={getattr(config, name)!r}: {config.model} scores no pixels; leave it out")
        generator = entry.decoder(image, hidden, latent)
        spectral = has_spectral(config)
        if entry.model is GAN:
            return [(generator, codes), (judging(entry.encoder(image, hidden, 1), spectral), image)]
        features = judging(conv_features(image), spectral)
        shape = features.declare(image)
        head = judging(dense_discriminator(shape, hidden, 1), spectral)
        return [(entry.encoder(image, hidden, 2 * latent), image), (generator, codes), (features, image), (head, shape)]
    n_out = 2 * latent if issubclass(entry.model, VAE) else latent
    outputs = make_likelihood(config.likelihood, config.sigma).outputs_per_channel
    if issubclass(entry.model, CVAE):
        encoder = entry.encoder((size_of(image) + config.classes,), hidden, n_out)
        decoder = entry.decoder(image, hidden, latent + config.classes, outputs)
        return [(WithLabel(encoder), image), (WithLabel(decoder), codes)]
    pair = [(entry.encoder(image, hidden, n_out), image), (entry.decoder(image, hidden, latent, outputs), codes)]
    judged = [(dense_discriminator(codes, 2 * hidden[-1:], 1), codes)] if entry.model is AdversarialAutoEncoder else []
    return pair + judged


def has_spectral(config: ModelConfig) -> bool:
    """Whether the discriminator of images, where there is one, has spectral normalisation."""
    return max(config.image_shape[:2]) > LARGE if config.spectral is None else config.spectral


def labels_of(config: ModelConfig) -> tuple[Shape, ...]:
    """The shape of a label's row beside the input of encoder and decoder; () for a model that takes none."""
    return ((config.classes,),) if "classes" in ZOO[config.model].own else ()
