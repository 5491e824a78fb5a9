"""The interface of a transform, and how pixels from outside a tile are filled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Batch = NDArray[np.uint8]
#: (images uint8 (B, H, W, C), masks uint8 (B, H, W), generator, class of pixels from outside or None) to new arrays.
Transform = Callable[[Batch, Batch, np.random.Generator, int | None], tuple[Batch, Batch]]


def gather(
    images: Batch, masks: Batch, rows: NDArray[np.int64], columns: NDArray[np.int64], fill: int | None
) -> tuple[Batch, Batch]:
    """Sample each pixel (b, y, x) at (rows, columns) of its tile.

    Args:
        images: uint8 (B, H, W, C).
        masks: uint8 (B, H, W).
        rows: int (B, H or 1, W or 1 ...) that broadcasts to (B, H, W); may lie outside.
        columns: likewise.
        fill: class given to pixels from outside, whose image is black; None mirrors the tile at its border instead, so
            that no label is invented.
    """
    count, height, width = masks.shape
    tile = np.arange(count)[:, None, None]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    if fill is None:
        y, x = mirrored(rows, height), mirrored(columns, width)
    else:  # outside places only have to be valid ones: what they bring is painted over
        y, x = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    new_images, new_masks = images[tile, y, x], masks[tile, y, x]
    if fill is not None:
        new_images = np.where(inside[..., None], new_images, np.uint8(0))
        new_masks = np.where(inside, new_masks, np.uint8(fill))
    return new_images, new_masks


def mirrored(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Return indices mirrored into 0..length-1, the border pixel repeated: -1 is 0, -2 is 1, ``length`` is the last."""
    folded = np.mod(places, 2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def per_tile(rng: np.random.Generator, count: int, chance: float) -> NDArray[np.bool_]:
    """Return which of ``count`` tiles a transform changes, each with probability ``chance``."""
    return rng.random(count) < chance
