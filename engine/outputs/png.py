"""Palette PNGs: written here and not by Pillow, which takes ten times as long and cannot write row by row."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.base import FolderMixin, MaskWriter
from engine.utils.palette import colours

# Windows writes text unless told otherwise.
BINARY = getattr(os, "O_BINARY", 0)
SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BIT, INDEXED = 8, 3
# Masks are runs of equal labels: matches at distance 1 alone are found several times faster than all matches, and
# give smaller files than a fast level of the full search.
LEVEL, WINDOW_BITS, MEMORY = 4, 15, 9
# zlib lets go of the GIL; more threads than this wait for the disk.
MOST_ENCODERS = 4
# What common file systems take for one part of a path.
MOST_NAME_BYTES = 255


class PngStream:
    """One 8-bit palette PNG (PNG specification, third edition), written some rows at a time."""

    def __init__(self, stream: IO[bytes], size: tuple[int, int], classes: int) -> None:
        """Write everything that stands before the pixels.

        Args:
            stream: where the bytes go.
            size: (height, width).
            classes: number of classes; each gets its colour of :func:`engine.utils.palette.colours`.
        """
        self._stream = stream
        self._compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, WINDOW_BITS, MEMORY, zlib.Z_RLE)
        height, width = size
        palette = bytes(value for colour in colours(classes) for value in colour)
        stream.write(SIGNATURE)
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, EIGHT_BIT, INDEXED, 0, 0, 0))
        self._chunk(b"PLTE", palette)

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Append uint8 (rows, width) labels."""
        lines = np.zeros((labels.shape[0], labels.shape[1] + 1), np.uint8)  # each line begins with its filter: none
        lines[:, 1:] = labels
        held = self._compressor.compress(lines.data)
        if held:
            self._chunk(b"IDAT", held)

    def close(self) -> None:
        """Write the end of the picture; the stream stays open."""
        self._chunk(b"IDAT", self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, kind: bytes, data: bytes) -> None:
        checksum = zlib.crc32(data, zlib.crc32(kind))
        self._stream.write(b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum))))


def png_bytes(labels: NDArray[np.uint8], classes: int) -> bytes:
    """Return uint8 (height, width) labels as a palette PNG."""
    stream = io.BytesIO()
    picture = PngStream(stream, (labels.shape[0], labels.shape[1]), classes)
    picture.write(labels)
    picture.close()
    return stream.getvalue()


class PngWriter(FolderMixin, MaskWriter):
    """A folder with one palette PNG per image, named as the input, in the same folders; encoded side by side."""

    holds = "palette PNGs"
    _pool: ThreadPoolExecutor | None = None

    def _open(self) -> None:
        from engine.utils.threads import available_cores

        self.partial.mkdir()
        self._made: set[str] = set()
        self._encoders = min(MOST_ENCODERS, available_cores())
        self._pool = ThreadPoolExecutor(self._encoders, thread_name_prefix="maskfuse-png")
        self._pending: deque[Future[None]] = deque()

    def _write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        assert self._pool is not None
        self._pending.append(self._pool.submit(self._encode, list(ids), labels.copy()))
        # Two batches an encoder wait: a slow disk slows the run down, and does not fill the memory.
        while len(self._pending) > 2 * self._encoders:
            self._pending.popleft().result()

    def _encode(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        for name, row in zip(ids, labels, strict=True):
            data = png_bytes(row.reshape(self.size), self.classes)
            # Small files: the calls to the system take longer than the encoding, so there are as few as can be.
            file = file_name(name, ".png")
            folder = os.path.join(self.partial, os.path.dirname(file))  # noqa: PTH118, PTH120
            if folder not in self._made:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103
                self._made.add(folder)
            place = os.open(os.path.join(self.partial, file), os.O_WRONLY | os.O_CREAT | BINARY, 0o666)  # noqa: PTH118
            try:
                while data:
                    data = data[os.write(place, data) :]
            finally:
                os.close(place)

    def _close(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def _abandon(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def file_name(name: str, suffix: str) -> str:
    """Return the file that an image's mask gets in a folder; the folders in its name are kept, as in ``city/b``.

    Raises:
        OutputError: the image's name cannot be that of a file.
    """
    *folders, last = name.split("/")
    parts = [*folders, last + suffix]
    if last == "" or "\0" in name or any(part in ("", ".", "..") for part in (*folders, last)):
        raise _no_file(name)
    try:
        too_long = any(len(part.encode("utf-8", "surrogateescape")) > MOST_NAME_BYTES for part in parts)
    except UnicodeEncodeError:
        raise _no_file(name) from None
    if too_long:
        raise _no_file(name)
    return "/".join(parts)


def _no_file(name: str) -> OutputError:
    return OutputError(f"an image named {name[:60]!r} cannot become a file: choose another form than a folder")


def longest_name(folder: Path) -> int:
    """Return how many bytes a name in a folder may have; encrypted file systems take fewer than others."""
    return _limit(folder, "PC_NAME_MAX", MOST_NAME_BYTES)


def _limit(folder: Path, name: str, otherwise: int) -> int:
    try:
        found = os.pathconf(folder, name)
    except (AttributeError, OSError, ValueError):
        return otherwise
    return found if found > 0 else otherwise


def check_files(ids: Iterable[str], suffix: str, folder: Path) -> None:
    """Refuse names of images that no folder of masks can have.

    Args:
        ids: names of all images.
        suffix: of the files.
        folder: where they will be written.

    Raises:
        OutputError: a name that cannot be that of a file, or one file where another name needs a folder.
    """
    files = {}
    parent = folder.parent if folder.parent.is_dir() else Path()
    most, room = longest_name(parent), _limit(parent, "PC_PATH_MAX", 4096) - len(os.fsencode(folder)) - len("/\0")
    for name in ids:
        file = file_name(name, suffix)
        encoded = os.fsencode(file)
        if len(encoded) > room or any(len(part) > most for part in encoded.split(b"/")):
            raise _no_file(name)
        files[file] = name
    folders = {
        "/".join(parts[:depth]) for parts in (file.split("/") for file in files) for depth in range(1, len(parts))
    }
    both = sorted(files.keys() & folders)
    if both:
        raise OutputError(f"{both[0]} would be a file and a folder of masks: choose another form than a folder")
