"""Chunks of a Zarr array that are missing, empty or cut short: found before, or as, they are read as other pixels."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import InputError, PlanError
from engine.sources.layout import Role
from engine.sources.remote import RemoteFile, asked
from engine.utils import console
from engine.utils.memory import memory_bound
from engine.utils.optional import require

MISSING = ("fail", "fill")
# Zarr leaves out chunks that hold the fill value alone, which is common in label maps and rare in images.
_DEFAULT: dict[Role, str] = {"images": "fail", "labels": "fill"}
# Far above what any codec makes of a byte, and what an array may declare beyond that: chunks that are left out.
MOST_RATIO, MOST_LEFT_OUT = 50_000, 2**32
# Names of chunks in format 3 (c/0/1, c.0.1) and 2 (0.1, 0/1), below the array's own folder.
_KEY = re.compile(r"(?:c[./])?([0-9]+(?:[./][0-9]+)*)")
_SAID: set[str] = set()
# Bytes of a Blosc header; where it states how long the chunk is, little-endian.
BLOSC_HEADER, BLOSC_LENGTH = 16, slice(12, 16)


def check_missing(text: str) -> None:
    """Refuse an option that does not exist.

    Raises:
        PlanError: naming what is allowed.
    """
    if text and text not in MISSING:
        raise PlanError(f"--missing-chunks {text[:40]}: unknown; allowed are {' and '.join(MISSING)}")


def check_chunks(array: Any, path: Path | RemoteFile, label: str, role: Role, missing: str = "") -> None:
    """Compare the chunks that are there with those that an array consists of; no chunk is read.

    Args:
        array: the Zarr array.
        path: the store.
        label: what messages call it.
        role: whether it holds images or label maps.
        missing: ``fail`` or ``fill``, what is done where chunks are missing; empty for ``fail`` with images and
            ``fill`` with label maps. What is filled is said.

    Raises:
        InputError: chunks are missing or empty, or the array declares more than its chunks can hold.
    """
    sides = array.shards or array.chunks
    grid = [math.ceil(length / side) for length, side in zip(array.shape, sides, strict=True)]
    one = math.prod(sides) * array.dtype.itemsize
    if one > memory_bound():
        raise InputError(f"{label} declares chunks of {one:,} bytes, more than memory holds: save smaller ones")
    stored: set[tuple[int, ...]] = set()
    held = 0
    for name, size in _files(array, path):
        found = _KEY.fullmatch(name)
        place = tuple(map(int, re.split("[./]", found[1]))) if found else ()
        if len(place) == len(grid) and all(index < count for index, count in zip(place, grid, strict=True)):
            if not size:
                raise InputError(f"{label}: its chunk {name} is empty, as after an interrupted copy: copy it again")
            stored.add(place)
            held += size
    total = math.prod(grid)
    declared = math.prod(array.shape) * array.dtype.itemsize
    if declared > held * MOST_RATIO + MOST_LEFT_OUT:
        raise InputError(
            f"{label} declares {declared:,} bytes in {total:,} chunks; {len(stored):,} are there and hold {held:,}: "
            "it is damaged or incomplete, copy it again"
        )
    if len(stored) < total:
        _missing(total - len(stored), total, label, missing or _DEFAULT[role], array.fill_value)


def _missing(count: int, total: int, label: str, how: str, fill: Any) -> None:
    shown = 0 if fill is None else fill
    told = f"{label}: {count:,} of {total:,} chunks are missing"
    if how == "fail":
        raise InputError(
            f"{told}, as after an interrupted copy: copy it again, or add --missing-chunks fill where the pixels left "
            f"out are really {shown}"
        )
    if told not in _SAID:  # a command may open a store more than once
        _SAID.add(told)
        console.say(f"{told}; they are read as {shown}")


def _files(array: Any, path: Path | RemoteFile) -> Iterator[tuple[str, int]]:
    """Yield the files below an array's folder, by their place in it, with their sizes in bytes."""
    if isinstance(path, Path):
        folder = path / array.path
        for file in folder.rglob("*"):
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file.stat().st_size
        return
    root = f"{path.path.rstrip('/')}/{array.path}".rstrip("/")
    found = asked(path.url, path.label, lambda: dict(path.system.find(root, detail=True)))
    start = len(path.system._strip_protocol(root)) + 1
    for place, told in found.items():
        yield place[start:], int(told.get("size") or 0)


def is_blosc(array: Any) -> bool:
    """Return whether each stored chunk of an array is one Blosc frame."""
    metadata = array.metadata
    if metadata.zarr_format == 2:
        return getattr(metadata.compressor, "codec_id", "") == "blosc"
    return type(metadata.codecs[-1]).__name__ == "BloscCodec"


def checked_blosc(store: Any) -> Any:
    """Return a Zarr store that compares each chunk with the length its Blosc header states.

    Blosc itself reads on behind a chunk that is cut short.
    """
    return _blosc_store()(store)


@cache
def _blosc_store() -> Any:
    storage = require("zarr.storage", "zarr", "reading Zarr needs zarr", InputError)

    class BloscStore(storage.WrapperStore):  # type: ignore[name-defined]
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            found = await self._store.get(key, prototype, byte_range)
            if found is not None and not key.rpartition("/")[2].startswith((".z", "zarr.json")):
                header = found[:BLOSC_HEADER].to_bytes()
                declared = int.from_bytes(header[BLOSC_LENGTH], "little")
                if len(header) < BLOSC_HEADER or declared != len(found):
                    raise ValueError(f"chunk {key} has {len(found)} bytes, its header states {declared}")
            return found

    return BloscStore


def local_store(path: Path) -> Any:
    """Return the Zarr store of a folder, for reading."""
    return require("zarr.storage", "zarr", f"reading {path} needs zarr", InputError).LocalStore(path, read_only=True)
