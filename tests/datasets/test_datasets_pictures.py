"""Folders of pictures: grey and colour, depth, transparency, sizes, classes by sub-folder, and broken files.
All pictures are made here with Pillow, a few pixels each."""

import os
import struct
import zlib

import numpy as np
import pytest

from tinyvae.datasets import load
from tinyvae.datasets.pictures import list_pictures, read_pictures
from tinyvae.errors import ConfigError, DataError

Image = pytest.importorskip("PIL.Image")

GREY = np.arange(0, 240, 10, np.uint8).reshape(4, 6)
COLOUR = np.stack([GREY, GREY[::-1], np.full_like(GREY, 9)], axis=-1)


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def grey_folder(folder, n=10):
    for i in range(n):
        save(folder / f"{i:02}.png", GREY + np.uint8(i))
    return folder


def one(path, **options):
    return read_pictures([path], **options)[0]


class TestFolders:
    def test_grey_pictures(self, tmp_path):
        data = load(grey_folder(tmp_path / "mine"))
        assert data.name == "mine"
        assert data.image_shape == (4, 6, 1)
        assert data.train_images.dtype == np.uint8
        assert data.train_labels is None
        assert data.note == "the last 10 % of a shuffle with seed 0 is held out (1 of 10 images)"

    def test_sorted_order(self, tmp_path):
        grey_folder(tmp_path)
        files = list_pictures(tmp_path).files
        assert [file.name for file in files] == [f"{i:02}.png" for i in range(10)]
        assert read_pictures(files)[:, 0, 0, 0].tolist() == list(range(10))

    @pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "PNG"])
    def test_formats(self, tmp_path, suffix):
        save(tmp_path / f"a.{suffix}", np.full((8, 8), 77, np.uint8))
        save(tmp_path / f"b.{suffix}", np.full((8, 8), 77, np.uint8))
        data = load(tmp_path)
        assert abs(data.train_images.astype(int) - 77).max() <= 1

    def test_other_and_hidden_files_are_passed_over(self, tmp_path):
        grey_folder(tmp_path, 3)
        (tmp_path / "notes.txt").write_text("no picture")
        (tmp_path / ".hidden.png").write_text("no picture")
        (tmp_path / "__MACOSX").mkdir()
        (tmp_path / "__MACOSX" / "00.png").write_text("no picture")
        (tmp_path / "folder.png").mkdir()
        assert len(load(tmp_path).train_images) == 2

    def test_sub_folders_are_labels(self, tmp_path):
        for name, value in (("dogs", 200), ("cats", 100)):
            for i in range(5):
                save(tmp_path / name / "deeper" / f"{i}.png", np.full((4, 6), value + i, np.uint8))
        (tmp_path / "empty").mkdir()
        data = load(tmp_path)
        assert data.label_names == ("cats", "dogs")
        for images, labels in ((data.train_images, data.train_labels), (data.test_images, data.test_labels)):
            assert labels.dtype == np.uint8
            assert np.array_equal(images[:, 0, 0, 0] >= 200, labels == 1)

    def test_train_and_test_are_parts_not_labels(self, tmp_path):
        for part, value in (("train", 10), ("test", 20)):
            for k, name in enumerate(("a", "b")):
                save(tmp_path / part / name / "1.png", np.full((4, 6), value + k, np.uint8))
        data = load(tmp_path)
        assert data.train_images[:, 0, 0, 0].tolist() == [10, 11]
        assert data.test_images[:, 0, 0, 0].tolist() == [20, 21]
        assert data.test_labels.tolist() == [0, 1]
        assert data.label_names == ("a", "b")
        assert data.note == "the test part was given"

    def test_parts_with_different_classes(self, tmp_path):
        save(tmp_path / "train" / "a" / "1.png", GREY)
        save(tmp_path / "test" / "b" / "1.png", GREY)
        with pytest.raises(DataError, match=r"train has the classes \('a',\) and test has \('b',\)"):
            load(tmp_path)

    def test_loose_pictures_beside_classes(self, tmp_path):
        save(tmp_path / "loose.png", GREY)
        save(tmp_path / "a" / "1.png", GREY)
        with pytest.raises(DataError, match=r"holds pictures \(loose.png\) and sub-folders of pictures \(a\)"):
            load(tmp_path)

    def test_empty_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"holds no pictures .*png.* and none of the four files"):
            load(tmp_path)

    def test_one_picture_is_no_data_set(self, tmp_path):
        with pytest.raises(DataError, match="is one picture; pass the folder"):
            load(save(tmp_path / "a.png", GREY))
        with pytest.raises(DataError, match="images holds 1 image"):
            load(tmp_path)

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
    def test_a_named_pipe_does_not_hang(self, tmp_path):
        grey_folder(tmp_path / "a", 3)
        os.mkfifo(tmp_path / "a" / "pipe.png")
        assert len(load(tmp_path).train_images) == 2

    def test_reading_nothing(self):
        with pytest.raises(DataError, match="there are no pictures to read"):
            read_pictures([])


