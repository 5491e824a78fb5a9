"""Weighted sums of losses, and the small language that names them: ``dice+0.5*focal``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from engine.errors import PlanError
from trainers.losses.base import PixelLoss, Target
from trainers.losses.masking import Tensor

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TERM = re.compile(rf"(?:(?P<before>{_NUMBER})\s*\*\s*)?(?P<name>[a-z][a-z-]*)(?:\s*\*\s*(?P<after>{_NUMBER}))?")
#: A plus that joins terms; that of an exponent follows an e and a digit or a point before it.
_PLUS = re.compile(r"(?<![\d.][eE])\+")


class WeightedSum(PixelLoss):
    """A sum of losses on the same logits and labels.

    Args:
        target: the target of the losses.
        terms: (coefficient, loss) pairs.
    """

    def __init__(self, target: Target, terms: Sequence[tuple[float, PixelLoss]]) -> None:
        super().__init__(target)
        self.terms = list(terms)
        self.needs_distances = any(loss.needs_distances for _, loss in terms)

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the sum for a batch."""
        values = [weight * loss.pixels(logits, labels, distances) for weight, loss in self.terms]
        return sum(values[1:], values[0])


def parse(expression: str, known: Mapping[str, object]) -> list[tuple[float, str]]:
    """Return the (coefficient, name) pairs of an expression like ``dice+0.5*focal``, in order.

    Terms are joined by ``+``; a term is a name, or a name and a number above 0 joined by ``*``, in either order.

    Args:
        expression: the text; spaces do not matter.
        known: the names that are allowed.

    Raises:
        PlanError: the text is no such sum, a name is unknown or occurs twice, or a number is not above 0 and finite.
    """
    listed = ", ".join(known)
    pairs: list[tuple[float, str]] = []
    for text in (part.strip() for part in _PLUS.split(expression)):
        found = _TERM.fullmatch(text)
        if found is None or (found["before"] and found["after"]):
            raise PlanError(
                f"loss: {expression!r} does not parse at {text!r}; write a sum such as dice+0.5*focal of {listed}"
            )
        name, weight = found["name"], float(found["before"] or found["after"] or 1.0)
        if name not in known:
            raise PlanError(f"loss: {name!r} is unknown; choose one of {listed}, or a sum such as dice+0.5*focal")
        if not 0 < weight < math.inf:
            raise PlanError(f"loss: {text!r} has the coefficient {weight:g}; it must be above 0 and finite")
        if name in (other for _, other in pairs):
            raise PlanError(f"loss: {expression!r} names {name} twice; add up its coefficients")
        pairs.append((weight, name))
    return pairs
