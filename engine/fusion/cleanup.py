"""What each class must fulfil to stay: a least probability, a least region, its largest region alone, no holes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError

# The label of pixels without data is no class.
MOST_CLASSES = 256


@dataclass(frozen=True)
class ClassCleanup:
    """How the labels of one class are cleaned up.

    Attributes:
        class_id: the class.
        threshold: the class is predicted only where its fused probability is at least this; elsewhere the class of the
            next best probability that reaches its own.
        min_region: regions of fewer pixels go to the class that surrounds them; None for what applies to all classes.
        largest: only the largest region of an image (or scene) stays; of equal ones the first from the top left.
        fill_holes: what regions of the class enclose becomes this class.
    """

    class_id: int
    threshold: float = 0.0
    min_region: int | None = None
    largest: bool = False
    fill_holes: bool = False

    @property
    def of_regions(self) -> bool:
        """Return whether it changes regions of finished masks."""
        return self.min_region is not None or self.largest or self.fill_holes

    @property
    def stated(self) -> dict[str, Any]:
        """Return what differs from no clean-up, as plain JSON types, without the class."""
        found = {item.name: getattr(self, item.name) for item in fields(self)[1:]}
        unset = (("threshold", 0.0), ("min_region", None), ("largest", False), ("fill_holes", False))
        return {name: value for name, value in found.items() if (name, value) not in unset}


KEYS = tuple(item.name for item in fields(ClassCleanup))[1:]


def read_cleanup(name: str, table: object) -> ClassCleanup:
    """Return the clean-up that a table of a plan (or of Python) states; its class is still 0.

    Args:
        name: what the class is called, for messages.
        table: from a key of :data:`KEYS` to its value.

    Raises:
        PlanError: an unknown key, or a value that is not allowed.
    """
    where = f"cleanup.{name}"
    if not isinstance(table, Mapping):
        raise PlanError(f"{where}: {str(table)[:40]!r} is not a table; its keys are {', '.join(KEYS)}")
    unknown = sorted(set(table) - set(KEYS))
    if unknown:
        raise PlanError(f"{where}: unknown key {', '.join(map(repr, unknown))}; known are {', '.join(KEYS)}")
    threshold, least = table.get("threshold", 0.0), table.get("min_region")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise PlanError(f"{where}: threshold {str(threshold)[:40]}; a probability from 0 to 1 is needed")
    if least is not None and (isinstance(least, bool) or not isinstance(least, int) or not 0 <= least < 2**63):
        raise PlanError(f"{where}: min_region {str(least)[:40]}; a number of pixels, 0 or above, is needed")
    for key in ("largest", "fill_holes"):
        if not isinstance(table.get(key, False), bool):
            raise PlanError(f"{where}: {key} {str(table[key])[:40]}; true or false is needed")
    return ClassCleanup(0, float(threshold), least, table.get("largest", False), table.get("fill_holes", False))


def thresholds_of(cleanup: Sequence[ClassCleanup], classes: int) -> NDArray[np.float32]:
    """Return float32 (classes,): the least probability of each class; 0 where none is stated.

    Raises:
        PlanError: a class that does not exist.
    """
    found = np.zeros(classes, np.float32)
    for item in cleanup:
        if not 0 <= item.class_id < classes:
            raise PlanError(f"clean-up of class {item.class_id}: there are {classes} classes, 0 to {classes - 1}")
        found[item.class_id] = item.threshold
    return found


def least_probable(
    scores: NDArray[np.float32], labels: NDArray[np.uint8], thresholds: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return labels in which no class stands below its least probability, where another one reaches its own.

    A pixel whose class is below its threshold gets the class of the highest probability among those above 0 that reach
    theirs, the lowest id on a tie; it keeps its label where there is none.

    Args:
        scores: float32 (batch, classes, pixels), fused probabilities; suppressed classes have 0.
        labels: uint8 (batch, pixels); not changed.
        thresholds: float32 (classes,).
    """
    image, pixel = np.nonzero(np.take_along_axis(scores, labels[:, None], axis=1)[:, 0] < thresholds[labels])
    found = scores[image, :, pixel]
    reached = np.where((found >= thresholds) & (found > 0), found, -1)
    best = reached.argmax(axis=1)
    some = reached.max(axis=1, initial=-1) > 0
    changed = labels.copy()
    changed[image[some], pixel[some]] = best[some]
    return changed
