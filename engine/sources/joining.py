"""Which label map belongs to which image: joined by id where both sides have names, by place where one is an array."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source, stacked
from engine.utils import console
from engine.utils.threads import ahead

# Maps read ahead where they are asked for one by one.
READERS, WAITING = 2, 8


class Named(Protocol):
    """Images or label maps with ids."""

    @property
    def name(self) -> str:
        """Return where they come from."""

    @property
    def ids(self) -> Sequence[str]:
        """Return their names, in order."""


def joined(images: Source, labels: Source, limit: int = 0, quiet: bool = False) -> Source:
    """Return the label maps of the images, in the images' order and under their ids.

    Both with names: by id; where the label maps' names have a prefix or suffix that the images' lack (or the other way
    round), it is found and said. A name against an array: by place, in an order that is said.

    Args:
        images: all images.
        labels: the label maps; further ones are left out, and said, where both sides have names.
        limit: how many images are looked at, from the first; 0 for all.
        quiet: say nothing.

    Raises:
        InputError: an image without a label map, or two sides whose names have nothing to do with each other.
    """
    by_name = images.named and labels.named
    if not by_name and (images.named or labels.named):
        # The rows of an array may be named by their numbers on the other side, as those of a submission are.
        by_name = len(images) == len(labels) and set(images.ids) == set(labels.ids)
    if by_name:
        try:
            order, told = partners(images, labels, limit)
        except InputError:
            # Row numbers that were written as names, as a submission has them.
            numbered = [_is_numbered(side) for side in (images, labels)]
            if numbered[0] == numbered[1]:
                raise
            sides = [replace(side, named=not rows) for side, rows in zip((images, labels), numbered, strict=True)]
            order, told = _by_place(sides[0], sides[1], limit)
    else:
        order, told = _by_place(images, labels, limit)
    for line in [] if quiet else told:
        console.say(line)
    ids = images.ids[: len(order)]
    if len(order) == len(labels) and order == list(range(len(order))):
        return replace(labels, ids=ids, named=images.named)
    return replace(picked(labels, np.array(order)), ids=ids, named=images.named)


def _by_place(images: Source, labels: Source, limit: int) -> tuple[list[int], list[str]]:
    told = _check_places(images, labels, limit)
    return list(range(min(limit or len(images), len(images)))), told


def _is_numbered(source: Source) -> bool:
    """Return whether the ids are the numbers of the rows, in order."""
    return all(name == str(row) for row, name in enumerate(source.ids))


def picked(source: Source, order: NDArray[np.int64]) -> Source:
    """Return the images of a source at these indices; what can be read in order alone is kept on the disk."""
    at = source.at or _Spool(source)

    def spans(start: int, stop: int) -> NDArray[Any]:
        wanted = order[start:stop]
        if np.array_equal(wanted, np.arange(wanted[0], wanted[0] + len(wanted))):
            return at(int(wanted[0]), int(wanted[0]) + len(wanted))
        return np.concatenate(list(ahead(lambda index: at(index, index + 1), wanted.tolist(), READERS, WAITING)))

    def read(count: int) -> Iterator[NDArray[Any]]:
        if source.sizes:
            yield from stacked(ahead(lambda index: at(index, index + 1)[0], order.tolist(), READERS, WAITING), count)
            return
        for start in range(0, len(order), count):
            yield spans(start, min(start + count, len(order)))

    ids = [source.ids[index] for index in order.tolist()]
    sizes = [source.sizes[index] for index in order.tolist()] if source.sizes else ()
    return replace(source, ids=ids, read=read, at=spans, sizes=sizes)


def _check_places(images: Source, labels: Source, limit: int) -> list[str]:
    """Refuse another number of maps; return what is to be said about the order."""
    count = min(limit or len(images), len(images))
    if len(labels) != len(images) and not (limit and len(labels) >= count):
        raise InputError(
            f"{labels.name} holds {len(labels)} label maps, {images.name} holds {len(images)}: give one each"
        )
    if images.named == labels.named or count < 2:
        return []
    named, rows = (images, labels) if images.named else (labels, images)
    shown = ", ".join(named.ids[:3]) + (f", ..., {named.ids[count - 1]}" if count > 3 else "")
    return [f"{rows.name} has no names, so its rows are those of {named.name} in this order: {shown}"]


def partners(images: Named, labels: Named, limit: int = 0) -> tuple[list[int], list[str]]:
    """Find the label map of each image by their ids.

    Args:
        images: all images.
        labels: the label maps.
        limit: how many images are looked at, from the first; 0 for all.

    Returns:
        The index of each image's label map, and what is to be said about how they were found.

    Raises:
        InputError: an image without a label map, or with two.
    """
    ids, everyone = list(images.ids[: limit or None]), list(labels.ids)
    place = {name: index for index, name in enumerate(everyone)}
    if len(set(ids)) < len(ids):
        raise InputError(f"{images.name} names an image twice: every id must be one image")
    if len(place) < len(everyone):
        raise InputError(f"{labels.name} names a label map twice: every id must be one map")
    found, told = ids, []
    if any(name not in place for name in ids):
        found = _renamed(ids, list(images.ids), everyone)
        if not found:
            missing = next(name for name in ids if name not in place)
            shown = ", ".join(everyone[:3]) + (", ..." if len(everyone) > 3 else "")
            raise InputError(
                f"{labels.name} has no label map of {missing} of {images.name}; its ids are {shown}: name both alike, "
                "but for one common prefix or suffix"
            )
        told.append(f"{labels.name}: joined by id, {found[0]} is the label map of {ids[0]}")
    more = len(everyone) - len(ids)
    if more and not limit:
        told.append(f"{labels.name}: {more:,} of {len(everyone):,} label maps belong to no image and are left out")
    return [place[name] for name in found], told


def _renamed(ids: list[str], images: list[str], labels: list[str]) -> list[str]:
    """Return the name of each image's label map where the two differ by an affix; empty where they differ by more."""
    known = set(labels)
    found = _added(ids, known) or _taken(ids, known)
    if found is None:
        found = _exchanged(images if len(images) == len(labels) else ids, labels)
    return [] if found is None else found[: len(ids)]


