"""Abstaining, measured and bounded: coverage, risk-coverage curves, and conformal risk control over groups.

A pixel is kept where its doubt is at most a threshold; the others are unknown. Scored are the pixels with a true class
other than the ignored one.

* Coverage is the share of the scored pixels that are kept; the selective risk is the share of the kept ones that are
  wrong. Both along all thresholds are the risk-coverage curve (R. El-Yaniv, Y. Wiener, 2010); the area below it is AURC
  (Y. Geifman, G. Uziel, R. El-Yaniv, 2019).
* The risk that is bounded is another one: the share of a group's scored pixels that are kept and wrong. It never falls
  as the threshold rises, which is what conformal risk control needs (A. Angelopoulos, S. Bates, A. Fisch, L. Lei,
  T. Schuster: Conformal Risk Control, ICLR 2024): of n groups with mean risk R(t), the greatest threshold with
  (n R(t) + 1) / (n + 1) <= alpha has an expected risk of at most alpha on a new group, if all n + 1 are exchangeable.
  Pixels and tiles of one scene are not; that is why groups are counted, and not pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Thresholds that are tried, 0 to 1: doubt is counted in this many steps, exactly (a power of two).
STEPS = 1024


@dataclass(frozen=True)
class Coverage:
    """What abstaining did to scored pixels.

    Attributes:
        scored: pixels with a true class other than the ignored one.
        kept: those that are not unknown.
        wrong: kept ones with a wrong class.
        group_risk: mean over groups of the share of a group's scored pixels that are kept and wrong; NaN without.
        groups: number of groups.
    """

    scored: int
    kept: int
    wrong: int
    group_risk: float = math.nan
    groups: int = 0

    @classmethod
    def of(
        cls,
        scored: NDArray[np.int64],
        covered: NDArray[np.int64],
        ignored: int | None,
        groups: NDArray[np.int64] | None,
    ) -> Coverage:
        """Return it from counts by image.

        Args:
            scored: int64 (images,), scored pixels.
            covered: int64 (images, classes, classes), of pixels that are not unknown.
            ignored: the ignored class, or None.
            groups: int64 (images,), 0 to groups - 1; None for no groups.
        """
        counted = covered.copy()
        if ignored is not None:
            counted[:, ignored] = 0
        kept = counted.sum(axis=(1, 2))
        wrong = kept - np.trace(counted, axis1=1, axis2=2)
        total = int(scored.sum()), int(kept.sum()), int(wrong.sum())
        if groups is None:
            return cls(*total)
        count = int(groups.max()) + 1
        sums = [np.bincount(groups, side, minlength=count) for side in (wrong, scored)]
        return cls(*total, float(shares(sums[0], sums[1]).mean()), count)

    @property
    def share(self) -> float:
        """Return the coverage; NaN without scored pixels."""
        return self.kept / self.scored if self.scored else math.nan

    @property
    def error(self) -> float:
        """Return the selective risk; NaN without kept pixels."""
        return self.wrong / self.kept if self.kept else math.nan

    def __str__(self) -> str:
        """Say it in one line."""
        told = (
            f"coverage: {self.share:.1%} of {self.scored:,} scored pixels have a class, {self.error:.2%} of these wrong"
        )
        if not self.groups:
            return told
        return f"{told}; kept and wrong, mean of {self.groups:,} groups: {self.group_risk:.2%} of a group's pixels"


@dataclass(frozen=True)
class DoubtCounts:
    """Scored pixels by group and doubt: all that curves and bounds need.

    Attributes:
        pixels: int64 (groups, STEPS + 1): pixels whose doubt is at most k / STEPS, and above the step before.
        wrong: int64 (groups, STEPS + 1): those with a wrong class.
    """

    pixels: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @classmethod
    def of(cls, doubt: NDArray[np.floating], wrong: NDArray[np.bool_], scored: NDArray[np.bool_]) -> DoubtCounts:
        """Count images, each a group of its own.

        Args:
            doubt: (images, pixels), 0 to 1.
            wrong: bool (images, pixels), whether the label is not the true class.
            scored: bool (images, pixels).
        """
        step = np.clip(np.ceil(doubt * np.float32(STEPS)), 0, STEPS).astype(np.int64)
        step += np.arange(len(doubt))[:, None] * (STEPS + 1)
        sides = [np.bincount(step[kept], minlength=len(doubt) * (STEPS + 1)) for kept in (scored, scored & wrong)]
        pixels, errors = (side.reshape(len(doubt), STEPS + 1).astype(np.int64) for side in sides)
        return cls(pixels, errors)

    def grouped(self, groups: NDArray[np.int64] | None) -> DoubtCounts:
        """Return the counts by group, int64 (images,) 0 to groups - 1; None leaves each image its own group."""
        if groups is None:
            return self
        count = int(groups.max()) + 1
        sums = [np.zeros((count, STEPS + 1), np.int64) for _ in range(2)]
        for total, own in zip(sums, (self.pixels, self.wrong), strict=True):
            np.add.at(total, groups, own)
        return DoubtCounts(*sums)

    @classmethod
    def joined(cls, parts: Sequence[DoubtCounts]) -> DoubtCounts:
        """Return the counts of several sets of groups as one, in that order."""
        return cls(np.concatenate([part.pixels for part in parts]), np.concatenate([part.wrong for part in parts]))

    def chosen(self, groups: NDArray[np.integer]) -> DoubtCounts:
        """Return the counts of some groups."""
        return DoubtCounts(self.pixels[groups], self.wrong[groups])

    @property
    def risks(self) -> NDArray[np.float64]:
        """Return float64 (groups, STEPS + 1): the share of each group that is kept and wrong, by threshold."""
        return shares(self.wrong.cumsum(axis=1), self.pixels.sum(axis=1)[:, None])

    @property
    def coverage(self) -> NDArray[np.float64]:
        """Return float64 (STEPS + 1,): the share of all pixels that is kept, by threshold; NaN without pixels."""
        pixels = self.pixels.sum(axis=0)
        return shares(pixels.cumsum(), np.asarray(pixels.sum()), math.nan)

    @property
    def selective(self) -> NDArray[np.float64]:
        """Return float64 (STEPS + 1,): the share of the kept pixels that is wrong, by threshold; NaN where none is."""
        return shares(self.wrong.sum(axis=0).cumsum(), self.pixels.sum(axis=0).cumsum(), math.nan)


def shares(above: NDArray[np.integer], below: NDArray[np.integer], otherwise: float = 0.0) -> NDArray[np.float64]:
    """Return float64 quotients of counts; ``otherwise`` where there is nothing to divide by."""
    above, below = np.broadcast_arrays(above, below)
    return np.divide(above, below, out=np.full(above.shape, otherwise), where=below > 0)


def aurc(pixels: NDArray[np.number], wrong: NDArray[np.number]) -> NDArray[np.float64]:
    """Return the area under the risk-coverage curve: the mean over pixels of the error of those not doubted more.

    Pixels in one step of doubt are in random order: the expectation over that order is returned.

    Args:
        pixels: (..., steps), pixels by doubt, the least first; may be weighted.
        wrong: (..., steps), those that are wrong.

    Returns:
        float64 (...); NaN without pixels.
    """
    count, errors = pixels.astype(np.float64), wrong.astype(np.float64)
    before, errors_before = count.cumsum(axis=-1) - count, errors.cumsum(axis=-1) - errors
    share = np.divide(errors, count, out=np.zeros_like(count), where=count > 0)
    # Sum over j = 1..count of (errors_before + share j) / (before + j).
    part = errors + (errors_before - share * before) * (_harmonic(before + count) - _harmonic(before))
    total = count.sum(axis=-1)
    return np.asarray(np.divide(part.sum(axis=-1), total, out=np.full(total.shape, np.nan), where=total > 0))


def least_aurc(pixels: float, wrong: float) -> float:
    """Return AURC of the best order there is: all wrong pixels last."""
    return float(aurc(np.array([pixels - wrong, wrong]), np.array([0.0, wrong])))


def _harmonic(n: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the harmonic numbers 1 + 1/2 + ... + 1/n, to 1e-10; their continuation for n that are not whole."""
    shifted = n + 16.0
    tail = np.log(shifted) + 1 / (2 * shifted) - 1 / (12 * shifted**2) + 1 / (120 * shifted**4) + np.euler_gamma
    return np.asarray(tail - np.sum([1 / (n + k) for k in range(1, 17)], axis=0))


