"""Clean-up of finished masks: small regions, all but the largest region of a class, and holes in one.

Regions are 4-connected. What is removed goes to the majority of the pixels that touch it. Connected components are
those of cc3d (W. Silversmith: cc3d, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.fusion.cleanup import MOST_CLASSES, ClassCleanup
from engine.fusion.decoding import Decoding
from engine.utils.optional import require


def cleaned(
    labels: NDArray[np.uint8], decoding: Decoding, size: tuple[int, int], void: int | None = None
) -> NDArray[np.uint8]:
    """Return (batch, pixels) labels after the clean-up of regions, if the decoding has one.

    Args:
        labels: uint8 (batch, pixels).
        decoding: states it.
        size: (height, width).
        void: the label of pixels without data: they keep it, and no others get it; None where there are none.

    Raises:
        PlanError: the package that finds the regions is not installed.
    """
    if not decoding.cleans_regions:
        return labels
    maps = labels.reshape(-1, *size)
    found = clean_regions(maps, decoding.min_region, decoding.cleanup, void).reshape(labels.shape)
    return found if void is None else np.where((labels == void) | (found == void), labels, found)


def absorb_small_regions(labels: NDArray[np.uint8], min_region: int) -> NDArray[np.uint8]:
    """Relabel 4-connected regions of fewer than ``min_region`` pixels to the majority of the pixels that touch them.

    :func:`clean_regions` for one size of all classes.
    """
    return clean_regions(labels, min_region)


def clean_regions(
    labels: NDArray[np.uint8],
    min_region: int = 0,
    cleanup: Sequence[ClassCleanup] = (),
    void: int | None = None,
) -> NDArray[np.uint8]:
    """Return masks in which small regions, all but the largest of some classes, and holes in some are gone.

    First the regions that are too small for their class, and all but the largest of a class of which one alone stays,
    are relabelled to the majority of the pixels that touch them (the lowest class wins equal counts; a region without
    neighbours, the whole image, stays). All of an image are judged at once, by the original labels, so the order of
    regions does not matter. Then the holes of each class that has none are filled, in the order of the classes: other
    pixels that a 4-connected path leads neither to the image's border nor to a pixel without data.

    Args:
        labels: uint8 (batch, height, width); not changed.
        min_region: minimum size in pixels of a region that is kept.
        cleanup: what differs for single classes.
        void: the label of pixels without data, whose regions are no hole's; None where there are none.

    Raises:
        PlanError: the package that finds the regions is not installed.
    """
    cc3d = require("cc3d", "cleanup", "the clean-up of regions needs an additional package")
    least = np.full(MOST_CLASSES, min_region, np.int64)
    for item in cleanup:
        if item.min_region is not None:
            least[item.class_id] = item.min_region
    alone = [item.class_id for item in cleanup if item.largest]
    filled = sorted(item.class_id for item in cleanup if item.fill_holes)
    out = labels.copy()
    for image, cleaned_image in zip(labels, out, strict=True):
        if alone or (least > 1).any():
            # cc3d ignores zeros, so labels start at 1 here; uint16 because 255 + 1 must fit.
            regions = cc3d.connected_components(image.astype(np.uint16) + 1, connectivity=4)
            _remove(image, regions, least, alone, cleaned_image)
        for class_id in filled:
            _fill(cc3d, cleaned_image, class_id, void)
    return out


def _remove(
    image: NDArray[np.uint8],
    regions: NDArray[np.integer],
    least: NDArray[np.int64],
    alone: Sequence[int],
    out: NDArray[np.uint8],
) -> None:
    sizes = np.bincount(regions.ravel())
    own = np.zeros(len(sizes), np.uint8)
    own[regions.ravel()] = image.ravel()
    gone = sizes < least[own]
    for class_id in alone:
        mine = np.flatnonzero(own == class_id)
        mine = mine[mine > 0]
        if len(mine) > 1:
            gone[mine] |= np.arange(len(mine)) != _first_largest(regions, mine, sizes[mine])
    gone[0] = False
    if gone.any():
        winner = _surrounding(image, regions, own)
        lost = gone[regions]
        out[lost] = winner[regions[lost]]


def _first_largest(regions: NDArray[np.integer], mine: NDArray[np.int64], sizes: NDArray[np.int64]) -> int:
    """Return which of some regions is the largest; of equal ones the first one that a reader of the image meets."""
    equal = np.flatnonzero(sizes == sizes.max())
    if len(equal) == 1:
        return int(equal[0])
    flat = regions.ravel()
    met = flat[np.isin(flat, mine[equal]).argmax()]
    return int(np.flatnonzero(mine == met)[0])


def _surrounding(image: NDArray[np.uint8], regions: NDArray[np.integer], own: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return, per region, the majority class of the pixels that touch it; its own where none does."""
    present = np.flatnonzero(np.bincount(image.ravel(), minlength=MOST_CLASSES))
    place = np.zeros(MOST_CLASSES, np.int64)
    place[present] = np.arange(len(present))
    touches = np.zeros((len(own), len(present)), np.int64)
    pairs = (
        (regions[:, :-1], regions[:, 1:], image[:, :-1], image[:, 1:]),
        (regions[:-1], regions[1:], image[:-1], image[1:]),
    )
    for region_a, region_b, label_a, label_b in pairs:
        border = region_a != region_b
        np.add.at(touches, (region_a[border], place[label_b[border]]), 1)
        np.add.at(touches, (region_b[border], place[label_a[border]]), 1)
    return np.where(touches.any(axis=1), present[touches.argmax(axis=1)], own).astype(np.uint8)


def _fill(cc3d: object, image: NDArray[np.uint8], class_id: int, void: int | None) -> None:
    """Fill the holes of a class in place."""
    other = image != class_id
    if other.all() or not other.any():
        return
    regions = cc3d.connected_components(other, connectivity=4)  # type: ignore[attr-defined]
    opened = np.zeros(int(regions.max()) + 1, np.bool_)
    for edge in (regions[0], regions[-1], regions[:, 0], regions[:, -1]):
        opened[edge] = True
    if void is not None:
        opened[regions[image == void]] = True
    opened[0] = True
    image[~opened[regions]] = class_id
