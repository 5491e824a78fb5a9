"""Where overlapping images lie in the pictures that they were cut from, found by their pixels alone.

Sets of tiles are often cut from larger pictures with overlap, and the pictures are lost. Two neighbours in a row share
whole columns of pixels, two neighbours in a column share whole rows: those are found by their hashes, confirmed by all
pixels that they would share, and chained. The picture gives the nets the surroundings of each tile, and the views of a
pixel in several tiles can be averaged; for training it says which tiles must stay in one fold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Places along a side whose column (or row) of pixels is looked for in all other images.
ANCHORS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Overlaps of a smaller share of an image are left alone: few pixels may be equal by chance.
LEAST_OVERLAP = 0.125
# A column that so many images contain is sky, frame or padding, and says nothing about neighbours.
MOST_HOLDERS = 64
# Images hashed at a time.
PART = 256
Pair = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placement:
    """Where images lie.

    Attributes:
        picture: int64 (N,): number of the picture that each image is part of, 0, 1, ... in the order of their first
            images.
        corner: int64 (N, 2): row and column of the image's first pixel in that picture.
        size: (height, width) of an image.
        contradictory: how many images overlap in ways that contradict each other; each is a picture of its own.
    """

    picture: NDArray[np.int64]
    corner: NDArray[np.int64]
    size: tuple[int, int]
    contradictory: int = 0

    @cached_property
    def images(self) -> list[NDArray[np.int64]]:
        """Return the numbers of each picture's images, in order."""
        order = np.argsort(self.picture, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.picture))[:-1])

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """Return (height, width) of each picture."""
        ends = [self.corner[found].max(axis=0) + self.size for found in self.images]
        return [(int(height), int(width)) for height, width in ends]

    def joined(self, pixels: NDArray[Any], picture: int, fill: int = 0) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return a picture (height, width, ...) put together, and which of its pixels an image shows.

        Args:
            pixels: those of all images, (N, H, W, ...); where images overlap, the last one's count.
            picture: number of the picture.
            fill: value of pixels that no image shows.
        """
        size = self.sizes[picture]
        whole = np.full((*size, *pixels.shape[3:]), fill, pixels.dtype)
        shown = np.zeros(size, np.bool_)
        for index in self.images[picture]:
            place = self.part(int(index))
            whole[place] = pixels[index]
            shown[place] = True
        return whole, shown

    def part(self, image: int) -> tuple[slice, slice]:
        """Return which rows and columns of its picture an image shows."""
        row, column = (int(start) for start in self.corner[image])
        return slice(row, row + self.size[0]), slice(column, column + self.size[1])


def find_placement(images: NDArray[Any]) -> Placement:
    """Find how images overlap.

    Args:
        images: (N, H, W) or (N, H, W, C) of any plain number type. Overlaps are found where pixels are equal: of images
            stored without loss, cut along rows and columns without turning or scaling.

    Returns:
        Where each image lies; one that overlaps with none is a picture of its own.
    """
    pixels = images.reshape(*images.shape[:3], -1)
    raw = np.ascontiguousarray(pixels).view(np.uint8)
    found = {(i, j, 0, across) for i, j, across in _neighbours(raw)}
    found |= {(i, j, down, 0) for i, j, down in _neighbours(raw.transpose(0, 2, 1, 3))}
    picture, corner, contradictory = _chained(len(images), [pair for pair in found if _confirmed(pixels, pair)])
    return Placement(picture, corner, (images.shape[1], images.shape[2]), contradictory)


def _neighbours(raw: NDArray[np.uint8]) -> Iterator[tuple[int, int, int]]:
    """Yield (i, j, step): image j seems to start ``step`` columns after image i, both at the same row.

    Args:
        raw: bytes of the pixels, (N, H, W, bytes of a pixel).
    """
    width = raw.shape[2]
    hashes = _column_hashes(raw)
    flat = hashes.ravel()
    order = np.argsort(flat, kind="stable")
    ordered = flat[order]
    least = max(1, round(LEAST_OVERLAP * width))
    for anchor in sorted({round(share * (width - 1)) for share in ANCHORS}):
        first = np.searchsorted(ordered, hashes[:, anchor], "left")
        last = np.searchsorted(ordered, hashes[:, anchor], "right")
        for j in np.flatnonzero((last - first > 1) & (last - first <= MOST_HOLDERS)):
            for place in order[first[j] : last[j]]:
                i, column = divmod(int(place), width)
                step = column - anchor
                # Each pair once, from the left image to the right one.
                if i != j and abs(step) <= width - least and (step > 0 or (step == 0 and i < j)):
                    yield i, int(j), step


def _column_hashes(raw: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a hash of every column of every image, uint64 (N, W): a sum of its bytes with random odd factors."""
    count, height, width, size = raw.shape
    factors = np.random.default_rng(0x517C).integers(0, 2**63, (height, size), np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.empty((count, width), np.uint64)
    for start in range(0, count, PART):
        part = raw[start : start + PART].astype(np.uint64)
        hashes[start : start + PART] = np.einsum("nhwb,hb->nw", part, factors)
    return hashes


def _confirmed(pixels: NDArray[Any], pair: Pair) -> bool:
    """Return whether all pixels that two images would share are equal, and not all the same."""
    i, j, down, across = pair
    height, width = pixels.shape[1:3]
    first, second = pixels[i, down:, across:], pixels[j, : height - down, : width - across]
    return np.array_equal(first, second) and bool((first != first[:1, :1]).any())


def _chained(count: int, pairs: list[Pair]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return picture (N,) and corner (N, 2) of every image, and how many contradict each other."""
    beside: list[list[tuple[int, int, int]]] = [[] for _ in range(count)]
    for i, j, down, across in sorted(pairs):
        beside[i].append((j, down, across))
        beside[j].append((i, -down, -across))
    picture, corner = np.full(count, -1, np.int64), np.zeros((count, 2), np.int64)
    pictures = contradictory = 0
    for start in range(count):
        if picture[start] >= 0:
            continue
        reached, fits = _reach(start, beside, corner)
        if not fits and len(reached) > 1:
            contradictory += len(reached)
            corner[reached] = 0
            picture[reached] = np.arange(pictures, pictures + len(reached))
            pictures += len(reached)
            continue
        corner[reached] -= corner[reached].min(axis=0)
        picture[reached] = pictures
        pictures += 1
    return _in_order(picture), corner, contradictory


def _reach(start: int, beside: list[list[tuple[int, int, int]]], corner: NDArray[np.int64]) -> tuple[list[int], bool]:
    """Return the images that are chained to one, with their corners set, and whether all overlaps agree."""
    corner[start] = 0
    reached, waiting, fits = {start}, deque([start]), True
    while waiting:
        here = waiting.popleft()
        for there, down, across in beside[here]:
            place = corner[here] + (down, across)
            if there not in reached:
                corner[there] = place
                reached.add(there)
                waiting.append(there)
            elif (corner[there] != place).any():
                fits = False
    return sorted(reached), fits


def _in_order(picture: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pictures numbered in the order of their first images."""
    _, first, inverse = np.unique(picture, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
