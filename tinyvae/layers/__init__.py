"""Layers: differentiable maps with forward and backward side by side.

A layer is a public class of a file here; its name is available as `tinyvae.layers.NAME`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from .layer import Example, Gate, Layer, Shape, Site, Twin
from .likelihood import make_likelihood

__all__ = ["Example", "Gate", "Layer", "Shape", "Site", "Twin", "examples", "layer_classes", "make_likelihood"]


@cache
def layer_classes() -> dict[str, type[Layer]]:
    """Every public Layer class that a file of this package defines, by name."""
    modules = [import_module(f".{info.name}", __name__) for info in iter_modules(__path__)]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, Layer)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def examples() -> list[Example]:
    """The examples of every layer, new layers at every call."""
    return [example for layer in layer_classes().values() for example in layer.examples()]


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and name in layer_classes():
        return layer_classes()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, *layer_classes()]
