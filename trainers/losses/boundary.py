"""Boundary loss: probability far outside a class is penalised, probability deep inside rewarded.

H. Kervadec, J. Bouchtiba, C. Desrosiers, E. Granger, J. Dolz, I. Ben Ayed: Boundary loss for highly unbalanced
segmentation, MIDL 2019. It has no term for an absent class, so the paper adds a regional loss
to it: ``dice+0.1*boundary``.
"""

from __future__ import annotations

from keras import ops

from trainers.losses.base import PixelLoss
from trainers.losses.masking import Tensor, counted_pixels, probabilities


def boundary(
    logits: Tensor, labels: Tensor, distances: Tensor, ignored: int | None = None, class_id: int | None = None
) -> Tensor:
    """Return the mean over the counted pixels of probability times signed distance, summed over the classes.

    Args:
        logits: float (B, H, W, C), or a specialist's log-odds (B, H, W, 1).
        labels: int (B, H, W), each from 0 to C - 1, or 255 (void), whose pixels are excluded.
        distances: float (B, H, W, maps): distance to the class, negative inside it, 0 everywhere where it is absent;
            see :func:`trainers.distances.signed_distances`.
        ignored: class whose pixels, and whose own map, are excluded; None includes all.
        class_id: the class of a specialist; None for all classes.

    Returns:
        A scalar, negative if most probability is inside; 0 with zero gradient if no pixel counts.
    """
    mask = counted_pixels(labels, ignored)
    terms = probabilities(logits, class_id) * distances
    if ignored is not None and class_id is None:
        terms = terms * (1.0 - ops.one_hot(ignored, terms.shape[-1], dtype="float32"))
    return ops.sum(ops.sum(terms, axis=-1) * mask) / ops.maximum(ops.sum(mask), 1.0)


class Boundary(PixelLoss):
    """:func:`boundary` as a Keras loss."""

    needs_distances = True

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        assert distances is not None  # needs_distances
        return boundary(logits, labels, distances, self.target.ignored, self.target.class_id)
