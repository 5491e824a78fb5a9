"""Steps of a selection that whole images decide: how labels are decoded, and the clean-up of small regions."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import GroupedCounts
from engine.fusion.rankseg import DECODES
from engine.metrics import class_iou
from engine.select.biases import LEAST_GAIN
from engine.select.pool import Choice, Pool

REGION_SIZES = (8, 32, 128)


def tune_decode(pool: Pool, choice: Choice, tiles: NDArray[np.int64], convention: str) -> Choice:
    """Decode images as a whole, for IoU or Dice, if that helps on whole images."""
    tried = [replace(choice, decoding=replace(choice.decoding, decode=name)) for name in DECODES]
    scores = [np.nan_to_num(score(pool, pool.confusions(other, tiles), convention)) for other in tried]
    best = int(np.argmax(scores))
    return tried[best] if scores[best] >= scores[0] + LEAST_GAIN else choice


def tune_region(pool: Pool, choice: Choice, tiles: NDArray[np.int64], convention: str) -> Choice:
    """Add the clean-up of small regions if it helps on whole images and no class gets worse.

    Without the package that finds regions (``maskfuse[cleanup]``) the choice is returned unchanged.
    """
    if find_spec("cc3d") is None:
        return choice
    tried = [replace(choice.decoding, min_region=size) for size in (0, *REGION_SIZES)]
    best = best_unharmed(pool, pool.cleaned_confusions(choice, tried, tiles), convention)
    return replace(choice, decoding=tried[best])


def best_unharmed(pool: Pool, matrices: NDArray[np.int64], convention: str) -> int:
    """Return the best candidate that gains on the first one and makes no class worse; the first where there is none.

    Args:
        pool: members and truth.
        matrices: int64 (candidates, images, classes, classes).
        convention: the metric.
    """
    scores = [score(pool, found, convention) for found in matrices]
    by_class = "labelled" if convention == "per-image" else convention
    iou = np.stack([class_iou(found.sum(axis=0), by_class, pool.ignored_class) for found in matrices])
    kept = [0]
    for index in range(1, len(matrices)):
        # NaN after: the class is not in the truth and no longer predicted. NaN before, a number after: a false class.
        unharmed = np.isnan(iou[index]) | (iou[index] >= iou[0])
        if scores[index] >= scores[0] + LEAST_GAIN and unharmed.all():
            kept.append(index)
    return max(kept, key=lambda index: scores[index])


def best_single(pool: Pool, alone: NDArray[np.int64], convention: str) -> int:
    """Return the best single member on some images (members, images, classes, classes); of equal ones the first."""
    return max(pool.standing, key=lambda member: np.nan_to_num(score(pool, alone[member], convention)))


def score(pool: Pool, matrices: NDArray[np.int64], convention: str) -> float:
    """Return the score of images whose confusion matrices (images, classes, classes) are known."""
    counts = GroupedCounts.of(matrices, None, pool.ignored_class)
    return float(counts.scores(np.ones((1, len(matrices))), convention)[0])