def _added(ids: Sequence[str], known: set[str]) -> list[str] | None:
    """Find what label names have before and behind the images' names.

    Raises:
        InputError: more than one pair of affixes fits.
    """
    longest = max(ids, key=len)
    affixes = {
        (name[: found.start()], name[found.start() + len(longest) :])
        for name in known
        for found in re.finditer(f"(?={re.escape(longest)})", name)
    }
    fits = [(before, behind) for before, behind in affixes if all(f"{before}{name}{behind}" in known for name in ids)]
    if len(fits) > 1:
        shown = " and ".join(f"{before}{longest}{behind}" for before, behind in sorted(fits)[:2])
        raise InputError(f"{longest} has two label maps, {shown}: name the folder or files of one kind")
    return [f"{fits[0][0]}{name}{fits[0][1]}" for name in ids] if fits else None


def _taken(ids: Sequence[str], known: set[str]) -> list[str] | None:
    """Find what images' names have before and behind the label names."""
    before, behind = _common(ids) if len(ids) > 1 else ("", "")
    ends = [(a, b) for a in range(len(before) + 1) for b in range(len(behind) + 1) if a or b]
    if len(ids) == 1:
        (only,) = ids
        names = [name for name in known if name and (only.startswith(name) or only.endswith(name))]
        return names if len(names) == 1 else None
    for start, stop in ends:
        cut = [name[start : len(name) - stop] for name in ids]
        if all(name in known for name in cut) and len(set(cut)) == len(ids):
            return cut
    return None


def _exchanged(ids: Sequence[str], known: list[str]) -> list[str] | None:
    """Find one affix of the images that stands for another of the label maps (``image_1`` and ``mask_1``)."""
    if len(ids) != len(known) or len(ids) < 2:
        return None
    (before, behind), (other_before, other_behind) = _common(ids), _common(known)
    own = {name[len(before) : len(name) - len(behind)]: name for name in ids}
    others = {name[len(other_before) : len(name) - len(other_behind)]: name for name in known}
    if own.keys() != others.keys() or len(own) != len(ids):
        return None
    # The number of a scene or a city in both, and not the same one: these are other images.
    for one, other in ((before, other_before), (behind, other_behind)):
        digits, other_digits = re.findall(r"\d+", one), re.findall(r"\d+", other)
        if digits and other_digits and digits != other_digits:
            return None
    name_of = {name: key for key, name in own.items()}
    return [others[name_of[name]] for name in ids]


def _common(names: Sequence[str]) -> tuple[str, str]:
    """Return what all names begin with, and what the rests end with."""
    before = _beginning(names)
    return before, _beginning([name[len(before) :][::-1] for name in names])[::-1]


def _beginning(names: Sequence[str]) -> str:
    """Return the longest text that all names begin with."""
    first, last = min(names), max(names)
    return first[: next((at for at, letter in enumerate(first) if last[at : at + 1] != letter), len(first))]


class _Spool:
    """Label maps that can be read in order alone, kept in a temporary file once one is asked for."""

    def __init__(self, source: Source) -> None:
        """Read nothing yet."""
        self._source, self._lock = source, Lock()
        self._maps: NDArray[Any] | None = None

    def __call__(self, start: int, stop: int) -> NDArray[Any]:
        """Return the maps from one index up to another."""
        with self._lock:
            if self._maps is None:
                self._maps = self._kept()
        return np.asarray(self._maps[start:stop])

    def _kept(self) -> NDArray[Any]:
        kept: NDArray[Any] | None = None
        count, done = len(self._source), 0
        for maps in self._source.read(64):
            if kept is None:
                with tempfile.TemporaryFile(prefix="maskfuse-") as file:
                    kept = np.memmap(file, maps.dtype, "w+", shape=(count, *maps.shape[1:]))
            if not np.can_cast(maps.dtype, kept.dtype):
                raise InputError(f"{self._source.name} holds {kept.dtype} and {maps.dtype} maps: save them all alike")
            kept[done : done + len(maps)] = maps
            done += len(maps)
        if kept is None or done != count:
            raise InputError(f"{self._source.name} ends early: {done} of {count} label maps")
        return kept
