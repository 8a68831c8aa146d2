"""The command line: one command makes a run, every command works on it, and every mistake is one clear line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinyvae.app.cli import main


def run(*arguments, capsys):
    """(exit status, stdout, stderr) of one command."""
    try:
        status = main(list(map(str, arguments)))
    except SystemExit as stop:
        status = stop.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A data file of 60 grey pictures of 12×10."""
    path = tmp_path_factory.mktemp("data") / "bars.npz"
    rng = np.random.default_rng(0)
    x = np.zeros((120, 12, 10, 1), np.uint8)
    labels = rng.integers(0, 5, 120)
    for i, label in enumerate(labels):
        x[i, :, 2 * label : 2 * label + 2] = 220
    np.savez(path, images=x, labels=labels.astype(np.uint8))
    return path


TRAIN = ("--epochs", 2, "--batch-size", 32, "--latent-dim", 3, "--hidden", 16)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "vae"
    assert main([str(a) for a in ("train", "--data", small, "--out", folder, *TRAIN)]) == 0
    return folder


def test_training_leaves_everything(trained):
    names = {p.name for p in trained.iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoint.safetensors"} <= names
    pictures = {"loss.png", "reconstructions.png", "samples.png", "interpolations.png", "latent.png", "manifold.png"}
    assert pictures <= names
    for name in pictures:
        assert (trained / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert not [n for n in names if n.startswith(".")]
    config = json.loads((trained / "config.json").read_text())
    assert config["model"]["image_shape"] == [12, 10, 1]
    assert config["train"]["epochs"] == 2


def test_evaluate_prints_json(trained, capsys):
    status, out, _ = run("evaluate", trained, "--samples", 5, capsys=capsys)
    report = json.loads(out)
    assert status == 0
    assert {"neg_elbo", "recon", "kl", "nll", "nll_stderr", "samples", "active_units"} <= set(report)
    assert report["samples"] == 5
    last = json.loads((trained / "metrics.jsonl").read_text().splitlines()[-1])
    assert report["neg_elbo"] == pytest.approx(last["test"]["neg_elbo"], rel=1e-6)


@pytest.mark.parametrize("command", ["sample", "reconstruct", "interpolate", "latent"])
def test_pictures(trained, tmp_path, command, capsys):
    where = tmp_path / ("folder" if command == "latent" else "picture.png")
    status, out, _ = run(command, trained, "--out", where, capsys=capsys)
    assert status == 0
    made = out.split()
    assert made
    for path in made:
        assert Path(path).read_bytes()[:4] == b"\x89PNG"


def test_resume_from_the_command_line(trained, small, tmp_path, capsys):
    cut = tmp_path / "cut"
    assert run("train", "--data", small, "--out", cut, *TRAIN[2:], "--epochs", 1, capsys=capsys)[0] == 0
    status, out, _ = run("train", "--resume", "--out", cut, "--epochs", 2, capsys=capsys)
    assert status == 0
    assert out.strip() == str(cut)
    for mine, other in zip(
        (cut / "metrics.jsonl").read_text().splitlines(),
        (trained / "metrics.jsonl").read_text().splitlines(),
        strict=True,
    ):
        assert json.loads(mine) | {"seconds": 0} == json.loads(other) | {"seconds": 0}


def test_autoencoder_end_to_end(small, tmp_path, capsys):
    folder = tmp_path / "ae"
    options = ("--model", "conv-ae", "--likelihood", "mse", "--data", small, "--out", folder, *TRAIN)
    assert run("train", *options, capsys=capsys)[0] == 0
    status, out, _ = run("evaluate", folder, "--samples", 2, capsys=capsys)
    assert status == 0
    report = json.loads(out)
    assert report["rmse"] > 0
    assert run("sample", folder, "--out", tmp_path / "s.png", capsys=capsys)[0] == 0


def test_without_a_command_help_is_printed(capsys):
    status, out, _ = run(capsys=capsys)
    assert status == 0
    assert "train" in out


def test_info(capsys):
    status, out, _ = run("info", capsys=capsys)
    assert status == 0
    for word in ("tinyvae", "numpy", "devices", "threads", "caches", "mnist"):
        assert word in out


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from tinyvae.app.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'numba', 'matplotlib', 'PIL', 'tqdm') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def write_mistakes(folder, trained):
    """The files that the mistakes below need."""
    (folder / "empty").mkdir()
    (folder / "noise.npz").write_bytes(b"PK\x03\x04 this is no archive")
    np.savez(folder / "nan.npz", images=np.full((20, 4, 4, 1), np.nan, np.float32))
    np.savez(folder / "range.npz", images=np.full((20, 4, 4, 1), 7.5, np.float32))
    np.savez(folder / "shape.npz", images=np.zeros((20, 4), np.float32))
    np.savez(folder / "text.npz", images=np.array(["a", "b"]))
    (folder / "idx-ubyte").write_bytes(b"\x00\x00\x08\x03\x00\x00\x00\x09\x00\x00\x00\x04\x00\x00\x00\x04123")
    for name in ("foreign", "torn", "configless"):
        (folder / name).mkdir()
        for file in ("config.json", "metrics.jsonl", "checkpoint.safetensors"):
            (folder / name / file).write_bytes((trained / file).read_bytes())
    (folder / "foreign" / "checkpoint.safetensors").write_bytes(b"\x80\x02}q\x00.")
    whole = (trained / "checkpoint.safetensors").read_bytes()
    (folder / "torn" / "checkpoint.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "configless" / "config.json").write_text("{")
    (folder / "file").write_text("")


MISTAKES = {
    "unknown command": (["trian"], 2, "trian"),
    "not a number": (["train", "--epochs", "many"], 2, "--epochs"),
    "latent 0": (["train", "--latent-dim", "0"], 2, "latent_dim=0"),
    "negative beta": (["train", "--beta", "-1"], 2, "beta=-1.0"),
    "zero learning rate": (["train", "--lr", "0"], 2, "lr=0.0"),
    "hidden of width 0": (["train", "--hidden", "400,0"], 2, "hidden=0"),
    "unknown model": (["train", "--model", "vea"], 2, "model='vea'"),
    "unknown data": (["train", "--data", "minst"], 2, "did you mean 'mnist'"),
    "unknown likelihood": (["train", "--likelihood", "bce"], 2, "likelihood='bce'"),
    "unknown dtype": (["train", "--dtype", "float16"], 2, "dtype='float16'"),
    "sigma 0": (["train", "--likelihood", "gaussian", "--sigma", "0"], 2, "sigma=0.0"),
    "no such device": (["train", "--device", "tpu"], 1, "device='tpu'"),
    "early stop without validation": (["train", "--early-stop", "3"], 2, "--validation"),
    "missing file": (["train", "--data", "{}/none.npz"], 1, "none.npz"),
    "empty folder": (["train", "--data", "{}/empty"], 1, "empty"),
    "damaged archive": (["train", "--data", "{}/noise.npz"], 1, "noise.npz"),
    "NaN in data": (["train", "--data", "{}/nan.npz"], 1, "nan.npz: images holds nan"),
    "values out of range": (["train", "--data", "{}/range.npz"], 1, "7.5"),
    "wrong shape": (["train", "--data", "{}/shape.npz"], 1, "(20, 4)"),
    "wrong dtype": (["train", "--data", "{}/text.npz"], 1, "text.npz"),
    "truncated IDX": (["train", "--data", "{}/idx-ubyte"], 1, "idx-ubyte"),
    "resume without a folder": (["train", "--resume"], 2, "--out"),
    "resume where no run is": (["train", "--resume", "--out", "{}/empty"], 2, "config.json"),
    "resume as another run": (["train", "--resume", "--out", "{run}", "--lr", "0.5"], 2, "--lr 0.5"),
    "train into an old run": (["train", "--out", "{run}"], 2, "holds a run already"),
    "out is a file": (["train", "--out", "{}/file"], 2, "file"),
    "evaluate what is no run": (["evaluate", "{}/empty"], 2, "config.json"),
    "damaged config": (["evaluate", "{}/configless"], 2, "config.json"),
    "foreign checkpoint": (["evaluate", "{}/foreign"], 1, "checkpoint.safetensors"),
    "torn checkpoint": (["train", "--resume", "--out", "{}/torn", "--epochs", "9"], 1, "checkpoint.safetensors"),
    "picture into no folder": (["sample", "{run}", "--out", "{}/file/x.png"], 1, "x.png"),
    "no samples": (["evaluate", "{run}", "--samples", "-1"], 2, "samples=-1"),
    "no pictures": (["sample", "{run}", "--count", "0"], 2, "0"),
}


@pytest.fixture(scope="module")
def mistakes(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistakes")
    write_mistakes(folder, trained)
    return folder


@pytest.mark.parametrize("name", MISTAKES)
def test_every_mistake_is_one_clear_line(name, mistakes, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a default folder would be made
    arguments, expected, words = MISTAKES[name]
    before = {p: p.read_bytes() for root in (mistakes, trained) for p in root.rglob("*") if p.is_file()}
    status, out, err = run(
        *(a.replace("{}", str(mistakes)).replace("{run}", str(trained)) for a in arguments), capsys=capsys
    )
    line = err.strip().splitlines()[-1]
    assert status == expected, err
    assert "error:" in line
    assert words in line
    assert "Traceback" not in err
    assert out == ""
    assert sum("error:" in text for text in err.splitlines()) == 1
    assert {p: p.read_bytes() for p in before} == before, "nothing may be lost"
    assert not list(tmp_path.rglob("*.safetensors"))


def test_full_disk_is_one_line_and_the_checkpoint_stays(trained, small, tmp_path):
    """A file size limit stands in for a full disk: writes beyond it fail with EFBIG as a full disk's do with ENOSPC."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "run"
    code = "import sys; from tinyvae.app.cli import main; sys.exit(main(sys.argv[1:]))"
    base = [sys.executable, "-c", code, "train", "--out", str(folder)]
    subprocess.run([*base, "--data", str(small), *map(str, TRAIN)], check=True, capture_output=True)
    before = (folder / "checkpoint.safetensors").read_bytes()
    limit = len(before) // 2

    def shrink():
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run([*base, "--resume", "--epochs", "4"], preexec_fn=shrink, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("tinyvae train: error:")
    assert (folder / "checkpoint.safetensors").read_bytes() == before
    again = subprocess.run([*base, "--resume", "--epochs", "4"], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_folder(tmp_path, small, capsys):
    tmp_path.chmod(0o500)
    status, _, err = run("train", "--data", small, "--out", tmp_path / "run", capsys=capsys)
    assert status == 2
    assert "cannot be written to" in err
