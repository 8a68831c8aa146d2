"""Models of several players in PyTorch: the same networks, losses and batches, and a fused Adam for each player.

As in `step`, all gradients are of one point: one forward, every player's way back with no product that nobody wants,
then every Adam. The form of most tutorials, in which the discriminator moves first and judges the drawn images anew,
needs another forward of it and is slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tinyvae import datasets
from tinyvae.bench.cases import LATENT, Case
from tinyvae.bench.job import Job, Variant, step_job
from tinyvae.models import aae, vaegan
from tinyvae.models.adversarial import PLAYER_ADAM

from .torch_steps import LR, networks

SLOPE = 0.2
CONSTANT = 0.5 * math.log(2 * math.pi)  # of a unit Gaussian, for each feature
ADAM = {"lr": PLAYER_ADAM.lr, "betas": (PLAYER_ADAM.beta1, PLAYER_ADAM.beta2)}

Losses = list[Any]
Ways = dict[str, tuple[list[Any], list[Any] | None]]  # of each player: what it goes back from, with which gradients


def judge(*widths: int) -> list[Any]:
    """Dense layers with LeakyReLU, then one logit."""
    hidden = [layer for n, m in pairwise(widths) for layer in (nn.Linear(n, m), nn.LeakyReLU(SLOPE))]
    return [*hidden, nn.Linear(widths[-1], 1)]


def generator() -> Any:
    """z (B, 20) → images (B, 1, 28, 28) in [0, 1]."""
    return nn.Sequential(
        nn.Linear(LATENT, 3136, bias=False), nn.Unflatten(1, (64, 7, 7)), nn.BatchNorm2d(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip


def features() -> Any:
    """Images → (B, 64, 7, 7)."""
    convolutions = nn.Conv2d(1, 32, 4, 2, 1), nn.Conv2d(32, 64, 4, 2, 1)
    return nn.Sequential(*(layer for conv in convolutions for layer in (conv, nn.LeakyReLU(SLOPE))))


def real(logits: Any) -> Any:
    """−log D, the mean over the batch."""
    return F.softplus(-logits).mean()


def fake(logits: Any) -> Any:
    """−log(1 − D), the mean over the batch."""
    return F.softplus(logits).mean()


class GAN:
    """A generator and a discriminator, both convolutional.

    players: of each its networks, and its Adam's options. draws: how many batches of z ~ N(0, I) a step takes.
    """

    draws = 1

    def __init__(self) -> None:
        self.generator, self.discriminator = generator(), nn.Sequential(features(), nn.Flatten(), *judge(3136, 256))
        self.players = {"generator": ([self.generator], ADAM), "discriminator": ([self.discriminator], ADAM)}

    def forward(self, x: Any, z: Any) -> tuple[Losses, Ways]:
        """Every player's loss, and what it goes back from."""
        on_drawn = self.discriminator(self.generator(z))
        loss_g, loss_d = real(on_drawn), real(self.discriminator(x)) + fake(on_drawn)
        return [loss_g, loss_d], {"generator": ([loss_g], None), "discriminator": ([loss_d], None)}


class VAEGAN:
    """An encoder, a decoder, and a discriminator cut in two: features and head."""

    draws = 2

    def __init__(self) -> None:
        self.encoder, self.decoder = networks("conv-vae")[0], generator()
        self.features, self.head = features(), nn.Sequential(nn.Flatten(), *judge(3136, 256))
        self.players = {
            "encoder": ([self.encoder], ADAM), "decoder": ([self.decoder], ADAM),
            "discriminator": ([self.features, self.head], ADAM),
        }  # fmt: skip

    def forward(self, x: Any, eps: Any, z_p: Any) -> tuple[Losses, Ways]:
        """As of a GAN. The likeness goes back through the features once, though two players want it."""
        z_mean, z_log_sigma = self.encoder(x).chunk(2, 1)
        kl = 0.5 * (z_mean * z_mean + torch.exp(2 * z_log_sigma) - 1 - 2 * z_log_sigma).sum() / len(x)
        recon, drawn = self.decoder(z_mean + torch.exp(z_log_sigma) * eps), self.decoder(z_p)
        f, f_recon, f_drawn = (self.features(images) for images in (x, recon, drawn))
        difference = f.detach() - f_recon
        likeness = (difference * difference).sum() / (2 * len(x)) + CONSTANT * f[0].numel()
        on_x, on_recon, on_drawn = (self.head(one) for one in (f, f_recon, f_drawn))
        fooling, loss_d = real(on_recon) + real(on_drawn), real(on_x) + fake(on_recon) + fake(on_drawn)
        (like,) = torch.autograd.grad(likeness, [recon], retain_graph=True)
        fool, fool_drawn = torch.autograd.grad(fooling, [recon, drawn], retain_graph=True)
        return [kl + likeness, vaegan.GAMMA * likeness + fooling, loss_d], {
            "encoder": ([recon, kl], [like, torch.ones_like(kl)]),
            "decoder": ([recon, drawn], [vaegan.GAMMA * like + fool, fool_drawn]),
            "discriminator": ([loss_d], None),
        }


