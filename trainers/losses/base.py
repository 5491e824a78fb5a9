"""The thin class that turns a pure pixel loss into a Keras loss."""

from __future__ import annotations

from dataclasses import dataclass

import keras
from keras import ops

from trainers.losses.masking import Tensor


@dataclass(frozen=True)
class Target:
    """The target of a loss.

    Attributes:
        classes: number of classes in the labels.
        ignored: class whose pixels are excluded; None includes all.
        class_id: the class of a specialist; None for a multi-class network.
        pos_weight: factor on the pixels of a specialist's class.
        weights: factor per class in the weighted losses; empty: 1 for all.
        soft: whether soft targets follow the labels, see :mod:`trainers.losses.distillation`.
    """

    classes: int
    ignored: int | None = None
    class_id: int | None = None
    pos_weight: float = 1.0
    weights: tuple[float, ...] = ()
    soft: bool = False

    @property
    def maps(self) -> int:
        """Return the number of output maps of the network."""
        return self.classes if self.class_id is None else 1


class PixelLoss(keras.losses.Loss):
    """A loss on (labels (B, H, W), logits (B, H, W, maps)) that is one scalar per batch.

    Where :attr:`needs_distances` is True the labels are float32 (B, H, W, 1 + maps): the class numbers, then the signed
    distance maps of :mod:`trainers.distances`.

    Args:
        target: the target of the loss.
    """

    needs_distances = False

    def __init__(self, target: Target) -> None:
        super().__init__(name=type(self).__name__, reduction="sum_over_batch_size")
        self.target = target

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Undo what Keras does to labels of another rank (a cast to float, a dropped or added axis), then compute."""
        maps = self.target.maps
        shape = ops.shape(y_pred)
        logits = ops.cast(ops.reshape(y_pred, (shape[0], shape[1], shape[2], maps)), "float32")
        distances = None
        if self.needs_distances:
            y_true = ops.reshape(y_true, (shape[0], shape[1], shape[2], 1 + maps))
            y_true, distances = y_true[..., :1], ops.cast(y_true[..., 1:], "float32")
        labels = ops.cast(ops.reshape(y_true, (shape[0], shape[1], shape[2])), "int32")
        return self.pixels(logits, labels, distances)

    def pixels(self, logits: Tensor, labels: Tensor, distances: Tensor | None = None) -> Tensor:
        """Return the scalar loss of logits (B, H, W, maps), labels int32 (B, H, W) and distances (B, H, W, maps)."""
        raise NotImplementedError


class Heads(PixelLoss):
    """The mean of one loss over several heads whose logits are concatenated, (B, H, W, heads x maps): deep supervision.

    Args:
        loss: the loss of one head.
        heads: how many there are.
    """

    def __init__(self, loss: PixelLoss, heads: int) -> None:
        super().__init__(loss.target)
        self.loss, self.heads = loss, heads

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Split the logits into heads and average their losses."""
        maps = self.target.maps
        losses = [self.loss.call(y_true, y_pred[..., head * maps : (head + 1) * maps]) for head in range(self.heads)]
        return sum(losses[1:], losses[0]) / float(self.heads)
