"""Scores of borders: boundary IoU, HD95, surface Dice, with Dice beside them; per class, image by image.

Which definition, for there are several of each:

- The *surface* of a mask: its pixels with a 4-neighbour that is not in the mask; beyond the image nothing is in it.
- ``boundary-iou``: B. Cheng, R. Girshick, P. Dollár, A. Berg, A. Kirillov: Boundary IoU, CVPR 2021. Those pixels of a
  mask count that have one outside of it at most ``width`` away along rows, columns or diagonals, a share of the image's
  diagonal (at least 1 pixel). Summed over images, then divided.
- ``hd95``: the distance in pixels within which 95 % of each surface lie of the other one, the greater of both
  directions (percentiles interpolated linearly, as MONAI does); mean over images.
- ``surface-dice``: share of both surfaces within ``tolerance`` pixels of the other one (S. Nikolov et al., 2018; of
  surface pixels, not of surface elements); mean over images.
- ``dice``: 2 |A and B| / (|A| + |B|); summed over images, then divided.

A class in neither map of an image is left out there, and counted. A class in one of them alone has no distances: its
HD95 is infinite or the image's diagonal, its surface Dice 0. Pixels that are void are in no mask of either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.utils.optional import require

METRICS = ("dice", "boundary-iou", "hd95", "surface-dice")
MISSING = ("diagonal", "infinite")
DICE, BOUNDARY, HD95, SURFACE = range(len(METRICS))
PERCENTILE = 95


@dataclass(frozen=True)
class SurfaceRules:
    """The numbers in the definitions.

    Attributes:
        tolerance: of surface Dice, in pixels.
        width: of the boundary, as a share of the image's diagonal.
        missing: HD95 of a class that only one of two maps has: ``diagonal`` or ``infinite``.
    """

    tolerance: float = 2.0
    width: float = 0.02
    missing: str = "diagonal"

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            PlanError: a negative tolerance, a width outside 0..1, an unknown name.
        """
        if not 0 <= self.tolerance < math.inf:
            raise PlanError(f"--tolerance {self.tolerance:g}: a number of pixels, 0 or above, is needed")
        if not 0 < self.width <= 1:
            raise PlanError(
                f"--boundary {self.width:g}: a share of the image's diagonal above 0, as in 0.02, is needed"
            )
        if self.missing not in MISSING:
            raise PlanError(f"--missing {self.missing[:40]}; allowed are {' and '.join(MISSING)}")


