"""Pasting of rare classes: their pixels from one training tile into another, with labels.

G. Ghiasi et al.: Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation, CVPR 2021; here by
class, since semantic labels have no instances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainers.augment.base import Batch, per_tile
from trainers.data import Dataset

#: A class is rare below this fraction of its share under a uniform distribution.
RARE = 0.5


@dataclass(frozen=True)
class RarePixels:
    """Where the rare classes of a training set are.

    Attributes:
        data: the training tiles.
        classes: the rare classes, int64 (R,).
        chances: how often each is drawn, in inverse proportion to its pixels, float64 (R,).
        holders: the tiles that contain each of them.
    """

    data: Dataset
    classes: NDArray[np.int64]
    chances: NDArray[np.float64]
    holders: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, data: Dataset, ignored: int | None) -> RarePixels:
        """Find the classes below half a uniform share of the counted pixels; the rarest one is always included."""
        counts = data.counts.astype(np.float64)
        if ignored is not None:
            counts[ignored] = 0
        present = np.flatnonzero(counts)
        if len(present) == 0:
            return cls(data, present, counts[present], ())
        even = counts.sum() / len(present)
        rarest = counts[present].min()
        rare = present[(counts[present] < RARE * even) | (counts[present] == rarest)]
        chances = 1.0 / counts[rare]
        holders = tuple(np.flatnonzero((data.labels == k).any(axis=(1, 2))) for k in rare)
        return cls(data, rare, chances / chances.sum(), holders)

    def paste(self, images: Batch, masks: Batch, rng: np.random.Generator, chance: float) -> tuple[Batch, Batch]:
        """Copy the pixels of one rare class from a random tile onto each tile, mirrored half of the time.

        They keep their height in the tile, since higher up means further away.

        Args:
            images: uint8 (B, H, W, C).
            masks: uint8 (B, H, W).
            rng: the generator.
            chance: probability that a tile is pasted into.
        """
        images, masks = images.copy(), masks.copy()
        for place in np.flatnonzero(per_tile(rng, len(images), chance)):
            if len(self.classes) == 0:
                break
            which = int(rng.choice(len(self.classes), p=self.chances))
            donor = int(rng.choice(self.holders[which]))
            image, mask = self.data.images[donor], self.data.labels[donor]
            if rng.random() < 0.5:
                image, mask = image[:, ::-1], mask[:, ::-1]
            chosen = mask == self.classes[which]
            images[place][chosen], masks[place][chosen] = image[chosen], mask[chosen]
        return images, masks
