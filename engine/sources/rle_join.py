"""What the sparse forms of run lengths share: runs painted over class 0, names joined with those of the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source
from engine.sources.pictures import SUFFIXES
from engine.utils import console


class Piece(NamedTuple):
    """The runs of one class in one image.

    Attributes:
        value: the class.
        starts: int64 (runs,), where each run starts, from 0.
        lengths: int64 (runs,).
        where: file and row, for messages.
    """

    value: int
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    where: str


def painted(pieces: Sequence[Piece], pixels: int, name: str) -> NDArray[np.uint8]:
    """Return uint8 (pixels,): the class of each run, and 0 where none is.

    Raises:
        InputError: runs that overlap, are not ascending or end beyond the image; row and image are named.
    """
    for piece in pieces:
        _check(piece, pixels, name)
    held = [piece for piece in pieces if len(piece.starts)]
    if not held:
        return np.zeros(pixels, np.uint8)
    starts = np.concatenate([piece.starts for piece in held])
    ends = starts + np.concatenate([piece.lengths for piece in held])
    owners = np.repeat(np.arange(len(held)), [len(piece.starts) for piece in held])
    order = np.argsort(starts, kind="stable")
    starts, ends, owners = starts[order], ends[order], owners[order]
    shared = np.flatnonzero(starts[1:] < ends[:-1])
    if len(shared):
        first, second = held[owners[shared[0]]], held[owners[shared[0] + 1]]
        raise InputError(
            f"{second.where}: pixel {starts[shared[0] + 1] + 1} of image {name} has class {second.value} and class "
            f"{first.value} ({first.where}): each needs exactly one"
        )
    # A gap before each run, and one behind the last: class 0.
    lengths = np.empty(2 * len(starts) + 1, np.int64)
    lengths[1::2] = ends - starts
    lengths[::2] = np.append(starts, pixels) - np.append(0, ends)
    values = np.zeros(len(lengths), np.uint8)
    values[1::2] = np.array([piece.value for piece in held], np.uint8)[owners]
    return np.repeat(values, lengths)


def _check(piece: Piece, pixels: int, name: str) -> None:
    ends = piece.starts + piece.lengths
    beyond = np.flatnonzero(ends > pixels)
    if len(beyond):
        raise InputError(
            f"{piece.where}: a run of image {name} ends at pixel {ends[beyond[0]]}; the image has {pixels}: is it of "
            "another size?"
        )
    descending = np.flatnonzero(piece.starts[1:] < piece.starts[:-1])
    if len(descending):
        at = descending[0]
        raise InputError(
            f"{piece.where}: start {piece.starts[at + 1] + 1} of image {name} stands behind {piece.starts[at] + 1}: "
            "runs must be in ascending order"
        )
    twice = np.flatnonzero(piece.starts[1:] < ends[:-1])
    if len(twice):
        start = piece.starts[twice[0] + 1] + 1
        raise InputError(f"{piece.where}: runs of image {name} overlap at pixel {start}: each pixel stands in one run")


def _same(name: str) -> str:
    return name


def without_suffix(name: str) -> str:
    """Return a file name without the suffix of a picture, as ids of folders are."""
    suffix = PurePosixPath(name).suffix
    return name[: -len(suffix)] if suffix.lower() in SUFFIXES else name


def _as_number(name: str) -> str:
    stem = without_suffix(name)
    return str(int(stem)) if stem.isascii() and stem.isdecimal() and len(stem) < 20 else stem


KEYS: tuple[Callable[[str], str], ...] = (_same, without_suffix, _as_number)


def joined(names: Sequence[str], like: Source, where: str) -> list[str | None]:
    """Return for each image the name that a file has for it; None where the file has none.

    Names are the same as the ids, or the same without the suffix of a picture, or the same numbers (COCO's 139 is
    000000000139.jpg). Names of the file's own meet the rows of an array in their order.

    Args:
        names: the images' names in the file, each once, in order.
        like: the images, or what else knows their ids.
        where: the file, for messages.

    Raises:
        InputError: a name that is none of the images'.
    """
    ids = list(like.ids)
    unknown = ""
    for key in KEYS:
        known = {key(name): name for name in names}
        own = {key(name) for name in ids}
        if len(known) < len(names) or len(own) < len(ids):
            continue
        strange = [name for name in names if key(name) not in own]
        if not strange:
            found = [known.get(key(name)) for name in ids]
            _say_missing(found, where)
            return found
        unknown = strange[0]
    if not like.named and len(names) == len(ids):
        console.say(f"{where}: its {len(names)} images are those of {like.name} in the order of the file")
        return list(names)
    if not unknown:
        raise InputError(f"{like.name} has an id twice: images need names of their own to be joined with {where}")
    raise InputError(f"{where} has image {unknown}, which {like.name} lacks ({ids[0]}, ...): name the images alike")


def _say_missing(found: Sequence[str | None], where: str) -> None:
    missing = found.count(None)
    if missing:
        console.say(f"{where}: {missing} of {len(found)} images have no row there: class 0 everywhere")


def source_of(
    name: str, like: Source, found: Sequence[str | None], size: tuple[int, int], label_map: Callable[[str], Any]
) -> Source:
    """Return the source of the images' label maps.

    Args:
        name: the file.
        like: where the ids come from.
        found: what :func:`joined` returned.
        size: (height, width) of a map.
        label_map: makes uint8 (height, width) of a name of the file.
    """

    def at(start: int, stop: int) -> NDArray[Any]:
        maps = [np.zeros(size, np.uint8) if key is None else label_map(key) for key in found[start:stop]]
        return np.stack(maps)[..., None]

    def read(count: int) -> Any:
        return (at(start, min(start + count, len(found))) for start in range(0, len(found), count))

    return Source(name, like.ids, size, 1, read, named=like.named, at=at)
