"""What is measured: the products and convolutions of the reference networks, every op of the table, training steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..kernels import IDENTITY, OPS, output_size
from ..kernels import check as verify
from ..kernels.check import Arrays, WrongResult

GROUPS = ("products", "convs", "steps", "players", "ops", "startup")
BATCH = 128
LATENT = 20

Layer = tuple[int, int]  # width in, width out
DENSE_VAE: tuple[Layer, ...] = ((784, 400), (400, 2 * LATENT), (LATENT, 400), (400, 784))
CONV_VAE_DENSE: tuple[Layer, ...] = ((3136, 256), (256, 2 * LATENT), (LATENT, 256), (256, 3136))
SQUARES = (512, 1024)

Stage = tuple[int, int, int]  # side of the larger image, its channels, channels of the smaller image
CONV_VAE: tuple[Stage, ...] = ((28, 1, 32), (14, 32, 64))
NETWORK_64: tuple[Stage, ...] = ((64, 3, 32), (32, 32, 64), (16, 64, 128))
NETWORK_64_BATCH = 64
KERNEL, STRIDE, PADDING = 4, 2, 1

PRODUCT_OPS = {"forward": "dense", "grad_x": "dense_grad_x", "grad_w": "dense_grad_w"}
CONV_OPS = {"forward": "conv2d", "grad_x": "conv2d_grad_x", "grad_w": "conv2d_grad_w"}
TRANSPOSED_OPS = {"forward": "conv2d_grad_x", "grad_x": "conv2d", "grad_w": "conv2d_grad_w"}

STEP_MODELS = {"dense step": "vae", "conv step": "conv-vae"}
PLAYER_MODELS = {"GAN step": "gan", "VAE-GAN step": "vae-gan", "AAE step": "aae"}
CODE_JUDGE: tuple[Layer, ...] = ((LATENT, 400), (400, 400), (400, 1))
CHECK_STEPS = 25  # steps after which a loss must have fallen


@dataclass(frozen=True)
class Course:
    """What a player's first losses must do: begin between `low` and `high`, and fall below `fall` times the first."""

    low: float
    high: float
    fall: float = math.inf


ELBO = Course(500.0, 700.0, 0.6)  # nats: small random logits cost a little more than 784·ln 2 = 543
# A judge that does not know yet says one half: ln 2 = 0.69 for each kind of input.
COURSES = {  # of each player, in the model's order
    "vae": (ELBO,),
    "conv-vae": (ELBO,),
    "gan": (Course(0.55, 0.85), Course(1.25, 1.55, 0.6)),
    "vae-gan": (Course(2880, 3000), Course(30.0, 32.0), Course(1.9, 2.25, 0.6)),  # 3136·ln(2π)/2 = 2882 nats
    "aae": (ELBO, Course(1.25, 1.55, 0.6)),
}


@dataclass(frozen=True)
class Case:
    """One thing to time: an op of the table at lengths of its own, or a whole training step of a model of the zoo.

    use: forward, grad_x or grad_w of a layer; "call" or "step" elsewhere. transposed: the op serves a transposed
    convolution. flops: of one call or step; bytes: memory that it must touch, 0 where that says nothing.
    """

    group: str
    name: str
    use: str
    op: str = ""
    lengths: Mapping[str, Any] = field(default_factory=dict)
    transposed: bool = False
    model: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.use}" if self.use not in ("call", "step") else self.name

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary; `from_json` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> Case:
        """The case that `to_json` described: pairs are lists in JSON, and pairs again here."""
        lengths = {k: tuple(v) if isinstance(v, list) else v for k, v in plain["lengths"].items()}
        rest = {k: plain[k] for k in ("group", "name", "use", "op", "transposed", "model")}
        return Case(
            rest["group"], rest["name"], rest["use"], rest["op"], lengths, rest["transposed"], rest["model"]
        )  # fmt: skip

    def arguments(self, dtype: Any) -> list[Any]:
        """Host arguments of the op, the same in every process."""
        return verify.example_at(self.op, self.lengths, dtype)

    @property
    def batch(self) -> int:
        """Images of one step."""
        return int(self.lengths.get("B", BATCH))

    def flops(self) -> float:
        """Floating-point operations of one call, or of the products of one step."""
        if self.op:
            return OPS[self.op].flops(self.lengths)
        return step_flops(self.model, self.batch) if self.model else 0.0

    def bytes(self, itemsize: int) -> int:
        """Memory that one call must touch."""
        return OPS[self.op].bytes(self.lengths, itemsize) if self.op else 0

    def check(self, got: Arrays, dtype: Any, tf32: bool = False) -> None:
        """A WrongResult unless what a library made of the arguments is within the bound of the float64 reference."""
        if not self.op:
            check_losses(str(self), got["losses"], COURSES[self.model])
            return
        want, magnitudes = expected(self.op, tuple(self.lengths.items()), dtype)
        depth = OPS[self.op].depth(self.lengths)
        try:
            if tf32:
                verify.assert_near(self.op, got, want, magnitudes)
            else:
                verify.assert_close(self.op, got, want, magnitudes, depth, dtype)
        except WrongResult as error:
            raise WrongResult(f"{self}: {error}") from None


@lru_cache(maxsize=1)
def expected(op: str, lengths: tuple[tuple[str, Any], ...], dtype: Any) -> tuple[Arrays, Arrays]:
    """The float64 reference's results, and Σ|terms|; kept for the next contestant."""
    arguments = verify.example_at(op, dict(lengths), dtype)
    return verify.call_reference(op, verify.widened(arguments)), verify.magnitudes(op, arguments)


