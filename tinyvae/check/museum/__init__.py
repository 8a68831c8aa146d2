"""The bug museum: mistakes that people make in variational autoencoders, each planted and caught by a shipped check."""

from .detect import checks_for, detect, find
from .exhibit import Exhibit, planted
from .functions import WrongFunction, wrong_functions
from .gradients import GRADIENTS
from .machinery import MACHINERY
from .objectives import OBJECTIVES
from .spectral import SPECTRAL

EXHIBITS: tuple[Exhibit, ...] = (*GRADIENTS, *SPECTRAL, *OBJECTIVES, *MACHINERY)


def exhibit(name: str) -> Exhibit:
    """The exhibit of that name."""
    found = {e.name: e for e in EXHIBITS}
    if name not in found:
        raise KeyError(f"there is no exhibit {name!r}; there are {', '.join(found)}")
    return found[name]


__all__ = [
    "EXHIBITS", "GRADIENTS", "MACHINERY", "OBJECTIVES", "SPECTRAL", "Exhibit", "WrongFunction", "checks_for",
    "detect", "exhibit", "find", "planted", "wrong_functions",
]  # fmt: skip
