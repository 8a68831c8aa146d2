"""What is measured on a GPU, by whom, and how good it must be."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tinyvae.bench.cases import BATCH, CONV_OPS, CONV_VAE, DENSE_VAE, STEP_MODELS, Case, convolution, product
from tinyvae.bench.job import OURS_ON_GPU
from tinyvae.kernels import OPS

GROUPS = ("memory", "products", "convs", "steps", "training")
SQUARES = (4096, 1024)
BATCHES = (BATCH, 1024)
MEMORY = {  # at least 256 MiB of arrays of float32, several times a GPU's cache
    "adam": {"n": 1 << 24},
    "bernoulli_nll": {"B": 30_000, "R": 30_000, "P": 784},
    "latent": {"B": 700_000, "R": 700_000, "L": 20},
}

CONTESTANTS = {
    "products": (OURS_ON_GPU, "cuda-tf32", "torch-cuda", "torch-cuda-tf32"),
    "convs": (
        OURS_ON_GPU, "cuda-tf32", "torch-cuda", "torch-cuda-channels-last", "torch-cuda-tf32",
        "torch-cuda-channels-last-tf32",
    ),
    "memory": (OURS_ON_GPU,),
    "steps": (
        OURS_ON_GPU, "cuda-tf32", "torch-cuda", "torch-cuda-compiled", "torch-cuda-captured",
        "torch-cuda-compiled-captured", "torch-cuda-channels-last-captured",
        "torch-cuda-channels-last-compiled-captured", "torch-cuda-captured-tf32",
        "torch-cuda-channels-last-captured-tf32",
    ),
    "training": (OURS_ON_GPU, "torch-cuda", "torch-cuda-captured"),
}  # fmt: skip


def products() -> list[Case]:
    """Two squares, and the dense VAE's layers at batch 128; three uses each."""
    layers = [(n, (n, n)) for n in SQUARES] + [(BATCH, layer) for layer in DENSE_VAE]
    return [case for layer in layers for case in product(*layer)]


def convs() -> list[Case]:
    """Both convolutions and both transposed ones of the conv VAE at either batch, three uses each."""
    layers = [(batch, stage, turned) for batch in BATCHES for turned in (False, True) for stage in CONV_VAE]
    made = [convolution(batch, stage, use, turned) for batch, stage, turned in layers for use in CONV_OPS]
    return [replace(case, name=f"{case.name}, batch {case.batch}") for case in made]


def memory() -> list[Case]:
    """Ops that only move numbers."""
    return [Case("memory", op, "call", op, {**OPS[op].examples["model"], **more}) for op, more in MEMORY.items()]


def steps() -> list[Case]:
    """The dense VAE's training step at batch 128, the conv VAE's at either batch."""
    batches = {"vae": (BATCH,), "conv-vae": BATCHES}
    return [
        Case("steps", f"{name}, batch {batch}", "step", model=model, lengths={"B": batch})
        for name, model in STEP_MODELS.items()
        for batch in batches[model]
    ]


CASES = {"products": products, "convs": convs, "memory": memory, "steps": steps}
COPY = Case("machine", "copy", "call")


def contestants(case: Case) -> tuple[str, ...]:
    """Who takes part: a dense network has no layout of images, and large batches of images take their time."""
    names = CONTESTANTS[case.group]
    if case.model == "vae":
        return tuple(name for name in names if "channels-last" not in name)
    if case.group == "convs" and case.batch > BATCH:
        return tuple(name for name in names if "tf32" not in name)
    return names


@dataclass(frozen=True)
class Bar:
    """What must be reached: `least` times the peers' rate (or the copy's, where there are none) in the case `name`."""

    name: str
    least: float
    ours: str = OURS_ON_GPU
    copy: bool = False


BARS = (
    Bar("4096×4096×4096 forward", 0.8),
    Bar("4096×4096×4096 forward", 0.5, "cuda-tf32"),
    *(Bar(op, 0.85, copy=True) for op in MEMORY),
    Bar("dense step, batch 128", 1.5),
    *(Bar(f"conv step, batch {batch}", 1.0) for batch in BATCHES),
)
