"""The networks of the zoo: encoders, decoders, generators and discriminators for a given image shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from ..layers.conv import Conv2d, ConvTranspose2d
from ..layers.dense import Activation, Dense
from ..layers.join import Sequential
from ..layers.layer import Layer, Shape, size_of
from ..layers.normalise import BatchNorm
from ..layers.reshape import Flatten, Reshape
from ..layers.spectral import SpectralNorm

CONV_CHANNELS = 32  # of the first stage; each further stage doubles it
CONV_SMALL = 8  # stages halve the image until its longer side is at most this


@dataclass(frozen=True)
class Networks:
    """The two networks of a model as builders, and the default widths of their hidden dense layers.

    encoder(image_shape, hidden, n_out); of a GAN the discriminator stands here. decoder(image_shape, hidden,
    latent_dim), with outputs per channel as a fourth argument where a likelihood scores them; or a generator.
    """

    encoder: Callable[[Shape, tuple[int, ...], int], Sequential]
    decoder: Callable[..., Sequential]
    hidden: tuple[int, ...]


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
