"""An append-only journal: one line per entry, each with its checksum, each on disk before the next step.

A line truncated by a kill or a full disk is detected and dropped, with everything after it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Far longer than any of our lines: a file that is not a journal is not read into memory.
MOST_LINE = 1 << 28


def encode(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as one line: its CRC-32 in hexadecimal, a space, JSON."""
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the entry of a line, or None if the line is truncated, damaged or not an entry."""
    checksum, space, text = line[:8], line[8:9], line[9:-1]
    if space != b" " or not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def read_journal(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Read the entries up to the first incomplete one.

    Returns:
        The entries, and the offset in bytes at which each ends; both empty if there is no journal.

    Raises:
        OSError: the file exists and cannot be read.
    """
    entries: list[dict[str, Any]] = []
    ends: list[int] = []
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return entries, ends
    with stream:
        while line := stream.readline(MOST_LINE):
            entry = decode(line)
            if entry is None:
                break
            entries.append(entry)
            ends.append(stream.tell())
    return entries, ends


class Journal:
    """A journal open for appending.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        """Open the file and truncate it to ``size`` bytes.

        Raises:
            OSError: the operating system refuses.
        """
        self.path, self._size = path, size
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        os.fsync(self._descriptor)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry through to the disk; if that fails, no part of it remains.

        Raises:
            OSError: the disk refuses.
        """
        line = encode(entry)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            os.lseek(self._descriptor, self._size, os.SEEK_SET)
            raise
        self._size += len(line)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
