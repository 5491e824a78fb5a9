"""The losses by name, for multi-class networks and for specialists. A new one is one file and one line here."""

from __future__ import annotations

from engine.errors import PlanError
from trainers.losses.base import PixelLoss, Target
from trainers.losses.boundary import Boundary
from trainers.losses.cross_entropy import BinaryCrossEntropy, CrossEntropy
from trainers.losses.dice import Dice
from trainers.losses.focal import Focal
from trainers.losses.weighted_cross_entropy import WeightedCrossEntropy
from trainers.losses.weighted_sum import WeightedSum
from trainers.names import parse_loss

MULTICLASS: dict[str, type[PixelLoss]] = {
    "cross-entropy": CrossEntropy,
    "weighted-cross-entropy": WeightedCrossEntropy,
    "dice": Dice,
    "focal": Focal,
    "boundary": Boundary,
}
SPECIALIST: dict[str, type[PixelLoss]] = {
    "cross-entropy": BinaryCrossEntropy,
    "dice": Dice,
    "focal": Focal,
    "boundary": Boundary,
}

#: A class rarer than one pixel in eleven counts as if it were one in eleven: more weight makes training unstable.
MAX_POS_WEIGHT = 10.0


def make_loss(expression: str, target: Target) -> PixelLoss:
    """Return the Keras loss of a name, or of a weighted sum of names like ``dice+0.5*focal``, for a target.

    Raises:
        PlanError: the expression does not parse, or names a loss that this kind of network lacks.
    """
    table = MULTICLASS if target.class_id is None else SPECIALIST
    terms = [(weight, table[name](target)) for weight, name in parse_loss(expression, table)]
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else WeightedSum(target, terms)


def capped_pos_weight(positive: int, negative: int) -> float:
    """Return the weight that balances the two sides of a specialist's pixels, at most :data:`MAX_POS_WEIGHT`.

    Raises:
        PlanError: there is no positive pixel to learn from.
    """
    if positive == 0:
        raise PlanError("class-id: no pixel of that class in the training tiles; choose a class that occurs")
    return min(negative / positive, MAX_POS_WEIGHT)
