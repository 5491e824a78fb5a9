"""The report's custom set: mirroring, translation, negative, cutout and intensity jitter."""

from __future__ import annotations

import numpy as np

from trainers.augment.base import Batch, gather, per_tile

GAIN = 0.15
OFFSET = 15.0
#: Largest translation, as a fraction of the side.
SHIFT = 0.2
NEGATIVE_CHANCE = 0.25
CUT_CHANCE = 0.5
#: Shortest and longest side of a cut, as shares of the tile's.
CUT_SIDES = (0.1, 0.4)


def flip_horizontal(
    images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None
) -> tuple[Batch, Batch]:
    """Mirror each tile left to right with probability one half."""
    chosen = per_tile(rng, len(images), 0.5)
    turned = np.where(chosen[:, None, None, None], images[:, :, ::-1], images)
    return turned, np.where(chosen[:, None, None], masks[:, :, ::-1], masks)


def flip_vertical(
    images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None
) -> tuple[Batch, Batch]:
    """Turn each tile upside down with probability one half."""
    chosen = per_tile(rng, len(images), 0.5)
    turned = np.where(chosen[:, None, None, None], images[:, ::-1], images)
    return turned, np.where(chosen[:, None, None], masks[:, ::-1], masks)


def jitter(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Scale grey values about mid-grey by 0.85 to 1.15 and shift them by up to 15 levels, one draw per tile."""
    shape = (len(images), 1, 1, 1)
    gain = rng.uniform(1 - GAIN, 1 + GAIN, shape).astype(np.float32)
    offset = rng.uniform(-OFFSET, OFFSET, shape).astype(np.float32)
    values = (images.astype(np.float32) - 127.5) * gain + 127.5 + offset
    return np.clip(np.rint(values), 0, 255).astype(np.uint8), masks


def translate(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Shift each tile by up to a fifth of its sides; pixels from outside are filled as in :func:`gather`."""
    count, height, width = masks.shape
    down = rng.integers(-round(SHIFT * height), round(SHIFT * height) + 1, (count, 1, 1))
    right = rng.integers(-round(SHIFT * width), round(SHIFT * width) + 1, (count, 1, 1))
    rows = np.arange(height)[None, :, None] - down
    columns = np.arange(width)[None, None, :] - right
    rows, columns = np.broadcast_arrays(rows, columns)
    return gather(images, masks, rows, columns, fill)


def negative(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Invert the grey values with probability one quarter."""
    chosen = per_tile(rng, len(images), NEGATIVE_CHANCE)
    return np.where(chosen[:, None, None, None], 255 - images, images), masks


def cutout(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Paint a rectangle of mid-grey into every other tile (T. DeVries, G. W. Taylor, 2017).

    The pixels under it get the class ``fill``, so that the network need not guess; without one they keep their
    labels.
    """
    cut = boxes(masks, rng, CUT_SIDES) & per_tile(rng, len(images), CUT_CHANCE)[:, None, None]
    new_masks = masks if fill is None else np.where(cut, np.uint8(fill), masks)
    return np.where(cut[..., None], np.uint8(127), images), new_masks


def boxes(masks: Batch, rng: np.random.Generator, sides: tuple[float, float]) -> np.ndarray:
    """Return bool (B, H, W), True inside one random rectangle per tile; ``sides`` bounds its relative sides."""
    count, height, width = masks.shape
    inside = np.ones(masks.shape, bool)
    for axis, length in ((1, height), (2, width)):
        size = np.maximum(np.rint(rng.uniform(*sides, count) * length).astype(np.int64), 1)
        start = rng.integers(0, length - size + 1)
        places = np.arange(length)[None, :]
        within = (places >= start[:, None]) & (places < (start + size)[:, None])
        inside &= within[:, :, None] if axis == 1 else within[:, None, :]
    return inside
