"""A run directory: config.json, metrics.jsonl, checkpoints and pictures; made, taken up again and opened here.
It knows which file is what; options come parsed, and pictures are drawn by plots."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__, datasets
from ..config import THREAD_VARIABLES, RunConfig, TrainConfig
from ..datasets import Dataset
from ..device import DEVICES, open_device
from ..errors import CheckpointError, ConfigError, DeviceError
from ..layers.priors import FullGaussian
from ..measure.evaluate import fit_prior
from ..measure.latent_space import labels_for
from ..models import Model, zoo
from ..pictures import plots
from ..training import checkpoint
from ..training.trainer import CHECKPOINT, METRICS, Trainer, make_folder, read_rows

CONFIG = "config.json"
MODEL_OPTIONS = {f.name for f in zoo.every_option() if not f.metadata["of_data"]}
TRAIN_OPTIONS = {f.name for f in fields(TrainConfig)}
RUN_OPTIONS = ("data", "image_size", "device", "precision")
# what a resumed run may change without becoming another run
FREE = {f.name for f in fields(TrainConfig) if f.metadata["free"]}


@dataclass
class Run:
    """An opened run: its folder, configuration, trained model, data and log."""

    path: Path
    config: RunConfig
    model: Model
    data: Dataset
    rows: list[dict[str, Any]]

    @property
    def trained_on(self) -> Any:
        """The training images, for priors fitted to codes and for nearest neighbours."""
        return self.data.train_images


def configure(given: Mapping[str, Any]) -> RunConfig:
    """The configuration of a new run from the options that were given; image_shape is set once the data is there."""
    model = zoo.configure(**{k: v for k, v in given.items() if k in MODEL_OPTIONS})
    given = {"beta": zoo.ZOO[model.model].model.beta} | dict(given)
    train = TrainConfig(**{k: v for k, v in given.items() if k in TRAIN_OPTIONS})
    rest = {k: given[k] for k in RUN_OPTIONS if k in given}
    return RunConfig(model=model, train=train, **rest)


def reconfigure(stored: RunConfig, given: Mapping[str, Any], out: Path) -> RunConfig:
    """A stored configuration with the options that a resumed run may change; a ConfigError for any other change."""
    flat = zoo.defaults() | asdict(stored.model) | asdict(stored.train) | {k: getattr(stored, k) for k in RUN_OPTIONS}
    for name, value in given.items():
        before = tuple(flat[name]) if isinstance(flat[name], list) else flat[name]
        if name not in FREE and value != before:
            option = f"--{name.replace('_', '-')} {value}"
            raise ConfigError(f"{option}: the run in {out} was made with {before!r}; drop it, or start anew elsewhere")
    train = replace(stored.train, **{k: v for k, v in given.items() if k in FREE})
    return replace(stored, train=train)


def read_config(out: Path) -> RunConfig:
    """The configuration of the run in `out`."""
    try:
        return RunConfig.from_json(json.loads((out / CONFIG).read_text("utf-8")), zoo.from_plain)
    except FileNotFoundError:
        raise ConfigError(f"{str(out)!r} holds no run ({CONFIG} is missing); make one with tinyvae train") from None
    except NotADirectoryError:
        raise ConfigError(f"{str(out)!r} is not a folder; name the folder of a run") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{out / CONFIG} is damaged ({error}); restore it, or train anew in another folder") from None


def default_folder(config: RunConfig) -> Path:
    """runs/MODEL-DATA, or with a number behind it where that is taken: nothing is overwritten."""
    data = Path(config.data).stem if config.data not in datasets.NAMES else config.data
    base = Path("runs") / f"{config.model.model}-{data}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def train_run(given: Mapping[str, Any], out: Path | None, resume: bool, say: Callable[[str], None]) -> Path:
    """Trains a new run, or goes on with the one in `out`; then draws its pictures. Returns the folder."""
    if resume:
        if out is None:
            raise ConfigError("--resume needs the folder of the run: add --out runs/vae-mnist")
        config = reconfigure(read_config(out), given, out)
        if not (out / CHECKPOINT).exists():
            raise CheckpointError(f"{out / CHECKPOINT} is missing: nothing was saved yet; train anew in another folder")
    else:
        config = configure(given)
        if out is not None and (out / CONFIG).exists():
            raise ConfigError(f"--out {out} holds a run already; add --resume to go on, or name another folder")
    data = datasets.load(config.data, image_size=config.image_size)
    config = replace(config, model=replace(config.model, image_shape=data.image_shape))
    if zoo.ZOO[config.model.model].model.can.labels:
        config = replace(config, model=zoo.configure(**vars(config.model) | {"classes": count_classes(data)}))
    model = zoo.from_config(config.model, config.device, config.precision)
    out = out or default_folder(config)
    count = f"{len(data.train_images):,} training and {len(data.test_images):,} test images"
    where = config.device if config.precision == "fp32" else f"{config.device} ({config.precision})"
    say(f"{config.model.model} on {config.data}: {count}, {model.table.count():,} parameters, device {where}")
    if data.note and config.data not in ("mnist", "fashion-mnist"):
        say(f"{config.data}: {data.note}")
    trainer = Trainer(model, data, config.train, out, resume, progress=True)
    write_json(out / CONFIG, config.to_json())
    rows = trainer.run()
    say(f"drawing pictures in {out}")
    draw_pictures(Run(out, config, model, data, rows))
    return out


def count_classes(data: Dataset) -> int:
    """The number of labels of a data set, or a ConfigError where it has none."""
    if data.train_labels is None or data.test_labels is None:
        raise ConfigError(
            f"{data.name} has no labels, and a conditional model needs them; use another data set or model"
        )
    return int(max(data.train_labels.max(), data.test_labels.max())) + 1


def open_run(path: Path, device: str | None = None) -> Run:
    """The run in `path`: model loaded, data found, log read. Nothing in the folder is changed."""
    config = read_config(path)
    if device not in (None, config.device):
        config = replace(config, device=device, precision="fp32")
    model = checkpoint.load(path / CHECKPOINT, config.device, precision=config.precision)
    data = datasets.load(config.data, image_size=config.image_size)
    if data.image_shape != model.image_shape:
        raise ConfigError(
            f"{config.data} holds {data.image_shape} images now, the run was trained on {model.image_shape}"
        )
    return Run(path, config, model, data, read_rows(path / METRICS))


def prior_of(run: Run) -> FullGaussian | None:
    """The Gaussian fitted to the codes of a model that has no prior; None for any other."""
    return None if run.model.prior else fit_prior(run.model, run.trained_on)


def draw_pictures(run: Run) -> list[Path]:
    """Every picture of a finished run."""
    folder, test, labels = run.path, run.data.test_images, labels_for(run.model, run.data)[1]
    n, seed = sample_count(run.model), run.config.model.seed
    if not run.model.can.codes:
        return [
            plots.loss_curves(run.rows, folder / "loss.png"),
            plots.samples(run.model, folder / "samples.png", n, seed),
        ]
    made = [
        plots.loss_curves(run.rows, folder / "loss.png"),
        plots.reconstructions(run.model, test, folder / "reconstructions.png", labels=labels),
        plots.samples(run.model, folder / "samples.png", n, seed, prior_of(run)),
        plots.interpolations(run.model, test, folder / "interpolations.png", labels=labels),
        plots.latent_scatter(run.model, test, run.data.test_labels, folder / "latent.png", run.data.label_names),
    ]
    if run.model.latent_dim >= 2:
        made.append(plots.manifold(run.model, folder / "manifold.png", prior=prior_of(run)))
    return made


def sample_count(model: Model) -> int:
    """How many samples a picture shows: 64, or of a conditional model as many of each class as there are classes."""
    return min(model.classes, 16) ** 2 if model.can.labels else 64


def draw(
    command: str, path: Path, out: str | None, count: int | None, seed: int | None, device: str | None = None
) -> list[Path]:
    """What the picture commands do: one run, one kind of picture, where to put it."""
    run = open_run(path, device)
    model, test, labels = run.model, run.data.test_images, labels_for(run.model, run.data)[1]
    if not (model.can.codes or command == "sample" or (command == "latent" and model.latent_dim >= 2)):
        raise ConfigError(
            f"{command} starts from images' codes, and {type(model).__name__} has none; use sample or explore"
        )
    if command == "latent":
        folder = path if out is None else Path(out)
        make_folder(folder)
        known, names, made = run.data.test_labels, run.data.label_names, []
        if model.can.codes:
            made.append(plots.latent_scatter(model, test, known, folder / "latent.png", names))
        if model.latent_dim >= 2:
            made.append(plots.manifold(model, folder / "manifold.png", prior=prior_of(run)))
        return made
    if command == "sample":
        file = path / "samples.png" if out is None else Path(out)
        n = sample_count(model) if count is None else count
        return [plots.samples(model, file, n=n, seed=seed, prior=prior_of(run))]
    if command == "reconstruct":
        file = path / "reconstructions.png" if out is None else Path(out)
        return [plots.reconstructions(model, test, file, labels=labels)]
    file = path / "interpolations.png" if out is None else Path(out)
    return [plots.interpolations(model, test, file, labels=labels)]


def write_json(path: Path, content: Any) -> None:
    """Writes JSON atomically: the file is the old one or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """The program, Python, and the packages it stands on."""
    found = {"tinyvae": __version__, "python": sys.version.split()[0]}
    for name in ("numpy", "numba", "matplotlib", "safetensors", "pillow", "tqdm"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def gpu_lines() -> list[tuple[str, str]]:
    """What there is of a GPU, and what keeps it from being used."""
    from ..device import SIMULATED
    from ..device.machine import look
    from ..kernels.cuda.engine.compile import CACHE

    if SIMULATED:
        return [("cuda", "simulated, as NUMBA_ENABLE_CUDASIM is set")]
    try:
        open_device("cuda")
        state = "ready"
    except DeviceError as error:
        state = str(error).replace("device='cuda':", "not usable:")
    return [("cuda", state), *look().lines(), ("CUDA cache", cache_state(CACHE))]


def cache_state(folder: Path | None) -> str:
    """Where compiled kernels are kept, and whether they are still to be compiled."""
    from ..kernels.cache import is_cold

    return f"{'empty' if is_cold(folder) else 'filled'}: {folder}" if folder else "none: no folder can be written"


def cache_size(folder: Path) -> str:
    """The disk space of all compiled kernels, those of other versions and of the GPU included."""
    from ..kernels.cache import folders_beside, size

    folders = folders_beside(folder)
    count = "1 folder" if len(folders) == 1 else f"{len(folders)} folders"
    return f"{sum(map(size, folders)) / 1e6:.1f} MB in {count}"


def describe_machine() -> str:
    """What `tinyvae info` prints: versions, devices, threads, caches, data."""
    from ..kernels.cpu.engine.compile import CACHE

    lines = [*versions().items(), ("devices", ", ".join(DEVICES)), *gpu_lines()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [f", {name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    lines += [("threads", f"{cores} cores{''.join(limits)}"), ("caches", cache_state(CACHE))]
    lines += [("cache size", cache_size(CACHE))] if CACHE else []
    lines += [(d.name, f"{'found: ' if d.found else 'missing: '}{d.where}") for d in datasets.available()]
    return "\n".join(f"{name:<14}{text}" for name, text in lines)
