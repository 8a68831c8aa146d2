"""tinyvae: variational autoencoders for images, every gradient and kernel by hand.
Public names load what they need when first used, so that `import tinyvae` costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_MODULES = {
    "check": "check", "config": "config", "datasets": "datasets", "device": "device", "errors": "errors",
    "kernels": "kernels", "layers": "layers", "learn": "learn", "measure": "measure", "models": "models",
    "pictures": "pictures", "sklearn": "sklearn", "training": "training", "zoo": "models.zoo",
}  # fmt: skip

_NAMES = {
    "CVAE": "models",
    "AdversarialAutoEncoder": "models",
    "GAN": "models",
    "VAEGAN": "models",
    "IWAE": "models",
    "VAE": "models",
    "AutoEncoder": "models",
    "BetaVAE": "models",
    "DenoisingAutoEncoder": "models",
    "Model": "models",
    "train": "training",
    "explain_objective": "measure.explain",
    "gradcheck": "check",
    "gradcheck_fn": "check",
    "save": "training.checkpoint",
    "load": "training.checkpoint",
    "TinyvaeError": "errors",
}

__all__ = ["__version__", *sorted(_MODULES), *sorted(_NAMES)]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(import_module(f".{_NAMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"module 'tinyvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
