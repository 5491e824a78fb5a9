"""The losses by name: for multi-class networks and for specialists. A new one is one file and one line here."""

from __future__ import annotations

from engine.errors import PlanError
from trainers.losses.base import PixelLoss, Target
from trainers.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy

MULTICLASS: dict[str, type[PixelLoss]] = {"cross-entropy": CrossEntropy}
SPECIALIST: dict[str, type[PixelLoss]] = {"cross-entropy": BinaryCrossEntropy}

#: A class rarer than one pixel in eleven counts as if it were one in eleven: more weight makes training unsteady.
MAX_POS_WEIGHT = 10.0


def make_loss(name: str, target: Target) -> PixelLoss:
    """Return the Keras loss of that name for a target.

    Raises:
        PlanError: there is no such loss for this kind of network; the message lists those there are.
    """
    table = MULTICLASS if target.class_id is None else SPECIALIST
    if name not in table:
        kind = "a multi-class network" if target.class_id is None else "a specialist"
        raise PlanError(f"loss: {name!r} is unknown for {kind}; choose one of {', '.join(table)}")
    return table[name](target)


def capped_pos_weight(positive: int, negative: int) -> float:
    """Return the weight that balances the two sides of a specialist's pixels, at most :data:`MAX_POS_WEIGHT`.

    Raises:
        PlanError: there is no positive pixel to learn from.
    """
    if positive == 0:
        raise PlanError("class-id: no pixel of that class among the training tiles; choose a class that occurs")
    return min(negative / positive, MAX_POS_WEIGHT)
