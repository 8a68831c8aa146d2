"""Options of models, training and runs, as frozen dataclasses. An option is one field: type, default, help and check;
the command line, `train` and resuming read it there."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, TypeVar

from .errors import ConfigError

T = TypeVar("T")

DEFAULT_DEVICE = "numba"  # numpy is the meaning of every op, numba the same ops compiled
BINARIZE = ("none", "static", "dynamic")
DTYPES = ("float32", "float64")
PRECISIONS = ("fp32", "tf32")  # of products on a GPU
OPTIMIZERS = ("adam", "sgd")
SCHEDULE_NAMES = ("constant", "step", "cosine")
# read once by NumPy's BLAS, whichever it is, when NumPy is imported
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def require_int(name: str, value: Any, least: int, why: str = "") -> None:
    """A ConfigError unless `value` is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name}={value!r} must be an integer of at least {least}{why}")


def require_number(name: str, value: Any, least: float, open_: bool = False, why: str = "") -> None:
    """A ConfigError unless `value` is a finite number of at least `least` (above it where `open_`)."""
    bad = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    if bad or value < least or (open_ and value == least):
        raise ConfigError(f"{name}={value!r} must be a number {'above' if open_ else 'of at least'} {least:g}{why}")


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """A ConfigError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is not known; use one of {', '.join(map(repr, choices))}")


def require_seed(name: str, value: Any) -> None:
    """A ConfigError unless `value` is a key of Philox: an integer of 64 bits."""
    require_int(name, value, 0)
    if value >= 2**64:
        raise ConfigError(f"{name}={value} must be below 2**64")


def require_image_shape(name: str, value: tuple[Any, ...]) -> None:
    """A ConfigError unless `value` is the shape (H, W, C) of an image."""
    if len(value) != 3 or any(not isinstance(n, int) or n < 1 for n in value):
        raise ConfigError(f"{name}={value!r} must be three positive integers (H, W, C)")


def require_widths(name: str, value: tuple[Any, ...]) -> None:
    """A ConfigError unless `value` holds widths of layers."""
    for width in value:
        require_int(name, width, 1, " each, the widths of the hidden layers")


def require_precision(precision: Any, device: str, dtype: str = "float32") -> None:
    """A ConfigError unless this device has products of this precision for this dtype."""
    require_choice("precision", precision, PRECISIONS)
    if precision == "tf32" and (device != "cuda" or dtype != "float32"):
        raise ConfigError(
            f"precision='tf32' is for device='cuda' with dtype='float32', got device={device!r}, dtype={dtype!r}; "
            "leave precision out, or change these"
        )


def require_at_most(name: str, value: Any, most: float, why: str = "") -> None:
    """A ConfigError unless `value` is a number above 0 and of at most `most`."""
    require_number(name, value, 0, open_=True, why=why)
    if value > most:
        raise ConfigError(f"{name}={value!r} must be at most {most:g}{why}")


def require_decay(name: str, value: Any) -> None:
    """A ConfigError unless `value` is a decay rate, in [0, 1)."""
    require_number(name, value, 0)
    if value >= 1:
        raise ConfigError(f"{name}={value!r} must be below 1, it is a decay rate")


def option(
    default: T, help: str = "", check: tuple[Any, ...] = (), *, metavar: str = "", flag: str = "",
    free: bool = False, of_data: bool = False,
) -> T:  # fmt: skip
    """A field of a dataclass of `Options`.

    help: the line of `--help`. check: a require_* function and what it takes after name and value. metavar: what stands
    for the value in `--help`; "" for one that follows from the type. flag: its spelling on the command line; "" for
    --name. free: a resumed run may change it. of_data: it follows from the data and is no option of the command line.
    """
    about = {"help": help, "check": check, "metavar": metavar, "flag": flag, "free": free, "of_data": of_data}
    described: T = field(default=default, metadata=about)
    return described


@dataclass(frozen=True)
class Options:
    """Base of frozen dataclasses whose fields are options: each value is checked as its field says."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, check = getattr(self, f.name), f.metadata.get("check")
            if check and not (value is None and f.default is None):
                check[0](f.name, value, *check[1:])

    @classmethod
    def from_options(cls, given: Mapping[str, Any], what: str) -> Self:
        """These options, the others at their defaults; a ConfigError that names the nearest for one that `what` does
        not have."""
        names = [f.name for f in fields(cls) if f.init]
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
                raise ConfigError(f"{name}={given[name]!r}: {what} has no such option; {hint}")
        return cls(**given)


@dataclass(frozen=True)
class Adam(Options):
    """Options of Adam (Kingma & Ba 2014): learning rate, decay rates of the two moments, and eps."""

    lr: float = option(1e-3, check=(require_number, 0, True))
    beta1: float = option(0.9, check=(require_decay,))
    beta2: float = option(0.999, check=(require_decay,))
    eps: float = option(1e-8, check=(require_number, 0))
    name: str = field(default="adam", init=False)


