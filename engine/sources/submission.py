"""Label maps out of submissions: a row of labels an image, or run lengths a row an image and class."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source
from engine.sources.rle import RLE_HEADER, rle_source
from engine.sources.rle_kaggle import HEADERS, kaggle_source
from engine.sources.text_rows import line_of, lines, split_row, stacked

# Forms of run lengths: of this project, of Kaggle, of COCO.
RLE_FORMS = ("rows", "kaggle", "coco")
DIGIT_ZERO, DIGIT_NINE, COMMA = ord("0"), ord("9"), ord(",")


def open_submission(path: Path, like: Source | None = None, rle: str = "") -> Source:
    """Open a submission of any form; its first line tells which.

    Maps are (1, pixels), those of Kaggle's run lengths of the size of ``like``.

    Args:
        path: the file.
        like: the images, or other masks of them; needed for Kaggle's run lengths alone.
        rle: ``rows`` where run lengths with a header of Kaggle are counted row by row.

    Raises:
        InputError: no such file, no such form, no rows, or an id that is there twice.
    """
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    header = _header(path)
    if header in HEADERS:
        return kaggle_source(path, header, like, rle == "rows")
    if header == RLE_HEADER.rstrip():
        return rle_source(path)
    return _csv_source(path, header.split(b","))


def _header(path: Path) -> bytes:
    with path.open("rb") as stream:
        header = line_of(stream, path).rstrip(b"\r\n")
    # Spreadsheets write a mark of UTF-8 in front, and people any case of Kaggle's names.
    header = header.removeprefix(BOM_UTF8)
    return header.lower() if header.lower() in HEADERS else header


def rle_form(spec: str | Path) -> str:
    """Return which of :data:`RLE_FORMS` a file is by its suffix and first line; empty for none of them."""
    path = Path(spec)
    if path.suffix.lower() == ".json":
        return "coco"
    if path.suffix.lower() != ".csv" or not path.is_file():
        return ""
    header = _header(path)
    return "kaggle" if header in HEADERS else "rows" if header == RLE_HEADER.rstrip() else ""


def _csv_source(path: Path, header: list[bytes]) -> Source:
    pixels = len(header) - 1
    if pixels < 1 or header[0] != b"id" or header[1:] != [str(i).encode() for i in range(pixels)]:
        raise InputError(
            f"{path} is no submission: its first line must read id,0,1,2,... or id_class,rle or ImageId,EncodedPixels"
        )
    ids: dict[str, int] = {}
    for number, line in lines(path):
        name = split_row(line)[0]
        if name in ids:
            raise InputError(f"{path} line {number}: image {name} stands in line {ids[name]} too: keep one of the rows")
        ids[name] = number
    if not ids:
        raise InputError(f"{path} has a header and no rows")

    def maps() -> Iterator[NDArray[np.uint8]]:
        for number, line in lines(path):
            yield _parse_row(split_row(line)[1], pixels, f"{path} line {number}")

    return Source(str(path), list(ids), (1, pixels), 1, lambda count: stacked(maps(), count), named=True)


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
