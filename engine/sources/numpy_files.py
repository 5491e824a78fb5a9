"""Reads .npy and .npz arrays row by row: headers checked before anything is inflated, nothing pickled, ever."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.remote import RemoteFile
from engine.utils.boundary import refusing
from engine.utils.memory import memory_bound, refusal

# What a row-by-row reader may hold at once, far above any batch of tiles.
MOST_ROW_BYTES = 2**31
# A header lists a shape and a type; NumPy itself reads headers of no more than 10,000 characters.
MOST_HEADER_BYTES = 2**16
MOST_MEMBERS = 10_000
# What deflate can make of a byte at most (RFC 1951: 258 bytes of a match from two bits); the others pack zeros tighter.
MOST_RATIO = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032, zipfile.ZIP_BZIP2: 50_000, zipfile.ZIP_LZMA: 10_000}


@dataclass(frozen=True)
class ArrayFile:
    """One array inside a .npy or .npz file, not read yet.

    Attributes:
        path: the file, of this machine or behind a URL.
        key: name of the array inside an .npz; empty for .npy.
        shape: (rows, ...).
        dtype: type of the elements; only bool, whole numbers and floats can be read.
        fortran_order: whether the elements lie column-major.
    """

    path: Path | RemoteFile
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
        if self.fortran_order:
            whole = self._whole()
            for start in range(0, self.shape[0], size):
                yield self._still_whole(whole)[start : start + size].copy()
            return
        with self._opened() as stream:
            for start in range(0, self.shape[0], size):
                count = min(size, self.shape[0] - start)
                yield self._read(stream, (count, *self.shape[1:]), f"after {start} of {self.shape[0]} rows")

    def __getitem__(self, where: int | slice | tuple[int | slice, ...]) -> NDArray[Any]:
        """Return a part of a .npy file; nothing else of it is read.

        It is read and not mapped: what becomes of the file meanwhile (cut off, or on a disk that fails) would end the
        process where a mapped page is touched.

        Args:
            where: numbers and slices of step 1 along the first axes.

        Raises:
            InputError: the data ends early or is damaged.
        """
        parts = where if isinstance(where, tuple) else (where,)
        if self.fortran_order:
            return self._still_whole(self._whole())[parts].copy()
        with self._opened() as stream:
            return self._part(stream, stream.tell(), parts, self.shape)

    def _part(
        self, stream: IO[bytes], offset: int, where: tuple[int | slice, ...], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """Read what ``where`` picks of an array of this shape that lies at this offset."""
        step = self.dtype.itemsize * math.prod(shape[1:])
        if where and isinstance(where[0], int):
            return self._part(stream, offset + where[0] * step, where[1:], shape[1:])
        start, stop, _ = where[0].indices(shape[0]) if where else (0, shape[0], 1)  # type: ignore[union-attr]
        if any(part != slice(None) for part in where[1:]):
            found = [self._part(stream, offset + index * step, where[1:], shape[1:]) for index in range(start, stop)]
            return np.stack(found, dtype=self.dtype)
        stream.seek(offset + start * step)
        return self._read(stream, (stop - start, *shape[1:]), "early")

    def _read(self, stream: IO[bytes], shape: tuple[int, ...], where: str) -> NDArray[Any]:
        """Read an array from where the stream stands; ``where`` says where the data ends if it does."""
        wanted = self.dtype.itemsize * math.prod(shape)
        data = stream.read(wanted)
        if len(data) != wanted:
            raise InputError(f"{self.label} ends {where}: copy the file again")
        return np.frombuffer(data, self.dtype).reshape(shape)

    @contextmanager
    def _opened(self) -> Iterator[IO[bytes]]:
        """Open the elements, which must lie row by row."""
        with _reading(self.label), ExitStack() as stack:
            if self.key:
                archive = stack.enter_context(_archive(self.path))
                stream = stack.enter_context(archive.open(self.key + ".npy"))
            else:
                stream = stack.enter_context(self.path.open("rb"))
            _read_header(stream, self.label)
            yield stream

    def _whole(self) -> NDArray[Any]:
        """Return an array that lies column by column: mapped, or of an archive in memory."""
        with _reading(self.label):
            if isinstance(self.path, Path) and not self.key:
                return np.load(self.path, mmap_mode="r", allow_pickle=False)
            declared = math.prod(self.shape) * self.dtype.itemsize
            if declared > memory_bound():
                raise InputError(
                    f"{refusal(self.label, 'lies column by column and takes', declared)} (in order C: row by row)"
                )
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return np.asarray(archive[self.key])

    def _still_whole(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return a mapped array; a page behind the end of a file that was cut off meanwhile ends the process."""
        if isinstance(array, np.memmap):
            with _reading(self.label):
                stored = self.path.stat().st_size - array.offset
            if stored < array.nbytes:
                raise InputError(f"{self.label} was cut off while it was read: copy the file again")
        return array


