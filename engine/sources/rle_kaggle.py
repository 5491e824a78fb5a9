"""Label maps out of Kaggle's run lengths: column by column, starts from 1, the foreground alone."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source
from engine.sources.rle import Row, class_of, runs_of
from engine.sources.rle_join import Piece, joined, painted, source_of
from engine.sources.text_rows import located_lines, split_row

# First lines that such files have, in small letters; the class stands behind the id, in a column, or is 1.
JOINED, COLUMN, BINARY = b"imageid_classid,encodedpixels", b"imageid,classid,encodedpixels", b"imageid,encodedpixels"
HEADERS = (JOINED, COLUMN, BINARY)


class _Place(NamedTuple):
    """Where a row stands: its place in the file in bytes, its line number, and its class."""

    offset: int
    line: int
    value: int


def kaggle_source(path: Path, header: bytes, like: Source | None, by_rows: bool = False) -> Source:
    """Open run lengths with one of :data:`HEADERS`; what no run covers is class 0.

    Args:
        path: the file.
        header: its first line, in small letters.
        like: the images, or other masks of them: the file knows neither their size nor those without foreground.
        by_rows: pixels are counted row by row, not column by column.

    Raises:
        InputError: the size is not known, a row or an image is there twice, or an image is none of ``like``.
    """
    if like is None or (1 in like.size and not by_rows):
        raise InputError(
            f"{path} does not say how high and wide its images are, and nothing beside it does: give the other side as "
            "a folder or an array"
        )
    rows = _index(path, header)
    if not rows:
        raise InputError(f"{path} has a header and no rows")
    height, width = like.size

    def label_map(name: str) -> NDArray[np.uint8]:
        flat = painted(_pieces(path, header, name, rows[name]), height * width, name)
        return flat.reshape(height, width) if by_rows else flat.reshape(width, height).T

    return source_of(str(path), like, joined(list(rows), like, str(path)), like.size, label_map)


def _index(path: Path, header: bytes) -> dict[str, list[_Place]]:
    """Return where the rows of each image stand, in the order of the file."""
    rows: dict[str, list[_Place]] = {}
    seen: set[tuple[str, int]] = set()
    for number, offset, line in located_lines(path):
        where = f"{path} line {number}"
        name, value, _ = _parts(line, header, where)
        if (name, value) in seen:
            what = "image" if header == BINARY else f"class {value} of image"
            raise InputError(f"{where}: {what} {name} stands there twice: keep one row, with all of its runs")
        seen.add((name, value))
        rows.setdefault(name, []).append(_Place(offset, number, value))
    return rows


def _parts(line: bytes, header: bytes, where: str) -> tuple[str, int, bytes]:
    """Return image, class and runs of a row."""
    head, body = split_row(line)
    name, value = head, 1
    if header == JOINED:
        name, mark, text = head.rpartition("_")
        value = class_of(text if mark else "", where, head)
    elif header == COLUMN:
        held, _, body = body.partition(b",")
        text = held.decode("utf-8", "replace")
        value = class_of(text, where, text)
    return name, value, body.strip(b'" \r\n')


def _pieces(path: Path, header: bytes, name: str, places: list[_Place]) -> list[Piece]:
    pieces = []
    with path.open("rb") as stream:
        for place in places:
            stream.seek(place.offset)
            where = f"{path} line {place.line}"
            found, value, runs = _parts(stream.readline(), header, where)
            if (found, value) != (name, place.value):
                raise InputError(f"{path} was changed while it was read: run again")
            pairs = runs_of(Row(name, value, runs, where))
            pieces.append(Piece(value, pairs[:, 0] - 1, pairs[:, 1], where))
    return pieces
