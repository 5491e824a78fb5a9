"""Measures of doubt, and labels withheld where it is too great: such pixels are ``unknown``, which is no class.

C. Chow: On optimum recognition error and reject tradeoff, IEEE Transactions on Information Theory 16, 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError, option
from engine.metrics import VOID

# What each map of doubt measures, 0 (none) to 1.
DOUBTS = {
    "entropy": "entropy of the fused probabilities, divided by that of equal ones",
    "mutual-information": "entropy of the members' mean probabilities minus their mean entropy (how much the members "
    "disagree), divided by the entropy of equal ones",
    "votes": "weight of the members whose best class is another one",
    "margin": "1 - the difference between the best and the second probability",
}
# What masks hold there: no class, and not 255 either, which stands for pixels without data or truth.
UNKNOWN = 254
NAME = "unknown"
DEFAULT_DOUBT = "entropy"


@dataclass(frozen=True)
class Unknown:
    """Which pixels get no class.

    Attributes:
        threshold: pixels with more doubt than this (0 to 1) are unknown.
        doubt: the measure, a name from :data:`DOUBTS`.
        risk: where the threshold was calibrated: the bound on the expected share of the scored pixels of a new group
            that get a wrong class, see :mod:`engine.scores.risk`; None where it was simply stated.
        groups: number of groups that it was calibrated on; 0 where it was stated.
    """

    threshold: float
    doubt: str = DEFAULT_DOUBT
    risk: float | None = None
    groups: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no threshold.

        Raises:
            PlanError: outside 0 to 1, a risk outside it, or a measure that does not exist.
        """
        if not 0 <= self.threshold <= 1:
            raise PlanError(f"{option('unknown')} {self.threshold:g}: a doubt from 0 (none) to 1 is needed")
        if self.doubt not in DOUBTS:
            raise PlanError(f"{option('doubt_map')} {self.doubt[:40]}; allowed are {', '.join(DOUBTS)}")
        if self.risk is not None and not 0 < self.risk < 1:
            raise PlanError(f"{option('unknown_risk')} {self.risk:g}: a share between 0 and 1 is needed")
        if self.groups < 0:
            raise PlanError(f"unknown: {self.groups} groups; a number of groups, 0 or above, is needed")

    @property
    def decides(self) -> dict[str, Any]:
        """Return what labels depend on, as plain JSON types."""
        return {"threshold": self.threshold, "doubt": self.doubt}

    @property
    def record(self) -> dict[str, Any]:
        """Return it with the value that masks hold, as plain JSON types."""
        calibrated = {} if self.risk is None else {"risk": self.risk, "groups": self.groups}
        return {"value": UNKNOWN, **self.decides, **calibrated}

    def __str__(self) -> str:
        """Say in words which pixels are unknown, and what was promised of the others."""
        told = f"{self.doubt} above {self.threshold:g}"
        if self.risk is None:
            return told
        return (
            f"{told}, which bounds the expected share of wrong pixels of a new group by {self.risk:g} (conformal, "
            f"{self.groups} groups) if it is drawn like these groups"
        )


def check_free(classes: int, values: Sequence[int] = ()) -> None:
    """Refuse masks whose other values leave none for unknown pixels.

    Args:
        classes: number of classes.
        values: what masks hold for the classes where these are not their numbers, and for pixels without data.

    Raises:
        PlanError: 254 is one of them.
    """
    if classes > UNKNOWN or UNKNOWN in values:
        raise PlanError(f"{option('unknown')}: {UNKNOWN} stands for unknown pixels, and is taken: leave it out")


def withhold(labels: NDArray[np.uint8], unknown: NDArray[np.bool_] | None) -> NDArray[np.uint8]:
    """Return labels with :data:`UNKNOWN` where ``unknown``, of the same shape, is true; None leaves all as they are."""
    return labels if unknown is None else np.where(unknown, np.uint8(UNKNOWN), labels)


def covered(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels for :func:`engine.metrics.confusion_matrices`: unknown pixels have no prediction there."""
    return np.where(labels == UNKNOWN, np.uint8(VOID), labels)
