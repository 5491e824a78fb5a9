"""Label maps out of submissions: a row of labels an image, or run lengths a row an image and class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source

# First line of the run-length form, and what a file of that form is known by.
RLE_HEADER = b"id_class,rle\n"

DIGIT_ZERO, DIGIT_NINE, COMMA = ord("0"), ord("9"), ord(",")
QUOTED_ID = re.compile(rb'"((?:[^"]|"")*)",')
# A line of labels of 128 million pixels; and no map may be larger, however few characters describe it.
MOST_LINE = 2**28
MOST_PIXELS = 2**28
# More digits than any number of pixels that fits into memory has.
MOST_DIGITS = 15


def open_submission(path: Path) -> Source:
    """Open a submission of either form; its first line tells which. Its maps are (1, pixels).

    Raises:
        InputError: no such file, neither form, or no rows.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    with path.open("rb") as stream:
        header = _line(stream, path).rstrip(b"\r\n")
    if header == RLE_HEADER.rstrip():
        return _rle_source(path)
    return _csv_source(path, header.split(b","))


def _csv_source(path: Path, header: list[bytes]) -> Source:
    pixels = len(header) - 1
    if pixels < 1 or header[0] != b"id" or header[1:] != [str(i).encode() for i in range(pixels)]:
        raise InputError(f"{path} is no submission: its first line must read id,0,1,2,... or id_class,rle")
    ids = [_split_row(line)[0] for _, line in _lines(path)]
    if not ids:
        raise InputError(f"{path} has a header and no rows")

    def maps() -> Iterator[NDArray[np.uint8]]:
        for number, line in _lines(path):
            yield _parse_row(_split_row(line)[1], pixels, f"{path} line {number}")

    return Source(str(path), ids, (1, pixels), 1, lambda count: _stacked(maps(), count), named=True)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the rows below the header with their line numbers; empty lines are passed over."""
    with path.open("rb") as stream:
        _line(stream, path)
        number = 1
        while line := _line(stream, path):
            number += 1
            if line.strip():
                yield number, line


def _line(stream: IO[bytes], path: Path) -> bytes:
    """Return the next line; what never ends is not read into memory."""
    line = stream.readline(MOST_LINE)
    if len(line) == MOST_LINE:
        raise InputError(f"{path} holds a line of more than {MOST_LINE} bytes: that is no submission")
    return line


def _stacked(maps: Iterator[NDArray[np.uint8]], count: int) -> Iterator[NDArray[Any]]:
    """Yield flat label maps, ``count`` at a time, as (batch, 1, pixels, 1)."""
    held: list[NDArray[np.uint8]] = []
    for labels in maps:
        held.append(labels)
        if len(held) == count:
            yield np.stack(held)[:, None, :, None]
            held = []
    if held:
        yield np.stack(held)[:, None, :, None]


def _split_row(line: bytes) -> tuple[str, bytes]:
    """Return the id and the rest of one CSV row; a quoted id may hold commas."""
    line = line.rstrip(b"\r\n")
    quoted = QUOTED_ID.match(line)
    name, body = (quoted[1].replace(b'""', b'"'), line[quoted.end() :]) if quoted else line.partition(b",")[::2]
    return name.decode("utf-8", "surrogateescape"), body


def _parse_row(body: bytes, pixels: int, where: str) -> NDArray[np.uint8]:
    """Return uint8 (pixels,): the labels of one CSV row."""
    if len(body) == 2 * pixels - 1:
        text = np.frombuffer(body, np.uint8)
        digits = text[::2]
        if (text[1::2] == COMMA).all() and (digits >= DIGIT_ZERO).all() and (digits <= DIGIT_NINE).all():
            return digits - DIGIT_ZERO
    values = body.split(b",")
    if len(values) != pixels:
        raise InputError(f"{where} has {len(values)} labels; the header promises {pixels}")
    if not all(value.isdigit() and len(value) <= 3 and int(value) <= 255 for value in values):
        raise InputError(f"{where} holds something other than whole numbers from 0 to 255")
    return np.array([int(value) for value in values], np.uint8)


class _Row(NamedTuple):
    """One row of run lengths."""

    name: str
    value: int
    runs: bytes
    where: str


def _rle_source(path: Path) -> Source:
    ids: list[str] = []
    pixels = 0
    for name, rows in groupby(_rle_rows(path), lambda row: row.name):
        if not ids:
            pixels = len(_label_map(list(rows)))
        ids.append(name)
    if not ids:
        raise InputError(f"{path} has a header and no rows")
    if len(set(ids)) < len(ids):
        twin = Counter(ids).most_common(1)[0][0]
        raise InputError(f"{path}: the rows of image {twin} are not together: sort the file by image")

    def maps() -> Iterator[NDArray[np.uint8]]:
        for name, rows in groupby(_rle_rows(path), lambda row: row.name):
            labels = _label_map(list(rows))
            if len(labels) != pixels:
                raise InputError(f"{path}: image {name} has {len(labels)} pixels, image {ids[0]} has {pixels}")
            yield labels

    return Source(str(path), ids, (1, pixels), 1, lambda count: _stacked(maps(), count), named=True)


def _rle_rows(path: Path) -> Iterator[_Row]:
    for number, line in _lines(path):
        where = f"{path} line {number}"
        joined, runs = _split_row(line)
        name, mark, value = joined.rpartition("_")
        if not mark or not (value.isascii() and value.isdecimal() and len(value) <= 3 and int(value) <= 255):
            raise InputError(
                f"{where} begins with {joined[:60]!r}: the image's id, _ and a class from 0 to 255 are due"
            )
        yield _Row(name, int(value), runs, where)


def _label_map(rows: list[_Row]) -> NDArray[np.uint8]:
    """Return uint8 (pixels,): the map that the rows of one image describe.

    Raises:
        InputError: a run is no run, or a pixel has no class or two.
    """
    found = [_runs(row) for row in rows]
    starts = np.concatenate([pairs[:, 0] for pairs in found])
    lengths = np.concatenate([pairs[:, 1] for pairs in found])
    if lengths.astype(np.float64).sum() > MOST_PIXELS:
        raise InputError(f"{rows[0].where}: image {rows[0].name} has more than {MOST_PIXELS} pixels: that is no mask")
    values = np.repeat(np.array([row.value for row in rows], np.uint8), [len(pairs) for pairs in found])
    order = np.argsort(starts, kind="stable")
    starts, lengths, values = starts[order], lengths[order], values[order]
    due = np.concatenate([[1], 1 + np.cumsum(lengths)])
    wrong = np.flatnonzero(starts != due[:-1])
    if len(wrong):
        at = int(min(starts[wrong[0]], due[wrong[0]]))
        told = "two classes" if starts[wrong[0]] < due[wrong[0]] else "no class"
        raise InputError(f"{rows[0].where}: pixel {at} of image {rows[0].name} has {told}: each needs exactly one")
    if not len(starts):
        raise InputError(f"{rows[0].where}: image {rows[0].name} has no runs: each of its pixels needs a class")
    return np.repeat(values, lengths)


def _runs(row: _Row) -> NDArray[np.int64]:
    """Return int64 (runs, 2): start, from 1, and length of each."""
    words = row.runs.split()
    if len(words) % 2 or not all(word.isdigit() and len(word) <= MOST_DIGITS for word in words):
        raise InputError(f"{row.where} holds something other than pairs of start and length")
    pairs = np.array([int(word) for word in words], np.int64).reshape(-1, 2)
    if (pairs < 1).any():
        raise InputError(f"{row.where} holds a start or a length of 0: starts count from 1")
    return pairs
