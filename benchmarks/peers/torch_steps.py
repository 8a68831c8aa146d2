"""The two reference VAEs in PyTorch: the same networks, the same loss, the same batches, fused Adam."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tinyvae import datasets
from tinyvae.bench.cases import LATENT, Case
from tinyvae.bench.job import Job, Variant, step_job

from .burst import burst, burst_of

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
    """A VAE in PyTorch: its networks, its loss (compiled where asked for), its optimiser, its batches.

    Data and order stand where the network is; so does the cursor of a step that is captured, which freezes numbers.
    """

    def __init__(self, model: str, dtype: str, variant: Variant, batch: int, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.place = torch.device("cuda" if variant.cuda else "cpu")
        self.conv, self.kind, self.batch = model != "vae", getattr(torch, dtype), batch
        self.memory = torch.channels_last if variant.channels_last else torch.contiguous_format
        self.encoder, self.decoder = (network.to(self.place, self.kind) for network in networks(model))
        if variant.channels_last:
            for network in (self.encoder, self.decoder):
                network.to(memory_format=torch.channels_last)
        self.loss: Callable[[Any], Any] = torch.compile(self.negative_elbo) if variant.compiled else self.negative_elbo
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, LR, fused=True, capturable=variant.captured)
        images = np.ascontiguousarray(datasets.load("mnist").train_images)
        self.data = torch.from_numpy(images).reshape(len(images), 784).to(self.place)
        self.order = torch.arange(len(images), device=self.place)
        self.captured, self.rows = variant.captured, torch.arange(batch, device=self.place)
        self.cursor: Any = torch.zeros((), dtype=torch.int64, device=self.place) if variant.captured else 0
        self.shuffle()

    def shuffle(self) -> None:
        """A new order of the images, and a return to its beginning."""
        self.order.copy_(torch.randperm(len(self.data), device=self.place))
        self.cursor *= 0

    def negative_elbo(self, x: Any) -> Any:
        """−ELBO in nats per image, the encoder giving log-sigma, one sample of noise."""
        if self.conv:
            x = x.view(-1, 1, 28, 28).contiguous(memory_format=self.memory)
        z_mean, z_log_sigma = self.encoder(x).chunk(2, 1)
        z = z_mean + torch.exp(z_log_sigma) * torch.randn_like(z_log_sigma)
        recon = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (z_mean * z_mean + torch.exp(2 * z_log_sigma) - 1 - 2 * z_log_sigma).sum()
        return (recon + kl) / x.shape[0]

    def step(self, count: int | None = None) -> Any:
        """Gathers a batch (`count` images) by shuffled indices, scales it, makes one step of Adam; returns the loss."""
        places = self.cursor + self.rows[:count] if self.captured else slice(self.cursor, self.cursor + self.batch)
        x = self.data[self.order[places]].to(self.kind).div_(255)
        self.cursor += self.batch
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x)
        loss.backward()
        self.optimizer.step()
        return loss


def torch_step(case: Case, dtype: str, threads: int, variant: Variant) -> Job:
    """A training step by PyTorch: eager, compiled or captured, in either layout of images."""
    torch.set_num_threads(threads)
    program = Program(case.model, dtype, variant, case.batch)
    whole = len(program.data) // case.batch * case.batch  # whole batches only: a ragged one would be compiled anew
    losses: list[Any] = [None]

    def step() -> None:
        losses[0] = program.step()
        program.cursor %= whole

    if not variant.cuda:
        return step_job(step, lambda: float(losses[0].detach()))
    from . import torch_cuda

    torch_cuda.set_precision(variant.tf32)
    made = step_job(torch_cuda.Recorded(step) if variant.captured else step, lambda: float(losses[0].detach()))
    return burst(made, burst_of(case), torch_cuda.wait)
