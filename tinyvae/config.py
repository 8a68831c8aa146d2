"""Frozen dataclasses: what a model is and what a run is. Each checks itself and names the value that cannot work.
It knows options and their limits, not what they do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import ConfigError

DEFAULT_DEVICE = "numba"  # numpy is the meaning of every op, numba the same ops compiled
BINARIZE = ("none", "static", "dynamic")
LIKELIHOODS = (
    "bernoulli", "continuous-bernoulli", "gaussian", "gaussian-scalar", "gaussian-pixel", "gaussian-optimal", "mse",
    "rmse", "discretized-logistic", "categorical",
)  # fmt: skip
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


def require_seed(value: Any) -> None:
    """A ConfigError unless `value` is a key of Philox: an integer of 64 bits."""
    require_int("seed", value, 0)
    if value >= 2**64:
        raise ConfigError(f"seed={value} must be below 2**64")


def require_precision(precision: Any, device: str, dtype: str = "float32") -> None:
    """A ConfigError unless this device has products of this precision for this dtype."""
    require_choice("precision", precision, PRECISIONS)
    if precision == "tf32" and (device != "cuda" or dtype != "float32"):
        raise ConfigError(
            f"precision='tf32' is for device='cuda' with dtype='float32', got device={device!r}, dtype={dtype!r}; "
            "leave precision out, or change these"
        )


@dataclass(frozen=True)
class Adam:
    """Options of Adam (Kingma & Ba 2014): learning rate, decay rates of the two moments, and eps."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    name: str = field(default="adam", init=False)

    def __post_init__(self) -> None:
        require_number("lr", self.lr, 0, open_=True)
        for which in ("beta1", "beta2"):
            require_number(which, getattr(self, which), 0)
            if getattr(self, which) >= 1:
                raise ConfigError(f"{which}={getattr(self, which)!r} must be below 1, it is a decay rate")
        require_number("eps", self.eps, 0)


@dataclass(frozen=True)
class SGD:
    """Options of stochastic gradient descent with momentum (Sutskever et al. 2013)."""

    lr: float = 1e-3
    momentum: float = 0.9
    name: str = field(default="sgd", init=False)

    def __post_init__(self) -> None:
        require_number("lr", self.lr, 0, open_=True)
        require_number("momentum", self.momentum, 0)
        if self.momentum >= 1:
            raise ConfigError(f"momentum={self.momentum!r} must be below 1, it is a decay rate")


Optimizer = Adam | SGD


def make_optimizer(default: Optimizer, name: str | None, lr: float | None) -> Optimizer:
    """`default`, unless the run names another optimiser or learning rate."""
    rate = default.lr if lr is None else lr
    if name is None or name == default.name:
        return type(default)(**({k: v for k, v in asdict(default).items() if k != "name"} | {"lr": rate}))
    require_choice("optimizer", name, OPTIMIZERS)
    return Adam(rate) if name == "adam" else SGD(rate)


@dataclass(frozen=True)
class ModelConfig:
    """What `zoo.build` needs to make the same model again. hidden: () means the builder's own default.

    The last ones are for some models only: samples, draws of z per image, and doubly, the doubly reparameterised
    gradient, for iwae; noise ("masking" or "gaussian") and noise_amount for dae; classes, the number of labels, for
    cvae; gamma, the weight between an adversarial loss and the other, for vae-gan and aae, None for the model's own;
    spectral, whether a discriminator of images has spectral normalisation, for gan, dense-gan and vae-gan, None for
    where the images are large.
    """

    model: str = "vae"
    image_shape: tuple[int, int, int] = (28, 28, 1)
    latent_dim: int = 20
    hidden: tuple[int, ...] = ()
    likelihood: str = "bernoulli"
    sigma: float = 1.0
    dtype: str = "float32"
    seed: int = 0
    samples: int = 5
    doubly: bool = False
    noise: str = "masking"
    noise_amount: float = 0.25
    classes: int = 10
    gamma: float | None = None
    spectral: bool | None = None

    def __post_init__(self) -> None:
        for name, example in (("image_shape", "(28, 28, 1)"), ("hidden", "(400,)")):
            value = getattr(self, name)
            if not isinstance(value, tuple | list):
                raise ConfigError(f"{name}={value!r} must be several integers, such as {example}")
            object.__setattr__(self, name, tuple(value))
        if len(self.image_shape) != 3 or any(not isinstance(n, int) or n < 1 for n in self.image_shape):
            raise ConfigError(f"image_shape={self.image_shape!r} must be three positive integers (H, W, C)")
        require_int("latent_dim", self.latent_dim, 1, ", the number of latent variables")
        for width in self.hidden:
            require_int("hidden", width, 1, " each, the widths of the hidden layers")
        require_number("sigma", self.sigma, 0, open_=True)
        require_choice("dtype", self.dtype, DTYPES)
        require_seed(self.seed)
        require_int("samples", self.samples, 1, ", the draws of z per image")
        require_int("classes", self.classes, 1, ", the number of labels")
        if self.gamma is not None:
            require_number("gamma", self.gamma, 0, why=", the weight of a loss")


