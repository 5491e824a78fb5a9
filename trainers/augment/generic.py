"""The report's generic set: rotation, elastic deformation and CutMix, in NumPy and SciPy on whole batches.

Why not a library: Albumentations 2.0.8 is its last release and no longer maintained, and its successor is under the
AGPL. Keras' own layers take masks along, but its elastic one ran 42 tiles/s of 64x128 where the function below runs
about 500 (Albumentations: 1,400) on the same two busy cores; rotation ran 1,215 (Keras), 4,000 (Albumentations) and
about 1,000 here. A network of the smallest useful size trains at some 100 tiles/s there, so the batch is never waited
for, and the project carries no further dependency.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.augment.base import Batch, gather, mirrored, per_tile
from trainers.augment.custom import boxes

CHANCE = 0.5
#: Largest rotation, degrees.
ANGLE = 15.0
#: Standard deviation of the elastic displacement, and of the Gaussian that smooths it, as shares of the shorter side.
STRENGTH, SMOOTHNESS = 0.03, 0.12
#: Shortest and longest side of a patch from another tile, as shares of the tile's.
PATCH_SIDES = (0.25, 0.6)

Field = NDArray[np.float32]


def rotate(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Rotate every other tile about its centre by up to 15 degrees either way."""
    count, height, width = masks.shape
    angle = np.deg2rad(rng.uniform(-ANGLE, ANGLE, count)) * per_tile(rng, count, CHANCE)
    cosine, sine = (values.astype(np.float32)[:, None, None] for values in (np.cos(angle), np.sin(angle)))
    y = np.arange(height, dtype=np.float32)[None, :, None] - np.float32((height - 1) / 2)
    x = np.arange(width, dtype=np.float32)[None, None, :] - np.float32((width - 1) / 2)
    rows = cosine * y - sine * x + np.float32((height - 1) / 2)
    columns = sine * y + cosine * x + np.float32((width - 1) / 2)
    return warp(images, masks, rows, columns, fill)


def elastic(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Bend every other tile by a smooth random field (P. Y. Simard, D. Steinkraus, J. C. Platt, ICDAR 2003)."""
    from scipy.ndimage import gaussian_filter

    count, height, width = masks.shape
    short = min(height, width)
    smooth = SMOOTHNESS * short
    noise = rng.standard_normal((2, count, height, width), np.float32)
    field = gaussian_filter(noise, (0, 0, smooth, smooth), mode="reflect", truncate=3.0)
    # White noise smoothed by a Gaussian of s pixels has a standard deviation of 1 / (2 s sqrt(pi)).
    scale = np.float32(STRENGTH * short * 2 * smooth * np.sqrt(np.pi))
    field *= scale * per_tile(rng, count, CHANCE)[None, :, None, None]
    rows = np.arange(height, dtype=np.float32)[None, :, None] + field[0]
    columns = np.arange(width, dtype=np.float32)[None, None, :] + field[1]
    return warp(images, masks, rows, columns, fill)


def cutmix(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Put a rectangle of another tile, labels and all, into every other tile (S. Yun et al., ICCV 2019)."""
    count = len(images)
    # Never the tile itself, unless it is alone.
    donor = (np.arange(count) + rng.integers(1, max(count, 2))) % count
    patch = boxes(masks, rng, PATCH_SIDES) & per_tile(rng, count, CHANCE)[:, None, None]
    return np.where(patch[..., None], images[donor], images), np.where(patch, masks[donor], masks)


def warp(images: Batch, masks: Batch, rows: Field, columns: Field, fill: int | None) -> tuple[Batch, Batch]:
    """Return each pixel from a place between pixels: bilinear for the image, the nearest label for the mask.

    Args:
        images: uint8 (B, H, W, C).
        masks: uint8 (B, H, W).
        rows: float32 (B, H, W), row to take each pixel from.
        columns: float32 (B, H, W), its column.
        fill: class of pixels whose nearest place lies outside; None mirrors, see :func:`trainers.augment.base.gather`.
    """
    count, height, width = masks.shape
    tile = np.arange(count)[:, None, None]
    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    lower, right = (rows - top)[..., None], (columns - left)[..., None]

    def at(y: NDArray[np.int64], x: NDArray[np.int64]) -> Field:
        return images[tile, mirrored(y, height), mirrored(x, width)].astype(np.float32)

    upper_row = at(top, left) * (1 - right) + at(top, left + 1) * right
    lower_row = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
    values = np.rint(upper_row * (1 - lower) + lower_row * lower).astype(np.uint8)
    nearest = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
    filled, new_masks = gather(images, masks, *nearest, fill)
    if fill is None:
        return values, new_masks
    inside = (nearest[0] >= 0) & (nearest[0] < height) & (nearest[1] >= 0) & (nearest[1] < width)
    return np.where(inside[..., None], values, filled), new_masks
