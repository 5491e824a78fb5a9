"""Label maps out of run lengths, a row an image and class: ``id_class,rle``, row by row, every pixel in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source
from engine.sources.text_rows import lines, split_row, stacked

# First line of this form, and what a file of it is known by.
RLE_HEADER = b"id_class,rle\n"
# No map may be larger, however few characters describe it.
MOST_PIXELS = 2**28
# More digits than any number of pixels that fits into memory has.
MOST_DIGITS = 15


class Row(NamedTuple):
    """One row of run lengths."""

    name: str
    value: int
    runs: bytes
    where: str


def rle_source(path: Path) -> Source:
    """Open run lengths of this form; its maps are (1, pixels).

    Raises:
        InputError: no rows, or an image that is there twice or is damaged.
    """
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
        raise InputError(
            f"{path}: the rows of image {twin} are not together, or it is there twice: sort by image, keep one"
        )

    def maps() -> Iterator[NDArray[np.uint8]]:
        for name, rows in groupby(_rle_rows(path), lambda row: row.name):
            labels = _label_map(list(rows))
            if len(labels) != pixels:
                raise InputError(f"{path}: image {name} has {len(labels)} pixels, image {ids[0]} has {pixels}")
            yield labels

    return Source(str(path), ids, (1, pixels), 1, lambda count: stacked(maps(), count), named=True)


def _rle_rows(path: Path) -> Iterator[Row]:
    for number, line in lines(path):
        where = f"{path} line {number}"
        joined, runs = split_row(line)
        name, mark, value = joined.rpartition("_")
        yield Row(name, class_of(value if mark else "", where, joined), runs, where)


def class_of(text: str, where: str, shown: str) -> int:
    """Return the class that a text stands for.

    Raises:
        InputError: it is none from 0 to 255; ``where`` and ``shown`` go into the message.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= 255):
        raise InputError(f"{where} begins with {shown[:60]!r}: the image's id, _ and a class from 0 to 255 are due")
    return int(text)


def _label_map(rows: list[Row]) -> NDArray[np.uint8]:
    """Return uint8 (pixels,): the map that the rows of one image describe.

    Raises:
        InputError: a run is no run, or a pixel has no class or two.
    """
    seen: set[int] = set()
    for row in rows:
        if row.value in seen:
            raise InputError(f"{row.where}: class {row.value} of image {row.name} stands there twice: keep one row")
        seen.add(row.value)
    found = [runs_of(row) for row in rows]
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


def runs_of(row: Row) -> NDArray[np.int64]:
    """Return int64 (runs, 2): start, from 1, and length of each.

    Raises:
        InputError: naming the row, for anything else.
    """
    words = row.runs.split()
    if len(words) % 2 or not all(word.isdigit() and len(word) <= MOST_DIGITS for word in words):
        raise InputError(f"{row.where}, image {row.name}, holds something other than pairs of start and length")
    pairs = np.array([int(word) for word in words], np.int64).reshape(-1, 2)
    if (pairs < 1).any():
        raise InputError(f"{row.where}, image {row.name}, holds a start or a length of 0: starts count from 1")
    return pairs
