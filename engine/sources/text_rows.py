"""Rows of text files that hold label maps: lines of bounded length, an id in front, maps gathered into batches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError

QUOTED_ID = re.compile(rb'"((?:[^"]|"")*)",')
# A line of labels of 128 million pixels.
MOST_LINE = 2**28


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the rows below the header with their line numbers; empty lines are passed over."""
    return ((number, line) for number, _, line in located_lines(path))


def located_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Yield line number, place in the file and text of each row below the header; empty lines are passed over."""
    with path.open("rb") as stream:
        place = len(line_of(stream, path))
        number = 1
        while line := line_of(stream, path):
            number += 1
            if line.strip():
                yield number, place, line
            place += len(line)


def line_of(stream: IO[bytes], path: Path) -> bytes:
    """Return the next line; what never ends is not read into memory."""
    line = stream.readline(MOST_LINE)
    if len(line) == MOST_LINE:
        raise InputError(f"{path} holds a line of more than {MOST_LINE} bytes: that is no submission")
    return line


def stacked(maps: Iterator[NDArray[np.uint8]], count: int) -> Iterator[NDArray[Any]]:
    """Yield flat label maps, ``count`` at a time, as (batch, 1, pixels, 1)."""
    held: list[NDArray[np.uint8]] = []
    for labels in maps:
        held.append(labels)
        if len(held) == count:
            yield np.stack(held)[:, None, :, None]
            held = []
    if held:
        yield np.stack(held)[:, None, :, None]


def split_row(line: bytes) -> tuple[str, bytes]:
    """Return the id and the rest of one CSV row; a quoted id may hold commas."""
    line = line.rstrip(b"\r\n")
    quoted = QUOTED_ID.match(line)
    name, body = (quoted[1].replace(b'""', b'"'), line[quoted.end() :]) if quoted else line.partition(b",")[::2]
    return name.decode("utf-8", "surrogateescape"), body
