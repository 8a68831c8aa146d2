"""Fashion-MNIST: where it is looked for, what is checked, and the download, with small files in its place.
Nothing here leaves the machine; one test uses the real files where the Debian package is installed."""

import functools
import hashlib
import http.server
import shutil
import sys
import threading

import numpy as np
import pytest

import tinyvae.datasets
from tinyvae.datasets import load, mnist_files, write_idx
from tinyvae.datasets.mnist_files import PARTS, SYSTEM_FOLDER
from tinyvae.errors import ConfigError, DataError

ARRAYS = (
    np.arange(12 * 4, dtype=np.uint8).reshape(12, 2, 2),
    np.arange(12, dtype=np.uint8) % 10,
    np.arange(3 * 4, dtype=np.uint8).reshape(3, 2, 2),
    np.arange(3, dtype=np.uint8),
)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Small files pass for Fashion-MNIST; they lie in tmp_path/mirror, and both places to look in are empty."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    sums = []
    for part, array in zip(PARTS, ARRAYS, strict=True):
        write_idx(tmp_path / part, array)
        sums.append(hashlib.sha256((tmp_path / part).read_bytes()).hexdigest())
        write_idx(mirror / f"{part}.gz", array)
    monkeypatch.setitem(mnist_files.SHA256, "fashion-mnist", tuple(sums))
    monkeypatch.setattr(mnist_files, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(mnist_files, "MIRRORS", ("https://one.invalid/", "https://two.invalid/"))
    monkeypatch.setenv("TINYVAE_DATA", str(tmp_path / "data"))
    return tmp_path


def put(world, folder):
    shutil.copytree(world / "mirror", folder)
    return folder


class TestPlaces:
    def test_data_directory(self, world):
        put(world, world / "data" / "fashion-mnist")
        data = load("fashion-mnist")
        assert data.name == "fashion-mnist"
        assert np.array_equal(data.train_images[..., 0], ARRAYS[0])
        assert np.array_equal(data.test_labels, ARRAYS[3])
        assert data.label_names[0] == "T-shirt/top"
        assert data.label_names[9] == "Ankle boot"
        assert len(data.label_names) == 10

    def test_system_folder(self, world):
        put(world, world / "system")
        assert len(load("fashion-mnist").train_images) == 12
        assert tinyvae.datasets.available()[1] == ("fashion-mnist", True, str(world / "system"))

    def test_argument_comes_first(self, world):
        put(world, world / "mine" / "fashion-mnist")
        assert len(load("fashion-mnist", data_dir=world / "mine").train_images) == 12

    def test_home_is_the_default(self, monkeypatch, tmp_path):
        monkeypatch.delenv("TINYVAE_DATA", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert mnist_files.data_directory() == tmp_path / ".cache" / "tinyvae"
        monkeypatch.setenv("TINYVAE_DATA", "~/x")
        assert mnist_files.data_directory() == tmp_path / "x"
        assert mnist_files.data_directory(tmp_path / "y") == tmp_path / "y"

    def test_missing_says_where_and_how(self, world):
        with pytest.raises(DataError) as caught:
            load("fashion-mnist")
        message = str(caught.value)
        folder = world / "data" / "fashion-mnist"
        for text in (
            f"looked in {folder} (which has 0 of the four files) and {world / 'system'}",
            "apt-get install dataset-fashion-mnist",
            f"train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
            f"t10k-labels-idx1-ubyte.gz into {folder}",
            "pip install 'tinyvae[data]'",
            "tinyvae.datasets.download('fashion-mnist')",
        ):
            assert text in message

    def test_incomplete_folder_is_passed_over(self, world):
        folder = put(world, world / "data" / "fashion-mnist")
        (folder / f"{PARTS[2]}.gz").unlink()
        with pytest.raises(DataError, match="has 3 of the four files"):
            load("fashion-mnist")
        put(world, world / "system")
        assert len(load("fashion-mnist").train_images) == 12

    @pytest.mark.parametrize("part", range(4))
    def test_every_file_is_checked(self, world, part):
        folder = put(world, world / "data" / "fashion-mnist")
        changed = ARRAYS[part].copy()
        changed.flat[-1] ^= 1
        write_idx(folder / f"{PARTS[part]}.gz", changed)
        with pytest.raises(DataError, match=rf"{PARTS[part]}\.gz: not the original file"):
            load("fashion-mnist")


class TestDownload:
    @pytest.fixture
    def asked(self, world, monkeypatch):
        """pooch.retrieve copies from the mirror folder; the list tells which addresses were asked for."""
        pooch = pytest.importorskip("pooch")
        asked = []

        def retrieve(url, known_hash, fname, path):
            asked.append(url)
            return shutil.copy(world / "mirror" / url.rsplit("/", 1)[1], f"{path}/{fname}")

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        return asked

    def test_download_then_load(self, world, asked):
        folder = tinyvae.datasets.download("fashion-mnist")
        assert folder == world / "data" / "fashion-mnist"
        assert sorted(file.name for file in folder.iterdir()) == sorted(f"{part}.gz" for part in PARTS)
        assert asked == [f"https://one.invalid/{part}.gz" for part in PARTS]
        assert len(load("fashion-mnist").train_images) == 12

    def test_sound_files_are_kept_and_damaged_ones_replaced(self, world, asked):
        folder = tinyvae.datasets.download("fashion-mnist", data_dir=world / "other")
        assert folder == world / "other" / "fashion-mnist"
        (folder / f"{PARTS[1]}.gz").write_bytes(b"damaged")
        asked.clear()
        tinyvae.datasets.download("fashion-mnist", data_dir=world / "other")
        assert asked == [f"https://one.invalid/{PARTS[1]}.gz"]
        assert len(load("fashion-mnist", data_dir=world / "other").train_images) == 12

    def test_second_mirror(self, world, monkeypatch):
        pooch = pytest.importorskip("pooch")

        def retrieve(url, known_hash, fname, path):
            if "one" in url:
                raise OSError("no route")
            return shutil.copy(world / "mirror" / fname, path)

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        tinyvae.datasets.download("fashion-mnist")
        assert len(load("fashion-mnist").train_images) == 12

    def test_wrong_bytes_are_not_kept(self, world, asked):
        write_idx(world / "mirror" / f"{PARTS[0]}.gz", ARRAYS[0] + np.uint8(1))
        with pytest.raises(
            DataError, match=r"could not be downloaded \(https://one.* not the original .*https://two.* not the orig"
        ):
            tinyvae.datasets.download("fashion-mnist")
        assert list((world / "data" / "fashion-mnist").iterdir()) == []

    def test_through_pooch_itself(self, world, monkeypatch):
        pytest.importorskip("pooch")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        handler = functools.partial(Quiet, directory=str(world / "mirror"))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            address = f"http://127.0.0.1:{server.server_address[1]}/"
            monkeypatch.setattr(mnist_files, "MIRRORS", (f"{address}wrong/", address))
            tinyvae.datasets.download("fashion-mnist")
            server.shutdown()
        assert len(load("fashion-mnist").train_images) == 12

    def test_without_pooch(self, world, monkeypatch):
        monkeypatch.setitem(sys.modules, "pooch", None)
        with pytest.raises(DataError, match=r"needs the package pooch; run pip install 'tinyvae\[data\]'"):
            tinyvae.datasets.download("fashion-mnist")

    def test_folder_cannot_be_made(self, world, asked):
        (world / "data").write_text("a file is in the way")
        with pytest.raises(DataError, match=r"cannot be written .*; set TINYVAE_DATA"):
            tinyvae.datasets.download("fashion-mnist")

    @pytest.mark.parametrize("name", ["mnist", "sprites", "other"])
    def test_other_names(self, name):
        with pytest.raises(ConfigError, match=f"name='{name}' cannot be downloaded; only 'fashion-mnist' can"):
            tinyvae.datasets.download(name)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.mark.skipif(not SYSTEM_FOLDER.is_dir(), reason="the package dataset-fashion-mnist is not installed")
def test_the_real_one(tmp_path):
    data = load("fashion-mnist", data_dir=tmp_path)
    assert data.train_images.shape == (60_000, 28, 28, 1)
    assert data.test_images.shape == (10_000, 28, 28, 1)
    assert np.bincount(data.train_labels).tolist() == [6000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    assert data.train_images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
