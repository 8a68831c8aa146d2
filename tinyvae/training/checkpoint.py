"""Checkpoints: a model, and where its training stood, in one safetensors file; atomic save and strict load.
It knows names, shapes and bytes, not epochs, logs or what a layer computes."""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import stat
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..config import DEFAULT_DEVICE, ModelConfig, require_precision
from ..device import open_device
from ..errors import CheckpointError, ConfigError, DeviceError, KernelError
from ..kernels.clock import SEED
from ..models import Model, zoo

if TYPE_CHECKING:
    from .step import Step

FORMAT, VERSION = "tinyvae", 1
CODES = {"F32": "float32", "F64": "float64", "U64": "uint64"}  # safetensors' names of the dtypes that occur
MOMENTS = {"adam": ("m", "v"), "sgd": ("m",)}
PathLike = str | os.PathLike[str]

# What the file says of its model, as text. The first group must be equal in the model that is loaded into; the second
# is JSON, with the type that it must have.
SAME = ("class", "dtype", "image_shape", "latent_dim", "likelihood")
PARSED = {"image_shape": list, "latent_dim": int, "config": dict | None, "optimizers": dict, "extra": dict}

FOREIGN = re.compile(rb"PK\x03\x04|\x80[\x02-\x05](?!\x00\x00)")  # a zip; a pickle, and not a header's length
DAMAGED = "use another copy of the file, or train again"
_saving = threading.Lock()  # threads of a process share the name of the temporary file


# -------------------------------------------------------------------------------------------------- public


def save(model: Model, path: PathLike, step: Step | None = None, extra: Mapping[str, Any] | None = None) -> None:
    """Writes `model` to `path`: all of the new file or none of it, so an older checkpoint there survives any failure.

    step: its optimisers' moments are saved too, so that `restore` continues the run bit for bit.
    extra: a dictionary that JSON can hold, such as a run's progress; `read_info` and `restore` give it back.
    The same contents give the same bytes. A CheckpointError says why nothing could be written.
    """
    if step is not None and step.model is not model:
        raise ConfigError("step= belongs to another model; give the Step that was made with this one")
    metadata = _describe(model, step, extra)
    buffers = _buffers(model) | (_moments(model, step) if step is not None else {})
    arrays = {name: np.ascontiguousarray(model.device.get(buffer)) for name, buffer in buffers.items()}
    metadata["checksum"] = _checksum(metadata, arrays)
    with _saving:
        _write_atomically(Path(path), _serialise(metadata, arrays))


def load(path: PathLike, device: str = DEFAULT_DEVICE, into: Model | None = None, precision: str = "fp32") -> Model:
    """The model that `path` holds: rebuilt from its configuration, or loaded `into` one built like the saved one.

    Strict: a CheckpointError unless every tensor is there in its shape and dtype, none is left over and the checksum
    holds; `into` is untouched then. Optimisers' moments in the file are checked and left aside. device, precision:
    of the model that is built; the file knows neither.
    """
    if into is None:
        open_device(device)  # a missing device is no fault of the file
    path = Path(path)
    metadata, arrays = _read(path)
    if into is None:
        require_precision(precision, device, metadata["dtype"])
    model = _build(path, metadata, arrays, device, precision) if into is None else into
    _require_fit(path, metadata, arrays, model)
    _apply(model, _buffers(model), arrays)
    return model


def restore(path: PathLike, model: Model, step: Step) -> dict[str, Any]:
    """Takes up the run that `save(model, path, step)` left, bit for bit; returns its `extra`.

    model and step: made as they were for that run. They are untouched unless everything fits, as in `load`.
    """
    if step.model is not model:
        raise ConfigError("step= belongs to another model; give the Step that was made with this one")
    path = Path(path)
    metadata, arrays = _read(path)
    saved, given = json.loads(metadata["optimizers"]), _kinds(model, step)
    if not saved:
        raise CheckpointError(f"{path} holds a model without its optimisers, so training cannot continue; use load")
    if saved != given:
        raise CheckpointError(
            f"{path} was trained with the optimisers {saved}, this run has {given}; continue with the saved ones"
        )
    _require_fit(path, metadata, arrays, model)
    _apply(model, _buffers(model) | _moments(model, step), arrays)
    step.resume()
    return json.loads(metadata["extra"])


