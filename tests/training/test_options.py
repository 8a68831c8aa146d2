"""Options: typed once in TrainConfig, ModelConfig and its families, and read there by train, by the command line and by
resuming."""

import inspect
from dataclasses import fields

import pytest

from tinyvae.app.cli import build_parser
from tinyvae.app.run import FREE
from tinyvae.config import TrainConfig
from tinyvae.errors import ConfigError
from tinyvae.layers.likelihood import NAMED
from tinyvae.models import zoo
from tinyvae.training import train


def test_train_shows_every_option_with_its_default():
    shown = inspect.signature(train).parameters
    for f in fields(TrainConfig):
        assert shown[f.name].default == (None if f.name == "beta" else f.default)
        assert f"{f.name}: {f.metadata['help']}" in train.__doc__
    assert "options" not in shown


def test_an_unknown_option_is_named_with_the_nearest():
    with pytest.raises(ConfigError, match=r"^epoch=3: train has no such option; did you mean 'epochs'\?"):
        TrainConfig.from_options({"epoch": 3}, "train")
    with pytest.raises(ConfigError, match=r"^zzz=1: train has no such option; there are epochs, batch_size, "):
        TrainConfig.from_options({"zzz": 1}, "train")


def test_the_command_line_has_every_option():
    flags = {"bool": []}
    for f in fields(TrainConfig):
        value = flags.get(f.type, ["1"])
        given = vars(build_parser().parse_args(["train", f"--{f.name.replace('_', '-')}", *value]))
        kind = {"int": 1, "float": 1.0, "str": "1", "bool": True}[f.type.removesuffix(" | None")]
        assert given == {"command": "train", f.name: kind}
        assert type(given[f.name]) is type(kind)


def test_every_option_explains_itself_and_resuming_reads_the_same_fields():
    assert all(f.metadata["help"] for f in fields(TrainConfig))
    assert {"epochs", "early_stop", "save_every", "check_finite"} == FREE


def test_the_command_line_has_every_option_of_every_model():
    values = {"int": ("3", 3), "float": ("0.5", 0.5), "str": ("x", "x"), "tuple[int, ...]": ("4,5", (4, 5))}
    for f in zoo.every_option():
        about, kind = f.metadata, f.type.removesuffix(" | None")
        if about["of_data"]:
            assert f.name in ("image_shape", "classes")
            continue
        assert about["help"]
        text, value = values.get(kind, (None, True))
        spelling = about["flag"] or f"--{f.name.replace('_', '-')}"
        given = vars(build_parser().parse_args(["train", spelling, *([text] if text else [])]))
        assert given == {"command": "train", f.name: value}
    assert vars(build_parser().parse_args(["train", "--no-spectral"]))["spectral"] is False


def test_help_names_every_likelihood():
    (likelihood,) = (f for f in zoo.every_option() if f.name == "likelihood")
    assert sorted(likelihood.metadata["help"].removesuffix(" (default bernoulli)").split(", ")) == sorted(NAMED)