class TestSizes:
    def test_mixed_sizes(self, tmp_path):
        save(tmp_path / "a.png", GREY)
        save(tmp_path / "b.png", GREY.T)
        with pytest.raises(DataError, match=r"b\.png: is 6×4 where a\.png is 4×6; pass image_size=\(H, W\)"):
            load(tmp_path)
        assert load(tmp_path, image_size=(5, 3)).image_shape == (5, 3, 1)

    def test_resizing_keeps_a_flat_picture_flat(self, tmp_path):
        path = save(tmp_path / "a.png", np.full((9, 13, 3), 50, np.uint8))
        assert (one(path, image_size=(4, 5)) == 50).all()

    @pytest.mark.parametrize("size", [8, (8,), (8, 8, 3), (0, 8), (8, -1), (8.0, 8), "88", (True, 8), (8, 10**6)])
    def test_bad_image_size(self, tmp_path, size):
        with pytest.raises(ConfigError, match="is not a height and a width"):
            load(grey_folder(tmp_path, 2), image_size=size)

    def test_too_much_for_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr("tinyvae.datasets.pictures.MAX_BYTES", 100)
        with pytest.raises(DataError, match=r"10 pictures like 00\.png take 240 bytes, more than the bound"):
            load(grey_folder(tmp_path))


class TestColour:
    def test_all_colour(self, tmp_path):
        pixels = one(save(tmp_path / "a.png", COLOUR))
        assert np.array_equal(pixels, COLOUR)

    @pytest.mark.parametrize("first", ["grey", "colour"])
    def test_one_colour_picture_makes_all_three_channels(self, tmp_path, first):
        a, b = (GREY, COLOUR) if first == "grey" else (COLOUR, GREY)
        images = read_pictures([save(tmp_path / "a.png", a), save(tmp_path / "b.png", b)])
        grey, colour = images if first == "grey" else images[::-1]
        assert np.array_equal(grey, np.stack([GREY] * 3, axis=-1))
        assert np.array_equal(colour, COLOUR)

    def test_color_forces(self, tmp_path):
        a, b = save(tmp_path / "a.png", GREY), save(tmp_path / "b.png", COLOUR)
        assert np.array_equal(one(a, color=True), np.stack([GREY] * 3, axis=-1))
        assert one(b, color=False).shape == (4, 6, 1)
        assert abs(one(b, color=False)[..., 0] - COLOUR @ [0.299, 0.587, 0.114]).max() < 1
        assert load(tmp_path, color=False).image_shape == (4, 6, 1)
        assert load(tmp_path, color=True).image_shape == (4, 6, 3)

    def test_palettes(self, tmp_path):
        Image.fromarray(COLOUR).quantize(32).save(tmp_path / "colour.png")
        Image.fromarray(np.stack([GREY] * 3, axis=-1)).quantize(32).save(tmp_path / "grey.png")
        assert one(tmp_path / "colour.png").shape == (4, 6, 3)
        assert one(tmp_path / "grey.png").shape == (4, 6, 1)

    def test_one_bit(self, tmp_path):
        Image.fromarray(GREY > 100).save(tmp_path / "a.png")
        assert np.array_equal(one(tmp_path / "a.png")[..., 0], 255 * (GREY > 100))

    def test_cmyk(self, tmp_path):
        Image.new("CMYK", (6, 4), (0, 0, 0, 0)).save(tmp_path / "a.tif")
        assert (one(tmp_path / "a.tif") == 255).all()
        assert one(tmp_path / "a.tif").shape == (4, 6, 3)


