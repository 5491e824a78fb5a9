"""Weighted sums of losses, which :func:`trainers.names.parse_loss` reads from ``dice+0.5*focal``."""

from __future__ import annotations

from collections.abc import Sequence

from trainers.losses.base import PixelLoss, Target
from trainers.losses.masking import Tensor


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