@dataclass(frozen=True)
class SGD(Options):
    """Options of stochastic gradient descent with momentum (Sutskever et al. 2013)."""

    lr: float = option(1e-3, check=(require_number, 0, True))
    momentum: float = option(0.9, check=(require_decay,))
    name: str = field(default="sgd", init=False)


Optimizer = Adam | SGD


def make_optimizer(default: Optimizer, name: str | None, lr: float | None) -> Optimizer:
    """`default`, unless the run names another optimiser or learning rate."""
    rate = default.lr if lr is None else lr
    if name is None or name == default.name:
        return type(default)(**({k: v for k, v in asdict(default).items() if k != "name"} | {"lr": rate}))
    require_choice("optimizer", name, OPTIMIZERS)
    return Adam(rate) if name == "adam" else SGD(rate)


@dataclass(frozen=True)
class ModelConfig(Options):
    """What `zoo.build` needs to make the same model again: the options that every model has. A family with options of
    its own has a subclass below. hidden: () means the builder's default. The likelihood checks its own name.
    """

    model: str = option("vae", "ae, vae (default), dae, beta-vae, cvae, iwae, gan, vae-gan, aae, …: see the README")
    image_shape: tuple[int, int, int] = option((28, 28, 1), check=(require_image_shape,), of_data=True)
    latent_dim: int = option(20, "latent variables (default 20)", (require_int, 1, ", the number of latent variables"))
    hidden: tuple[int, ...] = option((), "widths of the hidden dense layers (default 400; conv 256)", (require_widths,))
    likelihood: str = option(
        "bernoulli",
        "bernoulli, continuous-bernoulli, gaussian, gaussian-scalar, gaussian-pixel, gaussian-optimal, mse, rmse, "
        "discretized-logistic, categorical (default bernoulli)",
    )
    sigma: float = option(
        1.0, "standard deviation of the gaussian likelihood (default 1)", (require_number, 0, True), metavar="S"
    )
    dtype: str = option("float32", "float32 or float64 (default float32)", (require_choice, DTYPES))
    seed: int = option(0, "seed of weights, order and noise (default 0)", (require_seed,), metavar="S")

    def __post_init__(self) -> None:
        for name, example in (("image_shape", "(28, 28, 1)"), ("hidden", "(400,)")):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise ConfigError(f"{name}={value!r} must be several integers, such as {example}")
            object.__setattr__(self, name, tuple(value))
        super().__post_init__()


@dataclass(frozen=True)
class DAEConfig(ModelConfig):
    """noise: "masking" or "gaussian". noise_amount: the share of pixels masked, or the noise's standard deviation.
    `Corrupt` checks both.
    """

    noise: str = option("masking", "what dae undoes: masking or gaussian (default masking)")
    noise_amount: float = option(0.25, "share of pixels masked, or the sigma (default 0.25)")


@dataclass(frozen=True)
class CVAEConfig(ModelConfig):
    """classes: the number of labels; from the command line that of the data set."""

    classes: int = option(10, check=(require_int, 1, ", the number of labels"), of_data=True)


@dataclass(frozen=True)
class IWAEConfig(ModelConfig):
    """samples: draws of z per image. doubly: whether the gradient is the doubly reparameterised one."""

    samples: int = option(
        5, "draws of z, iwae only (default 5)", (require_int, 1, ", the draws of z per image"), metavar="K",
        flag="--samples-per-image",
    )  # fmt: skip
    doubly: bool = option(False, "iwae's doubly reparameterised gradient")


@dataclass(frozen=True)
class JudgedConfig(ModelConfig):
    """spectral: whether the discriminator of images has spectral normalisation; None: where the images are large."""

    spectral: bool | None = option(None, "a GAN's discriminator with spectral normalisation (default: above 32 pixels)")


@dataclass(frozen=True)
class WeightedConfig(ModelConfig):
    """gamma: the weight of the likeness in the decoder's loss (VAEGAN), or of the adversarial loss beside the
    reconstruction's (AdversarialAutoEncoder); None for the default, 0.01 and 1.
    """

    gamma: float | None = option(
        None, "weight of the likeness (vae-gan), of the adversarial loss (aae)",
        (require_number, 0, False, ", the weight of a loss"), metavar="G",
    )  # fmt: skip


@dataclass(frozen=True)
class VAEGANConfig(JudgedConfig, WeightedConfig):
    """The options of both."""


MODEL_CONFIGS = (IWAEConfig, DAEConfig, CVAEConfig, VAEGANConfig)  # they have every option of a model


