"""Soft targets beside hard labels: a network learns the probabilities of a teacher.

G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, arXiv:1503.02531, 2015.
"""

from __future__ import annotations

from keras import ops

from trainers.losses.base import PixelLoss
from trainers.losses.masking import Tensor, masked_mean


def soft_divergence(logits: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean Kullback-Leibler divergence of a network from its teacher, in nats, times temperature squared.

    Both are softened: the teacher's probabilities p become p**(1/T), normalised, which is the softmax of its logits
    divided by T; the network's logits are divided by T. The factor T**2 keeps the size of the gradients.

    Args:
        logits: float32 (B, H, W, C).
        teacher: probabilities, float32 (B, H, W, C); a pixel whose probabilities are all 0 has no teacher and is
            excluded.
        temperature: T, above 0.

    Returns:
        A scalar, 0 or more; 0 with zero gradient if no pixel has a teacher.
    """
    raised = ops.power(teacher, 1.0 / temperature)
    total = ops.sum(raised, axis=-1, keepdims=True)
    wanted = raised / ops.maximum(total, 1e-12)
    logs = ops.log_softmax(logits / temperature, axis=-1)
    # A probability of 0 contributes 0, whatever the network says of it.
    terms = wanted * (ops.log(ops.maximum(wanted, 1e-30)) - logs)
    counted = ops.cast(total[..., 0] > 0, "float32")
    return temperature**2 * masked_mean(ops.sum(terms, axis=-1), counted)


class Distillation(PixelLoss):
    """A loss of hard labels and :func:`soft_divergence`, in stated shares.

    The labels are float32 (B, H, W, ... + C): what the loss of hard labels takes, then the teacher's probabilities.

    Args:
        hard: the loss of hard labels; void pixels have none.
        share: share of the soft targets, from 0 to 1; the hard labels have the rest.
        temperature: see :func:`soft_divergence`.
    """

    def __init__(self, hard: PixelLoss, share: float, temperature: float) -> None:
        super().__init__(hard.target)
        self.hard, self.share, self.temperature = hard, share, temperature
        self.needs_distances = hard.needs_distances

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Split the labels and add the two losses up."""
        maps = self.target.maps
        shape = ops.shape(y_pred)
        width = 1 + maps if self.needs_distances else 1
        y_true = ops.reshape(ops.cast(y_true, "float32"), (shape[0], shape[1], shape[2], width + maps))
        logits = ops.cast(ops.reshape(y_pred, (shape[0], shape[1], shape[2], maps)), "float32")
        soft = soft_divergence(logits, y_true[..., width:], self.temperature)
        return (1.0 - self.share) * self.hard.call(y_true[..., :width], y_pred) + self.share * soft
