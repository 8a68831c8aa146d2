"""Rows of the table of contents for the ops of reference_layers.py.
It knows the form of their calls, as kernels/__init__.py does for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .op import Arg, Op, rows_rule


def _per(*symbols: str, cost: float = 1.0) -> Callable[[Mapping[str, Any]], float]:
    return lambda dims: cost * float(np.prod([dims[s] for s in symbols]))


def _three(tiny: dict, ragged: dict, model: dict, **options: Any) -> dict[str, dict[str, Any]]:
    return {"tiny": tiny | options, "ragged": ragged | options, "model": model | options}


def _draws(**options: Any) -> dict[str, dict[str, Any]]:
    return _three({"B": 1, "R": 1, "L": 1}, {"B": 3, "R": 9, "L": 7}, {"B": 20, "R": 100, "L": 50}, **options)


H, EPS, Z = Arg("h", "in", ("B", "2*L")), Arg("eps", "in", ("R", "L")), Arg("z", "in", ("R", "L"))
NLL, WEIGHT = Arg("nll", "in", ("R",)), Arg("weight", "in", ("R",), draw="unit")
KL_WEIGHT = Arg("kl_weight", "in", ("L",), "float64", draw="unit")

TABLE = (
    Op(
        "importance_weights", (H, EPS, Z, NLL, KL_WEIGHT, Arg("weight", "out", ("R",)), Arg("bound", "out", ("B",))),
        _draws(), _per("R", "L", cost=7), 4, ("L",), rule=rows_rule,
    ),
    Op(
        "importance_grad",
        (H, EPS, Z, Arg("grad_z", "in", ("R", "L")), WEIGHT, KL_WEIGHT, Arg("doubly", "option", (), "flag"),
         Arg("grad_h", "out", ("B", "2*L"))),
        _draws(doubly=0), _per("R", "L", cost=9), 16, rule=rows_rule,
    ),
    Op(
        "importance_objective",
        (Arg("bound", "in", ("B",)), NLL, Arg("kl", "in", ("B", "L")), Arg("sums", "inout", ("4",), "float64"),
         Arg("metrics", "out", ("3",), "float64")),
        _draws(), _per("B", "L"), 4, ("B", "L"), rule=rows_rule,
    ),
)  # fmt: skip
