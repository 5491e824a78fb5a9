"""Parts of a source: what is left of it, the first few images, the same ones over and over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.sources.base import Batch, Source


@dataclass(frozen=True)
class Rest(Source):
    """Some images of a source.

    Attributes:
        first: index of its first image in the whole source.
    """

    first: int = 0

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield the images in order, ``size`` at a time, with their indices in the whole source.

        Raises:
            InputError: the data turns out to be damaged on the way.
        """
        for batch in super().batches(size):
            yield replace(batch, start=batch.start + self.first)


def rest_of(source: Source, done: int) -> Source:
    """Return a source without its first ``done`` images."""
    return span_of(source, done, len(source) - done) if done else source


def span_of(source: Source, first: int, count: int) -> Source:
    """Return ``count`` images of a source from one index on, with their indices in the whole source.

    Where images can be read in order alone, those before are read and passed over.
    """

    def read(size: int) -> Iterator[NDArray[Any]]:
        if source.at is None:
            yield from _passed_over(source, first, count, size)
            return
        for start in range(first, first + count, size):
            yield source.at(start, min(start + size, first + count))

    kept = {item.name: getattr(source, item.name) for item in fields(Source)}
    return Rest(**{**kept, "ids": source.ids[first : first + count], "read": read, "at": None}, first=first)


def _passed_over(source: Source, first: int, count: int, size: int) -> Iterator[NDArray[Any]]:
    held: NDArray[Any] | None = None
    before, left = first, count
    for pixels in source.read(size):
        if before >= len(pixels):
            before -= len(pixels)
            continue
        # Batches begin anew at the first image that is wanted: those of the run before ended there.
        pixels, before = pixels[before:], 0
        held = pixels if held is None or not len(held) else np.concatenate([held, pixels])
        while len(held) >= size and left >= size:
            yield held[:size]
            held, left = held[size:], left - size
        if left <= len(held):
            break
    if held is not None and left:
        yield held[:left]


def limited(source: Source, limit: int) -> Source:
    """Return the first ``limit`` images of a source; all of them for 0.

    Raises:
        PlanError: the limit is negative.
    """
    if limit < 0:
        raise PlanError(f"--limit {limit}: give a number above 0")
    if limit == 0 or limit >= len(source):
        return source

    def read(size: int) -> Iterator[np.ndarray[Any, Any]]:
        left = limit
        for pixels in source.read(min(size, limit)):
            yield pixels[:left]
            left -= len(pixels[:left])
            if not left:
                return

    return replace(source, ids=list(source.ids[:limit]), read=read, sizes=source.sizes[:limit])


def repeated(source: Source, count: int) -> Source:
    """Return the images of a source over and over, ``count`` in all."""

    def read(size: int) -> Iterator[NDArray[Any]]:
        left = count
        while left:
            for pixels in source.read(size):
                yield pixels[:left]
                left -= len(pixels[:left])
                if not left:
                    return

    return replace(source, ids=[str(index) for index in range(count)], read=read, named=False)
