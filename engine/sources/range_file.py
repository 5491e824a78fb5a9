"""A stream over a file that gives any part of itself, behind a URL: read in turn, it fetches ever larger parts."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any, Protocol

# So much is fetched at first, where a header may be all that is wanted; then twice as much with each read that goes on
# behind the one before, up to so much.
HEAD_BYTES, READ_BYTES = 1 << 16, 1 << 23


@dataclass
class Span:
    """A part of a file that is kept in memory for all streams over it."""

    begin: int = 0
    data: bytes = b""

    def behind(self, place: int) -> bytes:
        """Return what is kept from a place of the file on; empty where nothing is."""
        begin, data = self.begin, self.data
        return data[place - begin :] if begin <= place else b""


class HasRanges(Protocol):
    """A file that gives any part of itself."""

    @property
    def size(self) -> int:
        """Return the size in bytes."""

    def range(self, start: int, stop: int) -> bytes:
        """Return the bytes from one place up to another."""


class RangeFile(io.RawIOBase):
    """A stream over a remote file; what is read in turn is fetched in ever larger ranges."""

    def __init__(self, file: HasRanges, kept: Span | None = None) -> None:
        """Stand in front of the first byte; what is kept is not fetched."""
        self._file, self._at, self._size = file, 0, file.size
        self._kept = kept or Span()
        self._held, self._begin, self._step = b"", 0, HEAD_BYTES

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place and return it."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer and return how many bytes came; 0 at the end."""
        known = self._kept.behind(self._at)[: len(buffer)]
        if known:
            buffer[: len(known)] = known
            self._at += len(known)
            return len(known)
        place = self._at - self._begin
        if not 0 <= place < len(self._held):
            if place == len(self._held) and place:
                self._step = min(READ_BYTES, 2 * self._step)
            else:
                self._step = HEAD_BYTES
            stop = min(self._size, self._at + max(len(buffer), self._step))
            self._held, self._begin, place = self._file.range(self._at, stop), self._at, 0
        data = self._held[place : place + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