@contextmanager
def _reading(label: str) -> Iterator[None]:
    """Turn what NumPy, zipfile and zlib raise on damaged files into one InputError."""
    with refusing(lambda why: f"cannot read {label} ({why}): it is damaged or incomplete, copy it again"):
        yield


@contextmanager
def _archive(path: Path | RemoteFile) -> Iterator[zipfile.ZipFile]:
    with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        yield archive


def array_files(path: Path | RemoteFile) -> dict[str, ArrayFile]:
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
        with _archive(path) as archive:
            _check_members(path, archive.infolist())
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    key = info.filename.removesuffix(".npy")
                    with archive.open(info) as member:
                        shape, fortran, dtype = _read_header(member, f"{path}:{key}")
                        stored = info.file_size - member.tell()
                    found[key] = _checked(ArrayFile(path, key, shape, dtype, fortran), stored)
        return found


def array_in(data: bytes, label: str) -> NDArray[Any]:
    """Return the array of a whole .npy file in memory, as a read-only view of its bytes.

    Args:
        data: the file's bytes.
        label: what messages call it.

    Raises:
        InputError: damaged, a header that does not match the bytes, or one that holds no numbers.
    """
    with _reading(label):
        stream = io.BytesIO(data)
        shape, fortran, dtype = _read_header(stream, label)
        array = _checked(ArrayFile(Path(label), "", shape, dtype, fortran), len(data) - stream.tell())
    require_numbers(array)
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran else "C")


def _check_members(path: Path | RemoteFile, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive whose directory cannot be true, or names what no array is called.

    Raises:
        InputError: too many members, names that lead elsewhere, or sizes that no such file can hold.
    """
    if len(members) > MOST_MEMBERS:
        raise InputError(f"{path} holds {len(members)} members; no more than {MOST_MEMBERS} are read")
    size = path.stat().st_size
    for info in members:
        name = info.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/") or not name.isprintable():
            raise InputError(f"{path} holds a member named {name[:60]!r}, which is no array's name: save it again")
        most = info.compress_size * MOST_RATIO.get(info.compress_type, 1) + 64
        if info.compress_size > size or info.file_size > most:
            raise InputError(
                f"{path}:{name} declares {info.file_size} bytes, more than a file of {size} bytes can hold: "
                "it is damaged or made to do harm"
            )


def _read_header(stream: IO[bytes], label: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise InputError(f"{label} has NumPy format version {version}; versions 1.0 and 2.0 are read: save it again")
    # NumPy would read a header of any length before it looks at that length.
    field = stream.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(field, "little")
    if length > MOST_HEADER_BYTES:
        raise InputError(f"{label} declares a header of {length} bytes; no more than {MOST_HEADER_BYTES} are read")
    try:
        shape, fortran, dtype = readers[version](io.BytesIO(field + stream.read(length)))
    except (TypeError, LookupError, ArithmeticError, RecursionError, MemoryError, SyntaxError, AttributeError) as error:
        raise InputError(f"cannot read the header of {label} ({error}): it is damaged, save it again") from None
    if any(type(side) is not int or not 0 <= side < 2**62 for side in shape):
        raise InputError(f"{label} declares the shape {str(shape)[:80]}: it is damaged, save it again")
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
