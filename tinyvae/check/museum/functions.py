"""Wrong gradients as plain functions of arrays, for a grader that must refuse them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.check import Runner
from ..pairs import Arrays, pairs_of
from .exhibit import Exhibit


@dataclass(frozen=True)
class WrongFunction:
    """forward and backward with the mistake in them, the right ones beside, and arrays to call them with.

    gradcheck_fn(w.forward, w.backward, *w.arrays, wrt=w.wrt, kinks=w.kinks) checks the wrong pair.
    """

    name: str
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    right_forward: Callable[..., Any]
    right_backward: Callable[..., Any]
    arrays: Arrays
    wrt: tuple[str, ...]
    kinks: Callable[..., Any] | None


def wrong_functions(exhibit: Exhibit, size: int = 1, seed: int = 0) -> list[WrongFunction]:
    """The exhibit in every pair of plain functions that its ops stand in; empty where they have no gradient.

    size: 0, 1 or 2, three shapes of the arrays.
    """
    found = []
    for pair in pairs_of(tuple(exhibit.ops)):
        forward, backward, _ = pair.make(Runner("numpy", ops=exhibit.kernels()))
        right_forward, right_backward, kinks = pair.make(Runner("numpy"))
        arrays = pair.arrays(np.random.default_rng((seed, size)), size)
        found.append(
            WrongFunction(pair.name, forward, backward, right_forward, right_backward, arrays, pair.wrt, kinks)
        )
    return found
