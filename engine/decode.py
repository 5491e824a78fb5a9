"""What may happen between scores and labels: class bias and class suppression."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError

VOTE_STAGES = ("members", "fused")


@dataclass(frozen=True)
class Decoding:
    """How scores become labels, in this order: class bias, suppression, argmax (the lowest id wins an exact tie).

    Attributes:
        suppress: classes that never appear in the result; the best remaining class takes their place.
        bias: added to the fused score of each class; empty for none.
        vote_stage: for the strategy ``vote``: ``members`` (each member votes among the allowed classes) or ``fused``
            (vote among all classes first, then replace what is suppressed).
    """

    suppress: frozenset[int] = frozenset()
    bias: tuple[float, ...] = ()
    vote_stage: str = "members"

    def __post_init__(self) -> None:
        """Refuse an unknown stage.

        Raises:
            PlanError: the stage is neither ``members`` nor ``fused``.
        """
        if self.vote_stage not in VOTE_STAGES:
            raise PlanError(f"vote stage {self.vote_stage!r}; allowed are {' and '.join(VOTE_STAGES)}")

    def allowed(self, classes: int) -> NDArray[np.bool_]:
        """Return bool (classes,): which classes the result may hold.

        Raises:
            PlanError: a suppressed class does not exist, or none would be left.
        """
        check_classes(self.suppress, classes)
        if len(self.suppress) >= classes:
            raise PlanError(f"all {classes} classes are suppressed: leave at least one to predict")
        mask = np.ones(classes, np.bool_)
        mask[list(self.suppress)] = False
        return mask

    def bias_row(self, classes: int) -> NDArray[np.float32]:
        """Return float32 (classes,): the class bias.

        Raises:
            PlanError: a bias is not finite, or there is not one a class.
        """
        if not self.bias:
            return np.zeros(classes, np.float32)
        if len(self.bias) != classes:
            raise PlanError(f"{len(self.bias)} class biases for {classes} classes: give one a class")
        if not all(map(math.isfinite, self.bias)):
            raise PlanError(f"class bias {list(self.bias)}: every value must be finite")
        return np.asarray(self.bias, np.float32)


def check_classes(wanted: Iterable[int], classes: int) -> None:
    """Refuse class ids that do not exist.

    Raises:
        PlanError: naming the first id outside 0..classes-1.
    """
    for class_id in wanted:
        if not 0 <= class_id < classes:
            raise PlanError(f"cannot suppress class {class_id}: there are {classes} classes, 0 to {classes - 1}")
