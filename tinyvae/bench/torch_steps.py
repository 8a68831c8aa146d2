"""The two reference VAEs in PyTorch: the same networks, the same loss, the same batches, fused Adam.
It knows PyTorch and the shapes of the reference networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .. import datasets
from .cases import BATCH, LATENT
from .job import Job, step_job

LR = 1e-3


def networks(model: str) -> tuple[Any, Any]:
    """Encoder and decoder of the zoo's "vae" or "conv-vae" for 28×28×1."""
    if model == "vae":
        encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 2 * LATENT))
        return encoder, nn.Sequential(nn.Linear(LATENT, 400), nn.ReLU(), nn.Linear(400, 784))
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(3136, 256), nn.ReLU(), nn.Linear(256, 2 * LATENT),
    )  # fmt: skip
    decoder = nn.Sequential(
        nn.Linear(LATENT, 256), nn.ReLU(), nn.Linear(256, 3136), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)),
        nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 1, 4, 2, 1),
    )  # fmt: skip
    return encoder, decoder


class Program:
    """A VAE in PyTorch: its networks, its loss (compiled where asked for), its optimiser, its batches."""

    def __init__(self, model: str, dtype: str, compiled: bool, channels_last: bool, seed: int = 0) -> None:
        torch.manual_seed(seed)
        kind = getattr(torch, dtype)
        self.encoder, self.decoder = (network.to(kind) for network in networks(model))
        self.conv, self.kind = model != "vae", kind
        self.memory = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            for network in (self.encoder, self.decoder):
                network.to(memory_format=torch.channels_last)
        self.loss: Callable[[Any], Any] = torch.compile(self.negative_elbo) if compiled else self.negative_elbo
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, LR, fused=True)
        images = np.ascontiguousarray(datasets.load("mnist").train_images)
        self.data = torch.from_numpy(images).reshape(len(images), 784)
        self.shuffle()

    def shuffle(self) -> None:
        """A new order of the images."""
        self.order, self.cursor = torch.randperm(len(self.data)), 0

    def negative_elbo(self, x: Any) -> Any:
        """−ELBO in nats per image, the encoder giving log-sigma, one sample of noise."""
        if self.conv:
            x = x.view(-1, 1, 28, 28).contiguous(memory_format=self.memory)
        z_mean, z_log_sigma = self.encoder(x).chunk(2, 1)
        z = z_mean + torch.exp(z_log_sigma) * torch.randn_like(z_log_sigma)
        recon = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (z_mean * z_mean + torch.exp(2 * z_log_sigma) - 1 - 2 * z_log_sigma).sum()
        return (recon + kl) / x.shape[0]

    def step(self) -> Any:
        """Gathers a batch of bytes by shuffled indices, scales it, and makes one step of Adam; returns the loss."""
        at = self.order[self.cursor : self.cursor + BATCH]
        self.cursor += BATCH
        x = self.data[at].to(self.kind).div_(255)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        return loss


def torch_step(model: str, dtype: str, threads: int, compiled: bool, channels_last: bool) -> Job:
    """A training step by PyTorch, eager or compiled, in either layout of images."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(True)
    program = Program(model, dtype, compiled, channels_last)
    losses: list[Any] = []

    def run() -> None:
        if program.cursor + BATCH > len(program.data):
            program.cursor = 0  # whole batches only: a ragged one would be compiled anew
        losses[:] = [program.step()]

    return step_job(run, lambda: float(losses[0].detach()))
