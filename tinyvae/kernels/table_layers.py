"""Rows of the table of contents for the ops of reference_layers.py.
It knows the form of their calls, as kernels/__init__.py does for the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .clock import COUNTERS
from .op import Arg, Op, per, rows_rule, three_examples


def _draws(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples({"B": 1, "R": 1, "L": 1}, {"B": 3, "R": 9, "L": 7}, {"B": 20, "R": 100, "L": 50}, **options)


def _norm(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples({"R": 1, "C": 1}, {"R": 9, "C": 67}, {"R": 6272, "C": 64}, **options)


def _random(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples({"R": 1, "width": 1}, {"R": 5, "width": 7}, {"R": 128, "width": 784}, stream=16, **options)


def _matrix(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples({"K": 2, "N": 1}, {"K": 37, "N": 67}, {"K": 1024, "N": 128}, **options)


def _label() -> dict[str, dict[str, Any]]:
    return three_examples(
        {"B": 1, "R": 1, "N": 1, "M": 1, "N+M": 2}, {"B": 3, "R": 6, "N": 37, "M": 5, "N+M": 42},
        {"B": 128, "R": 128, "N": 784, "M": 10, "N+M": 794},
    )  # fmt: skip


def _blocks() -> dict[str, dict[str, Any]]:
    return three_examples(
        {"B": 1, "H": 1, "W": 2, "C": 1, "OH": 2, "OW": 2}, {"B": 3, "H": 4, "W": 5, "C": 7, "OH": 8, "OW": 15},
        {"B": 128, "H": 7, "W": 7, "C": 64, "OH": 14, "OW": 14},
    )  # fmt: skip


def _label_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    if "M" in dims and dims["N+M"] != dims["N"] + dims["M"]:
        return f"y must have N + M = {dims['N'] + dims['M']} columns, got {dims['N+M']}"
    if dims["N+M"] < dims["N"]:
        return f"grad_x has {dims['N']} columns, more than the {dims['N+M']} of grad_y"
    return rows_rule(dims, options) if "B" in dims else None


def _order_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    if dims["B"] > dims["M"]:
        return f"y has {dims['B']} rows, order only {dims['M']}; a batch is a stretch of the order"
    return None


def _iterations_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    if options["iterations"] < 1 or options["iterations"] % 1:
        return f"iterations={options['iterations']!r} must be a whole number of at least 1"
    return None


def _blocks_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    for small, large in (("H", "OH"), ("W", "OW")):
        if dims[small] < 1 or dims[large] % dims[small]:
            return f"the length {large} = {dims[large]} must be a multiple of {small} = {dims[small]}"
    return None


COLUMN = {name: Arg(name, "in", ("C",)) for name in ("mean", "gamma", "beta")}
ROW_MEAN, ROW_RSTD = Arg("mean", "in", ("R",)), Arg("rstd", "in", ("R",), draw="positive")
RSTD = Arg("rstd", "in", ("C",), draw="positive")
X, GRAD_Y, Y = Arg("x", "in", ("R", "C")), Arg("grad_y", "in", ("R", "C")), Arg("y", "out", ("R", "C"))
EPSILON = Arg("epsilon", "option", (), "positive")
NORM_GRADS = (
    Arg("add", "option", (), "flag"), Arg("grad_gamma", "out", ("C",), optional=True),
    Arg("grad_beta", "out", ("C",), optional=True), Arg("grad_x", "out", ("R", "C"), optional=True),
)  # fmt: skip
U, V = Arg("u", "in", ("N",)), Arg("v", "in", ("K",))
COUNTERS_IN = Arg("counters", "in", (str(COUNTERS),), "uint64", draw="counters")
STREAM = Arg("stream", "option", (), "number")
DRAWN_X, DRAWN_Y = Arg("x", "in", ("R", "width")), Arg("y", "out", ("R", "width"))

H, EPS, Z = Arg("h", "in", ("B", "2*L")), Arg("eps", "in", ("R", "L")), Arg("z", "in", ("R", "L"))
NLL, WEIGHT = Arg("nll", "in", ("R",)), Arg("weight", "in", ("R",), draw="unit")
KL_WEIGHT = Arg("kl_weight", "in", ("L",), "float64", draw="unit")

TABLE = (
    Op(
        "batch_norm",
        (X, COLUMN["gamma"], COLUMN["beta"], EPSILON, Arg("momentum", "option", (), "number"),
         Arg("running_mean", "inout", ("C",)), Arg("running_var", "inout", ("C",), draw="positive"),
         Arg("mean", "out", ("C",)), Arg("rstd", "out", ("C",)), Y),
        _norm(epsilon=1e-5, momentum=0.1), per("R", "C", cost=7), 8, ("R",),
    ),
    Op(
        "batch_norm_frozen",
        (X, COLUMN["mean"], Arg("var", "in", ("C",), draw="positive"), COLUMN["gamma"], COLUMN["beta"], EPSILON, Y),
        _norm(epsilon=1e-5), per("R", "C", cost=3), 8,
    ),
    Op(
        "batch_norm_grad", (X, COLUMN["mean"], RSTD, COLUMN["gamma"], GRAD_Y, *NORM_GRADS),
        _norm(add=0), per("R", "C", cost=9), 8, ("R",),
    ),
    Op(
        "layer_norm",
        (X, COLUMN["gamma"], COLUMN["beta"], EPSILON, Arg("mean", "out", ("R",)), Arg("rstd", "out", ("R",)), Y),
        _norm(epsilon=1e-5), per("R", "C", cost=7), 8, ("C",),
    ),
    Op(
        "layer_norm_grad", (X, ROW_MEAN, ROW_RSTD, COLUMN["gamma"], GRAD_Y, *NORM_GRADS),
        _norm(add=0), per("R", "C", cost=11), 8, ("R", "C"),
    ),
    Op(
        "spectral_norm",
        (Arg("weight", "in", ("K", "N")), Arg("iterations", "option"), Arg("u", "inout", ("N",)),
         Arg("v", "out", ("K",)), Arg("sigma", "out", ("1",)), Arg("normalised", "out", ("K", "N"))),
        _matrix(iterations=1), lambda d: (4.0 * d["iterations"] + 1) * d["K"] * d["N"], 8, ("K", "N"),
        rule=_iterations_rule,
    ),
    Op(
        "spectral_norm_grad",
        (Arg("grad_normalised", "in", ("K", "N")), Arg("normalised", "in", ("K", "N")), U, V,
         Arg("sigma", "in", ("1",), draw="positive"), Arg("add", "option", (), "flag"),
         Arg("grad_weight", "out", ("K", "N"))),
        _matrix(add=0), per("K", "N", cost=6), 8, ("K", "N"),
    ),
    Op(
        "dropout",
        (DRAWN_X, COUNTERS_IN, STREAM, Arg("rate", "option"), Arg("scale", "option"), DRAWN_Y),
        _random(rate=0.3, scale=1 / 0.7), per("R", "width", cost=27), 1,
    ),
    Op(
        "add_noise", (DRAWN_X, COUNTERS_IN, STREAM, Arg("sigma", "option"), DRAWN_Y),
        _random(sigma=0.5), per("R", "width", cost=42), 12,
    ),
    Op(
        "add", (Arg("a", "in", ("n",)), Arg("b", "in", ("n",)), Arg("y", "out", ("n",))),
        three_examples({"n": 1}, {"n": 1037}, {"n": 51_200}), per("n"), linear=True,
    ),
    Op(
        "concat_label", (Arg("x", "in", ("R", "N")), Arg("label", "in", ("B", "M")), Arg("y", "out", ("R", "N+M"))),
        _label(), per("R", "N+M"), 0, rule=_label_rule,
    ),
    Op(
        "concat_label_grad", (Arg("grad_y", "in", ("R", "N+M")), Arg("grad_x", "out", ("R", "N"))),
        _label(), per("R", "N"), 0, rule=_label_rule,
    ),
    Op(
        "gather_labels",
        (Arg("labels", "in", ("N",), "int64", draw="order"), Arg("order", "in", ("M",), "int64", draw="order"),
         COUNTERS_IN, Arg("y", "out", ("B", "K"))),
        three_examples({"N": 3, "M": 5, "B": 1, "K": 4}, {"N": 4, "M": 9, "B": 3, "K": 6},
               {"N": 1000, "M": 1000, "B": 128, "K": 10}),
        per("B", "K"), 0, rule=_order_rule,
    ),
    Op(
        "upsample", (Arg("x", "in", ("B", "H", "W", "C")), Arg("y", "out", ("B", "OH", "OW", "C"))),
        _blocks(), per("B", "OH", "OW", "C"), 0, rule=_blocks_rule,
    ),
    Op(
        "upsample_grad", (Arg("grad_y", "in", ("B", "OH", "OW", "C")), Arg("grad_x", "out", ("B", "H", "W", "C"))),
        _blocks(), per("B", "OH", "OW", "C"), 1, ("OH", "OW"), linear=True, rule=_blocks_rule,
    ),
    Op(
        "importance_weights", (H, EPS, Z, NLL, KL_WEIGHT, Arg("weight", "out", ("R",)), Arg("bound", "out", ("B",))),
        _draws(), per("R", "L", cost=7), 4, ("L",), rule=rows_rule,
    ),
    Op(
        "importance_grad",
        (H, EPS, Z, Arg("grad_z", "in", ("R", "L")), WEIGHT, KL_WEIGHT, Arg("doubly", "option", (), "flag"),
         Arg("grad_h", "out", ("B", "2*L"))),
        _draws(doubly=0), per("R", "L", cost=9), 16, rule=rows_rule,
    ),
    Op(
        "importance_objective",
        (Arg("bound", "in", ("B",)), NLL, Arg("kl", "in", ("B", "L")), Arg("sums", "inout", ("4",), "float64"),
         Arg("metrics", "out", ("3",), "float64")),
        _draws(), per("B", "L"), 4, ("B", "L"), rule=rows_rule,
    ),
)  # fmt: skip
