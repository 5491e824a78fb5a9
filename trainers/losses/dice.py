"""Soft Dice: one minus the overlap of probabilities and truth, averaged over the classes in the batch.

F. Milletari, N. Navab, S.-A. Ahmadi: V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
Segmentation, 3DV 2016.
"""

from __future__ import annotations

from keras import ops

from trainers.losses.base import PixelLoss
from trainers.losses.masking import Tensor, counted_pixels, probabilities, truth_maps


def dice(
    logits: Tensor, labels: Tensor, classes: int, ignored: int | None = None, class_id: int | None = None
) -> Tensor:
    """Return one minus the soft Dice coefficient, averaged over the classes with a counted pixel in the batch.

    The coefficient of a class is ``2 sum(p g) / (sum(p) + sum(g))`` over the counted pixels of the whole batch. Classes
    that do not occur are excluded: their coefficient is 0 whatever the network predicts, and would only add noise.

    Args:
        logits: float (B, H, W, C), or a specialist's log-odds (B, H, W, 1).
        labels: int (B, H, W), each from 0 to ``classes`` - 1, or 255 (void), whose pixels are excluded.
        classes: number of classes.
        ignored: class whose pixels are excluded; None includes all.
        class_id: the class of a specialist; None for all classes.

    Returns:
        A scalar from 0 to 1; 0 with zero gradient if no class occurs.
    """
    mask = ops.expand_dims(counted_pixels(labels, ignored), -1)
    truth = truth_maps(labels, classes, class_id) * mask
    chance = probabilities(logits, class_id) * mask
    pixels = ops.sum(truth, axis=(0, 1, 2))
    present = ops.cast(pixels > 0, "float32")
    overlap = 2.0 * ops.sum(truth * chance, axis=(0, 1, 2))
    # At least one pixel of truth wherever the class is present: the maximum only serves those that are not.
    coefficient = overlap / ops.maximum(pixels + ops.sum(chance, axis=(0, 1, 2)), 1e-6)
    return ops.sum((1.0 - coefficient) * present) / ops.maximum(ops.sum(present), 1.0)


class Dice(PixelLoss):
    """:func:`dice` as a Keras loss."""

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the loss of a batch."""
        return dice(logits, labels, self.target.classes, self.target.ignored, self.target.class_id)
