"""The thin class that makes a pure pixel loss a Keras loss."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import ops

from trainers.losses.masking import Tensor


@dataclass(frozen=True)
class Target:
    """What a loss is asked for.

    Attributes:
        classes: number of classes in the labels.
        ignored: class whose pixels are left out; None counts all.
        class_id: the class of a specialist; None for a multi-class network.
        pos_weight: factor on the pixels of a specialist's class.
    """

    classes: int
    ignored: int | None = None
    class_id: int | None = None
    pos_weight: float = 1.0


class PixelLoss(keras.losses.Loss):
    """A loss on (labels (B, H, W), logits (B, H, W, maps)) that is one scalar a batch.

    Args:
        target: what the loss is asked for.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(name=type(self).__name__, reduction="sum_over_batch_size")
        self.target = target

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Undo what Keras does to labels of another rank (a cast to float, a dropped or added axis), then compute."""
        maps = 1 if self.target.class_id is not None else self.target.classes
        shape = ops.shape(y_pred)
        logits = ops.reshape(y_pred, (shape[0], shape[1], shape[2], maps))
        labels = ops.cast(ops.reshape(y_true, (shape[0], shape[1], shape[2])), "int32")
        return self.pixels(logits, labels)

    def pixels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the scalar loss of logits (B, H, W, maps) and labels int32 (B, H, W)."""
        raise NotImplementedError