def check_losses(name: str, losses: np.ndarray, courses: Sequence[Course] = (ELBO,)) -> None:
    """A WrongResult unless the losses (steps, players) of a run's first steps are finite, begin where they must, and
    fall where that is sure: the five lowest count, as a player's loss may leap when another has answered."""
    verify.require(bool(np.isfinite(losses).all()), f"{name}: a loss is not finite")
    for found, course in zip(losses.reshape(len(losses), -1).T, courses, strict=True):
        first, low = found[0], np.sort(found)[:5].mean()
        begins = f"{name}: the first loss is {first:.2f}, not {course.low:g} to {course.high:g} nats"
        verify.require(course.low < first < course.high, begins)
        verify.require(low < course.fall * first, f"{name}: the loss only fell from {first:.2f} to {low:.2f} nats")


# ---------------------------------------------------------------------------------------------- the lists


def dense_lengths(batch: int, layer: Layer) -> dict[str, Any]:
    """Lengths and options of a dense layer's three ops: a bias and no activation forward, no bias gradient."""
    return {"B": batch, "K": layer[0], "N": layer[1], "act": IDENTITY, "add": 0, "no_grad_b": True}


def conv_lengths(batch: int, stage: Stage) -> dict[str, Any]:
    """Lengths and options of a convolution's three ops between a larger and a smaller image."""
    side, channels, features = stage
    small = output_size(side, KERNEL, STRIDE, PADDING)
    return {
        "B": batch, "H": side, "W": side, "C": channels, "F": features, "KH": KERNEL, "KW": KERNEL, "OH": small,
        "OW": small, "stride": (STRIDE, STRIDE), "padding": (PADDING, PADDING), "act": IDENTITY, "add": 0,
        "no_grad_b": True,
    }  # fmt: skip


def products() -> list[Case]:
    """Every dense layer of the two reference VAEs at batch 128, and two squares; three uses each."""
    layers = [(BATCH, layer) for layer in (*DENSE_VAE, *CONV_VAE_DENSE)] + [(n, (n, n)) for n in SQUARES]
    return [case for layer in layers for case in product(*layer)]


def product(batch: int, layer: Layer) -> list[Case]:
    """The three uses of a dense layer."""
    name, lengths = f"{batch}×{layer[0]}×{layer[1]}", dense_lengths(batch, layer)
    return [Case("products", name, use, op, lengths) for use, op in PRODUCT_OPS.items()]


def convolution(batch: int, stage: Stage, use: str, transposed: bool) -> Case:
    side, channels, features = stage
    lengths = conv_lengths(batch, stage)
    op = (TRANSPOSED_OPS if transposed else CONV_OPS)[use]
    lengths["no_b"] = use != "forward"
    name = f"{lengths['OH']}² {features}→{channels} transposed" if transposed else f"{side}² {channels}→{features}"
    return Case("convs", name, use, op, lengths, transposed)


def convs() -> list[Case]:
    """Both convolutions and both transposed ones of the conv VAE, and a network for 64×64×3; three uses each."""
    layers = [(BATCH, stage, transposed) for transposed in (False, True) for stage in CONV_VAE]
    layers += [(NETWORK_64_BATCH, stage, False) for stage in NETWORK_64]
    return [convolution(*layer[:2], use, layer[2]) for layer in layers for use in CONV_OPS]


def steps() -> list[Case]:
    """A whole training step of each reference VAE at batch 128."""
    return [Case("steps", name, "step", model=model) for name, model in STEP_MODELS.items()]


def ops() -> list[Case]:
    """Every op of the table at its model size."""
    return [Case("ops", name, "call", name, op.examples["model"]) for name, op in OPS.items()]


def players() -> list[Case]:
    """A whole training step of each model with a discriminator, all players of it, at batch 128."""
    return [Case("players", name, "step", model=model) for name, model in PLAYER_MODELS.items()]


CASES = {"products": products, "convs": convs, "steps": steps, "players": players, "ops": ops}


def step_flops(model: str, batch: int = BATCH) -> float:
    """Operations of the products in one step: each layer forward, to the weight, and to x but for the first layer.

    Of several players, each goes back through what it judges or is judged by, but to no gradient that it does not want.
    """

    def dense(layers: Sequence[Layer]) -> list[float]:
        return [OPS["dense"].flops(dense_lengths(batch, layer)) for layer in layers]

    convolutions = [OPS["conv2d"].flops(conv_lengths(batch, stage)) for stage in CONV_VAE]
    image, conv_dense, code = convolutions[0], dense(CONV_VAE_DENSE), dense([(LATENT, 3136)])[0]
    autoencoder, features = dense(DENSE_VAE), sum(convolutions)
    encoder, generator = features + sum(conv_dense[:2]), code + features
    judge, code_judge = features + sum(dense([(3136, 256), (256, 1)])), dense(CODE_JUDGE)
    plain = dense([(784, 400), (400, LATENT), *DENSE_VAE[2:]])
    return {
        "vae": 3 * sum(autoencoder) - autoencoder[0],
        "conv-vae": 3 * (sum(conv_dense) + 2 * features) - image,
        # forward once; the judge on two kinds of images to its weights, and once more to the drawn image's pixels
        "gan": 3 * generator - code + 7 * judge - 2 * image,
        # the decoder: forward twice, twice to weights and codes, and once more for the encoder, to the codes
        "vae-gan": 3 * encoder - image + 7 * generator - 2 * code + 11 * judge - 3 * image + features,
        "aae": 3 * sum(plain) - plain[0] + 7 * sum(code_judge) - 2 * code_judge[0],
    }[model]