@dataclass(frozen=True)
class TrainConfig:
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

    epochs: int = 10
    batch_size: int = 128
    lr: float | None = None
    optimizer: str | None = None
    schedule: str = "constant"
    clip: float = 0.0
    beta: float = 1.0
    warmup: int = 0
    cycles: int = 0
    cycle_share: float = 0.5
    capacity: float = 0.0
    free_bits: float = 0.0
    binarize: str = "none"
    validation: int = 0
    early_stop: int = 0
    save_every: int = 1
    check_finite: bool = False

    def __post_init__(self) -> None:
        require_int("epochs", self.epochs, 1)
        require_int("batch_size", self.batch_size, 1)
        if self.lr is not None:
            require_number("lr", self.lr, 0, open_=True, why=", the learning rate")
        if self.optimizer is not None:
            require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("schedule", self.schedule, SCHEDULE_NAMES)
        require_number("clip", self.clip, 0, why=", the largest gradient norm; 0 clips nothing")
        require_number("beta", self.beta, 0, why=", the weight of the KL divergence")
        require_int("warmup", self.warmup, 0, ", in epochs")
        require_int("cycles", self.cycles, 0, ", the number of warm-ups in the run")
        require_number("cycle_share", self.cycle_share, 0, open_=True, why=", the share of a cycle that warms up")
        require_number("capacity", self.capacity, 0, why=", the KL divergence to hold, in nats")
        require_number("free_bits", self.free_bits, 0, why=", nats per latent dimension")
        self._require_one_weight()
        require_choice("binarize", self.binarize, BINARIZE)
        require_int("validation", self.validation, 0, ", the number of images")
        require_int("early_stop", self.early_stop, 0, ", in epochs")
        require_int("save_every", self.save_every, 1, ", in epochs")
        if self.early_stop and not self.validation:
            raise ConfigError(f"early_stop={self.early_stop} needs validation images: add --validation 5000")

    def _require_one_weight(self) -> None:
        """The options that shape the KL weight must not contradict each other."""
        if self.cycle_share > 1:
            raise ConfigError(f"cycle_share={self.cycle_share!r} must be at most 1, the share of a cycle that warms up")
        for name in ("warmup", "capacity"):
            if self.cycles and getattr(self, name):
                raise ConfigError(
                    f"cycles={self.cycles} and {name}={getattr(self, name)!r} exclude each other; drop one"
                )
        if self.capacity and self.free_bits:
            raise ConfigError(
                f"capacity={self.capacity!r} and free_bits={self.free_bits!r} exclude each other; drop one"
            )


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
    def from_json(plain: dict[str, Any]) -> RunConfig:
        """The run that `to_json` described; a ConfigError where it is not one."""
        try:
            model, train = ModelConfig(**plain["model"]), TrainConfig(**plain["train"])
            size, device = plain["image_size"], str(plain["device"])
            precision = str(plain.get("precision", "fp32"))  # older runs do not name it
            return RunConfig(str(plain["data"]), size and (size[0], size[1]), model, train, device, precision)
        except (TypeError, KeyError, IndexError, AttributeError) as error:
            raise ConfigError(f"config.json does not describe a run of this version of tinyvae: {error}") from None
