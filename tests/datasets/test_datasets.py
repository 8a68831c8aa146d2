"""Data sets by name, arrays made into data sets, and every refusal on the way.
Files are in test_datasets_idx.py, _files.py, _pictures.py, _fashion.py; sprites in _sprites.py."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import tinyvae.datasets
from tinyvae.datasets import Dataset, as_dataset, load, mnist_files
from tinyvae.errors import ConfigError, DataError


def pictures(n=20, h=5, w=4, c=1, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, h, w, c), np.uint8)


@pytest.fixture(scope="module")
def mnist():
    return load("mnist")


class TestMnist:
    def test_counts(self, mnist):
        assert mnist.name == "mnist"
        assert mnist.train_images.shape == (60_000, 28, 28, 1)
        assert mnist.test_images.shape == (10_000, 28, 28, 1)
        assert mnist.train_images.dtype == mnist.test_images.dtype == np.uint8
        assert mnist.image_shape == (28, 28, 1)
        assert mnist.label_names == tuple("0123456789")
        assert mnist.note == "the test part was given"

    def test_labels(self, mnist):
        train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(mnist.train_labels).tolist() == train
        assert np.bincount(mnist.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]

    def test_pixels(self, mnist):
        assert mnist.train_images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
        assert mnist.train_images.std() / 255 == pytest.approx(0.3081, abs=5e-5)

    def test_ones_stand_upright(self, mnist):
        one = mnist.train_images[mnist.train_labels == 1][..., 0].mean(0)
        assert (one.max(1) > 60).sum() > 1.5 * (one.max(0) > 60).sum()  # taller than wide

    def test_arrays_are_writable_and_contiguous(self, mnist):
        for array in (mnist.train_images, mnist.test_images, mnist.train_labels, mnist.test_labels):
            assert array.flags.writeable
            assert array.flags.c_contiguous

    def test_one_changed_pixel_is_noticed(self, tmp_path, monkeypatch, mnist):
        images, labels = mnist.test_images[..., 0].copy(), mnist.test_labels
        images[5000, 14, 14] ^= 1
        for part, array in zip(mnist_files.PARTS, (images, labels, images, labels), strict=True):
            tinyvae.datasets.write_idx(tmp_path / part, array)
        monkeypatch.setattr(mnist_files, "PACKAGED", tmp_path)
        sums = mnist_files.SHA256["mnist"]
        monkeypatch.setitem(mnist_files.SHA256, "mnist", (sums[2], sums[3], sums[2], sums[3]))
        with pytest.raises(DataError, match=r"train-images-idx3-ubyte: not the original file"):
            load("mnist")

    def test_notice_ships_beside_the_files(self):
        notice = (mnist_files.PACKAGED / "NOTICE").read_text()
        for text in ("Yann LeCun", "Corinna Cortes", "Christopher J. C. Burges", "CC BY-SA 3.0"):
            assert text in notice

    def test_files_are_gzipped_reproducibly(self):
        for file in mnist_files.find_files(mnist_files.PACKAGED):
            assert file.read_bytes()[3:8] == bytes(5)  # no name, no date


class TestNames:
    def test_unknown_name_lists_all(self):
        with pytest.raises(ConfigError, match=r"'mnits'; did you mean 'mnist'\? .*fashion-mnist, sprites.*\.npz.*IDX"):
            load("mnits")

    def test_case(self):
        with pytest.raises(ConfigError, match="did you mean 'fashion-mnist'"):
            load("FashionMNIST")

    def test_nothing_like_it(self):
        with pytest.raises(ConfigError, match="'qqqq'; the names are"):
            load("qqqq")

    def test_empty_name(self):
        with pytest.raises(ConfigError, match="called ''"):
            load("")

    @pytest.mark.parametrize("path", ["nowhere/at/all", "nowhere.npz", "~/nowhere-at-all"])
    def test_missing_path(self, path):
        with pytest.raises(DataError, match="no such file or folder"):
            load(path)

    @pytest.mark.parametrize("path", ["a\0b/c", "~no-such-user/x"])
    def test_impossible_path(self, path):
        with pytest.raises(DataError):
            load(path)

    def test_not_a_name_at_all(self):
        with pytest.raises(ConfigError, match=r"is a ndarray; .*as_dataset"):
            load(pictures())

    @pytest.mark.parametrize("option", [{"image_size": (8, 8)}, {"color": True}])
    def test_picture_options_are_not_ignored(self, option):
        with pytest.raises(ConfigError, match="works for folders of pictures only, not for mnist"):
            load("mnist", **option)

    def test_available(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TINYVAE_DATA", str(tmp_path))
        monkeypatch.setattr(mnist_files, "SYSTEM_FOLDER", tmp_path / "none")
        rows = tinyvae.datasets.available()
        assert [(row.name, row.found) for row in rows] == [("mnist", True), ("fashion-mnist", False), ("sprites", True)]
        assert "apt-get install dataset-fashion-mnist" in rows[1].where


def test_import_is_light():
    code = (
        "import sys, tinyvae.datasets; print([m for m in ('matplotlib', 'pooch', 'PIL', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class TestAsDataset:
    def test_holdout_is_the_last_tenth_of_a_seeded_shuffle(self):
        images = pictures(30)
        data = as_dataset(images, np.arange(30), seed=3)
        order = np.random.Generator(np.random.Philox(3)).permutation(30)
        assert data.train_labels.tolist() == order[:27].tolist()
        assert data.test_labels.tolist() == order[27:].tolist()
        assert np.array_equal(data.train_images, images[order[:27]])
        assert np.array_equal(data.test_images, images[order[27:]])
        assert data.note == "the last 10 % of a shuffle with seed 3 is held out (3 of 30 images)"

    def test_seed_and_share_matter(self):
        a, b, c = (as_dataset(pictures(), holdout=h, seed=s) for h, s in ((0.1, 0), (0.1, 1), (0.25, 0)))
        assert not np.array_equal(a.train_images, b.train_images)
        assert len(c.test_images) == 5
        assert c.note.startswith("the last 25 %")

    @pytest.mark.parametrize("n", [2, 3, 9])
    @pytest.mark.parametrize("holdout", [0.01, 0.99])
    def test_both_parts_always_have_an_image(self, n, holdout):
        data = as_dataset(pictures(n), holdout=holdout)
        assert len(data.train_images) >= 1
        assert len(data.test_images) >= 1
        assert len(data.train_images) + len(data.test_images) == n

    def test_given_test_part(self):
        data = as_dataset(pictures(6), [0] * 6, test_images=pictures(3, seed=1), test_labels=[1] * 3)
        assert np.array_equal(data.train_images, pictures(6))
        assert np.array_equal(data.test_images, pictures(3, seed=1))
        assert data.note == "the test part was given"

    def test_a_channel_axis_is_added(self):
        assert as_dataset(pictures()[..., 0]).image_shape == (5, 4, 1)
        assert as_dataset(pictures(c=3)).image_shape == (5, 4, 3)

    @pytest.mark.parametrize(
        ("given", "kept"), [("float32", "float32"), ("float64", "float64"), ("float16", "float32"), (">f4", "float32")]
    )
    def test_floats_stay_floats(self, given, kept):
        images = (pictures() / 255).astype(given)
        data = as_dataset(images)
        assert data.train_images.dtype == np.dtype(kept)
        assert data.train_images.dtype.isnative
        assert data.train_images.sum() + data.test_images.sum() == pytest.approx(images.astype(float).sum())

    def test_factors_are_split_with_the_images(self):
        images = pictures(20)
        images[:, 0, 0, 0] = np.arange(20)
        data = as_dataset(images, factors={"number": np.arange(20)})
        assert np.array_equal(data.factors["number"].train, data.train_images[:, 0, 0, 0])
        assert np.array_equal(data.factors["number"].test, data.test_images[:, 0, 0, 0])

    def test_a_dataset_stays_itself(self):
        data = as_dataset(pictures())
        assert as_dataset(data) is data

    def test_it_is_frozen_and_prints_short(self):
        data = as_dataset(pictures(), name="mine")
        with pytest.raises(dataclasses.FrozenInstanceError):
            data.name = "other"
        assert repr(data).startswith("Dataset('mine': 18 training and 2 test images of 5×4×1, uint8, no labels; ")
        assert isinstance(data, Dataset)

    def test_column_labels(self):
        assert as_dataset(pictures(), np.zeros((20, 1), int)).train_labels.shape == (18,)

    def test_big_endian_labels_become_native(self):
        assert as_dataset(pictures(), np.zeros(20, ">i4")).train_labels.dtype.isnative


class TestRefusals:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_not_finite(self, bad):
        images = pictures() / 255
        images[7, 1, 2, 0] = bad
        with pytest.raises(DataError, match=r"images holds -?(nan|inf) at \(7, 1, 2, 0\)"):
            as_dataset(images)

    def test_0_to_255_as_float(self):
        with pytest.raises(DataError, match=r"values from 0 to 255 .*divide by 255 or pass images.astype\(np.uint8\)"):
            as_dataset(pictures().astype(float))

    def test_minus_1_to_1(self):
        with pytest.raises(DataError, match=r"looks like -1\.\.1, so pass \(images \+ 1\) / 2"):
            as_dataset(pictures() / 127.5 - 1)

    @pytest.mark.parametrize(("low", "high"), [(-0.5, 3), (0, 1000), (-0.0001, 1), (0, 1.0001)])
    def test_other_ranges(self, low, high):
        images = np.full((4, 3, 3, 1), low, float)
        images[0] = high
        with pytest.raises(DataError, match=r"float images need \[0, 1\]"):
            as_dataset(images)

    @pytest.mark.parametrize("shape", [(), (4,), (4, 4), (2, 2, 2, 2, 2)])
    def test_ndim(self, shape):
        with pytest.raises(DataError, match=r"has shape \(.*pass \(N, H, W, C\) or \(N, H, W\)"):
            as_dataset(np.zeros(shape, np.uint8))

    @pytest.mark.parametrize("shape", [(0, 4, 4, 1), (4, 0, 4, 1), (4, 4, 4, 0), (0, 4, 4)])
    def test_empty(self, shape):
        with pytest.raises(DataError, match="holds no pixels"):
            as_dataset(np.zeros(shape, np.uint8))

    def test_channels_first(self):
        with pytest.raises(DataError, match=r"looks channels first; pass images.transpose\(0, 2, 3, 1\)"):
            as_dataset(np.zeros((10, 3, 32, 32), np.uint8))

    @pytest.mark.parametrize(
        ("dtype", "fix"),
        [
            ("bool", r"images.astype\(np.float32\)"),
            ("int64", r"images.astype\(np.uint8\)"),
            ("uint16", r"images / images.max\(\)"),
            ("complex64", "pass an array of uint8"),
            ("U3", "pass an array of uint8"),
            ("O", "pass an array of uint8"),
            ("M8[s]", "pass an array of uint8"),
        ],
    )
    def test_dtype(self, dtype, fix):
        with pytest.raises(DataError, match=rf"images has dtype .*{fix}"):
            as_dataset(np.zeros((4, 3, 3, 1), dtype))

    def test_ragged_list(self):
        with pytest.raises(DataError, match=r"images is not an array .*np\.stack"):
            as_dataset([np.zeros((2, 2)), np.zeros((3, 3))])

    def test_one_image_cannot_be_split(self):
        with pytest.raises(DataError, match="holds 1 image, and one must be held out"):
            as_dataset(pictures(1))

    @pytest.mark.parametrize("holdout", [0, 1, -0.1, 1.5, float("nan")])
    def test_holdout(self, holdout):
        with pytest.raises(ConfigError, match=r"holdout=.* is not a share"):
            as_dataset(pictures(), holdout=holdout)

    @pytest.mark.parametrize("seed", [-1, 1.5, True, "0"])
    def test_seed(self, seed):
        with pytest.raises(ConfigError, match=r"seed=.* cannot seed a shuffle"):
            as_dataset(pictures(), seed=seed)

    def test_label_count(self):
        with pytest.raises(DataError, match=r"labels have shape \(19,\) for 20 images"):
            as_dataset(pictures(), np.zeros(19, int))

    @pytest.mark.parametrize("labels", [np.zeros(20), np.array(["cat"] * 20), np.zeros(20, bool)])
    def test_label_dtype(self, labels):
        with pytest.raises(DataError, match=r"labels have dtype .*np\.unique"):
            as_dataset(pictures(), labels)

    def test_ragged_labels(self):
        with pytest.raises(DataError, match="labels are not an array"):
            as_dataset(pictures(2), [[1], [1, 2]])

    def test_negative_labels(self):
        with pytest.raises(DataError, match="labels go down to -1; number the classes from 0"):
            as_dataset(pictures(), np.arange(20) - 1)

    def test_parts_of_different_shape_or_dtype(self):
        for other in (pictures(3, h=6), pictures(3, c=3), pictures(3) / 255):
            with pytest.raises(DataError, match="give both parts the same"):
                as_dataset(pictures(), test_images=other)

    def test_the_test_part_is_checked_too(self):
        with pytest.raises(DataError, match="test_images has values from"):
            as_dataset(pictures() / 255, test_images=pictures(3) / 1.0)
        with pytest.raises(DataError, match=r"test_labels have shape \(4,\) for 3 images"):
            as_dataset(pictures(), [0] * 20, test_images=pictures(3), test_labels=[0] * 4)

    def test_labels_for_one_part_only(self):
        with pytest.raises(DataError, match="labels must be given for both"):
            as_dataset(pictures(), [0] * 20, test_images=pictures(3))
        with pytest.raises(DataError, match="test_labels were given without test_images"):
            as_dataset(pictures(), [0] * 20, test_labels=[0] * 3)

    def test_factors_with_a_test_part(self):
        with pytest.raises(DataError, match="factors cannot be given with test_images"):
            as_dataset(pictures(), test_images=pictures(3), factors={"x": np.zeros(20)})
