"""Intervals of many rows at once: every row sees the same resampled groups, so any two of them can be compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import LEVEL, ROUNDS, GroupedCounts, resampled
from engine.metrics import CONVENTIONS

Values = dict[str, NDArray[np.float64]]


class Bootstrap:
    """Draws once; scores each row on all draws.

    What it gives is what :func:`engine.bootstrap.interval` and :func:`engine.bootstrap.paired_difference` give for the
    same seed.
    """

    def __init__(self, groups: NDArray[np.int64] | None, images: int, ignored_class: int | None, seed: int) -> None:
        """Draw.

        Args:
            groups: int64 (images,), or None to make each image its own.
            images: how many there are.
            ignored_class: the class that conventions leave out, or None.
            seed: of the resampling.
        """
        self.groups = np.arange(images) if groups is None else groups
        self.size = int(self.groups.max()) + 1
        self.ignored_class = ignored_class
        # The whole set first, then the resamples.
        self.draws = np.concatenate([np.ones((1, self.size)), resampled(self.size, ROUNDS, seed)])

    def values(self, matrices: NDArray[np.integer]) -> Values:
        """Return for each convention float64 (1 + rounds,): the score of the set and of each resample.

        Args:
            matrices: (images, classes, classes), one an image.
        """
        counts = GroupedCounts.of(matrices.astype(np.int64), self.groups, self.ignored_class)
        return {convention: counts.scores(self.draws, convention) for convention in CONVENTIONS}


def ends(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the value of the set, and the ends of its percentile interval; NaN where nothing can be scored."""
    # A resample may miss every labelled pixel; it says nothing then.
    drawn = values[1:][~np.isnan(values[1:])]
    if not drawn.size:
        return float(values[0]), float("nan"), float("nan")
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(values[0]), float(low), float(high)
