"""Paths to data sets: NumPy files, IDX files alone and in fours, and what happens when they are damaged.
Pictures have their own file, test_datasets_pictures.py."""

import gzip
import io
import os
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from damaged_files import CUT, FLIPS, damaged, little_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyvae.datasets import load, write_idx
from tinyvae.datasets.array_files import _read_array
from tinyvae.datasets.mnist_files import PARTS
from tinyvae.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 5, 1), np.uint8)
OTHERS = RNG.integers(0, 256, (4, 6, 5, 1), np.uint8)
LABELS = np.arange(20) % 3
FEW = np.array([2, 0, 1, 1])


def whole(data):
    return np.concatenate([data.train_images, data.test_images])


def same_images(a, b):
    return sorted(x.tobytes() for x in a) == sorted(x.tobytes() for x in b)


class TestNpz:
    @pytest.mark.parametrize(
        "keys",
        [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")],
    )
    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_two_parts(self, tmp_path, keys, save):
        path = tmp_path / "set.npz"
        save(path, **dict(zip(keys, (IMAGES, LABELS, OTHERS, FEW), strict=True)))
        data = load(path)
        assert data.name == "set.npz"
        assert np.array_equal(data.train_images, IMAGES)
        assert np.array_equal(data.test_images, OTHERS)
        assert np.array_equal(data.train_labels, LABELS)
        assert np.array_equal(data.test_labels, FEW)
        assert data.train_images.flags.writeable

    def test_images_and_labels(self, tmp_path):
        path = tmp_path / "set.npz"
        np.savez(path, images=IMAGES, labels=np.arange(20), other=np.zeros(3))
        data = load(str(path), seed=4, holdout=0.2)
        assert data.note == "the last 20 % of a shuffle with seed 4 is held out (4 of 20 images)"
        assert np.array_equal(data.train_images, IMAGES[data.train_labels])
        assert np.array_equal(data.test_images, IMAGES[data.test_labels])

    def test_one_array_alone(self, tmp_path):
        np.savez(tmp_path / "set.npz", anything=IMAGES)
        assert same_images(whole(load(tmp_path / "set.npz")), IMAGES)

    def test_train_part_alone_is_split(self, tmp_path):
        np.savez(tmp_path / "set.npz", x_train=IMAGES)
        assert len(load(tmp_path / "set.npz").test_images) == 2

    def test_fortran_order_and_floats(self, tmp_path):
        images = np.asfortranarray(IMAGES / 255)
        np.savez(tmp_path / "set.npz", images=images)
        data = load(tmp_path / "set.npz")
        assert data.train_images.dtype == np.float64
        assert same_images(whole(data), IMAGES / 255)

    def test_unknown_names(self, tmp_path):
        np.savez(tmp_path / "set.npz", a=IMAGES, b=IMAGES)
        with pytest.raises(DataError, match=r"set\.npz: holds the arrays \['a', 'b'\]; name them train_images/"):
            load(tmp_path / "set.npz")

    def test_objects_are_never_unpickled(self, tmp_path):
        np.savez(tmp_path / "set.npz", images=np.array([{}, []], object))
        with pytest.raises(DataError, match="holds Python objects, which are never loaded"):
            load(tmp_path / "set.npz")

    def test_array_errors_name_the_file(self, tmp_path):
        np.savez(tmp_path / "set.npz", images=IMAGES.astype(float))
        with pytest.raises(DataError, match=r"set\.npz: images has values from .*divide by 255"):
            load(tmp_path / "set.npz")

    def test_a_file_that_names_itself_is_not_named_twice(self, tmp_path):
        (tmp_path / "mine").write_bytes(b"not idx at all")
        with pytest.raises(DataError) as caught:
            load(tmp_path / "mine")
        assert str(caught.value).count(str(tmp_path)) == 1

    def test_a_file_that_shrinks_while_it_is_read(self):
        member = npy_bytes(IMAGES)
        with pytest.raises(DataError, match="set is truncated, 599 of 600 bytes are there"):
            _read_array(io.BytesIO(member[:-1]), len(member), "set")

    @pytest.mark.parametrize("data", [b"", b"nothing of the kind", b"PK\3\4" + bytes(40)])
    def test_not_an_npz(self, tmp_path, data):
        (tmp_path / "set.npz").write_bytes(data)
        with pytest.raises(DataError, match=r"set\.npz: damaged or not a NumPy file"):
            load(tmp_path / "set.npz")

    def test_lying_header(self, tmp_path):
        member = npy_bytes(IMAGES).replace(b"(20, 6, 5, 1)", b"(2**9,6,5,1) ")
        refused_npz(tmp_path, member, r"damaged or not a NumPy file")
        member = npy_bytes(IMAGES).replace(b"(20, 6, 5, 1), }", b"(200000, 999,5),}")[:-1]
        refused_npz(tmp_path, member, r"images\.npy promises shape \(200000, 999, 5\) of uint8, 999000000 bytes")

    def test_trailing_bytes(self, tmp_path):
        refused_npz(tmp_path, npy_bytes(IMAGES) + b"x", r"600 bytes, and 601 are stored")

    def test_bomb(self, tmp_path):
        # The directory claims more than its packed bytes can inflate to.
        path = tmp_path / "set.npz"
        np.savez_compressed(path, images=IMAGES)
        raw = bytearray(path.read_bytes())
        entry = raw.index(b"PK\1\2")
        raw[entry + 24 : entry + 28] = struct.pack("<I", 1 << 30)
        path.write_bytes(raw)
        with pytest.raises(DataError, match="claims 1073741824 bytes, which its packed size cannot hold"):
            load(path)

    def test_bad_checksum(self, tmp_path):
        path = tmp_path / "set.npz"
        np.savez(path, images=IMAGES)
        raw = bytearray(path.read_bytes())
        raw[raw.index(IMAGES.tobytes()) + 7] ^= 1
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"set\.npz: damaged .*CRC"):
            load(path)

    @settings(max_examples=60, deadline=None)
    @given(flips=FLIPS, cut=CUT, packed=st.booleans())
    def test_mutations_raise_nothing_but_data_errors(self, tmp_path_factory, flips, cut, packed):
        buffer = io.BytesIO()
        (np.savez_compressed if packed else np.savez)(buffer, images=IMAGES, labels=LABELS)
        path = tmp_path_factory.getbasetemp() / "mutant.npz"
        path.write_bytes(damaged(buffer.getvalue(), flips, cut))
        with little_memory(), suppress(DataError):
            load(path)


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def refused_npz(tmp_path, member, message):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", member)
    with pytest.raises(DataError, match=message):
        load(path)


