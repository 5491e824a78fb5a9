"""Clean-up after decoding: implausibly small regions are relabelled to the surrounding class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.fusion.decoding import Decoding
from engine.utils.optional import require


def absorb_small_regions(labels: NDArray[np.uint8], min_region: int) -> NDArray[np.uint8]:
    """Relabel 4-connected regions of fewer than ``min_region`` pixels to the majority of the pixels that touch them.

    All small regions of an image are judged at once, by the original labels, so the order of regions does not matter.
    The lowest class wins equal counts; a region without neighbours (the whole image) stays.

    Args:
        labels: uint8 (batch, height, width).
        min_region: minimum size in pixels of a region that is kept.

    Returns:
        uint8 (batch, height, width); the input is not changed.

    Raises:
        PlanError: the package that finds the regions is not installed.
    """
    cc3d = require("cc3d", "cleanup", "--min-region needs an additional package")
    cleaned = labels.copy()
    for image, out in zip(labels, cleaned, strict=True):
        # cc3d ignores zeros, so labels start at 1 here; uint16 because 255 + 1 must fit.
        regions = cc3d.connected_components(image.astype(np.uint16) + 1, connectivity=4)
        small = np.bincount(regions.ravel()) < min_region
        small[0] = False
        if small.any():
            winner = _surrounding(image, regions, small)
            out[small[regions]] = winner[regions][small[regions]]
    return cleaned


def cleaned(labels: NDArray[np.uint8], decoding: Decoding, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return (batch, pixels) labels after the clean-up of small regions, if the decoding has one."""
    if decoding.min_region <= 1:
        return labels
    return absorb_small_regions(labels.reshape(-1, *size), decoding.min_region).reshape(labels.shape)


def _surrounding(image: NDArray[np.uint8], regions: NDArray[np.integer], small: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return, per region, the majority class of the pixels that touch it; undefined for regions that stay."""
    own = np.zeros(len(small), np.uint8)
    own[regions.ravel()] = image.ravel()
    classes = int(image.max()) + 1
    touches = np.zeros((len(small), classes), np.int64)
    pairs = (
        (regions[:, :-1], regions[:, 1:], image[:, :-1], image[:, 1:]),
        (regions[:-1], regions[1:], image[:-1], image[1:]),
    )
    for region_a, region_b, label_a, label_b in pairs:
        border = region_a != region_b
        np.add.at(touches, (region_a[border], label_b[border]), 1)
        np.add.at(touches, (region_b[border], label_a[border]), 1)
    return np.where(touches.any(axis=1), touches.argmax(axis=1), own).astype(np.uint8)
