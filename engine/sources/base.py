"""A set of images or label maps that is read batch by batch: what every form of input is turned into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.layout import Layout, Role, layout_of


@dataclass(frozen=True)
class Batch:
    """Consecutive images.

    Attributes:
        start: index of the first.
        ids: (batch,) their names: row numbers for arrays, file stems for folders.
        pixels: (batch, height, width, channels), uint8 or any other plain number type.
    """

    start: int
    ids: list[str]
    pixels: NDArray[Any]

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return (self.pixels.shape[1], self.pixels.shape[2])


@dataclass(frozen=True)
class Source:
    """A set of images or label maps that is read batch by batch.

    Attributes:
        name: where it comes from, for messages.
        ids: names of all images, in order.
        size: (height, width) in pixels.
        channels: channels of an image.
        read: maps a batch size to the batches' pixels, in order.
        named: whether the ids are names of their own, and not the row numbers of an array.
        at: reads the images from one index up to another at once; None where they can be read in order alone.
        sizes: (height, width) of each image where they differ: ``size`` is then that of the first, a batch holds images
            of one size, and ``at`` reads them one by one. Empty where all have ``size``.
    """

    name: str
    ids: Sequence[str]
    size: tuple[int, int]
    channels: int
    read: Callable[[int], Iterator[NDArray[Any]]]
    named: bool = False
    at: Callable[[int, int], NDArray[Any]] | None = None
    sizes: Sequence[tuple[int, int]] = ()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    @property
    def every_size(self) -> list[tuple[int, int]]:
        """Return each (height, width) that an image has, once."""
        return list(dict.fromkeys(self.sizes or [self.size]))

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all images in order, ``size`` at a time.

        Raises:
            InputError: the data turns out to be damaged on the way.
        """
        start = 0
        for pixels in self.read(size):
            yield Batch(start, list(self.ids[start : start + len(pixels)]), pixels)
            start += len(pixels)


def from_array(array: NDArray[Any], role: Role = "images", name: str = "array") -> Source:
    """Make a source of an array in memory: (rows, height, width), or with channels first or last.

    Raises:
        InputError: unusable shape or type.
    """
    if array.dtype.kind not in "buif":
        raise InputError(f"{name} holds {array.dtype}; bool, whole numbers or floats are needed")
    return arranged(name, array.shape, layout_of(array.shape, role, name), None, lambda start, stop: array[start:stop])


def arranged(
    name: str,
    shape: tuple[int, ...],
    layout: Layout,
    chunks: Callable[[int], Iterator[NDArray[Any]]] | None,
    part: Callable[[int, int], NDArray[Any]] | None,
) -> Source:
    """Return the source of an array, whose images are named by their row numbers.

    Args:
        name: where it comes from, for messages.
        shape: of the array.
        layout: its axes.
        chunks: yields so many elements of its first axis at a time, in order; None where ``part`` is as good.
        part: returns elements of its first axis; None where they can be read in order alone.
    """
    if layout.alone:

        def whole(start: int, stop: int) -> NDArray[Any]:
            found = part(0, shape[0]) if part is not None else next(chunks(shape[0]))  # type: ignore[misc]
            return layout.arrange(found[None])[start:stop]

        return _source(name, 1, layout, lambda count: iter((whole(0, 1),)), whole)

    def read(count: int) -> Iterator[NDArray[Any]]:
        if chunks is not None:
            return map(layout.arrange, chunks(count))
        assert part is not None
        return (layout.arrange(part(start, start + count)) for start in range(0, shape[0], count))

    at = None if part is None else lambda start, stop: layout.arrange(part(start, stop))
    return _source(name, shape[0], layout, read, at)


def _source(
    name: str,
    count: int,
    layout: Layout,
    read: Callable[[int], Iterator[NDArray[Any]]],
    at: Callable[[int, int], NDArray[Any]] | None,
) -> Source:
    """Return the source of an array, whose images are named by their row numbers."""
    return Source(name, RowNumbers(range(count)), layout.size, layout.channels, read, at=at)


def stacked(images: Iterable[NDArray[Any]], count: int) -> Iterator[NDArray[Any]]:
    """Yield images (height, width, channels) as batches of up to ``count``; one of another size begins a new batch."""
    held: list[NDArray[Any]] = []
    for image in images:
        if held and image.shape != held[0].shape:
            yield np.stack(held)
            held = []
        held.append(image)
        if len(held) == count:  # before the next one is asked for, which may be damaged
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


class RowNumbers(Sequence[str]):
    """``["0", "1", ...]`` that takes no memory, however many there are."""

    def __init__(self, rows: Any) -> None:
        """Hold a ``range`` of the rows' numbers; children hold other sequences that can be sliced."""
        self._rows = rows

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Self: ...

    def __getitem__(self, at: int | slice) -> str | Self:
        """Return one id, or those of a part."""
        return type(self)(self._rows[at]) if isinstance(at, slice) else self._text(self._rows[at])

    def _text(self, row: Any) -> str:
        return str(row)