class TestNpy:
    def test_array(self, tmp_path):
        np.save(tmp_path / "a.npy", IMAGES)
        assert same_images(whole(load(tmp_path / "a.npy")), IMAGES)

    def test_truncated(self, tmp_path):
        (tmp_path / "a.npy").write_bytes(npy_bytes(IMAGES)[:-1])
        with pytest.raises(DataError, match=r"a\.npy promises shape \(20, 6, 5, 1\) of uint8, 600 bytes, and 599"):
            load(tmp_path / "a.npy")

    def test_not_an_npy(self, tmp_path):
        (tmp_path / "a.npy").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"a\.npy: damaged or not a NumPy file"):
            load(tmp_path / "a.npy")


class TestIdxFile:
    @pytest.mark.parametrize("end", ["", ".gz"])
    @pytest.mark.parametrize("label_end", ["", ".gz"])
    def test_labels_beside_it_are_used(self, tmp_path, end, label_end):
        write_idx(tmp_path / f"train-images-idx3-ubyte{end}", IMAGES[..., 0])
        write_idx(tmp_path / f"train-labels-idx1-ubyte{label_end}", np.arange(20, dtype=np.uint8))
        data = load(tmp_path / f"train-images-idx3-ubyte{end}")
        assert np.array_equal(data.train_images, IMAGES[data.train_labels])
        assert np.array_equal(data.test_images, IMAGES[data.test_labels])
        assert "held out" in data.note

    def test_any_name_without_labels(self, tmp_path):
        write_idx(tmp_path / "mine", IMAGES)
        assert load(tmp_path / "mine").train_labels is None

    def test_floats(self, tmp_path):
        write_idx(tmp_path / "mine", (IMAGES / 255).astype(np.float32))
        assert load(tmp_path / "mine").train_images.dtype == np.float32

    def test_a_labels_file_is_no_image_file(self, tmp_path):
        write_idx(tmp_path / "train-labels-idx1-ubyte", LABELS.astype(np.uint8))
        with pytest.raises(DataError, match=r"train-labels-idx1-ubyte: images has shape \(20,\)"):
            load(tmp_path / "train-labels-idx1-ubyte")

    def test_too_few_labels(self, tmp_path):
        write_idx(tmp_path / "train-images-idx3-ubyte", IMAGES)
        write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(19, np.uint8))
        with pytest.raises(DataError, match=r"labels have shape \(19,\) for 20 images"):
            load(tmp_path / "train-images-idx3-ubyte")

    def test_damage_is_named(self, tmp_path):
        (tmp_path / "mine.gz").write_bytes(gzip.compress(b"not idx at all"))
        with pytest.raises(DataError, match=r"mine\.gz: not an IDX file"):
            load(tmp_path / "mine.gz")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    @pytest.mark.parametrize("name", ["pipe", "pipe.npz", "pipe.npy"])
    def test_a_named_pipe_does_not_hang(self, tmp_path, name):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="is neither a file nor a folder"):
            load(tmp_path / name)

    def test_a_loop_of_links(self, tmp_path):
        (tmp_path / "a").symlink_to(tmp_path / "a")
        with pytest.raises(DataError, match=str(tmp_path / "a")):
            load(tmp_path / "a")

    @pytest.mark.parametrize("option", [{"image_size": (8, 8)}, {"color": False}])
    def test_picture_options_are_not_ignored(self, tmp_path, option):
        write_idx(tmp_path / "mine", IMAGES)
        with pytest.raises(ConfigError, match="works for folders of pictures only"):
            load(tmp_path / "mine", **option)


