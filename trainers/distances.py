"""Signed distance maps of masks, for the boundary loss; computed per batch, since augmentation changes the masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def signed_distances(labels: NDArray[np.uint8], classes: int, class_id: int | None = None) -> NDArray[np.float32]:
    """Return the signed distance to each class per pixel: above 0 outside it, 0 at its border, below 0 inside.

    As in Kervadec et al. (MIDL 2019): Euclidean distance to the nearest pixel of the class outside, and one pixel less
    than the distance to the nearest pixel of any other class, negated, inside. A class that is absent from a tile, or
    covers all of it, has no border: its map is 0. Distances are divided by the tile's diagonal, so that the loss does
    not grow with the tile.

    Args:
        labels: masks uint8 (B, H, W).
        classes: number of classes.
        class_id: the one class to map, for a specialist; None for all.

    Returns:
        float32 (B, H, W, classes), or (B, H, W, 1) for a specialist.
    """
    from scipy.ndimage import distance_transform_edt

    wanted = range(classes) if class_id is None else [class_id]
    maps = np.zeros((*labels.shape, len(wanted)), np.float32)
    for tile, mask in zip(maps, labels, strict=True):
        for place, k in enumerate(wanted):
            inside = mask == k
            if not inside.any() or inside.all():
                continue
            outer, inner = distance_transform_edt(~inside), distance_transform_edt(inside)
            tile[..., place] = np.where(inside, 1.0 - inner, outer)
    maps /= np.float32(np.hypot(*labels.shape[1:]))
    return maps
