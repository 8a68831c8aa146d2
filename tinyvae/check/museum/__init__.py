"""The bug museum: mistakes that people make in variational autoencoders, each planted and caught by a shipped check."""

from .catch import catch, checks_for, find
from .exhibit import Exhibit, planted
from .further_layers import FURTHER_LAYERS
from .gradients import GRADIENTS
from .machinery import MACHINERY
from .objectives import OBJECTIVES
from .plain import WrongFunction, wrong_functions

EXHIBITS: tuple[Exhibit, ...] = (*GRADIENTS, *FURTHER_LAYERS, *OBJECTIVES, *MACHINERY)


def exhibit(name: str) -> Exhibit:
    """The exhibit of that name."""
    found = {e.name: e for e in EXHIBITS}
    if name not in found:
        raise KeyError(f"there is no exhibit {name!r}; there are {', '.join(found)}")
    return found[name]


__all__ = [
    "EXHIBITS",
    "FURTHER_LAYERS",
    "GRADIENTS",
    "MACHINERY",
    "OBJECTIVES",
    "Exhibit",
    "WrongFunction",
    "catch",
    "checks_for",
    "exhibit",
    "find",
    "planted",
    "wrong_functions",
]
