"""Uncertainty of a score: percentile bootstrap intervals over groups of images (B. Efron, R. Tibshirani, 1993).

Tiles of one scene resemble each other, so whole groups are drawn, never single tiles: the interval
then shows how the score would vary with other scenes, not with other pixels of the same scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.metrics import CONVENTIONS, mean_ious

ROUNDS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A score (or the difference of two) with its bootstrap interval.

    Attributes:
        value: measured over all groups.
        low: lower end of the interval.
        high: upper end.
        level: share of the resampled values inside the interval.
        groups: how many groups were drawn from.
    """

    value: float
    low: float
    high: float
    level: float
    groups: int

    def __str__(self) -> str:
        """Return value and interval in one line."""
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class GroupedCounts:
    """The counts of a set of predictions per group, all that a bootstrap needs.

    Attributes:
        confusion: float64 (groups, classes, classes), rows are the truth.
        image_scores: float64 (groups,), sum of the ``labelled`` MIoU of the images that have one.
        images: float64 (groups,), number of those images.
        ignored_class: the class that conventions leave out, or None.
    """

    confusion: NDArray[np.float64]
    image_scores: NDArray[np.float64]
    images: NDArray[np.float64]
    ignored_class: int | None

    @classmethod
    def of(
        cls, matrices: NDArray[np.int64], groups: NDArray[np.int64] | None, ignored_class: int | None
    ) -> GroupedCounts:
        """Gather the confusion matrices of single images by group.

        Args:
            matrices: int64 (images, classes, classes).
            groups: (images,) group of each image, 0 to groups - 1; None makes each image its own.
            ignored_class: the class that conventions leave out, or None.
        """
        count = len(matrices)
        index = np.arange(count) if groups is None else groups
        size = int(index.max(initial=-1)) + 1
        classes = matrices.shape[1]
        confusion = np.zeros((size, classes, classes))
        np.add.at(confusion, index, matrices)
        alone = mean_ious(matrices, "labelled", ignored_class)
        scored = ~np.isnan(alone)
        return cls(
            confusion,
            np.bincount(index[scored], alone[scored], minlength=size).astype(np.float64),
            np.bincount(index[scored], minlength=size).astype(np.float64),
            ignored_class,
        )

    def scores(self, draws: NDArray[np.float64], convention: str) -> NDArray[np.float64]:
        """Return the score of each resampled set, float64 (rounds,); NaN where nothing can be scored.

        Args:
            draws: float64 (rounds, groups), how often each group was drawn.
            convention: a name from :data:`engine.metrics.CONVENTIONS`.
        """
        if convention == "per-image":
            images = draws @ self.images
            empty = np.full(len(draws), np.nan)
            return np.divide(draws @ self.image_scores, images, out=empty, where=images > 0)
        groups, classes, _ = self.confusion.shape
        matrices = (draws @ self.confusion.reshape(groups, -1)).reshape(-1, classes, classes)
        return mean_ious(matrices, convention, self.ignored_class)


def interval(
    counts: GroupedCounts, convention: str, rounds: int = ROUNDS, level: float = LEVEL, seed: int = 0
) -> Interval:
    """Return a score with its percentile bootstrap interval over groups.

    Args:
        counts: the predictions, by group.
        convention: a name from :data:`engine.metrics.CONVENTIONS`.
        rounds: how often to resample.
        level: share of the resampled scores inside the interval.
        seed: of the resampling.

    Raises:
        InputError: fewer than two groups.
        PlanError: unknown convention, impossible rounds or level.
    """
    return _interval([counts], convention, rounds, level, seed)


def paired_difference(
    first: GroupedCounts,
    second: GroupedCounts,
    convention: str,
    rounds: int = ROUNDS,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """Return the score of ``first`` minus that of ``second``, with its interval; both see the same resampled groups.

    Raises:
        InputError: fewer than two groups, or not the same ones.
        PlanError: unknown convention, impossible rounds or level.
    """
    if first.confusion.shape != second.confusion.shape:
        raise InputError(
            f"a paired difference of {first.confusion.shape} against {second.confusion.shape} counts: "
            "compare predictions of the same images"
        )
    return _interval([first, second], convention, rounds, level, seed)


def _interval(sides: Sequence[GroupedCounts], convention: str, rounds: int, level: float, seed: int) -> Interval:
    groups = len(sides[0].confusion)
    if groups < 2:
        raise InputError(f"a bootstrap over {groups} group{'' if groups == 1 else 's'}: at least two are needed")
    if rounds < 1 or not 0 < level < 1:
        raise PlanError(f"bootstrap of {rounds} rounds at level {level}: at least 1 round and a level inside 0..1")
    draws = whole_and_resampled(groups, rounds, seed)
    values = sides[0].scores(draws, convention)
    if len(sides) > 1:
        values = values - sides[1].scores(draws, convention)
    return Interval(*ends(values, level), level, groups)


def whole_and_resampled(groups: int, rounds: int, seed: int) -> NDArray[np.float64]:
    """Return float64 (1 + rounds, groups): the whole set (each group once), then the draws of :func:`resampled`."""
    return np.concatenate([np.ones((1, groups)), resampled(groups, rounds, seed)])


def resampled(groups: int, rounds: int, seed: int) -> NDArray[np.float64]:
    """Return float64 (rounds, groups): how often each group occurs in each resample (with replacement)."""
    picked = np.random.default_rng(seed).integers(0, groups, (rounds, groups))
    flat = picked + groups * np.arange(rounds)[:, None]
    return np.bincount(flat.ravel(), minlength=rounds * groups).reshape(rounds, groups).astype(np.float64)


Values = dict[str, NDArray[np.float64]]


class Bootstrap:
    """Draws once and scores every row on the same draws.

    Its results equal those of :func:`engine.bootstrap.interval` and :func:`engine.bootstrap.paired_difference` for the
    same seed.
    """

    def __init__(self, groups: NDArray[np.int64] | None, images: int, ignored_class: int | None, seed: int) -> None:
        """Draw the resamples.

        Args:
            groups: int64 (images,), or None to make each image its own.
            images: how many there are.
            ignored_class: the class that conventions leave out, or None.
            seed: of the resampling.
        """
        self.groups = np.arange(images) if groups is None else groups
        self.size = int(self.groups.max()) + 1
        self.ignored_class = ignored_class
        self.draws = whole_and_resampled(self.size, ROUNDS, seed)

    def values(self, matrices: NDArray[np.integer]) -> Values:
        """Return, per convention, float64 (1 + rounds,): the score of the set and of each resample.

        Args:
            matrices: (images, classes, classes), one per image.
        """
        counts = GroupedCounts.of(matrices.astype(np.int64), self.groups, self.ignored_class)
        return {convention: counts.scores(self.draws, convention) for convention in CONVENTIONS}


def ends(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float, float]:
    """Return the value of the whole set, and the ends of its percentile interval; NaN where nothing can be scored.

    Args:
        values: float64 (1 + rounds,), the value of the set and of each resample.
        level: share of the resampled values inside the interval.
    """
    # A resample may contain no labelled pixel; it is ignored then.
    drawn = values[1:][~np.isnan(values[1:])]
    if not drawn.size:
        return float(values[0]), float("nan"), float("nan")
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(values[0]), float(low), float(high)
