"""The IDX reader and writer: the format byte by byte, every way a file can be damaged, and memory under attack.
They use small files only; MNIST itself is in test_datasets.py."""

import gzip
import hashlib
import os
import struct
from contextlib import suppress

import numpy as np
import pytest
from damaged_files import CUT, FLIPS, damaged, little_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyvae.datasets import read_idx, write_idx
from tinyvae.errors import DataError

DTYPES = ("uint8", "int8", "int16", "int32", "float32", "float64")
FEW = settings(max_examples=40, deadline=None)


def header(*shape, code=0x08):
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape)


SMALL = header(2, 3) + bytes(range(6))


def refused(tmp_path, data, message):
    """`data` is refused with a DataError that names the file and matches `message`, and little memory is used."""
    path = tmp_path / "some-idx"
    path.write_bytes(data)
    with little_memory(), pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_the_format_byte_by_byte(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(SMALL)
    array = read_idx(path)
    assert array.dtype == np.uint8
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    array[0, 0] = 7  # writable
    assert path.read_bytes() == SMALL
    write_idx(tmp_path / "b", np.array([[0, 1, 2], [3, 4, 5]], np.uint8))
    assert (tmp_path / "b").read_bytes() == SMALL


@pytest.mark.parametrize(
    ("code", "raw", "value", "dtype"),
    [
        (0x08, b"\xfe", 254, "uint8"),
        (0x09, b"\xfe", -2, "int8"),
        (0x0B, b"\x01\x02", 258, "int16"),
        (0x0C, b"\x00\x01\x00\x02", 65538, "int32"),
        (0x0D, b"\x3f\xc0\x00\x00", 1.5, "float32"),
        (0x0E, b"\x3f\xf8\x00\x00\x00\x00\x00\x00", 1.5, "float64"),
    ],
)
def test_type_codes(tmp_path, code, raw, value, dtype):
    path = tmp_path / "a"
    path.write_bytes(header(1, code=code) + raw)
    array = read_idx(path)
    assert array.dtype == np.dtype(dtype)
    assert array.dtype.isnative
    assert array.tolist() == [value]


@FEW
@given(
    shape=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    order=st.sampled_from("<>"),
    suffix=st.sampled_from(["", ".gz"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(tmp_path_factory, shape, dtype, order, suffix, seed):
    path = tmp_path_factory.mktemp("idx") / f"a{suffix}"
    raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    array = np.frombuffer(raw, dtype).reshape(shape).astype(np.dtype(dtype).newbyteorder(order))
    write_idx(path, array)
    back = read_idx(path)
    assert back.dtype == np.dtype(dtype)
    assert back.shape == array.shape
    assert back.tobytes() == array.astype(dtype).tobytes()  # bytes, so that NaNs count


def test_gzip_bytes_are_the_same_every_time(tmp_path):
    write_idx(tmp_path / "a.gz", np.arange(5, dtype=np.uint8))
    data = (tmp_path / "a.gz").read_bytes()
    assert data[:2] == b"\x1f\x8b"
    assert data[3:8] == bytes(5)  # no name, no date
    assert gzip.decompress(data) == header(5) + bytes(range(5))


def test_gzip_is_known_by_its_bytes_not_its_name(tmp_path):
    (tmp_path / "no-suffix").write_bytes(gzip.compress(SMALL))
    assert read_idx(tmp_path / "no-suffix").shape == (2, 3)


def test_a_strided_array_is_written_in_order(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::-2]
    write_idx(tmp_path / "a", array)
    assert np.array_equal(read_idx(tmp_path / "a"), array)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file"):
        read_idx(tmp_path / "nowhere")


def test_folder(tmp_path):
    with pytest.raises(DataError, match="is a folder where an IDX file is needed"):
        read_idx(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_idx(tmp_path / "pipe")


def test_null_byte_in_the_path():
    with pytest.raises(DataError, match="null"):
        read_idx("a\0b")


def test_empty_file(tmp_path):
    refused(tmp_path, b"", "the file is empty")


@pytest.mark.parametrize("wrap", [bytes, gzip.compress], ids=["plain", "gzip"])
class TestDamage:
    def test_first_bytes(self, tmp_path, wrap):
        refused(tmp_path, wrap(b"<html>"), "not an IDX file, it starts with the bytes 3c 68 74 6d")

    def test_type_code(self, tmp_path, wrap):
        refused(tmp_path, wrap(b"\0\0\x0a" + SMALL[3:]), "not an IDX file")

    def test_magic_cut(self, tmp_path, wrap):
        refused(tmp_path, wrap(SMALL[:3]), "truncated in the IDX header, 3 bytes")

    def test_sizes_cut(self, tmp_path, wrap):
        refused(tmp_path, wrap(SMALL[:9]), "truncated in the IDX header, 5 bytes where 2 dimensions take 8")

    def test_no_dimensions(self, tmp_path, wrap):
        refused(tmp_path, wrap(b"\0\0\x08\0\1"), "says 0 dimensions")

    def test_too_many_dimensions(self, tmp_path, wrap):
        refused(tmp_path, wrap(header(*[1] * 33) + b"\1"), "says 33 dimensions")

    def test_data_cut(self, tmp_path, wrap):
        refused(tmp_path, wrap(SMALL[:-1]), "truncated")

    def test_trailing_bytes(self, tmp_path, wrap):
        refused(tmp_path, wrap(SMALL + b"\0"), "trailing bytes")

    def test_dimensions_beyond_any_memory(self, tmp_path, wrap):
        refused(tmp_path, wrap(header(2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(64)), "more than the bound of")

    def test_a_zero_does_not_hide_them(self, tmp_path, wrap):
        refused(tmp_path, wrap(header(0, 2**32 - 1, 2**32 - 1)), "more than the bound of")

    def test_dimensions_beyond_the_file(self, tmp_path, wrap):
        refused(tmp_path, wrap(header(1 << 15, 1 << 15, 8) + bytes(64)), "truncated, the IDX header promises .*8589934")

    def test_huge_promises_are_refused_before_reading(self, tmp_path, wrap):
        message = "promises a file of 1000007 bytes and it has" if wrap is bytes else "gzip cannot hold that many"
        refused(tmp_path, wrap(header(999_999) + bytes(64)), message)

    def test_the_bound_is_an_argument(self, tmp_path, wrap):
        path = tmp_path / "a"
        path.write_bytes(wrap(SMALL))
        assert read_idx(path, max_bytes=6).size == 6
        with pytest.raises(DataError, match="more than the bound of 5 bytes"):
            read_idx(path, max_bytes=5)


class TestGzip:
    def test_bomb(self, tmp_path):
        refused(tmp_path, gzip.compress(SMALL + bytes(64 << 20)), "trailing bytes, more data follows than the 6 bytes")

    def test_promise_within_the_ratio_but_not_kept(self, tmp_path):
        refused(tmp_path, gzip.compress(header(20_000) + bytes(100)), "truncated, the IDX header promises 20000 bytes")

    def test_cut_stream(self, tmp_path):
        refused(tmp_path, gzip.compress(SMALL)[:-12], "the gzip stream ends early")

    def test_cut_trailer(self, tmp_path):
        refused(tmp_path, gzip.compress(SMALL)[:-1], "the gzip stream ends early")

    def test_only_the_magic(self, tmp_path):
        refused(tmp_path, b"\x1f\x8b", "the gzip stream ends early")

    def test_crc(self, tmp_path):
        data = bytearray(gzip.compress(SMALL))
        data[-8] ^= 1
        refused(tmp_path, bytes(data), "damaged gzip .*incorrect data check")

    def test_length(self, tmp_path):
        data = bytearray(gzip.compress(SMALL))
        data[-4] ^= 1
        refused(tmp_path, bytes(data), "damaged gzip .*incorrect length check")

    def test_broken_stream(self, tmp_path):
        refused(tmp_path, gzip.compress(SMALL)[:10] + b"\xff" * 40, "damaged gzip")

    def test_trailing_garbage(self, tmp_path):
        refused(tmp_path, gzip.compress(SMALL) + b"x", "trailing bytes follow the end of the gzip stream")


def test_sha256_is_of_the_raw_bytes(tmp_path):
    digest = hashlib.sha256(SMALL).hexdigest()
    for name, data in (("a", SMALL), ("a.gz", gzip.compress(SMALL))):
        (tmp_path / name).write_bytes(data)
        assert read_idx(tmp_path / name, sha256=digest).size == 6
    (tmp_path / "b").write_bytes(SMALL[:-1] + b"\0")
    with pytest.raises(DataError, match=f"b: not the original file.*{digest} is expected"):
        read_idx(tmp_path / "b", sha256=digest)


@pytest.mark.parametrize("dtype", ["int64", "uint16", "bool", "complex64", "U3", "float16"])
def test_write_refuses_other_dtypes(tmp_path, dtype):
    with pytest.raises(DataError, match="IDX cannot hold dtype"):
        write_idx(tmp_path / "a", np.zeros(3, dtype))
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("array", [np.uint8(3), np.broadcast_to(np.uint8(0), (0, 2**32))], ids=["scalar", "long"])
def test_write_refuses_shapes_that_the_header_cannot_say(tmp_path, array):
    with pytest.raises(DataError, match="IDX cannot hold an array of shape"):
        write_idx(tmp_path / "a", array)


def test_write_where_no_folder_is(tmp_path):
    with pytest.raises(DataError, match="cannot be written"):
        write_idx(tmp_path / "no" / "a", np.zeros(3, np.uint8))


@settings(max_examples=300, deadline=None)
@given(zipped=st.booleans(), flips=FLIPS, cut=CUT, tail=st.binary(max_size=3))
def test_mutations_raise_nothing_but_data_errors(tmp_path_factory, zipped, flips, cut, tail):
    raw = header(3, 4, 5, code=0x0B) + bytes(range(120))
    data = damaged(gzip.compress(raw, mtime=0) if zipped else raw, flips, cut)
    path = tmp_path_factory.getbasetemp() / "mutant"
    path.write_bytes(data + tail)
    with little_memory(), suppress(DataError):
        assert read_idx(path).nbytes <= 1032 * len(data)