@dataclass(frozen=True)
class TrainConfig(Options):
    """What `train` does with a model and images. None means what the model's players bring.

    warmup: epochs over which the KL weight grows linearly from 0 to beta. cycles: how often in the run it does so, each
    time over the share cycle_share of the cycle (Fu et al. 2019), 0 for none; a run resumed with other epochs has other
    cycles. capacity: the KL divergence in nats that beta · |KL − capacity| holds the codes to, growing over warmup in
    beta's stead (Burgess et al. 2018), 0 for none. free_bits: nats of each latent dimension, in the mean of a batch,
    that cost nothing (Kingma et al. 2016). schedule: "constant"; "step", which divides the learning rate by 10 after
    each third of the run; "cosine", which warms up over the first 5 % of the run and then falls to 0. clip: largest
    global norm of a player's gradients, 0 for none. validation: images taken from the end of a shuffled training set.
    early_stop: epochs without a better validation loss after which training ends, 0 for never.
    """

    epochs: int = option(10, "passes over the training images (default 10)", (require_int, 1), free=True)
    batch_size: int = option(128, "images per step (default 128)", (require_int, 1))
    lr: float | None = option(None, "learning rate (default 0.001)", (require_number, 0, True, ", the learning rate"))
    optimizer: str | None = option(None, "adam or sgd (default adam)", (require_choice, OPTIMIZERS))
    schedule: str = option(
        "constant", "constant, step or cosine learning rate (default constant)", (require_choice, SCHEDULE_NAMES)
    )
    clip: float = option(
        0.0, "largest norm of the gradient, 0 for any (default 0)",
        (require_number, 0, False, ", the largest gradient norm; 0 clips nothing"),
    )  # fmt: skip
    beta: float = option(
        1.0, "weight of the KL divergence (default 1; beta-vae 4)",
        (require_number, 0, False, ", the weight of the KL divergence"), metavar="B",
    )  # fmt: skip
    warmup: int = option(0, "epochs over which that weight grows from 0 (default 0)", (require_int, 0, ", in epochs"))
    cycles: int = option(
        0, "let that weight grow N times in the run, from 0 each time",
        (require_int, 0, ", the number of warm-ups in the run"),
    )  # fmt: skip
    cycle_share: float = option(
        0.5, "share of a cycle in which it grows (default 0.5)",
        (require_at_most, 1, ", the share of a cycle that warms up"), metavar="R",
    )  # fmt: skip
    capacity: float = option(
        0.0, "hold the KL at C nats: beta·|KL − C|, C grows over --warmup",
        (require_number, 0, False, ", the KL divergence to hold, in nats"), metavar="C",
    )  # fmt: skip
    free_bits: float = option(
        0.0, "nats of each latent variable that cost nothing (default 0)",
        (require_number, 0, False, ", nats per latent dimension"),
    )  # fmt: skip
    binarize: str = option(
        "none", "none, static (once per image) or dynamic (each visit) (default none)", (require_choice, BINARIZE),
        metavar="HOW",
    )  # fmt: skip
    validation: int = option(
        0, "training images held out for validation (default 0)", (require_int, 0, ", the number of images")
    )
    early_stop: int = option(
        0, "stop after N epochs without a better validation loss", (require_int, 0, ", in epochs"), free=True
    )
    save_every: int = option(1, "epochs between checkpoints (default 1)", (require_int, 1, ", in epochs"), free=True)
    check_finite: bool = option(False, "look for NaN after every step and name where it began", free=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("warmup", "capacity"):
            self._require_one("cycles", name)
        self._require_one("capacity", "free_bits")
        if self.early_stop and not self.validation:
            raise ConfigError(f"early_stop={self.early_stop} needs validation images: add --validation 5000")

    def _require_one(self, name: str, other: str) -> None:
        """A ConfigError where both are set: they contradict each other."""
        value, second = getattr(self, name), getattr(self, other)
        if value and second:
            raise ConfigError(f"{name}={value!r} and {other}={second!r} exclude each other; drop one")


@dataclass(frozen=True)
class RunConfig:
    """A whole run, as `config.json` in its directory holds it.

    image_size: (H, W) to which a folder of pictures is resized, None to leave them as they are. device and precision:
    where and how it is computed; neither is part of the model.
    """

    data: str = "mnist"
    image_size: tuple[int, int] | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    device: str = DEFAULT_DEVICE
    precision: str = "fp32"

    def __post_init__(self) -> None:
        require_precision(self.precision, self.device, self.model.dtype)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `from_json` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(plain: dict[str, Any], read: Callable[[dict[str, Any]], ModelConfig]) -> RunConfig:
        """The run that `to_json` described; a ConfigError where it is not one. read: `zoo.from_plain`."""
        try:
            model, train = read(plain["model"]), TrainConfig(**plain["train"])
            size, device = plain["image_size"], str(plain["device"])
            precision = str(plain.get("precision", "fp32"))  # older runs do not name it
            return RunConfig(str(plain["data"]), size and (size[0], size[1]), model, train, device, precision)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ConfigError(f"config.json does not describe a run of this version of tinyvae: {error}") from None
