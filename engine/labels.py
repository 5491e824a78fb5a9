"""Label maps from every form the engine writes or a user has: arrays, folders of PNGs, submission CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.images import Batch, Source, open_source

DIGIT_ZERO, DIGIT_NINE, COMMA = ord("0"), ord("9"), ord(",")
QUOTED_ID = re.compile(rb'"((?:[^"]|"")*)",')


def open_labels(spec: str | Path) -> Source:
    """Open label maps: ``.npz[:key]``, ``.npy``, a folder of index PNGs or a submission ``.csv``.

    A CSV knows no height: its maps are (1, pixels).

    Raises:
        InputError: nothing there or not readable as label maps.
    """
    path = Path(spec)
    return _csv_source(path) if path.suffix.lower() == ".csv" else open_source(spec, "labels")


def as_labels(batch: Batch, classes: int, name: str) -> NDArray[np.uint8]:
    """Return a batch of label maps as uint8 (batch, pixels).

    Raises:
        InputError: a value is no class id; the message names the map and the value.
    """
    maps = batch.pixels.reshape(len(batch.pixels), -1)
    bad = ~((maps >= 0) & (maps < classes))
    if maps.dtype.kind == "f":
        bad |= maps != np.floor(maps)
    if bad.any():
        image, pixel = np.argwhere(bad)[0]
        raise InputError(
            f"{name}: label map {batch.ids[image]} holds {maps[image, pixel]}; allowed are 0 to {classes - 1}"
        )
    return np.ascontiguousarray(maps, dtype=np.uint8)


def check_match(images: Source, labels: Source) -> None:
    """Refuse labels that do not belong to the images.

    Raises:
        InputError: another number of maps, another size, other names where both have names, or the same ones in another
            order.
    """
    if len(images) != len(labels):
        raise InputError(
            f"{labels.name} holds {len(labels)} label maps, {images.name} holds {len(images)}: give one each"
        )
    flat = 1 in (labels.size[0], images.size[0])
    same = np.prod(images.size) == np.prod(labels.size) if flat else images.size == labels.size
    if not same:
        raise InputError(
            f"{labels.name} holds maps of {labels.size[0]}x{labels.size[1]}, "
            f"{images.name} holds {images.size[0]}x{images.size[1]}: they must be of one size"
        )
    # Row numbers of an array match any names one by one, but never numbers that are merely in another order.
    comparable = (images.named and labels.named) or set(images.ids) == set(labels.ids)
    if comparable and list(images.ids) != list(labels.ids):
        differing = next((a, b) for a, b in zip(images.ids, labels.ids, strict=True) if a != b)
        raise InputError(f"{labels.name} has id {differing[1]} where {images.name} has {differing[0]}: sort them alike")


def _csv_source(path: Path) -> Source:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    with path.open("rb") as stream:
        header = stream.readline().rstrip(b"\r\n").split(b",")
        pixels = len(header) - 1
        if pixels < 1 or header[0] != b"id" or header[1:] != [str(i).encode() for i in range(pixels)]:
            raise InputError(f"{path} is no submission: its first line must read id,0,1,2,...")
        ids = [_split_row(line)[0] for line in stream if line.strip()]
    if not ids:
        raise InputError(f"{path} has a header and no rows")

    def read(count: int) -> Iterator[NDArray[Any]]:
        with path.open("rb") as stream:
            stream.readline()
            maps: list[NDArray[np.uint8]] = []
            for number, line in enumerate(stream, start=2):
                if not line.strip():
                    continue
                maps.append(_parse_row(_split_row(line)[1], pixels, f"{path} line {number}"))
                if len(maps) == count:
                    yield np.stack(maps)[:, None, :, None]
                    maps = []
            if maps:
                yield np.stack(maps)[:, None, :, None]

    return Source(str(path), ids, (1, pixels), 1, read, named=True)


def _split_row(line: bytes) -> tuple[str, bytes]:
    """Return the id and the labels of one CSV row; a quoted id may hold commas."""
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
