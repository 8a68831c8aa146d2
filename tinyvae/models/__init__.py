"""Models: layers joined into an objective. A family is a file here; `zoo` has them by name."""

from .aae import AdversarialAutoEncoder
from .ae import AutoEncoder
from .beta_vae import BetaVAE
from .cvae import CVAE
from .dae import DenoisingAutoEncoder
from .gan import GAN
from .iwae import IWAE
from .methods import Abilities
from .model import Batch, Model, Player
from .vae import VAE
from .vaegan import VAEGAN

__all__ = [
    "CVAE", "GAN", "IWAE", "VAE", "VAEGAN", "Abilities", "AdversarialAutoEncoder", "AutoEncoder", "Batch",
    "BetaVAE", "DenoisingAutoEncoder", "Model", "Player",
]  # fmt: skip
