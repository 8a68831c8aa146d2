"""Models: layers joined into an objective.
They know parts and players; not data sets, epochs or files."""

from .ae import AutoEncoder
from .beta_vae import BetaVAE
from .cvae import CVAE
from .dae import DenoisingAutoEncoder
from .gan import GAN
from .iwae import IWAE
from .model import Batch, Model, Player
from .vae import VAE

__all__ = ["CVAE", "GAN", "IWAE", "VAE", "AutoEncoder", "Batch", "BetaVAE", "DenoisingAutoEncoder", "Model", "Player"]
