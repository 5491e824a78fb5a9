"""Cross-entropy with higher weights for rare classes."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from trainers.losses.base import PixelLoss
from trainers.losses.masking import Tensor, class_numbers, counted_pixels

#: Largest weight of a rare class relative to a uniform share: more makes training unstable.
MAX_WEIGHT = 10.0


def class_weights(counts: Sequence[int], ignored: int | None = None, cap: float = MAX_WEIGHT) -> tuple[float, ...]:
    """Return a weight per class: its uniform share over its actual share, at most ``cap``.

    With K classes that occur and n pixels, a class of n_c pixels weighs ``min(n / (K n_c), cap)``: all classes would
    count equally if none reached the cap. The ignored class is not counted; it and absent classes get 1, on no pixel.

    Args:
        counts: pixels of each class.
        ignored: class whose pixels are excluded from the loss.
        cap: largest weight of a class.
    """
    counted = [0 if k == ignored else int(count) for k, count in enumerate(counts)]
    present = sum(count > 0 for count in counted)
    total = sum(counted)
    return tuple(min(total / (present * count), cap) if count else 1.0 for count in counted)


def weighted_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Sequence[float], ignored: int | None = None
) -> Tensor:
    """Return the weighted mean of the cross-entropy over the counted pixels, in nats.

    Args:
        logits: float (B, H, W, C).
        labels: int (B, H, W), each from 0 to C - 1, or 255 (void), whose pixels are excluded.
        weights: one per class; the mean divides by the sum of the pixels' weights.
        ignored: class whose pixels are excluded; None includes all.

    Returns:
        A scalar; 0 with zero gradient if no pixel counts.
    """
    known = class_numbers(labels)
    values = ops.sparse_categorical_crossentropy(known, logits, from_logits=True)
    weight = ops.take(ops.convert_to_tensor(weights, "float32"), known) * counted_pixels(labels, ignored)
    # The smallest divisor only matters for a batch without a counted pixel: a weight is never that small.
    return ops.sum(values * weight) / ops.maximum(ops.sum(weight), 1e-6)


class WeightedCrossEntropy(PixelLoss):
    """:func:`weighted_cross_entropy` as a Keras loss."""

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        weights = self.target.weights or (1.0,) * self.target.classes
        return weighted_cross_entropy(logits, labels, weights, self.target.ignored)
