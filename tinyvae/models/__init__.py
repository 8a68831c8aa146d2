"""Models: layers joined into an objective.
They know parts and players; not data sets, epochs or files."""

from .ae import AutoEncoder
from .model import Batch, Model, Player
from .vae import VAE

__all__ = ["VAE", "AutoEncoder", "Batch", "Model", "Player"]
