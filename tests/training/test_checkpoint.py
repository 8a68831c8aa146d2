"""Checkpoints: resuming bit for bit, every way a file can be damaged, and every way writing one can fail.
They use models of a few hundred parameters; whole runs are in test_training.py."""

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import tinyvae
from tinyvae import zoo
from tinyvae.config import SGD, Adam, TrainConfig
from tinyvae.errors import CheckpointError, ConfigError, DeviceError
from tinyvae.layers import Dense, Flatten, Latent, Layer, Reshape, Sequential
from tinyvae.layers.layer import Twin
from tinyvae.layers.likelihood import Bernoulli
from tinyvae.layers.params import Tensor
from tinyvae.models import Model, Player
from tinyvae.training import checkpoint
from tinyvae.training.checkpoint import load, read_info, restore, save
from tinyvae.training.step import Feed, Step

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)  # batches of 8, 8 and 4
CONFIG = TrainConfig(
    epochs=4, batch_size=8, schedule="cosine", clip=5.0, warmup=3, beta=0.5, binarize="dynamic", lr=1e-2
)


class Run:
    """A model, its feed and its step, driven as training drives them: a new order at the start of each epoch."""

    def __init__(self, model, config=CONFIG, images=IMAGES):
        self.model, self.feed = model, Feed(model, images, config.binarize)
        self.step = Step(model, self.feed, config)

    def train(self, steps):
        self.feed.shuffle(self.model.seed, self.step.epoch)
        for _ in range(steps):
            if self.step.done % self.step.per_epoch == 0:
                self.feed.shuffle(self.model.seed, self.step.epoch)
            self.step.run()
        return self

    def bits(self):
        """Every byte that training reads or writes from step to step."""
        table, clock = self.model.table, self.model.clock
        arrays = [table.values, table.grads, table.state, clock.counters, clock.rates, self.model.eval_clock.counters]
        arrays += [*self.model.sums.values(), *(moment for o in self.step.optimizers for moment in (o.m, o.v))]
        return [a.tobytes() for a in arrays] + [self.model.seed, self.step.done]


def tiny(name="vae", dtype="float32", seed=0, **options):
    return zoo.build(name, (8, 8, 1), 3, (7,), dtype=dtype, seed=seed, **options)


class Seen(Layer):
    """y = x; its state counts the rows that training has sent through it."""

    def shape(self, *in_shapes):
        self.tensors = (Tensor("rows", (1,), kind="state"),)
        return in_shapes[0]

    def bind(self, site):
        return SeenTwin(site)


class SeenTwin(Twin):
    def __init__(self, site):
        self.rows, self.count = site.value("rows"), site.rows if site.train else 0

    def forward(self, *xs):
        self.rows += self.count
        return xs[0]

    def backward(self, grad_y):
        return grad_y


def two_players(seed=0, front=Adam):
    """Built by hand, without a configuration: state in its decoder, and two players with optimisers of their own."""
    parts = {
        "encoder": Sequential(Flatten(), Dense(64, 6)),
        "latent": Latent(3),
        "decoder": Sequential(Dense(3, 64), Seen(), Reshape(8, 8, 1)),
        "likelihood": Bernoulli(),
    }
    players = (Player("front", ("encoder", "latent"), front()), Player("back", ("decoder",), SGD(), 2))
    return Model(parts, (8, 8, 1), 3, players, seed=seed)


# -------------------------------------------------------------------------------------------------- resuming


