"""Reads .npy and .npz arrays row by row: headers checked before anything is inflated, nothing pickled, ever."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.mapped import rows_in_turn

# What a row-by-row reader may hold at once, far above any batch of tiles.
MOST_ROW_BYTES = 2**31
# Beside ValueError, OSError and RuntimeError (an archive with a password).
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError, EOFError)


@dataclass(frozen=True)
class ArrayFile:
    """One array inside a .npy or .npz file, not read yet.

    Attributes:
        path: the file.
        key: name of the array inside an .npz; empty for .npy.
        shape: (rows, ...).
        dtype: type of the elements; only bool, whole numbers and floats can be read.
        fortran_order: whether the elements lie column-major.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool

    @property
    def holds_numbers(self) -> bool:
        """Return whether the elements are bool, whole numbers or floats."""
        return self.dtype.kind in "buif"

    @property
    def label(self) -> str:
        """Return ``file.npz:key`` for messages."""
        return f"{self.path}:{self.key}" if self.key else str(self.path)

    def chunks(self, size: int) -> Iterator[NDArray[Any]]:
        """Yield the rows in order, ``size`` at a time; the memory used does not grow with the number of rows.

        Raises:
            InputError: the data ends early or is damaged.
        """
        if self.fortran_order or not self.key:
            yield from rows_in_turn(self._whole(), size)
            return
        row_bytes = self.dtype.itemsize * math.prod(self.shape[1:])
        with _reading(self.label), zipfile.ZipFile(self.path) as archive, archive.open(self.key + ".npy") as stream:
            _read_header(stream, self.label)
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                data = stream.read(count * row_bytes)
                if len(data) != count * row_bytes:
                    raise InputError(f"{self.label} ends after {start} of {self.shape[0]} rows: copy the file again")
                yield np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def _whole(self) -> NDArray[Any]:
        with _reading(self.label):
            if not self.key:
                return np.load(self.path, mmap_mode="r", allow_pickle=False)
            with np.load(self.path, allow_pickle=False) as archive:
                return np.asarray(archive[self.key])


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Turn what NumPy, zipfile and zlib raise on damaged files into one InputError."""
    try:
        yield
    except (*_DAMAGE, RuntimeError, ValueError, OSError) as error:
        raise InputError(f"cannot read {label} ({error}): it is damaged or incomplete, copy it again") from None


def array_files(path: Path) -> dict[str, ArrayFile]:
    """List the arrays of a .npy (key ``""``) or .npz file from their headers alone.

    Raises:
        InputError: no such file, damaged, or a header that does not match the stored bytes.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    with _reading(str(path)):
        if path.suffix.lower() == ".npy":
            with path.open("rb") as stream:
                shape, fortran, dtype = _read_header(stream, str(path))
                stored = path.stat().st_size - stream.tell()
            return {"": _checked(ArrayFile(path, "", shape, dtype, fortran), stored)}
        found = {}
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    key = info.filename.removesuffix(".npy")
                    with archive.open(info) as member:
                        shape, fortran, dtype = _read_header(member, f"{path}:{key}")
                        stored = info.file_size - member.tell()
                    found[key] = _checked(ArrayFile(path, key, shape, dtype, fortran), stored)
        return found


def _read_header(stream: IO[bytes], label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise InputError(f"{label} has NumPy format version {version}; versions 1.0 and 2.0 are read: save it again")
    shape, fortran, dtype = readers[version](stream)
    return shape, fortran, dtype


def require_numbers(array: ArrayFile) -> None:
    """Refuse an array that holds anything but numbers. Its neighbours in an archive may hold what they like.

    Raises:
        InputError: saying what it holds.
    """
    if array.dtype.hasobject:
        raise InputError(
            f"{array.label} holds pickled Python objects, which can run code: save it as a plain number array"
        )
    if not array.holds_numbers:
        raise InputError(f"{array.label} holds {array.dtype}; bool, whole numbers or floats are needed")


def _checked(array: ArrayFile, stored: int) -> ArrayFile:
    declared = math.prod(array.shape) * array.dtype.itemsize
    if declared != stored and not array.dtype.hasobject:
        raise InputError(
            f"{array.label} declares {declared} bytes and holds {stored}: it is damaged or incomplete, copy it again"
        )
    if len(array.shape) > 1 and math.prod(array.shape[1:]) * array.dtype.itemsize > MOST_ROW_BYTES:
        raise InputError(f"{array.label} has rows of shape {array.shape[1:]}: more than {MOST_ROW_BYTES} bytes each")
    return array