@dataclass
class SurfaceCounts:
    """Sums of each image, of which every score is a quotient.

    Attributes:
        classes: number of classes.
        rules: the numbers in the definitions.
        above: float64 (classes, metrics) of each image, numerators; 0 for an infinite HD95.
        below: the same, denominators.
        infinite: bool (classes,) of each image: whether its HD95 is infinite.
        absent: int64 (classes,), images with the class in neither map.
        lone: int64 (classes,), images with the class in one map alone.
    """

    classes: int
    rules: SurfaceRules = field(default_factory=SurfaceRules)
    above: list[NDArray[np.float64]] = field(default_factory=list)
    below: list[NDArray[np.float64]] = field(default_factory=list)
    infinite: list[NDArray[np.bool_]] = field(default_factory=list)
    absent: NDArray[np.int64] = field(init=False)
    lone: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        """Start without images."""
        self.absent, self.lone = np.zeros(self.classes, np.int64), np.zeros(self.classes, np.int64)

    def add(self, truth: NDArray[np.uint8], guess: NDArray[np.uint8]) -> None:
        """Count one image.

        Args:
            truth: uint8 (height, width); labels from ``classes`` on are void.
            guess: the same; labels from ``classes`` on are no prediction, and void too.

        Raises:
            PlanError: the package that computes distances is missing.
        """
        counted = (truth < self.classes) & (guess < self.classes)
        above, below = np.zeros((self.classes, len(METRICS))), np.zeros((self.classes, len(METRICS)))
        infinite = np.zeros(self.classes, np.bool_)
        true, found = (np.bincount(side[counted], minlength=self.classes) > 0 for side in (truth, guess))
        both, either = true & found, true | found
        self.absent += ~either
        self.lone += either & ~both
        width = max(1, round(self.rules.width * math.hypot(*truth.shape)))
        for class_id in np.flatnonzero(either).tolist():
            one, other = _cropped((truth == class_id) & counted, (guess == class_id) & counted)
            above[class_id], below[class_id] = self._measure(one, other, width)
            if not both[class_id]:
                infinite[class_id] = self.rules.missing == "infinite"
                above[class_id, HD95] = 0 if infinite[class_id] else math.hypot(*truth.shape)
        self.above.append(above)
        self.below.append(below)
        self.infinite.append(infinite)

    def _measure(
        self, truth: NDArray[np.bool_], guess: NDArray[np.bool_], width: int
    ) -> tuple[list[float], list[float]]:
        shared, total = int((truth & guess).sum()), int(truth.sum()) + int(guess.sum())
        bands = boundary(truth, width), boundary(guess, width)
        touching, joint = int((bands[0] & bands[1]).sum()), int((bands[0] | bands[1]).sum())
        to_guess, to_truth = surface_distances(truth, guess)
        if not (to_guess.size and to_truth.size):
            return [2 * shared, touching, 0, 0], [total, joint, 1, 1]
        farthest = max(float(np.percentile(side, PERCENTILE)) for side in (to_guess, to_truth))
        near = sum(int((side <= self.rules.tolerance).sum()) for side in (to_guess, to_truth))
        return [2 * shared, touching, farthest, near / (to_guess.size + to_truth.size)], [total, joint, 1, 1]

    def cut(self, classes: int) -> None:
        """Leave out the classes from ``classes`` on, which no map has."""
        self.classes = classes
        for name in ("above", "below", "infinite"):
            setattr(self, name, [part[:classes] for part in getattr(self, name)])
        self.absent, self.lone = self.absent[:classes], self.lone[:classes]

    def values(
        self, draws: NDArray[np.float64] | None = None, groups: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return the scores of the set, float64 (classes, metrics), or those of resamples.

        Args:
            draws: float64 (rounds, groups), how often each group was drawn; None for the set itself.
            groups: int64 (images,), the group of each image; None makes each image its own.

        Returns:
            float64 (classes, metrics) or (rounds, classes, metrics); NaN where no image has the class.
        """
        images = len(self.above)
        index = np.arange(images) if groups is None else groups
        weight = np.ones((1, images)) if draws is None else draws[:, index]
        flat = (images, self.classes * len(METRICS))
        above, below = (weight @ np.reshape(part, flat) for part in (self.above, self.below))
        found = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
        found = found.reshape(len(weight), self.classes, len(METRICS))
        endless = weight @ np.reshape(self.infinite, (images, self.classes)) > 0
        found[..., HD95] = np.where(endless, np.inf, found[..., HD95])
        return found[0] if draws is None else found


def over_classes(values: NDArray[np.float64], ignored_class: int | None) -> NDArray[np.float64]:
    """Return the mean over the classes that can be scored, but the ignored one; NaN where there is none.

    Args:
        values: (..., classes, metrics).
        ignored_class: id, or None.

    Returns:
        float64 (..., metrics).
    """
    kept = [index for index in range(values.shape[-2]) if index != ignored_class]
    chosen = values[..., kept, :]
    known = ~np.isnan(chosen)
    count = known.sum(axis=-2)
    total = np.where(known, chosen, 0).sum(axis=-2)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask (height, width) with a 4-neighbour outside of it, or beyond the image."""
    wide = np.pad(mask, 1)
    inner = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return np.asarray(mask & ~inner)


def boundary(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the pixels of a mask (height, width) with one outside at most ``width`` away along rows and columns.

    Those are the pixels that ``width`` erosions with a 3x3 square take away, counted here in squares by their sums.
    """
    side = 2 * width + 1
    sums = np.pad(mask, ((width + 1, width), (width + 1, width))).cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return np.asarray(mask & (inside < side * side))


def surface_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far each surface pixel of a mask is from the other mask's surface, in pixels: float64, both ways.

    Both are empty where a mask is.

    Raises:
        PlanError: the package that computes distances is missing.
    """
    if not (first.any() and second.any()):
        return np.empty(0), np.empty(0)
    edt = require("edt", "surfaces", "scores of surfaces need an additional package")
    rims = surface(first), surface(second)
    return _away(edt, *rims), _away(edt, rims[1], rims[0])


def _away(edt: Any, rim: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.float64]:
    # Squares of whole numbers are exact in float32; the root is taken in float64.
    squares = edt.edtsq(np.ascontiguousarray(~other), black_border=False, parallel=1)
    return np.sqrt(squares[rim].astype(np.float64))


def _cropped(*masks: NDArray[np.bool_]) -> Sequence[NDArray[np.bool_]]:
    """Return masks cut to the rows and columns that any of them has: nothing outside changes a score."""
    whole = np.logical_or.reduce(masks)
    rows, columns = np.flatnonzero(whole.any(axis=1)), np.flatnonzero(whole.any(axis=0))
    return [mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for mask in masks]
