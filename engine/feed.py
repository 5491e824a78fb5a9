"""What lies between a run and its writer: the rest of a source, and masks in blocks of one fixed size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engine.images import Batch, Source

# A block holds so many masks, or fewer where they are large.
MOST_MASKS = 256
MOST_BYTES = 1 << 24


class Writes(Protocol):
    """What takes masks: a writer of :mod:`engine.masks`."""

    def write(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        """Append masks uint8 (some, pixels) and their names."""


class Feed:
    """Hands masks on in blocks that depend on neither batch size nor interruptions, so that neither shows in a file."""

    def __init__(self, writer: Writes, ids: Sequence[str], pixels: int) -> None:
        """Start in front of the first mask.

        Args:
            writer: who takes the blocks.
            ids: the names of all masks that will come, in order.
            pixels: size of a mask.
        """
        self._writer, self._ids = writer, ids
        self._block = np.empty((max(1, min(MOST_MASKS, MOST_BYTES // pixels)), pixels), np.uint8)
        self._waiting = self._start = 0

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Take the next masks, uint8 (some, pixels).

        Raises:
            OutputError: the writer fails.
        """
        at = 0
        while at < len(labels):
            count = min(len(labels) - at, len(self._block) - self._waiting)
            self._block[self._waiting : self._waiting + count] = labels[at : at + count]
            self._waiting += count
            at += count
            if self._waiting == len(self._block):
                self.flush()

    def flush(self) -> None:
        """Hand on what waits; call it behind the last mask.

        Raises:
            OutputError: the writer fails.
        """
        end = self._start + self._waiting
        if self._waiting:
            # A copy: a writer may keep what it was given until a thread of its own has written it.
            self._writer.write(self._ids[self._start : end], self._block[: self._waiting].copy())
        self._start, self._waiting = end, 0


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