def read_info(path: PathLike) -> dict[str, Any]:
    """What `path` says of itself, from its header alone: version, class, dtype, image_shape, latent_dim, likelihood,
    config (None for a model built by hand), optimizers ({player: kind}) and extra. The tensors are not read."""
    metadata, _ = _read(Path(path), tensors=False)
    info: dict[str, Any] = {"version": int(metadata["version"])} | {key: metadata[key] for key in SAME}
    return info | {key: json.loads(metadata[key]) for key in PARSED}


# -------------------------------------------------------------------------------------------------- contents


def _buffers(model: Model) -> dict[str, Any]:
    """Name → the live array on the device, of all that a model is: tensors, clock and running sums."""
    buffers = {name: model.table.view(name) for name in model.table.places}
    buffers |= {"clock.counters": model.clock.counters, "clock.rates": model.clock.rates}
    return buffers | {f"sums.{role}": sums for role, sums in model.sums.items()}


def _moment_names(model: Model, kinds: Mapping[str, str]) -> Iterator[tuple[int, str, str, str]]:
    """(ordinal of the player, moment, parameter, name in the file), one for each parameter that a player moves."""
    for ordinal, player in enumerate(model.players):
        span = model.table.range_of(player.parts)
        for moment in MOMENTS[kinds[player.name]]:
            for name in model.table.names():
                if span.start <= model.table.places[name][1] < span.stop:
                    yield ordinal, moment, name, f"optimizer.{player.name}.{moment}.{name}"


def _moments(model: Model, step: Step) -> dict[str, Any]:
    """Name → the live array of each moment, cut like its parameter: padding stays out of the file."""
    buffers = {}
    for ordinal, moment, name, full in _moment_names(model, _kinds(model, step)):
        tensor, place = model.table.places[name]
        start = place - model.table.range_of(model.players[ordinal].parts).start
        flat = getattr(step.optimizers[ordinal], moment)
        buffers[full] = flat[start : start + int(np.prod(tensor.shape))].reshape(tensor.shape)
    return buffers


def _kinds(model: Model, step: Step | None) -> dict[str, str]:
    """Player → kind of optimiser."""
    if step is None:
        return {}
    return {player.name: state.options.name for player, state in zip(model.players, step.optimizers, strict=True)}


def _describe(model: Model, step: Step | None, extra: Mapping[str, Any] | None) -> dict[str, str]:
    """The header's metadata but for the checksum. safetensors allows text only."""
    try:
        progress = json.dumps(dict(extra or {}))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"extra= must be a dictionary that JSON can hold: {error}") from None
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "class": type(model).__name__,
        "dtype": model.dtype.name,
        "image_shape": json.dumps(model.image_shape),
        "latent_dim": json.dumps(model.latent_dim),
        "likelihood": repr(model.parts.get("likelihood")),
        "config": json.dumps(model.config and asdict(model.config)),
        "optimizers": json.dumps(_kinds(model, step)),
        "extra": progress,
    }


