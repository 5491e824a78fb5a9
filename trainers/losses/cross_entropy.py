"""Cross-entropy per pixel, for all classes and for one class against the rest."""

from __future__ import annotations

from keras import ops

from trainers.losses.base import PixelLoss
from trainers.losses.masking import Tensor, class_numbers, counted_pixels, masked_mean


def cross_entropy(logits: Tensor, labels: Tensor, ignored: int | None = None) -> Tensor:
    """Return the mean cross-entropy over the counted pixels, in nats.

    Args:
        logits: float (B, H, W, C).
        labels: int (B, H, W), each from 0 to C - 1, or 255 (void), whose pixels are excluded.
        ignored: class whose pixels are excluded; None includes all.

    Returns:
        A scalar; 0 with zero gradient if no pixel counts.
    """
    values = ops.sparse_categorical_crossentropy(class_numbers(labels), logits, from_logits=True)
    return masked_mean(values, counted_pixels(labels, ignored))


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, class_id: int, ignored: int | None = None, pos_weight: float = 1.0
) -> Tensor:
    """Return the mean binary cross-entropy of one class against the rest, in nats.

    Args:
        logits: log-odds, float (B, H, W, 1).
        labels: int (B, H, W) of all classes.
        class_id: the class.
        ignored: class whose pixels are excluded; None includes all.
        pos_weight: factor on the loss of the pixels of the class.

    Returns:
        A scalar; 0 with zero gradient if no pixel counts.
    """
    log_odds = logits[..., 0]
    positive = ops.cast(ops.equal(labels, class_id), log_odds.dtype)
    # softplus(-z) is -log sigmoid(z): exact for large |z|, where log(sigmoid(z)) would overflow.
    values = pos_weight * positive * ops.softplus(-log_odds) + (1.0 - positive) * ops.softplus(log_odds)
    return masked_mean(values, counted_pixels(labels, ignored))


class CrossEntropy(PixelLoss):
    """:func:`cross_entropy` as a Keras loss."""

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        return cross_entropy(logits, labels, self.target.ignored)


class BinaryCrossEntropy(PixelLoss):
    """:func:`binary_cross_entropy` as a Keras loss."""

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        assert self.target.class_id is not None  # PixelLoss of a specialist: losses.make_loss sees to it
        return binary_cross_entropy(logits, labels, self.target.class_id, self.target.ignored, self.target.pos_weight)
