"""The report's generic set: rotation, elastic deformation and CutMix, in NumPy and SciPy.

Why no library of augmentations: Albumentations 2.0.8 is its last release and no longer maintained, and its successor is
under the AGPL; Keras' own layers support masks, but are slow. Tiles/s of 64x128 with their masks, every tile touched,
best of four alternating rounds on two shared cores:

============  =========  ====================  ======
transform     this file  Albumentations 2.0.8  Keras
============  =========  ====================  ======
rotation      1,964      3,067                 845
elastic       1,075      970                   50
============  =========  ====================  ======

A small U-Net trains at some 100 tiles/s there, so augmentation is no bottleneck, and no dependency is added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainers.augment.base import Batch, gather, per_tile
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
    chosen = np.flatnonzero(per_tile(rng, len(images), CHANCE))
    height, width = masks.shape[1:]
    angle = np.deg2rad(rng.uniform(-ANGLE, ANGLE, len(chosen)))
    cosine, sine = (values.astype(np.float32)[:, None, None] for values in (np.cos(angle), np.sin(angle)))
    y = np.arange(height, dtype=np.float32)[None, :, None] - np.float32((height - 1) / 2)
    x = np.arange(width, dtype=np.float32)[None, None, :] - np.float32((width - 1) / 2)
    rows = cosine * y - sine * x + np.float32((height - 1) / 2)
    columns = sine * y + cosine * x + np.float32((width - 1) / 2)
    return _warped(images, masks, chosen, rows, columns, fill)


def elastic(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Deform every other tile by a smooth random field (P. Y. Simard, D. Steinkraus, J. C. Platt, ICDAR 2003)."""
    from scipy.ndimage import gaussian_filter

    chosen = np.flatnonzero(per_tile(rng, len(images), CHANCE))
    height, width = masks.shape[1:]
    short = min(height, width)
    # Smooth noise needs no more than a coarse grid: a sixteenth of the work, and linear between its points.
    step = max(1, round(SMOOTHNESS * short / 2))
    smooth = SMOOTHNESS * short / step
    grid = (-(-height // step) + 1, -(-width // step) + 1)
    field = gaussian_filter(
        rng.standard_normal((2, len(chosen), *grid), np.float32), (0, 0, smooth, smooth), mode="reflect"
    )
    # White noise smoothed by a Gaussian of s points has a standard deviation of 1 / (2 s sqrt(pi)).
    field *= np.float32(STRENGTH * short * 2 * smooth * np.sqrt(np.pi))
    down, right = _between(height, grid[0], step) @ field @ _between(width, grid[1], step).T
    rows = np.arange(height, dtype=np.float32)[None, :, None] + down
    columns = np.arange(width, dtype=np.float32)[None, None, :] + right
    return _warped(images, masks, chosen, rows, columns, fill)


def _between(length: int, points: int, step: int) -> Field:
    """Return (length, points): the weights that interpolate linearly between points ``step`` pixels apart."""
    place = np.arange(length)[:, None] / step
    return np.maximum(0.0, 1.0 - np.abs(place - np.arange(points)[None, :])).astype(np.float32)


def cutmix(images: Batch, masks: Batch, rng: np.random.Generator, fill: int | None = None) -> tuple[Batch, Batch]:
    """Put a rectangle of another tile, with its labels, into every other tile (S. Yun et al., ICCV 2019)."""
    count = len(images)
    # Never the tile itself, unless it is the only one.
    donor = (np.arange(count) + rng.integers(1, max(count, 2))) % count
    patch = boxes(masks, rng, PATCH_SIDES) & per_tile(rng, count, CHANCE)[:, None, None]
    return np.where(patch[..., None], images[donor], images), np.where(patch, masks[donor], masks)


def _warped(
    images: Batch, masks: Batch, chosen: NDArray[np.int64], rows: Field, columns: Field, fill: int | None
) -> tuple[Batch, Batch]:
    """Return copies in which the chosen tiles are warped."""
    images, masks = images.copy(), masks.copy()
    images[chosen], masks[chosen] = warp(images[chosen], masks[chosen], rows, columns, fill)
    return images, masks


def warp(images: Batch, masks: Batch, rows: Field, columns: Field, fill: int | None) -> tuple[Batch, Batch]:
    """Sample at fractional coordinates: bilinear for the image, nearest neighbour for the mask.

    Args:
        images: uint8 (B, H, W, C).
        masks: uint8 (B, H, W).
        rows: float32 (B, H, W), row to take each pixel from.
        columns: float32 (B, H, W), its column.
        fill: class of pixels whose nearest place lies outside; None mirrors, see :func:`trainers.augment.base.gather`.
    """
    from scipy.ndimage import map_coordinates

    nearest = np.rint(rows).astype(np.int64), np.rint(columns).astype(np.int64)
    new_images, new_masks = gather(images, masks, *nearest, fill)
    height, width = masks.shape[1:]
    inside = (nearest[0] >= 0) & (nearest[0] < height) & (nearest[1] >= 0) & (nearest[1] < width)
    for tile, places in enumerate(zip(rows, columns, strict=True)):
        for channel in range(images.shape[-1]):
            # SciPy's reflect matches gather: the border pixel is repeated.
            values = map_coordinates(
                images[tile, ..., channel], np.stack(places), np.float32, order=1, mode="reflect", prefilter=False
            )
            bilinear = np.rint(values).astype(np.uint8)
            if fill is None:
                new_images[tile, ..., channel] = bilinear
            else:
                new_images[tile, ..., channel] = np.where(inside[tile], bilinear, 0)
    return new_images, new_masks
