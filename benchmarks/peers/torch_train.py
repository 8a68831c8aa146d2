"""The default training run as a PyTorch program: Adam 1e-3, batch 128, the test −ELBO once an epoch with one sample.

python -m peers.torch_train EPOCHS [NAME]     NAME of a contestant, such as torch-cuda-captured
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from tinyvae import datasets
from tinyvae.bench.cases import BATCH
from tinyvae.bench.job import Variant
from tinyvae.bench.probe import FIRST_STEP, PEAK, mark, peak_bytes

from .torch_steps import Program

ROWS = 250  # of a batch of test images


def main() -> None:
    """Trains and says so, epoch by epoch."""
    epochs, variant = int(sys.argv[1]), Variant.of(sys.argv[2] if len(sys.argv) > 2 else "torch")
    mark(f"PyTorch {torch.__version__}")
    program = Program("vae", "float32", variant, BATCH)
    step: Callable[[], Any] = program.step
    if variant.cuda:
        from . import torch_cuda

        torch_cuda.set_precision(variant.tf32)
        step = torch_cuda.Recorded(program.step) if variant.captured else step
    images = datasets.load("mnist").test_images
    test = torch.from_numpy(images.reshape(len(images), 784)).to(program.place).float().div_(255)
    whole, rest = divmod(len(program.data), BATCH)
    for epoch in range(epochs):
        program.shuffle()
        for i in range(whole):
            step()
            if epoch == 0 and i == 0:
                mark(FIRST_STEP)
        if rest:
            program.step(rest)
        with torch.no_grad():
            total = sum(float(program.negative_elbo(rows)) * len(rows) for rows in test.split(ROWS))
        mark(f"epoch {epoch + 1}/{epochs}: test −ELBO {total / len(test):.2f}")
    mark(f"{PEAK} {peak_bytes()}")


if __name__ == "__main__":
    main()
