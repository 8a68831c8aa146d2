"""Models: layers joined into an objective.
They know parts and players; not data sets, epochs or files."""

from .aae import AdversarialAutoEncoder
from .ae import AutoEncoder
from .beta_vae import BetaVAE
from .cvae import CVAE
from .dae import DenoisingAutoEncoder
from .gan import GAN
from .iwae import IWAE
from .model import Batch, Model, Player
from .vae import VAE
from .vaegan import VAEGAN

__all__ = [
    "CVAE", "GAN", "IWAE", "VAE", "VAEGAN", "AdversarialAutoEncoder", "AutoEncoder", "Batch", "BetaVAE",
    "DenoisingAutoEncoder", "Model", "Player",
]  # fmt: skip
