"""One step, epochs of steps, and checkpoints that go on bit for bit.
It takes models as they are, and data sets."""

from .trainer import Trainer, train

__all__ = ["Trainer", "train"]