@dataclass(frozen=True)
class Bound:
    """A threshold of doubt with a bounded risk.

    Attributes:
        threshold: pixels with more doubt are unknown.
        alpha: the bound on the expected risk of a new group.
        risk: mean risk of the groups at this threshold.
        coverage: share of their scored pixels that is kept.
        groups: how many there are.
    """

    threshold: float
    alpha: float
    risk: float
    coverage: float
    groups: int

    @property
    def corrected(self) -> float:
        """Return (n R + 1) / (n + 1), which is at most ``alpha``."""
        return (self.groups * self.risk + 1) / (self.groups + 1)

    def __str__(self) -> str:
        """Say in one line what is bounded, at which level, on how many groups, and what is assumed."""
        return (
            f"risk control: doubt above {self.threshold:g} is unknown; {self.coverage:.1%} of the pixels keep a class, "
            f"and the expected share of a new group's pixels that are kept and wrong is at most {self.alpha:g}: "
            f"(n R + 1) / (n + 1) = {self.corrected:.4f} with R = {self.risk:.4f} of n = {self.groups:,} groups; "
            "assumed: the new group is drawn like these (exchangeable)"
        )


def too_few(groups: int, alpha: float) -> str:
    """Say why no threshold can keep a risk, whatever the doubt; nothing where there are groups enough."""
    least = 1 / (groups + 1)
    if least <= alpha:
        return ""
    return (
        f"a risk of {alpha:g} cannot be promised on {groups:,} groups: even without any error (n R + 1) / (n + 1) is "
        f"{least:.3g}; give {groups_needed(alpha):,} groups or more, or a risk of {least:.3g} or more"
    )


def groups_needed(alpha: float) -> int:
    """Return the least number of groups on which a risk can be promised."""
    return math.ceil(round(1 / alpha - 1, 9))


def corrected(counts: DoubtCounts) -> NDArray[np.float64]:
    """Return float64 (STEPS + 1,): (n R + 1) / (n + 1) of n groups with mean risk R, by threshold."""
    groups = len(counts.pixels)
    return np.asarray((groups * counts.risks.mean(axis=0) + 1) / (groups + 1))


def control(counts: DoubtCounts, alpha: float) -> Bound | None:
    """Return the greatest threshold whose risk is bounded; None where none that leaves a pixel its class is.

    Args:
        counts: of calibration groups that nothing was fitted on.
        alpha: bound on the expected risk of a new group.
    """
    risks, groups = counts.risks.mean(axis=0), len(counts.pixels)
    fits = np.flatnonzero((corrected(counts) <= alpha) & (counts.coverage > 0))
    if not len(fits):
        return None
    place = int(fits[-1])
    return Bound(place / STEPS, alpha, float(risks[place]), float(counts.coverage[place]), groups)