class AAE:
    """A dense autoencoder, and a discriminator on its codes."""

    draws = 1

    def __init__(self) -> None:
        encoder, self.decoder = networks("vae")
        self.encoder = nn.Sequential(*encoder[:-1], nn.Linear(400, LATENT))
        self.discriminator = nn.Sequential(*judge(LATENT, 400, 400))
        self.players = {
            "autoencoder": ([self.encoder, self.decoder], {"lr": LR}),
            "discriminator": ([self.discriminator], ADAM),
        }

    def forward(self, x: Any, z_p: Any) -> tuple[Losses, Ways]:
        """As of a GAN."""
        z = self.encoder(x)
        recon = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") / len(x)
        on_codes = self.discriminator(z)
        loss, loss_d = recon + aae.GAMMA * real(on_codes), real(self.discriminator(z_p)) + fake(on_codes)
        return [loss, loss_d], {"autoencoder": ([loss], None), "discriminator": ([loss_d], None)}


MODELS: dict[str, Callable[[], Any]] = {"gan": GAN, "vae-gan": VAEGAN, "aae": AAE}


class Game:
    """A model in its place, and each player's parameters and Adam. Compiled, forward and ways back are one graph."""

    def __init__(self, model: str, dtype: str, variant: Variant, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model, self.kind = MODELS[model](), getattr(torch, dtype)
        self.shape = (-1, 784) if model == "aae" else (-1, 1, 28, 28)
        self.memory = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.parameters: dict[str, list[Any]] = {}
        self.optimizers: dict[str, Any] = {}
        for name, (parts, options) in self.model.players.items():
            for part in parts:
                part.to(self.kind).to(memory_format=self.memory)
            self.parameters[name] = [p for part in parts for p in part.parameters()]
            self.optimizers[name] = torch.optim.Adam(self.parameters[name], fused=True, **options)
        self.find: Callable[..., Any] = self.gradients
        if variant.compiled:
            torch._dynamo.config.trace_autograd_ops = True
            self.find = torch.compile(self.gradients)

    def gradients(self, x: Any, *noise: Any) -> tuple[Losses, dict[str, tuple[Any, ...]]]:
        """Every player's loss, and the gradients of its parameters."""
        losses, ways = self.model.forward(x, *noise)
        found = {
            name: torch.autograd.grad(outputs, self.parameters[name], grads, retain_graph=True)
            for name, (outputs, grads) in ways.items()
        }
        return [loss.detach() for loss in losses], found

    def images(self, pixels: Any) -> Any:
        """uint8 (B, 784) → what the networks take."""
        x = pixels.to(self.kind).div_(255).view(self.shape)
        return x.contiguous(memory_format=self.memory) if x.ndim == 4 else x

    def step(self, pixels: Any) -> Losses:
        """One step of every player on a batch; the losses before it."""
        noise = torch.randn(self.model.draws, len(pixels), LATENT, dtype=self.kind)
        losses, found = self.find(self.images(pixels), *noise)
        for name, optimizer in self.optimizers.items():
            for parameter, grad in zip(self.parameters[name], found[name], strict=True):
                # fused Adam walks through both as they lie in memory
                alike = grad.stride() == parameter.stride()
                parameter.grad = grad if alike else torch.empty_like(parameter).copy_(grad)
            optimizer.step()
        return losses


def batches(rows: int) -> Iterator[Any]:
    """Whole batches of MNIST's training images in a shuffled order, (rows, 784) uint8, without end."""
    images = datasets.load("mnist").train_images
    data = torch.from_numpy(np.ascontiguousarray(images)).reshape(len(images), 784)
    while True:
        order = torch.randperm(len(data))[: len(data) // rows * rows]
        for chosen in order.split(rows):
            yield data[chosen]


def torch_players(case: Case, dtype: str, threads: int, variant: Variant) -> Job:
    """A training step of every player by PyTorch: eager or compiled, in either layout of images."""
    torch.set_num_threads(threads)
    game, feed = Game(case.model, dtype, variant), batches(case.batch)
    losses: Losses = []

    def step() -> None:
        losses[:] = game.step(next(feed))

    return step_job(step, lambda: [float(loss) for loss in losses])
