"""Ops: OPS is the table of contents, load(device) the functions of one device.
It knows arithmetic on raw arrays, and nothing of layers or models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from ..config import require_precision
from ..errors import KernelError
from . import reference, reference_layers, reference_objective, table_layers
from .clock import COUNTERS, PLAN, PLAN_HEAD, RATES
from .first_calls import FirstCalls
from .op import Arg, Op, per, rows_rule, three_examples
from .reference import ELU, IDENTITY, LEAKY_RELU, RELU, SIGMOID, SOFTPLUS, TANH
from .reference_objective import LEVELS
from .scratch import (
    forward_room,
    image_grad_room,
    line_parts_room,
    norm_room,
    turned_room,
    turned_weight_room,
    weight_grad_room,
)  # fmt: skip

ACTIVATIONS = {
    "identity": IDENTITY,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "elu": ELU,
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "softplus": SOFTPLUS,
}


def _in(name: str, *dims: str, dtype: str = "float", optional: bool = False, draw: str = "normal") -> Arg:
    return Arg(name, "in", dims, dtype, optional, draw)


def _inout(name: str, *dims: str, dtype: str = "float", draw: str = "normal") -> Arg:
    return Arg(name, "inout", dims, dtype, draw=draw)


def _out(name: str, *dims: str, dtype: str = "float", optional: bool = False) -> Arg:
    return Arg(name, "out", dims, dtype, optional)


def _option(name: str, kind: str = "number") -> Arg:
    return Arg(name, "option", (), kind)


WORK = Arg("work", "work", ("work",))
COUNTERS_IN = _in("counters", str(COUNTERS), dtype="uint64", draw="counters")
RATES_IN = _in("rates", "8", dtype="float64", draw="positive")


Pair = tuple[int, int]


def output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """The length of a convolution's output along one axis: (size + 2·padding − kernel) // stride + 1."""
    return (size + 2 * padding - kernel) // stride + 1


def _conv_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    for axis in (0, 1):
        size, out, kernel = dims["HW"[axis]], dims[("OH", "OW")[axis]], dims[("KH", "KW")[axis]]
        stride, padding = options["stride"][axis], options["padding"][axis]
        if stride < 1 or padding < 0:
            return f"stride must be at least 1 and padding at least 0, got {options['stride']}, {options['padding']}"
        expected = output_size(size, kernel, stride, padding)
        if expected < 1 or out != expected:
            name = ("height", "width")[axis]
            return f"{name} {size}, kernel {kernel}, stride {stride}, padding {padding} give {expected}, not {out}"
    return None


def _order_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    if dims["B"] > dims["M"]:
        return f"x has {dims['B']} rows, order only {dims['M']}; a batch is a stretch of the order"
    return None


def _tick_rule(dims: Mapping[str, Any], options: Mapping[str, Any]) -> str | None:
    players, rest = divmod(dims["plan"] - PLAN_HEAD, PLAN)
    if players < 0 or rest:
        return f"plan must have {PLAN_HEAD} + {PLAN}·players elements, got {dims['plan']}"
    if dims["rates"] < players * RATES:
        return f"rates must have {RATES}·players + latent elements, at least {players * RATES}, got {dims['rates']}"
    return None


def _conv(B: int, H: int, W: int, C: int, F: int, kernel: Pair, stride: Pair, padding: Pair) -> dict[str, Any]:
    """Lengths and options of one convolution."""
    OH, OW = (output_size(n, kernel[i], stride[i], padding[i]) for i, n in enumerate((H, W)))
    return {
        "B": B, "H": H, "W": W, "C": C, "F": F, "KH": kernel[0], "KW": kernel[1], "OH": OH, "OW": OW,
        "stride": stride, "padding": padding, "act": RELU, "add": 0,
    }  # fmt: skip


