"""Focal loss: cross-entropy with a low weight where the network is already confident.

T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar: Focal Loss for Dense Object Detection, ICCV 2017.
"""

from __future__ import annotations

from keras import ops

from trainers.losses.base import PixelLoss
from trainers.losses.masking import Tensor, class_numbers, counted_pixels, masked_mean

GAMMA = 2.0


def focal(
    logits: Tensor, labels: Tensor, ignored: int | None = None, class_id: int | None = None, gamma: float = GAMMA
) -> Tensor:
    """Return the mean of ``-(1 - p)^gamma log p`` over the counted pixels, p being that of the true class.

    Args:
        logits: float (B, H, W, C), or a specialist's log-odds (B, H, W, 1).
        labels: int (B, H, W), each from 0 to C - 1, or 255 (void), whose pixels are excluded.
        ignored: class whose pixels are excluded; None includes all.
        class_id: the class of a specialist; None for all classes.
        gamma: 0 is plain cross-entropy; from 1 the gradient is finite everywhere.

    Returns:
        A scalar; 0 with zero gradient if no pixel counts.
    """
    if class_id is None:
        surprise = ops.sparse_categorical_crossentropy(class_numbers(labels), logits, from_logits=True)
    else:
        sign = 2.0 * ops.cast(ops.equal(labels, class_id), "float32") - 1.0
        surprise = ops.softplus(-sign * logits[..., 0])
    # 1 - p from the surprise itself: exact where p is close to 1, and never below 0.
    doubt = -ops.expm1(-ops.maximum(surprise, 0.0))
    return masked_mean(doubt**gamma * surprise, counted_pixels(labels, ignored))


class Focal(PixelLoss):
    """:func:`focal` as a Keras loss."""

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        return focal(logits, labels, self.target.ignored, self.target.class_id)
