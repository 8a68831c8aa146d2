"""IDX files, the format of MNIST: a strict reader and a writer, plain or gzip.
It knows nothing of what the arrays mean; a damaged or lying file is one DataError that names it."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

# The third byte of the magic number. Everything in the format is big-endian.
TYPE_CODES: dict[int, np.dtype[Any]] = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
MAX_BYTES = 16 << 30
MAX_DIMS = 32  # what every NumPy can hold; the format could say 255
GZIP_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20
DEFLATE_LIMIT = 1032  # no deflate stream inflates by more than this factor


def read_idx(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, sha256: str | None = None) -> NDArray[Any]:
    """The array in an IDX file, in native byte order. With `sha256`, the raw (decompressed) bytes must have that sum.

    Memory follows what the file really holds: the header's promise is checked before any of it is believed.
    """
    path = Path(path)
    with _Source(path) as source:
        header, dtype, shape = _read_header(source, path)
        # A dimension of 0 must not hide huge neighbours from the bound: NumPy could not hold such a shape either.
        if math.prod(max(n, 1) for n in shape) * dtype.itemsize > max_bytes:
            raise DataError(
                f"{path}: the IDX header asks for {_times(shape)} items of {dtype.itemsize} bytes, more than the "
                f"bound of {max_bytes} bytes; the header is damaged, or raise max_bytes"
            )
        n_bytes = math.prod(shape) * dtype.itemsize
        source.expect(len(header) + n_bytes)
        data = source.read(n_bytes)
        if len(data) < n_bytes:
            raise DataError(
                f"{path}: truncated, the IDX header promises {n_bytes} bytes of data ({_times(shape)} items) and only "
                f"{len(data)} follow; fetch the file again"
            )
        source.finish(n_bytes)
    if sha256 is not None:
        _check_sha256(path, header, data, sha256)
    array: NDArray[Any] = np.ndarray(shape, dtype, buffer=data)
    return array.astype(dtype.newbyteorder("="), copy=False)


def write_idx(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write `array` as IDX, gzipped if `path` ends in .gz (the same bytes every time: no name, no date)."""
    path, array = Path(path), np.asarray(array)
    big_endian = array.dtype.newbyteorder(">")
    code = next((code for code, dtype in TYPE_CODES.items() if dtype == big_endian), None)
    if code is None:
        raise DataError(
            f"{path}: IDX cannot hold dtype {array.dtype}; convert the array to uint8, int8, int16, int32, float32 or "
            f"float64 first"
        )
    if not 1 <= array.ndim <= MAX_DIMS or max(array.shape) >= 1 << 32:
        raise DataError(
            f"{path}: IDX cannot hold an array of shape {array.shape}; it takes 1 to {MAX_DIMS} dimensions, each "
            f"below 2**32"
        )
    raw = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    raw += array.astype(big_endian, copy=False).tobytes()
    try:
        path.write_bytes(gzip.compress(raw, compresslevel=9, mtime=0) if path.suffix == ".gz" else raw)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _read_header(source: _Source, path: Path) -> tuple[bytes, np.dtype[Any], tuple[int, ...]]:
    magic = bytes(source.read(4))
    if len(magic) < 4:
        raise DataError(f"{path}: truncated in the IDX header, {len(magic)} bytes where the magic number takes 4")
    code, ndim = magic[2], magic[3]
    if magic[:2] != b"\0\0" or code not in TYPE_CODES:
        raise DataError(
            f"{path}: not an IDX file, it starts with the bytes {magic.hex(' ')} where IDX has 00 00, a type code "
            f"(08, 09, 0b, 0c, 0d or 0e) and the number of dimensions"
        )
    if not 1 <= ndim <= MAX_DIMS:
        raise DataError(f"{path}: the IDX header says {ndim} dimensions; 1 to {MAX_DIMS} can be read")
    sizes = bytes(source.read(4 * ndim))
    if len(sizes) < 4 * ndim:
        raise DataError(
            f"{path}: truncated in the IDX header, {len(sizes)} bytes where {ndim} dimensions take {4 * ndim}"
        )
    return magic + sizes, TYPE_CODES[code], struct.unpack(f">{ndim}I", sizes)


def _check_sha256(path: Path, header: bytes, data: bytearray, expected: str) -> None:
    digest = hashlib.sha256(header)
    digest.update(data)
    if digest.hexdigest() != expected:
        raise DataError(
            f"{path}: not the original file, the sha256 of its raw bytes is {digest.hexdigest()} where {expected} is "
            f"expected; fetch it again"
        )


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


class _Source:
    """The raw bytes of a plain or gzipped file, read forward, never more than asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            cause = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
            raise DataError(f"{path}: {cause}") from error
        self.size = status.st_size
        # Asked before opening: opening a named pipe would wait for ever.
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise DataError(f"{path}: is {kind} where an IDX file is needed")
        if self.size == 0:
            raise DataError(f"{path}: the file is empty; fetch it again")
        try:
            self.file: BinaryIO = path.open("rb")
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        is_gzip = self.file.read(2) == GZIP_MAGIC
        self.file.seek(0)
        self.inflater = zlib.decompressobj(wbits=31) if is_gzip else None

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *exc: object) -> None:
        self.file.close()

    def expect(self, total: int) -> None:
        """Refuse a promise of `total` raw bytes that the file's size cannot keep, before any of them is read."""
        if self.inflater is None and total != self.size:
            cause = "truncated" if total > self.size else "trailing bytes"
            raise DataError(
                f"{self.path}: {cause}, the IDX header promises a file of {total} bytes and it has {self.size}; "
                f"fetch the file again"
            )
        if self.inflater is not None and total > DEFLATE_LIMIT * self.size:
            raise DataError(
                f"{self.path}: truncated, the IDX header promises {total} bytes and {self.size} bytes of gzip cannot "
                f"hold that many; fetch the file again"
            )

    def read(self, n: int) -> bytearray:
        """Up to `n` raw bytes; fewer only at the end."""
        data = bytearray()
        try:
            if self.inflater is None:
                data = bytearray(n if n <= self.size else self.size)
                del data[self.file.readinto(data) :]  # type: ignore[attr-defined]
                return data
            while len(data) < n and not self.inflater.eof:
                chunk = self.inflater.unconsumed_tail or self.file.read(_CHUNK)
                if not chunk:
                    raise DataError(f"{self.path}: truncated, the gzip stream ends early; fetch the file again")
                data += self.inflater.decompress(chunk, min(n - len(data), _CHUNK))
        except zlib.error as error:
            raise DataError(f"{self.path}: damaged gzip ({error}); fetch the file again") from error
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from error
        return data

    def finish(self, n_bytes: int) -> None:
        """The promised data has been read; nothing may follow. One byte more is asked for, so a bomb stays small."""
        if self.read(1):
            raise DataError(
                f"{self.path}: trailing bytes, more data follows than the {n_bytes} bytes that the IDX header promises"
            )
        # Reading to the end of the stream has also made zlib compare its CRC and length.
        if self.inflater is not None and (self.inflater.unused_data or self.file.read(1)):
            raise DataError(f"{self.path}: trailing bytes follow the end of the gzip stream; fetch the file again")