# ragged: no two lengths alike, and the last row and column of x are never read
_CONVS = {"tiny": _conv(2, 3, 4, 1, 2, (1, 2), (1, 1), (0, 0))}
_CONVS["ragged"] = _conv(6, 10, 17, 5, 7, (4, 2), (3, 2), (1, 0))
_CONVS["model"] = _conv(128, 28, 28, 1, 32, (4, 4), (2, 2), (1, 1))


def _dense(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples(
        {"B": 1, "K": 2, "N": 3}, {"B": 7, "K": 33, "N": 15}, {"B": 128, "K": 784, "N": 400}, **options
    )  # fmt: skip


def _flat(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples({"n": 1}, {"n": 1037}, {"n": 51_200}, **options)


def _latent() -> dict[str, dict[str, Any]]:
    return three_examples({"B": 1, "R": 1, "L": 1}, {"B": 3, "R": 9, "L": 7}, {"B": 128, "R": 128, "L": 20})


def _pixels(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples(
        {"B": 1, "R": 1, "P": 1}, {"B": 3, "R": 6, "P": 37}, {"B": 128, "R": 128, "P": 784}, **options
    )


def _random(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples({"R": 1, "width": 1}, {"R": 5, "width": 7}, {"R": 128, "width": 20}, **options)


def _batches(**options: Any) -> dict[str, dict[str, Any]]:
    return three_examples(
        {"N": 3, "P": 1, "M": 5, "B": 1}, {"N": 4, "P": 13, "M": 9, "B": 3},
        {"N": 1000, "P": 784, "M": 1000, "B": 128}, scale=1 / 255, **options,
    )  # fmt: skip


def _product(dims: Mapping[str, Any]) -> float:
    return 2.0 * dims["B"] * dims["K"] * dims["N"]


def _conv_flops(d: Mapping[str, Any]) -> float:
    return 2.0 * d["B"] * d["OH"] * d["OW"] * d["F"] * d["KH"] * d["KW"] * d["C"]


_X = _in("x", "B", "H", "W", "C")
_GRAD_Y = _in("grad_y", "B", "OH", "OW", "F")
_W = _in("w", "KH", "KW", "C", "F")
_GEOMETRY = (_option("stride", "pair"), _option("padding", "pair"))
_IMAGES = (_in("images", "N", "P", dtype="image", draw="bytes"), _in("order", "M", dtype="int64", draw="order"))

_TARGETS = (_in("x", "B", "P", draw="unit"), _in("row_scale", "R", draw="positive"))

_TABLE = (
    Op("activate", (_in("x", "n"), _option("act", "act"), _out("y", "n")), _flat(act=ELU), per("n", cost=4), 8),
    Op("act_grad", (_in("y", "n"), _option("act", "act"), _inout("grad", "n")), _flat(act=TANH), per("n", cost=3), 8),
    Op("silu", (_in("x", "n"), _out("y", "n")), _flat(), per("n", cost=5), 8),
    Op("silu_grad", (_in("x", "n"), _inout("grad", "n")), _flat(), per("n", cost=9), 12),
    Op(
        "dense",
        (_in("x", "B", "K"), _in("w", "K", "N"), _in("b", "N", optional=True), _option("act", "act"),
         _out("y", "B", "N")),
        _dense(act=RELU), _product, 8, ("K",), linear=True,
    ),
    Op(
        "dense_grad_x",
        (_in("grad_y", "B", "N"), _in("w", "K", "N"), WORK, _out("grad_x", "B", "K")),
        _dense(), _product, 1, ("N",), linear=True, work=turned_weight_room,
    ),
    Op(
        "dense_grad_w",
        (_in("x", "B", "K"), _in("grad_y", "B", "N"), _option("add", "flag"), WORK,
         _out("grad_w", "K", "N"), _out("grad_b", "N", optional=True)),
        _dense(add=0), _product, 1, ("B",), linear=True, work=turned_room,
    ),
    Op(
        "bias_grad", (_in("grad_y", "R", "N"), _option("add", "flag"), WORK, _out("grad_b", "N")),
        three_examples({"R": 1, "N": 1}, {"R": 9, "N": 7}, {"R": 128, "N": 400}, add=0),
        per("R", "N"), 1, ("R",), linear=True, work=line_parts_room,
    ),
    Op(
        "conv2d",
        (_X, _W, _in("b", "F", optional=True), *_GEOMETRY, _option("act", "act"), WORK,
         _out("y", "B", "OH", "OW", "F")),
        _CONVS, _conv_flops, 8, ("KH", "KW", "C"), linear=True, rule=_conv_rule, work=forward_room,
    ),
    Op(
        "conv2d_grad_x",
        (_GRAD_Y, _W, _in("b", "C", optional=True), *_GEOMETRY, _option("act", "act"), WORK,
         _out("grad_x", "B", "H", "W", "C")),
        _CONVS, _conv_flops, 8, ("KH", "KW", "F"), linear=True, rule=_conv_rule, work=image_grad_room,
    ),
    Op(
        "conv2d_grad_w",
        (_X, _GRAD_Y, *_GEOMETRY, _option("add", "flag"), WORK,
         _out("grad_w", "KH", "KW", "C", "F"), _out("grad_b", "F", optional=True)),
        _CONVS, _conv_flops, 1, ("B", "OH", "OW"), linear=True, rule=_conv_rule, work=weight_grad_room,
    ),
    Op(
        "latent", (_in("h", "B", "2*L"), _in("eps", "R", "L"), _out("z", "R", "L"), _out("kl", "B", "L")),
        _latent(), per("R", "L", cost=10), 12, rule=rows_rule,
    ),
    Op(
        "latent_grad",
        (_in("h", "B", "2*L"), _in("eps", "R", "L"), _in("grad_z", "R", "L"),
         _in("kl_weight", "L", dtype="float64", draw="unit"), _out("grad_h", "B", "2*L")),
        _latent(), per("R", "L", cost=12), 12, rule=rows_rule,
    ),
    Op(
        "bernoulli_nll",
        (_in("logits", "R", "P"), _in("x", "B", "P", draw="unit"), _in("row_scale", "R", draw="positive"),
         _out("nll", "R"), _out("grad_logits", "R", "P", optional=True)),
        _pixels(), per("R", "P", cost=12), 12, ("P",), rule=rows_rule,
    ),
    Op(
        "gaussian_nll",
        (_in("mean", "R", "P"), _in("x", "B", "P", draw="unit"), _in("row_scale", "R", draw="positive"),
         _option("sigma", "positive"), _out("nll", "R"), _out("grad_mean", "R", "P", optional=True)),
        _pixels(sigma=0.7), per("R", "P", cost=5), 12, ("P",), rule=rows_rule,
    ),
    Op(
        "continuous_bernoulli_nll",
        (_in("logits", "R", "P"), *_TARGETS, _out("nll", "R"), _out("grad_logits", "R", "P", optional=True)),
        _pixels(), per("R", "P", cost=40), 16, ("P",), rule=rows_rule,
    ),
    Op(
        "gaussian_scalar_nll",
        (_in("mean", "R", "P"), *_TARGETS, _in("log_sigma", "1"), _out("nll", "R"),
         _out("grad_mean", "R", "P", optional=True), _out("grad_log_sigma", "R", "1", optional=True)),
        _pixels(), per("R", "P", cost=5), 16, ("P",), rule=rows_rule,
    ),
    Op(
        "gaussian_pixel_nll",
        (_in("outputs", "R", "2*P"), *_TARGETS, _out("nll", "R"), _out("grad_outputs", "R", "2*P", optional=True)),
        _pixels(), per("R", "P", cost=40), 24, ("P",), rule=rows_rule,
    ),
    Op(
        "gaussian_optimal_nll",
        (_in("mean", "R", "P"), *_TARGETS, _out("nll", "R"), _out("grad_mean", "R", "P", optional=True)),
        _pixels(), per("R", "P", cost=5), 16, ("P",), rule=rows_rule,
    ),
    Op(
        "discretized_logistic_nll",
        (_in("outputs", "R", "2*P"), *_TARGETS, _out("nll", "R"), _out("grad_outputs", "R", "2*P", optional=True)),
        _pixels(), per("R", "P", cost=80), 24, ("P",), rule=rows_rule,
    ),
    Op(
        "categorical_nll",
        (_in("logits", "R", f"{LEVELS}*P"), *_TARGETS, _out("nll", "R"),
         _out("grad_logits", "R", f"{LEVELS}*P", optional=True)),
        _pixels() | {"model": {"B": 8, "R": 8, "P": 784}}, per("R", "P", cost=12 * LEVELS), 16, ("P",),
        rule=rows_rule,
    ),
    Op(
        "scale_rows", (_in("row_weight", "R"), _inout("grad", "R", "P")),
        three_examples({"R": 1, "P": 1}, {"R": 5, "P": 37}, {"R": 128, "P": 784}), per("R", "P"), linear=True,
    ),
    Op(
        "objective",
        (_in("nll", "R"), _in("kl", "B", "L"), _in("kl_weight", "L", dtype="float64", draw="unit"),
         _inout("sums", "4", dtype="float64"), _out("metrics", "3", dtype="float64")),
        _latent(), per("B", "L", cost=2), 4, ("B", "L"), rule=rows_rule,
    ),
    Op(
        "aimed_objective",
        (_in("nll", "R"), _in("kl", "B", "L"), RATES_IN, _inout("sums", "4", dtype="float64"),
         _out("kl_weight", "L", dtype="float64"), _out("metrics", "3", dtype="float64")),
        _latent(), per("B", "L", cost=3), 4, ("B", "L"), rule=rows_rule,
    ),
    Op(
        "grad_norm",
        (_in("grads", "n"), _option("max_norm"), WORK, _inout("rates", "8", dtype="float64", draw="positive")),
        _flat(max_norm=1.0), per("n", cost=2), 4, ("n",), work=norm_room,
    ),
    Op(
        "adam",
        (_in("grads", "n"), RATES_IN, _option("beta1"), _option("beta2"), _option("eps"),
         _inout("values", "n"), _inout("m", "n"), _inout("v", "n", draw="positive")),
        _flat(beta1=0.9, beta2=0.999, eps=1e-8), per("n", cost=12), 12,
    ),
    Op(
        "sgd", (_in("grads", "n"), RATES_IN, _option("momentum"), _inout("values", "n"), _inout("m", "n")),
        _flat(momentum=0.9), per("n", cost=5), 8,
    ),
    Op(
        "tick",
        (_in("plan", "plan", dtype="float64", draw="plan"),
         _inout("counters", str(COUNTERS), dtype="uint64", draw="counters"),
         _inout("rates", "rates", dtype="float64", draw="positive")),
        {label: {"plan": 16, "rates": 8 + latent} for label, latent in (("tiny", 0), ("ragged", 3), ("model", 20))},
        lambda dims: 20.0, 4, rule=_tick_rule,
    ),
    Op(
        "philox_bits", (COUNTERS_IN, _option("stream"), _out("out", "R", "width", dtype="uint32")),
        _random(stream=16), per("R", "width", cost=25), 0,
    ),
    Op(
        "philox_uniform", (COUNTERS_IN, _option("stream"), _out("out", "R", "width")),
        _random(stream=16), per("R", "width", cost=26), 0,
    ),
    Op(
        "philox_normal", (COUNTERS_IN, _option("stream"), _out("out", "R", "width")),
        _random(stream=16), per("R", "width", cost=40), 12,
    ),
    Op(
        "philox_bernoulli",
        (_in("p", "R", "width", draw="unit"), COUNTERS_IN, _option("stream"), _out("out", "R", "width")),
        _random(stream=16), per("R", "width", cost=27), 0,
    ),
    Op(
        "gather", (*_IMAGES, COUNTERS_IN, _option("scale"), _out("x", "B", "P")),
        _batches(), per("B", "P"), 1, rule=_order_rule,
    ),
    Op(
        "gather_binary",
        (*_IMAGES, COUNTERS_IN, _option("scale"), _option("stream"), _option("dynamic", "flag"), _out("x", "B", "P")),
        _batches(stream=2, dynamic=1), per("B", "P", cost=28), 0, rule=_order_rule,
    ),
)  # fmt: skip

OPS: dict[str, Op] = {op.name: op for op in (*_TABLE, *table_layers.TABLE)}
PAGES = (reference, reference_objective, reference_layers)  # the modules that hold the meaning of the ops


def meaning(name: str) -> Callable[..., None]:
    """The op `name` in NumPy, from the page that has it."""
    return next(getattr(page, name) for page in PAGES if hasattr(page, name))


class Kernels:
    """The functions of one device, as attributes. An op the device lacks fails when it is asked for.

    first_calls: tells of ops that compile when they first run, on a device whose ops are compiled.
    """

    def __init__(self, device: str, column: Mapping[str, Callable[..., None]], unchecked: bool) -> None:
        self._device, self._column, self._unchecked = device, column, unchecked
        self.first_calls = FirstCalls()

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):  # copying asks for such names before there is a column
            raise AttributeError(name)
        if name in self._column:
            run = self._column[name]
            if isinstance(self._column, _Later):
                run = self.first_calls.watch(name, run, self._column.compiler())
            found = run if self._unchecked else OPS[name].checked(run, on_gpu=self._device == "cuda")
            setattr(self, name, found)  # the next time it is an attribute like any other
            return found
        if name in OPS:
            raise KernelError(f"op {name!r} has no version for device {self._device!r}; use device='numpy'")
        raise KernelError(f"there is no op {name!r}; tinyvae.kernels.OPS lists them all")


class _Later(Mapping[str, Callable[..., None]]):
    """A column that is imported when it is first looked into: compilers take their time to load."""

    def __init__(self, module: str, name: str = "COLUMN") -> None:
        self._module, self._name = module, name

    def _column(self) -> Mapping[str, Callable[..., None]]:
        return getattr(import_module(self._module, __name__), self._name)

    def compiler(self) -> Any:
        """The module that compiles this column."""
        return import_module(f"{self._module}.engine.compile", __name__)

    def __getitem__(self, name: str) -> Callable[..., None]:
        return self._column()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._column())

    def __len__(self) -> int:
        return len(self._column())


COLUMNS: dict[str, Mapping[str, Callable[..., None]]] = {
    "numpy": {name: meaning(name) for name in OPS},
    "numba": _Later(".cpu"),
    "cuda": _Later(".cuda"),
}
# ops that a device has no version of, so that a layer that asks for one is refused: a GPU has those of the first page
LACKING = {"cuda": frozenset(name for name in OPS if not hasattr(reference, name))}
TF32 = _Later(".cuda", "TF32_COLUMN")


def ops_of(device: str) -> list[str]:
    """The ops that a device has, in the order of the table."""
    return [name for name in OPS if name not in LACKING.get(device, ())]


def load(device: str = "numpy", unchecked: bool = False, precision: str = "fp32") -> Kernels:
    """The ops of one device. They check dtype, shape, contiguity and overlap first, unless `unchecked`.

    precision: "tf32" for products of float32 numbers on a GPU's tensor cores, which round the factors to 11 bits.
    """
    if device not in COLUMNS:
        raise KernelError(f"device={device!r} has no kernels; use one of {', '.join(map(repr, COLUMNS))}")
    require_precision(precision, device)
    return Kernels(device, TF32 if precision == "tf32" else COLUMNS[device], unchecked)


__all__ = [
    "ACTIVATIONS", "COLUMNS", "ELU", "IDENTITY", "LACKING", "LEAKY_RELU", "OPS", "PAGES", "RELU", "SIGMOID", "SOFTPLUS",
    "TANH", "Arg", "Kernels", "Op", "load", "meaning", "ops_of", "output_size",
]  # fmt: skip