def _checksum(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """CRC-32 of the contents, not of the file's layout: a safetensors tool that orders the header anew does no harm."""
    crc = 0
    for key in sorted(metadata.keys() - {"checksum"}):
        crc = zlib.crc32(json.dumps([key, metadata[key]]).encode(), crc)
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(json.dumps([name, array.dtype.name, array.shape]).encode(), crc)
        crc = zlib.crc32(_little_endian(array), crc)
    return f"{crc:08x}"


def _little_endian(array: np.ndarray) -> memoryview:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data


# -------------------------------------------------------------------------------------------------- writing


def _serialise(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> list[bytes | memoryview]:
    """The file in pieces: the header's length as a little-endian uint64, the header in JSON, the tensors' bytes.

    Written here because safetensors' own writer puts the metadata in random order: no two files would be equal.
    Wide dtypes come first and the header is filled up with spaces to 8 bytes, so that each tensor is aligned.
    """
    codes = {dtype: code for code, dtype in CODES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    order, end = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)), 0
    for name in order:
        array = arrays[name]
        offsets = [end, end := end + array.nbytes]
        header[name] = {"dtype": codes[array.dtype.name], "shape": array.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *(_little_endian(arrays[name]) for name in order)]


def _write_atomically(path: Path, pieces: list[bytes | memoryview]) -> None:
    """A temporary file in the same folder, on the disk before it takes the name `path`: readers see old or new."""
    target = Path(os.path.realpath(path))  # through a link: the file that it points to is replaced, not the link
    if os.path.exists(target) and not os.path.isfile(target):
        raise CheckpointError(f"{path} is not a file and cannot be replaced; give the name of a file in a folder")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _remove_stale(target)
        with open(temporary, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise CheckpointError(_why_not_written(path, target, error)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    _sync_folder(path, target.parent)


def _remove_stale(target: Path) -> None:
    """Removes temporary files of processes that were killed while they saved to the same name."""
    for stale in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        pid = stale.name[len(target.name) + 2 : -len(".tmp")]
        if pid.isdecimal() and not _is_running(int(pid)):
            with suppress(OSError):
                stale.unlink()


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # os.kill would end the process there; a file in use refuses to be removed by itself
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _why_not_written(path: Path, target: Path, error: OSError) -> str:
    reasons = {
        errno.ENOSPC: "the disk is full, make room",
        errno.EDQUOT: "your disk quota is used up, make room",
        errno.EROFS: "the disk is read-only, choose another folder",
        errno.EACCES: "the folder cannot be written to, change its permissions or choose another",
        errno.EPERM: "the folder cannot be written to, change its permissions or choose another",
        errno.ENOENT: f"there is no folder {target.parent}, create it",
        errno.ENOTDIR: f"{target.parent} is not a folder, choose another",
    }
    reason = reasons.get(error.errno or 0, f"{error.strerror or error}, choose another place")
    after = "; the previous checkpoint there is intact" if os.path.exists(target) else ""
    return f"{path} could not be written: {reason} and save again{after}"


def _sync_folder(path: Path, folder: Path) -> None:
    """The new name itself must reach the disk. Some file systems cannot sync a folder; so be it."""
    if os.name == "nt":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise CheckpointError(
                f"{path} is written and complete, but its folder could not be synced ({error.strerror or error}), so a "
                "power cut now may lose it; check the disk"
            ) from error


# -------------------------------------------------------------------------------------------------- reading


def _read(path: Path, tensors: bool = True) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of a checkpoint of this format. safetensors holds what the header promises against the
    file's size before it allocates anything."""
    _require_file(path)
    try:
        with safe_open(path, framework="np") as file:
            metadata: dict[str, str] = file.metadata() or {}
            _require_format(path, metadata)
            names = sorted(file.keys()) if tensors else []
            for name in names:
                code = file.get_slice(name).get_dtype()
                if code not in CODES:
                    raise CheckpointError(f"{path}: tensor {name!r} has dtype {code}, which tinyvae never writes")
            return metadata, {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_why_not_read(path, error)) from None


def _require_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "there is no such file" if missing else getattr(error, "strerror", None) or error
        raise CheckpointError(f"{path} cannot be read: {reason}; check the name of the checkpoint") from None
    if stat.S_ISDIR(mode):
        raise CheckpointError(f"{path} is a folder; name a file in it, such as {path / 'checkpoint.safetensors'}")
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is not a file; name a checkpoint")


def _why_not_read(path: Path, error: Exception) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as again:
        return f"{path} cannot be read: {again.strerror or again}; check its permissions and the disk"
    if not head:
        return f"{path} is empty; {DAMAGED}"
    if FOREIGN.match(head):
        return f"{path} is a pickle or zip file, such as torch.save writes; tinyvae loads only what tinyvae saved"
    return f"{path} is damaged, cut short or not a safetensors file ({error}); {DAMAGED}"


def _require_format(path: Path, metadata: dict[str, str]) -> None:
    """Written by tinyvae, in a version that this code knows, with metadata of the right types."""
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was written by another program; tinyvae loads only what tinyvae saved")
    version = metadata.get("version", "")
    if version.isdecimal() and int(version[:9]) > VERSION:
        raise CheckpointError(f"{path} has format version {version[:9]}, this tinyvae reads {VERSION}; upgrade tinyvae")
    if version != str(VERSION):
        raise CheckpointError(f"{path} is damaged: it names no format version; {DAMAGED}")
    for key in (*SAME, *PARSED, "checksum"):
        try:
            fine = key in metadata and (key not in PARSED or isinstance(json.loads(metadata[key]), PARSED[key]))
        except (ValueError, RecursionError):
            fine = False
        if not fine:
            raise CheckpointError(f"{path} is damaged: {key!r} in its header is missing or not readable; {DAMAGED}")


def _build(
    path: Path, metadata: dict[str, str], arrays: Mapping[str, np.ndarray], device: str, precision: str
) -> Model:
    """The model that the file's configuration describes, with new weights."""
    plain = json.loads(metadata["config"])
    if plain is None:
        raise CheckpointError(
            f"{path} holds a {metadata['class']} built by hand, without a configuration to build it from; build it "
            "again and call load(path, into=model)"
        )
    try:
        config = zoo.from_plain(plain)
        _require_plausible(config, sum(array.size for array in arrays.values()))
        return zoo.from_config(config, device, precision)
    except (DeviceError, KernelError):
        raise  # no fault of the file
    except (ValueError, TypeError, LookupError, ArithmeticError, MemoryError) as error:
        raise CheckpointError(f"{path}: its configuration describes no model ({error}); {DAMAGED}") from None


def _require_plausible(config: ModelConfig, size: int) -> None:
    """A ValueError where a part has more parameters than the file holds numbers. Layers hold no arrays, so they can
    be declared before anything is allocated."""
    for part, shapes in zoo.layers_of(config):
        part.declare(*shapes)
        needed = sum(int(np.prod(t.shape)) for _, leaf in part.walk("") for t in leaf.tensors)
        if needed > size:
            raise ValueError(f"{needed:,} parameters, but the file holds {size:,} numbers")


def _require_fit(path: Path, metadata: dict[str, str], arrays: Mapping[str, np.ndarray], model: Model) -> None:
    """A CheckpointError unless the file holds exactly this model's tensors, undamaged. The checksum comes last, so
    that a file of another model is called that."""
    ours, built = _describe(model, None, None), "build it like the saved one"
    for key in SAME:
        if metadata[key] != ours[key]:
            raise CheckpointError(f"{path} holds a model of {key} {metadata[key]}, this one has {ours[key]}; {built}")
    expected = _expected(path, json.loads(metadata["optimizers"]), model)
    for name in sorted(expected.keys() | arrays.keys()):
        if name not in arrays:
            raise CheckpointError(f"{path} lacks the tensor {name!r} of this model; {built}")
        if name not in expected:
            raise CheckpointError(f"{path} holds a tensor {name!r} that this model lacks; {built}")
        (dtype, shape), (our_dtype, our_shape) = (arrays[name].dtype.name, arrays[name].shape), expected[name]
        if (dtype, shape) != (our_dtype, our_shape):
            raise CheckpointError(
                f"{path}: tensor {name!r} is {dtype} {shape}, but this model has {our_dtype} {our_shape}; {built}"
            )
    if metadata["checksum"] != _checksum(metadata, arrays):
        raise CheckpointError(f"{path} is damaged: its contents do not match their checksum; {DAMAGED}")


def _expected(path: Path, kinds: dict[str, Any], model: Model) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name → (dtype, shape) of every tensor that the file must hold, given its optimisers ({} for none)."""
    expected = {name: (buffer.dtype.name, tuple(buffer.shape)) for name, buffer in _buffers(model).items()}
    if not kinds:
        return expected
    players = sorted(player.name for player in model.players)
    if sorted(kinds) != players or not set(map(str, kinds.values())) <= MOMENTS.keys():
        raise CheckpointError(f"{path} holds optimisers {kinds} that this model does not have; {DAMAGED}")
    return expected | {full: expected[name] for _, _, name, full in _moment_names(model, kinds)}


def _apply(model: Model, buffers: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Copies into the live buffers; nothing can fail any more. The seed is the saved one for evaluation noise too."""
    for name, buffer in buffers.items():
        model.device.put(arrays[name], buffer)
    model.seed = int(arrays["clock.counters"][SEED])
    model.eval_clock.set(seed=model.seed)
