"""Models: layers joined into an objective.
They know parts and players; not data sets, epochs or files."""

from .ae import AutoEncoder
from .iwae import IWAE
from .model import Batch, Model, Player
from .vae import VAE

__all__ = ["IWAE", "VAE", "AutoEncoder", "Batch", "Model", "Player"]
