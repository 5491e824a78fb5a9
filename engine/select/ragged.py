"""Arrays of images of different sizes in one piece: label maps, logits, log-probabilities.

Images of one size are a plain array (images, ..., pixels). What reads either form indexes it by images that have one
size, see :func:`one_size`, and gets the same array (images, ..., pixels).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Kind = TypeVar("Kind", bound=np.generic)
Size = tuple[int, int]


class Ragged(Generic[Kind]):
    """One array (..., pixels) per image, one after the other in a flat one."""

    def __init__(self, flat: NDArray[Kind], pixels: Sequence[int], lead: Sequence[int] = ()) -> None:
        """Hold the images.

        Args:
            flat: (prod(lead) * sum(pixels),), may be mapped from a file.
            pixels: how many pixels each image has.
            lead: axes before the pixels, such as (classes,).
        """
        self.flat, self.lead = flat, tuple(lead)
        self.pixels = np.asarray(pixels, np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.pixels)]) * prod(self.lead)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    def __iter__(self) -> Iterator[NDArray[Kind]]:
        """Yield each image, (..., pixels)."""
        return (self._of(index) for index in range(len(self)))

    def __getitem__(self, images: int | np.integer | NDArray[np.int64]) -> NDArray[Kind]:
        """Return an image (..., pixels), or a copy of several of one size, (images, ..., pixels)."""
        if isinstance(images, int | np.integer):
            return self._of(int(images))
        if not len(images):
            return np.empty((0, *self.lead, 0), self.flat.dtype)
        return np.stack([self._of(index) for index in images.tolist()])

    def __setitem__(self, images: slice, values: NDArray[Kind]) -> None:
        """Write consecutive images of one size, (images, ..., pixels)."""
        for index, value in zip(range(images.start, images.stop), values, strict=True):
            self._of(index)[:] = value

    def ravel(self) -> NDArray[Kind]:
        """Return all images as one flat array."""
        return self.flat

    def _of(self, index: int) -> NDArray[Kind]:
        start, stop = self._starts[index], self._starts[index + 1]
        return self.flat[start:stop].reshape(*self.lead, -1)


def pixel_counts(images: NDArray[Kind] | Ragged[Kind]) -> NDArray[np.int64]:
    """Return int64 (images,): how many pixels each image has."""
    return images.pixels if isinstance(images, Ragged) else np.full(len(images), images.shape[-1], np.int64)


def located(flat: NDArray[np.int64], pixels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the image, and the pixel inside it, of places in a flat array of images of so many ``pixels`` each."""
    starts = np.concatenate([[0], np.cumsum(pixels)])
    image = np.searchsorted(starts, flat, side="right") - 1
    return image, flat - starts[image]


def one_size(images: NDArray[np.int64], sizes: Sequence[Size], most: int) -> list[NDArray[np.int64]]:
    """Cut indices of images into parts of at most ``most`` consecutive ones that have one size, in order.

    Args:
        images: int64, indices.
        sizes: (height, width) of every image; empty where all have one size.
        most: images of a part.
    """
    if not sizes:
        return [images[start : start + most] for start in range(0, len(images), most)]
    parts: list[list[int]] = []
    for index in images.tolist():
        if parts and len(parts[-1]) < most and sizes[parts[-1][-1]] == sizes[index]:
            parts[-1].append(index)
        else:
            parts.append([index])
    return [np.array(part, np.int64) for part in parts]