class TestFolderOfFour:
    def fill(self, folder, names, end=""):
        for name, array in zip(names, (IMAGES, LABELS, OTHERS, FEW), strict=True):
            array = array[..., 0] if array.ndim == 4 else array
            write_idx(folder / f"{name}{end}", array.astype(np.uint8))

    @pytest.mark.parametrize("end", ["", ".gz"])
    @pytest.mark.parametrize("dot", ["-idx", ".idx"])
    def test_both_parts(self, tmp_path, end, dot):
        self.fill(tmp_path, [part.replace("-idx", dot) for part in PARTS], end)
        data = load(tmp_path)
        assert data.name == tmp_path.name
        assert np.array_equal(data.train_images, IMAGES)
        assert np.array_equal(data.test_images, OTHERS)
        assert data.train_labels.tolist() == LABELS.tolist()
        assert data.test_labels.tolist() == FEW.tolist()
        assert data.note == "the test part was given"

    def test_a_folder_called_mnist_holds_what_it_holds(self, tmp_path):
        (tmp_path / "mnist").mkdir()
        self.fill(tmp_path / "mnist", PARTS)
        assert len(load(tmp_path / "mnist").train_images) == 20

    @pytest.mark.parametrize("lost", range(4))
    def test_one_missing(self, tmp_path, lost):
        self.fill(tmp_path, PARTS)
        (tmp_path / PARTS[lost]).unlink()
        with pytest.raises(DataError, match=f"{PARTS[lost]} missing of the four files"):
            load(tmp_path)