@pytest.mark.parametrize("steps", [6, 7, 0], ids=["epoch's end", "mid-epoch", "untrained"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["vae", "conv-ae"])
def test_a_resumed_run_continues_bit_for_bit(tmp_path, name, optimizer, dtype, steps):
    config = TrainConfig(**(CONFIG.__dict__ | {"optimizer": optimizer}))
    path = tmp_path / "a.safetensors"
    run = Run(tiny(name, dtype), config).train(steps)
    save(run.model, path, run.step, {"best": 0.1, "rows": [1, 2]})
    at_save = run.bits()
    run.train(6)

    again = Run(tiny(name, dtype, seed=5), config).train(2)  # another past, another seed: nothing of it may stay
    values = again.model.table.values
    assert restore(path, again.model, again.step) == {"best": 0.1, "rows": [1, 2]}
    grads = 1  # gradients are written anew by each step, so they are not in the file
    assert [b for i, b in enumerate(again.bits()) if i != grads] == [b for i, b in enumerate(at_save) if i != grads]
    again.train(6)
    assert again.bits() == run.bits()
    assert again.model.table.values is values  # buffers are copied into, never re-pointed


def test_every_device_writes_the_same_file_and_resumes(tmp_path, device):
    path, back = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    config = TrainConfig(batch_size=8)
    run = Run(zoo.build("vae", (8, 8, 1), 3, (7,), device=device), config).train(4)
    save(run.model, path, run.step)
    again = Run(zoo.build("vae", (8, 8, 1), 3, (7,), device=device), config)
    restore(path, again.model, again.step)
    save(run.train(3).model, path, run.step)
    save(again.train(3).model, back, again.step)
    assert path.read_bytes() == back.read_bytes()
    host = Run(tiny(), config)  # a checkpoint belongs to no device
    restore(path, host.model, host.step)
    save(host.model, back, host.step)
    assert path.read_bytes() == back.read_bytes()
    assert load(path, device).device.name == device


def test_two_players_and_state_resume_bit_for_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    config = TrainConfig(batch_size=8)
    run = Run(two_players(), config).train(5)
    save(run.model, path, run.step)
    names = load_file(path).keys()
    assert "decoder.seen1.rows" in names
    assert "optimizer.front.v.encoder.dense1.weight" in names
    assert "optimizer.back.m.decoder.dense1.bias" in names
    assert not any(n.startswith("optimizer.back.v") for n in names)
    assert run.model.table.view("decoder.seen1.rows") == 36  # five batches, walked once for both players
    again = Run(two_players(3), config)
    assert restore(path, again.model, again.step) == {}
    assert again.train(6).bits() == run.train(6).bits()


@pytest.mark.parametrize("name", list(zoo.ZOO))
def test_load_rebuilds_every_model_of_the_zoo(tmp_path, name):
    path = tmp_path / "a.safetensors"
    likelihood = {"likelihood": "gaussian", "sigma": 0.5} if name in zoo.SCORING else {}
    model = zoo.build(name, (9, 10, 3), 4, (6,), dtype="float64", seed=7, **likelihood)
    save(model, path)
    again = load(path)
    assert type(again) is type(model)
    assert again.config == model.config
    assert repr(again) == repr(model)
    assert again.table.values.tobytes() == model.table.values.tobytes()
    assert again.sample(2, seed=1).tobytes() == model.sample(2, seed=1).tobytes()


def test_load_takes_a_checkpoint_of_a_run_and_a_model_built_by_hand(tmp_path):
    path = tmp_path / "a.safetensors"
    run = Run(tiny()).train(4)
    save(run.model, path, run.step)
    model = tinyvae.load(path)
    assert model.table.values.tobytes() == run.model.table.values.tobytes()
    assert model.clock.rates.tobytes() == run.model.clock.rates.tobytes()  # KL weights: it evaluates as it did
    assert model.eval_clock.kl_weight[0] == run.model.clock.kl_weight[0] > 0

    hand = two_players()
    tinyvae.save(hand, path)
    with pytest.raises(CheckpointError, match=r"built by hand.*into=model"):
        load(path)
    other = two_players(seed=9)
    assert load(path, into=other) is other
    assert other.table.values.tobytes() == hand.table.values.tobytes()
    assert other.seed == 0
    assert int(other.eval_clock.get()[4]) == 0


def test_a_checkpoint_without_moments_cannot_be_resumed(tmp_path):
    path = tmp_path / "a.safetensors"
    run = Run(tiny())
    save(run.model, path)
    with pytest.raises(CheckpointError, match=r"without its optimisers.*use load"):
        restore(path, run.model, run.step)


def test_optimisers_of_another_kind_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    run = Run(tiny()).train(1)
    save(run.model, path, run.step)
    other = Run(tiny(), TrainConfig(optimizer="sgd"))
    before = other.bits()
    with pytest.raises(CheckpointError, match=r"'vae': 'adam'.*'vae': 'sgd'"):
        restore(path, other.model, other.step)
    assert other.bits() == before
    hand = Run(two_players())
    with pytest.raises(CheckpointError, match="'front'"):
        restore(path, hand.model, hand.step)


def test_a_step_of_another_model_is_refused(tmp_path):
    run, other = Run(tiny()), Run(tiny())
    with pytest.raises(ConfigError, match="another model"):
        save(run.model, tmp_path / "a", other.step)
    with pytest.raises(ConfigError, match="another model"):
        restore(tmp_path / "a", run.model, other.step)
    assert not os.listdir(tmp_path)


def test_a_device_that_is_missing_is_not_blamed_on_the_file(tmp_path):
    save(tiny(), tmp_path / "a")
    with pytest.raises(DeviceError, match="abacus"):
        load(tmp_path / "a", device="abacus")


# -------------------------------------------------------------------------------------------------- the file


def test_the_file_is_what_safetensors_reads(tmp_path):
    path = tmp_path / "a.safetensors"
    run = Run(tiny(dtype="float64")).train(2)
    save(run.model, path, run.step, {"epoch": 2})
    arrays = load_file(path)
    for name in run.model.table.places:
        assert arrays[name].dtype == np.float64
        assert arrays[name].tobytes() == run.model.table.view(name).tobytes()
    assert arrays["clock.counters"].tolist() == run.model.clock.get().tolist()
    assert arrays["clock.counters"].dtype == np.uint64
    assert arrays["sums.train"].tolist() == run.model.sums["train"].tolist()
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    assert metadata["format"] == "tinyvae"
    assert metadata["version"] == "1"
    assert metadata["dtype"] == "float64"
    assert json.loads(metadata["config"])["hidden"] == [7]


def test_every_tensor_is_aligned_in_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    model = zoo.build("vae", (3, 3, 1), 1, (2,))  # 57 parameters, so what follows them would be misaligned
    save(model, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            assert (8 + length + tensor["data_offsets"][0]) % (int(tensor["dtype"][1:]) // 8) == 0


def test_read_info_reads_the_header_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    run = Run(tiny())
    save(run.model, path, run.step, {"epoch": 2, "best": float("inf")})
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # only a reader of the tensors can see this
    info = read_info(path)
    assert info["version"] == 1
    assert info["class"] == "VAE"
    assert info["image_shape"] == [8, 8, 1]
    assert info["extra"] == {"epoch": 2, "best": float("inf")}
    assert info["optimizers"] == {"vae": "adam"}
    assert zoo.from_plain(info["config"]) == run.model.config
    with pytest.raises(CheckpointError, match="checksum"):
        load(path)


def test_the_same_contents_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        run = Run(tiny()).train(3)
        save(run.model, tmp_path / name, run.step, {"epoch": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    save(load(tmp_path / "a"), tmp_path / "c")
    save(run.model, tmp_path / "d")
    assert (tmp_path / "c").read_bytes() == (tmp_path / "d").read_bytes()


def test_numbers_that_are_not_numbers_are_kept_to_the_bit(tmp_path):
    model = tiny()
    weight = model.table.view("encoder.dense1.weight")
    weight[0, :3] = np.nan, np.inf, -0.0
    weight.view(np.uint32)[1, 0] = 0x7FC12345  # a NaN with a payload
    save(model, tmp_path / "a")
    assert load(tmp_path / "a").table.values.tobytes() == model.table.values.tobytes()


@pytest.mark.parametrize("extra", [{"a": np.zeros(2)}, {"a": {1, 2}}, {(1, 2): 3}, 5])
def test_extra_that_json_cannot_hold_is_wrong_use(tmp_path, extra):
    with pytest.raises(ConfigError, match="extra="):
        save(tiny(), tmp_path / "a", extra=extra)
    assert not os.listdir(tmp_path)


def test_extra_keeps_any_text(tmp_path):
    extra = {"note": 'ü "quotes" \\ \n \x00 \ud800', "": [None, True, 1e-300], "checksum": "00000000"}
    save(tiny(), tmp_path / "a", extra=extra)
    assert read_info(tmp_path / "a")["extra"] == extra
    load(tmp_path / "a")


# -------------------------------------------------------------------------------------------------- damage


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of a small run, and the run itself, which every refusal must leave as it is."""
    path = tmp_path_factory.mktemp("saved") / "a.safetensors"
    run = Run(zoo.build("vae", (4, 4, 1), 2, (3,)), images=IMAGES[:, :4, :4]).train(4)
    save(run.model, path, run.step, {"epoch": 1})
    return run, path.read_bytes()


def take_apart(data, path):
    path.write_bytes(data)
    with safe_open(path, "np") as file:
        return file.metadata(), load_file(path)


def refused(path, run, message):
    """Load, load into and restore all refuse `path` in one sentence that names it, and change nothing."""
    for attempt in (lambda: load(path), lambda: load(path, into=run.model), lambda: restore(path, run.model, run.step)):
        before = run.bits()
        with pytest.raises(CheckpointError, match=message) as caught:
            attempt()
        assert run.bits() == before
        sentence = str(caught.value)
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
        assert caught.value.exit_status == 1


def rename(old, new):
    def change(metadata, arrays):
        arrays[new] = arrays.pop(old)

    return change


def put(name, make):
    def change(metadata, arrays):
        arrays[name] = make(arrays.get(name))

    return change


def write(key, text):
    def change(metadata, arrays):
        if text is None:
            del metadata[key]
        else:
            metadata[key] = text

    return change


WEIGHT, MOMENT = "encoder.dense1.weight", "optimizer.vae.v.encoder.dense1.weight"
CONTENTS = {
    "renamed tensor": (rename(WEIGHT, "encoder.dense9.weight"), "lacks the tensor 'encoder.dense1.weight'"),
    "missing tensor": (lambda m, a: a.pop(WEIGHT), "lacks the tensor 'encoder.dense1.weight'"),
    "missing moment": (lambda m, a: a.pop(MOMENT), f"lacks the tensor '{MOMENT}'"),
    "missing clock": (lambda m, a: a.pop("clock.counters"), "lacks the tensor 'clock.counters'"),
    "extra tensor": (put("encoder.zzz", lambda _: np.zeros(2, np.float32)), "holds a tensor 'encoder.zzz'"),
    "another shape": (put(WEIGHT, lambda w: w[:-1]), r"float32 \(15, 3\).* has float32 \(16, 3\)"),
    "transposed": (put(WEIGHT, lambda w: np.ascontiguousarray(w.T)), r"\(3, 16\)"),
    "flattened": (put(WEIGHT, lambda w: w.reshape(-1)), r"\(48,\)"),
    "another moment": (put(MOMENT, lambda w: w[1:]), r"float32 \(15, 3\)"),
    "wide dtype": (put(WEIGHT, lambda w: w.astype(np.float64)), "is float64"),
    "unknown dtype": (put(WEIGHT, lambda w: w.astype(np.float16)), "dtype F16"),
    "integer dtype": (put("clock.counters", lambda w: w.astype(np.int64)), "dtype I64"),
    "another program": (write("format", "pt"), "another program"),
    "no format": (write("format", None), "another program"),
    "newer version": (write("version", "2"), "version 2, this tinyvae reads 1; upgrade"),
    "much newer version": (write("version", "9" * 5000), "upgrade"),
    "no version": (write("version", None), "names no format version"),
    "nonsense version": (write("version", "one"), "names no format version"),
    "no checksum": (write("checksum", None), "'checksum' in its header"),
    "wrong checksum": (write("checksum", "00000000"), "do not match their checksum"),
    "one value changed": (put(WEIGHT, lambda w: w + np.float32(1e-6)), "do not match their checksum"),
    "metadata changed": (write("extra", '{"epoch": 9}'), "do not match their checksum"),
    "metadata added": (write("note", "hello"), "do not match their checksum"),
    "another class": (write("class", "AutoEncoder"), "class AutoEncoder"),
    "another dtype": (write("dtype", "float64"), "dtype float64"),
    "another likelihood": (write("likelihood", "Gaussian(sigma=1)"), "likelihood Gaussian"),
    "config no JSON": (write("config", "{"), "'config' in its header"),
    "config no dictionary": (write("config", "3"), "'config' in its header"),
    "extra no dictionary": (write("extra", "[]"), "'extra' in its header"),
    "extra a bomb": (write("extra", "[" * 100_000), "'extra' in its header"),
    "an endless number": (write("latent_dim", "1" * 10_000), "'latent_dim' in its header"),
    "optimiser unknown": (write("optimizers", '{"vae": "adan"}'), "'adan'"),
    "player unknown": (write("optimizers", '{"gan": "adam"}'), "'gan'"),
    "optimisers gone": (write("optimizers", "{}"), "optimisers|tensor 'optimizer"),
    "optimiser a list": (write("optimizers", '{"vae": []}'), "optimisers"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_changed_contents_are_refused(tmp_path, saved, case):
    run, data = saved
    change, message = CONTENTS[case]
    path = tmp_path / "a.safetensors"
    metadata, arrays = take_apart(data, path)
    change(metadata, arrays)
    save_file(arrays, path, metadata)
    refused(path, run, message)


CONFIGS = {
    "unknown model": {"model": "unicorn"},
    "unknown option": {"wings": 2},
    "huge layer": {"hidden": [10**9]},
    "huge product": {"hidden": [10**5, 10**5]},
    "huge code": {"latent_dim": 10**9},
    "huge image": {"image_shape": [10**6, 10**6, 1]},
    "beyond int64": {"image_shape": [10**30, 1, 1]},
    "huge convolution": {"model": "conv-vae", "image_shape": [10**9, 10**9, 3]},
    "wrapped size": {"image_shape": [2**33, 2**33, 1]},
    "text": {"image_shape": "abc"},
    "number": {"hidden": 5},
    "negative": {"latent_dim": -1},
    "unknown dtype": {"dtype": "float16"},
    "list": {"model": ["vae"]},
    "another latent": {"latent_dim": 3},
    "another dtype": {"dtype": "float64"},
    "another image": {"image_shape": [2, 8, 1]},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_lying_configuration_with_a_right_checksum_is_refused_and_allocates_nothing(tmp_path, saved, case):
    _, data = saved
    path = tmp_path / "a.safetensors"
    metadata, arrays = take_apart(data, path)
    metadata["config"] = json.dumps(json.loads(metadata["config"]) | CONFIGS[case])
    metadata["checksum"] = checkpoint._checksum(metadata, arrays)
    save_file(arrays, path, metadata)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=str(path)):
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_a_file_that_a_safetensors_tool_wrote_anew_still_loads(tmp_path, saved):
    run, data = saved
    path = tmp_path / "a.safetensors"
    metadata, arrays = take_apart(data, path)
    save_file(dict(reversed(arrays.items())), path, metadata)
    assert load(path).table.values.tobytes() == run.model.table.values.tobytes()


def with_header(text, tail=b""):
    return len(text).to_bytes(8, "little") + text + tail


def lying_length(length):
    return lambda data: length(len(data)).to_bytes(8, "little") + data[8:]


BYTES = {
    "empty": (lambda data: b"", "is empty"),
    "one byte": (lambda data: b"\x01", "damaged, cut short"),
    "the length alone": (lambda data: data[:8], "damaged, cut short"),
    "header past the end": (lying_length(lambda size: size - 7), "damaged, cut short"),
    "header of 90 MB": (lying_length(lambda size: 90_000_000), "damaged, cut short"),
    "header of 2^63": (lying_length(lambda size: 2**63), "damaged, cut short"),
    "header of 2^64 - 1": (lying_length(lambda size: 2**64 - 1), "damaged, cut short"),
    "header of none": (lying_length(lambda size: 0), "damaged, cut short"),
    "a length that begins like a pickle": (lying_length(lambda size: 0x0480), "damaged, cut short"),
    "a byte too many": (lambda data: data + b"\0", "damaged, cut short"),
    "nested bomb": (lambda data: with_header(b'{"a":' * 200_000), "damaged, cut short"),
    "bracket bomb": (lambda data: with_header(b"[" * 1_000_000), "damaged, cut short"),
    "not UTF-8": (lambda data: with_header(b'{"\xff":1}'), "damaged, cut short"),
    "not JSON": (lambda data: with_header(b"hello, hello, he"), "damaged, cut short"),
    "JSON of another kind": (lambda data: with_header(b"[1, 2]  "), "damaged, cut short"),
    "no tensors": (lambda data: with_header(b"{}      "), "another program"),
    "lying shape": (
        lambda data: with_header(b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}', bytes(4)),
        "damaged, cut short",
    ),
    "shape beyond 64 bits": (
        lambda data: with_header(b'{"a":{"dtype":"F32","shape":[9223372036854775808,2],"data_offsets":[0,0]}}'),
        "damaged, cut short",
    ),
    "offsets that overlap": (
        lambda data: with_header(
            b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}',
            bytes(4),
        ),
        "damaged, cut short",
    ),
    "pickle": (lambda data: b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94", "is a pickle or zip"),
    "text": (lambda data: b"epoch,loss\n1,104.2\n" * 10, "damaged, cut short"),
    "zeros": (lambda data: bytes(5000), "damaged, cut short"),
}


@pytest.mark.parametrize("case", BYTES)
def test_damaged_and_foreign_bytes_are_refused(tmp_path, saved, case):
    run, data = saved
    make, message = BYTES[case]
    path = tmp_path / "a.safetensors"
    path.write_bytes(make(data))
    refused(path, run, message)
    with pytest.raises(CheckpointError, match=message):
        read_info(path)


def test_a_pytorch_file_is_refused_by_name(tmp_path, saved):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    refused(path, saved[0], "is a pickle or zip file, such as torch.save writes")


def test_folders_missing_files_and_pipes_are_refused(tmp_path, saved, monkeypatch):
    run = saved[0]
    refused(tmp_path, run, "is a folder; name a file in it, such as .*checkpoint.safetensors")
    refused(tmp_path / "none", run, "there is no such file")
    refused(tmp_path / ("n" * 300), run, "cannot be read")
    (tmp_path / "file").write_bytes(b"x")
    refused(tmp_path / "file" / "a", run, "cannot be read")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "loop", run, "cannot be read")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", run, "is not a file")  # and does not wait for a writer
    with pytest.raises(CheckpointError, match="cannot be read"):
        load("a\0b")

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(checkpoint, "safe_open", denied)
    monkeypatch.setattr(checkpoint, "open", denied, raising=False)
    refused(tmp_path / "file", run, "Permission denied; check its permissions")


def test_a_file_cut_at_any_byte_is_refused(tmp_path, saved):
    run, data = saved
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    before = run.bits()
    for length in range(len(data) - 1, -1, -3):
        os.truncate(path, length)
        with pytest.raises(CheckpointError):
            load(path, into=run.model)
    assert run.bits() == before


def flip(path, data, positions, run):
    """Each of these bits, flipped alone, is noticed and leaves the model as it is."""
    before = run.bits()
    with open(path, "r+b", buffering=0) as file:
        for position, bit in positions:
            os.pwrite(file.fileno(), bytes([data[position] ^ 1 << bit]), position)
            with pytest.raises(CheckpointError):
                load(path, into=run.model)
            os.pwrite(file.fileno(), data[position : position + 1], position)
    assert run.bits() == before
    load(path, into=run.model)


def test_a_flipped_bit_anywhere_is_refused(tmp_path, saved):
    run, data = saved
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    draw = random.Random(1)
    flip(path, data, [(draw.randrange(len(data)), draw.randrange(8)) for _ in range(800)], run)


@pytest.mark.slow
def test_every_flipped_bit_and_every_cut_is_refused(tmp_path, saved):
    run, data = saved
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    flip(path, data, [(position, bit) for position in range(len(data)) for bit in range(8)], run)
    for length in range(len(data) - 1, -1, -1):
        os.truncate(path, length)
        with pytest.raises(CheckpointError):
            load(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_mutation_raises_anything_but_a_checkpoint_error(tmp_path, saved, data):
    run, good = saved
    length = int.from_bytes(good[:8], "little") + 8
    mutant = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, length) | st.integers(0, len(mutant)))
        stop = start + data.draw(st.integers(0, 12))
        mutant[start:stop] = data.draw(st.binary(max_size=12) | st.just(bytes(mutant[start + 1 : stop + 1])))
    path = tmp_path / "a.safetensors"
    path.write_bytes(mutant)
    before = run.bits()
    for attempt in (lambda: load(path), lambda: restore(path, run.model, run.step), lambda: read_info(path)):
        try:
            result = attempt()
        except CheckpointError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert not isinstance(result, Model) or result.table.values.tobytes() == run.model.table.values.tobytes()
    assert run.bits()[0] == before[0]


def test_a_model_of_another_shape_or_kind_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save(tiny(), path)
    for other, message in [
        (tiny("ae"), "class VAE, this one has AutoEncoder"),
        (tiny(dtype="float64"), "dtype float32, this one has float64"),
        (tiny(likelihood="gaussian"), r"likelihood Bernoulli\(\), this one has Gaussian"),
        (tiny("conv-vae"), "tensor"),
        (zoo.build("vae", (8, 8, 1), 2, (7,)), "latent_dim 3, this one has 2"),
        (zoo.build("vae", (8, 8, 1), 3, (6,)), r"\(7,\), but this model has float32 \(6,\)"),
        (zoo.build("vae", (4, 8, 2), 3, (7,)), "image_shape"),
    ]:
        before = other.table.values.tobytes()
        with pytest.raises(CheckpointError, match=message):
            load(path, into=other)
        assert other.table.values.tobytes() == before


# -------------------------------------------------------------------------------------------------- writing


@pytest.fixture
def old(tmp_path):
    """A folder with an older checkpoint, whose bytes every failure must leave alone, and a run to save there."""
    path = tmp_path / "runs" / "a.safetensors"
    path.parent.mkdir()
    run = Run(tiny()).train(1)
    save(run.model, path, run.step, {"epoch": 1})
    return path, path.read_bytes(), run.train(1)


def fails(old, message, error=CheckpointError):
    """Saving over the old checkpoint fails; it is intact, alone in its folder, and the model is unharmed."""
    path, data, run = old
    before = run.bits()
    with pytest.raises(error, match=message) as caught:
        save(run.model, path, run.step, {"epoch": 2})
    assert path.read_bytes() == data
    assert os.listdir(path.parent) == [path.name]
    assert run.bits() == before
    return str(caught.value)


def raiser(error):
    def fail(*_, **__):
        raise error

    return fail


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_at_any_call_leaves_the_old_file(old, monkeypatch, call):
    monkeypatch.setattr(os, call, raiser(FULL))
    sentence = fails(old, "disk is full.*the previous checkpoint there is intact")
    assert sentence.startswith(str(old[0]))
    monkeypatch.setattr(os, call, raiser(OSError(errno.EIO, "Input/output error")))
    fails(old, "Input/output error.*intact")
    monkeypatch.setattr(os, call, raiser(KeyboardInterrupt("ctrl-C")))
    fails(old, "ctrl-C", KeyboardInterrupt)


class Disk:
    """A file whose disk is full after `room` bytes."""

    def __init__(self, path, mode, room, error):
        self.file, self.room, self.error = open(path, mode), room, error  # noqa: SIM115

    def write(self, piece):
        if self.room < len(piece):
            self.file.write(bytes(piece)[: self.room])
            raise self.error
        self.room -= len(piece)
        return self.file.write(piece)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("room", [0, 4, 8, 1000, 5000])
def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(old, monkeypatch, room):
    monkeypatch.setattr(checkpoint, "open", lambda path, mode: Disk(path, mode, room, FULL), raising=False)
    fails(old, "disk is full, make room and save again; the previous checkpoint there is intact")


def test_a_disk_that_is_full_in_truth_leaves_the_old_file(old, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(checkpoint, "open", lambda path, mode: open("/dev/full", mode), raising=False)  # noqa: SIM115
    fails(old, "disk is full")


def test_a_limit_on_file_sizes_leaves_the_old_file(old):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        fails(old, "File too large.*intact")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_read_only_folder_leaves_the_old_file(old, monkeypatch):
    denied = raiser(PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr(checkpoint, "open", denied, raising=False)
    fails(old, "folder cannot be written to.*intact")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_leaves_the_old_file(old):
    os.chmod(old[0].parent, stat.S_IRUSR | stat.S_IXUSR)
    try:
        fails(old, "folder cannot be written to.*intact")
    finally:
        os.chmod(old[0].parent, stat.S_IRWXU)


def test_a_folder_that_cannot_be_synced(old, monkeypatch):
    path, _, run = old
    fsync = os.fsync

    def only_files(error):
        def sync(handle):
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise error
            fsync(handle)

        return sync

    monkeypatch.setattr(os, "fsync", only_files(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(CheckpointError, match="written and complete, but its folder could not be synced"):
        save(run.model, path, run.step, {"epoch": 2})
    assert read_info(path)["extra"] == {"epoch": 2}
    monkeypatch.setattr(os, "fsync", only_files(OSError(errno.EINVAL, "Invalid argument")))  # it never can
    save(run.model, path, run.step, {"epoch": 3})
    assert read_info(path)["extra"] == {"epoch": 3}


def test_the_file_and_then_its_folder_reach_the_disk(old, monkeypatch):
    path, _, run = old
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda h: (calls.append("folder" if stat.S_ISDIR(os.fstat(h).st_mode) else "file"), fsync(h))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    save(run.model, path)
    assert calls == ["file", "replace", "folder"]


def test_places_where_nothing_can_be_written(tmp_path):
    model = tiny()
    with pytest.raises(CheckpointError, match=r"there is no folder .*none, create it") as caught:
        save(model, tmp_path / "none" / "a")
    assert "intact" not in str(caught.value)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is not a folder"):
        save(model, tmp_path / "file" / "a")
    with pytest.raises(CheckpointError, match="is not a file and cannot be replaced"):
        save(model, tmp_path)
    with pytest.raises(CheckpointError, match="could not be written"):
        save(model, tmp_path / ("n" * 300))
    with pytest.raises(CheckpointError, match="is not a file and cannot be replaced"):
        save(model, "/dev/null")
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_keeps_pointing_to_the_new_checkpoint(tmp_path, old):
    path, _, run = old
    link = tmp_path / "latest"
    link.symlink_to(path)
    save(run.model, link, extra={"epoch": 7})
    assert link.is_symlink()
    assert read_info(path)["extra"] == {"epoch": 7}
    assert os.listdir(path.parent) == [path.name]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(old):
    path, _, run = old
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    mine = [f".{path.name}.{pid}.tmp" for pid in (child.pid, os.getpid(), 2**70)]
    others = [f".{path.name}.{os.getppid()}.tmp", f".{path.name}.x.tmp", f".b{path.name}.{child.pid}.tmp", "a.tmp"]
    for name in mine + others:
        (path.parent / name).write_bytes(b"half a checkpoint")
    save(run.model, path)
    assert sorted(os.listdir(path.parent)) == sorted([path.name, *others])


def test_threads_that_save_to_one_name_do_not_disturb_each_other(tmp_path):
    path, models = tmp_path / "a.safetensors", [tiny(seed=i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: save(models[i % 4], path, extra={"seed": i % 4}), range(24)))
    assert load(path).seed == read_info(path)["extra"]["seed"]
    assert os.listdir(tmp_path) == [path.name]


def test_names_with_odd_letters(tmp_path):
    for name in ("a b", "[a]*?", "ü.safetensors", "{x}", "-"):
        (tmp_path / f".{name}.{2**70}.tmp").write_bytes(b"left by a killed process")
        save(tiny(), tmp_path / name)
        load(str(tmp_path / name))
    assert len(os.listdir(tmp_path)) == 5


# -------------------------------------------------------------------------------------------------- killed

CHILD = textwrap.dedent("""
    import os, signal, sys
    sys.path[:0] = [sys.argv[2]]
    from test_checkpoint import Run, restore, save, tiny

    path, where = sys.argv[1], sys.argv[3]
    run = Run(tiny())
    if os.path.exists(path):
        restore(path, run.model, run.step)
    if where:
        setattr(os, where, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    while True:
        run.train(1)
        save(run.model, path, run.step, {"n": run.step.done})
        print(run.step.done, flush=True)
""")


def spawn(path, where=""):
    command = [sys.executable, "-c", CHILD, str(path), os.path.dirname(__file__), where]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def resumes_at(path):
    """The step at which the checkpoint resumes, equal in every bit to a run that was never interrupted."""
    again = Run(tiny())
    n = restore(path, again.model, again.step)["n"]
    assert again.step.done == n
    assert again.train(2).bits() == Run(tiny()).train(n + 2).bits()
    return n


def kill_at_random(path, times, seed):
    draw, acknowledged = random.Random(seed), 0
    for _ in range(times):
        child = spawn(path)
        for _ in range(draw.randrange(1, 20)):
            acknowledged = int(child.stdout.readline())
        time.sleep(draw.uniform(0, 0.004))
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
        assert child.returncode == -signal.SIGKILL
        acknowledged = int(rest[-1]) if rest else acknowledged
        assert resumes_at(path) in (acknowledged, acknowledged + 1)
    run = Run(tiny())
    save(run.model, path)
    assert os.listdir(path.parent) == [path.name]


def test_a_run_killed_at_random_moments_resumes_from_what_it_acknowledged(tmp_path):
    kill_at_random(tmp_path / "a.safetensors", times=3, seed=0)


@pytest.mark.slow
def test_a_run_killed_at_many_random_moments_resumes_from_what_it_acknowledged(tmp_path):
    kill_at_random(tmp_path / "a.safetensors", times=40, seed=1)


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_run_killed_with_half_a_file_leaves_the_old_one(tmp_path, where):
    path = tmp_path / "a.safetensors"
    run = Run(tiny()).train(3)
    save(run.model, path, run.step, {"n": 3})
    child = spawn(path, where)
    assert child.communicate()[0] == ""
    assert child.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2  # the temporary file is left
    assert resumes_at(path) == 3
    save(run.model, path)
    assert os.listdir(tmp_path) == [path.name]
