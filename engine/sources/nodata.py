"""Pixels without data: filled with their mirrored neighbours, so that no net sees the value that stands for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Farther than any pixel of a tile.
_FAR = 1 << 30


def fill_mirrored(pixels: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[Any]:
    """Return pixels whose gaps are filled from the nearest valid pixel of their row or column, mirrored there.

    A gap takes the value as far behind that pixel as it lies in front of it, or the pixel itself where nothing valid
    lies there. The row wins where row and column are equally near, and so does the upper or left pixel. Gaps with
    no valid pixel in their row and column are filled in a second round.

    Args:
        pixels: (height, width, channels).
        valid: bool (height, width); at least one is True.

    Returns:
        (height, width, channels); the input itself where all are valid.
    """
    if valid.all():
        return pixels
    known = valid
    while not known.all():
        row_distance, column = _nearest(known)
        column_distance, row = (found.T for found in _nearest(known.T))
        distance = np.minimum(row_distance, column_distance)
        gaps = ~known & (distance < _FAR)
        down, across = np.nonzero(gaps)
        by_row = (row_distance <= column_distance)[gaps]
        filled = pixels.copy()
        filled[down, across] = pixels[np.where(by_row, down, row[gaps]), np.where(by_row, column[gaps], across)]
        pixels, known = filled, known | gaps
    return pixels


def _nearest(known: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distance to the nearest known pixel along each line, and which pixel of the line is taken instead.

    Args:
        known: bool (lines, length).

    Returns:
        int64 (lines, length) each; lines without a known pixel have a distance of at least ``_FAR``.
    """
    length = known.shape[1]
    places = np.arange(length)
    before = np.maximum.accumulate(np.where(known, places, -_FAR), axis=1)
    after = np.minimum.accumulate(np.where(known, places, 2 * _FAR)[:, ::-1], axis=1)[:, ::-1]
    nearer = places - before <= after - places
    edge = np.where(nearer, before, after)
    mirrored = 2 * edge - places
    inside = (mirrored >= 0) & (mirrored < length)
    lines = np.arange(len(known))[:, None]
    usable = inside & known[lines, np.where(inside, mirrored, 0)]
    return np.abs(places - edge), np.where(usable, mirrored, edge)
