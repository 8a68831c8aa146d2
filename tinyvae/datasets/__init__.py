"""Data sets by name or path, as uint8 images (N, H, W, C) in a training and a test part.
It knows nothing of models and devices."""

from __future__ import annotations

from .dataset import Dataset, as_dataset
from .idx import read_idx, write_idx
from .mnist_files import load_mnist

__all__ = ["Dataset", "as_dataset", "load", "read_idx", "write_idx"]


def load(name_or_path: str) -> Dataset:
    """A data set by name."""
    return load_mnist()
