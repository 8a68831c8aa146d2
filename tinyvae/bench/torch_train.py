"""The default training run as a PyTorch program: Adam 1e-3, batch 128, the test −ELBO once an epoch with one sample.
It knows PyTorch; its lines are read by startup as those of `tinyvae train` are.

    python -m tinyvae.bench.torch_train EPOCHS [compiled]
"""

from __future__ import annotations

import sys

import torch

from .. import datasets
from .cases import BATCH
from .torch_steps import Program
from .watched import FIRST_STEP, PEAK, mark, peak_bytes

ROWS = 250  # of a batch of test images


def main() -> None:
    """Trains and says so, epoch by epoch."""
    epochs, compiled = int(sys.argv[1]), "compiled" in sys.argv[2:]
    mark(f"PyTorch {torch.__version__}")
    program = Program("vae", "float32", compiled, channels_last=False)
    images = datasets.load("mnist").test_images
    test = torch.from_numpy(images.reshape(len(images), 784)).float().div_(255)
    for epoch in range(epochs):
        program.shuffle()
        while program.cursor < len(program.data):
            program.step()
            if epoch == 0 and program.cursor == BATCH:
                mark(FIRST_STEP)
        with torch.no_grad():
            total = sum(float(program.negative_elbo(rows)) * len(rows) for rows in test.split(ROWS))
        mark(f"epoch {epoch + 1}/{epochs}: test −ELBO {total / len(test):.2f}")
    mark(f"{PEAK} {peak_bytes()}")


if __name__ == "__main__":
    main()
