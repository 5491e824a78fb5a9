"""Label maps of finished images in files of a few thousand, each with its SHA-256."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

# A shard is full at this many images or bytes, whichever comes first.
MOST_IMAGES = 4096
MOST_BYTES = 1 << 25
# Bytes read back at a time.
READ_BYTES = 1 << 23


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"{number:08d}.labels"


class Shard:
    """A shard that is being filled.

    Attributes:
        path: the file.
        rows: number of label maps in it.
        bytes: their size.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, empty.

        Raises:
            OSError: the operating system refuses.
        """
        self.path = path
        self.rows = self.bytes = 0
        # Unbuffered: what the disk refuses is known at once, and cut off again.
        self._stream: IO[bytes] = path.open("wb", buffering=0)
        self._digest = hashlib.sha256()

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Append label maps, uint8 (rows, pixels): all of them or, where that fails, none.

        Raises:
            OSError: the disk refuses.
        """
        data = np.ascontiguousarray(labels).data.cast("B") if labels.size else memoryview(b"")
        try:
            left = data
            while left:
                left = left[self._stream.write(left) :]
        except OSError:
            with contextlib.suppress(OSError):  # then its size gives it away
                self._stream.truncate(self.bytes)
                self._stream.seek(self.bytes)
            raise
        self._digest.update(data)
        self.rows += len(labels)
        self.bytes += labels.size

    def seal(self) -> str:
        """Flush the file to disk, close it, and return its SHA-256, hexadecimal.

        Raises:
            OSError: the disk refuses, or the file holds more or less than was written.
        """
        os.fsync(self._stream.fileno())
        if os.fstat(self._stream.fileno()).st_size != self.bytes:
            raise OSError(errno.EIO, "a shard has another size than was written")
        self._stream.close()
        return self._digest.hexdigest()

    def drop(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._stream.close()
        self.path.unlink(missing_ok=True)


def is_whole(path: Path, size: int, sha256: str) -> bool:
    """Return whether a shard exists with the expected size in bytes and checksum."""
    try:
        if path.stat().st_size != size:
            return False
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
    except OSError:
        return False


def read_shard(path: Path, pixels: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the label maps of a complete shard, uint8 (some, pixels).

    Raises:
        OSError: it cannot be read.
    """
    step = max(1, READ_BYTES // pixels) * pixels
    with path.open("rb") as stream:
        while data := stream.read(step):
            if len(data) % pixels:
                raise OSError(errno.EIO, "a shard is truncated")
            yield np.frombuffer(data, np.uint8).reshape(-1, pixels)