class TestTransparency:
    @pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
    def test_composited_on_white(self, tmp_path, mode, channels):
        for alpha, expected in ((0, 255), (255, 100), (128, 177)):
            Image.new(mode, (6, 4), (*[100] * channels, alpha)).save(tmp_path / "a.png")
            pixels = one(tmp_path / "a.png")
            assert pixels.shape == (4, 6, channels)
            assert abs(pixels.astype(int) - expected).max() <= 1

    @pytest.mark.parametrize(("mode", "key"), [("L", 100), ("RGB", (100, 100, 100))])
    def test_a_transparent_colour(self, tmp_path, mode, key):
        Image.new(mode, (6, 4), key).save(tmp_path / "a.png", transparency=key)
        pixels = one(tmp_path / "a.png")
        assert (pixels == 255).all()
        assert pixels.shape[2] == len(mode)

    def test_a_transparent_palette_entry(self, tmp_path):
        picture = Image.new("P", (6, 4), 1)
        picture.putpalette([0, 0, 0, 200, 0, 0])
        picture.putpixel((0, 0), 0)
        picture.save(tmp_path / "a.png", transparency=bytes([255, 0]))
        pixels = one(tmp_path / "a.png", color=True)
        assert pixels[0, 0].tolist() == [0, 0, 0]
        assert pixels[1, 1].tolist() == [255, 255, 255]

    def test_a_transparent_16_bit_grey(self, tmp_path):
        (tmp_path / "a.png").write_bytes(png(np.array([[7, 7], [257, 7]], ">u2"), extra=(b"tRNS", b"\0\7")))
        assert one(tmp_path / "a.png")[..., 0].tolist() == [[255, 255], [1, 255]]


class TestDepth:
    def test_16_bit_png_is_scaled_not_clipped(self, tmp_path):
        path = save(tmp_path / "a.png", GREY.astype(np.uint16) * 257)
        assert np.array_equal(one(path)[..., 0], GREY)

    @pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
    def test_16_bit_tiff(self, tmp_path, byte_order):
        path = save(tmp_path / "a.tif", (GREY.astype(np.uint16) * 257).astype(byte_order))
        assert np.array_equal(one(path)[..., 0], GREY)

    def test_32_bit_within_16(self, tmp_path):
        path = save(tmp_path / "a.tif", GREY.astype(np.int32) * 257)
        assert np.array_equal(one(path)[..., 0], GREY)

    def test_32_bit_beyond_16(self, tmp_path):
        path = save(tmp_path / "a.tif", GREY.astype(np.int32) * 1000)
        with pytest.raises(DataError, match=r"a\.tif: .*from 0 to 230000, outside the 16 bits"):
            one(path)

    @pytest.mark.parametrize("top", [1, 255])
    def test_floats(self, tmp_path, top):
        path = save(tmp_path / "a.tif", (GREY / 255 * top).astype(np.float32))
        assert np.array_equal(one(path)[..., 0], GREY)

    @pytest.mark.parametrize("bad", [np.nan, -1, 1000])
    def test_floats_outside(self, tmp_path, bad):
        array = np.zeros((4, 6), np.float32)
        array[1, 1] = bad
        with pytest.raises(DataError, match=r"a\.tif: .*outside 0\.\.1 and 0\.\.255"):
            one(save(tmp_path / "a.tif", array))


def png(array, extra=None, size=None):
    """A grey PNG byte by byte, 8 or 16 bits; `size` (H, W) can lie."""
    height, width = size or array.shape

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8 * array.dtype.itemsize, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in array)
    middle = chunk(*extra) if extra else b""
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


class TestBroken:
    @pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n"])
    def test_not_a_picture(self, tmp_path, content):
        grey_folder(tmp_path, 3)
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.png: not a readable picture"):
            load(tmp_path)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "tif", "bmp"])
    def test_truncated(self, tmp_path, suffix):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
        path = save(tmp_path / f"bad.{suffix}", noise)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(DataError, match=rf"bad\.{suffix}: not a readable picture"):
            load(tmp_path)

    @pytest.mark.parametrize(
        "size", [(10_000, 10_000), (60_000, 60_000)], ids=["Pillow would warn", "Pillow would raise"]
    )
    def test_decompression_bomb(self, tmp_path, size):
        (tmp_path / "bomb.png").write_bytes(png(GREY, size=size))
        with pytest.raises(DataError, match=r"bomb\.png: too many pixels, perhaps a decompression bomb"):
            load(tmp_path)

    def test_odd_metadata_is_no_error(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # held sideways: the camera's rotation is applied
        save(tmp_path / "a.png", GREY, exif=exif)
        assert one(tmp_path / "a.png").shape == (6, 4, 1)

    def test_byte_flips_raise_nothing_but_data_errors(self, tmp_path):
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
        for suffix in ("png", "jpg", "gif", "webp", "tif", "bmp"):
            good = save(tmp_path / f"a.{suffix}", noise).read_bytes()
            for _ in range(40):
                bad = bytearray(good)
                for position in rng.integers(0, len(bad), 3):
                    bad[position] = rng.integers(256)
                (tmp_path / f"a.{suffix}").write_bytes(bad)
                try:
                    pixels = one(tmp_path / f"a.{suffix}", image_size=(8, 8))
                except DataError:
                    continue
                assert pixels.dtype == np.uint8
