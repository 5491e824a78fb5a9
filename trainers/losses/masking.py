"""Which pixels count, the mean over them, and the two-sided view that makes a specialist a network of two classes."""

from __future__ import annotations

from typing import Any

from keras import ops

from engine.metrics import VOID

Tensor = Any


def counted_pixels(labels: Tensor, ignored: int | None) -> Tensor:
    """Return 1.0 where a pixel of labels (B, H, W) counts, 0.0 where it is void or of the ignored class, float32."""
    counted = ops.cast(ops.not_equal(labels, VOID), "float32")
    return counted if ignored is None else counted * ops.cast(ops.not_equal(labels, ignored), "float32")


def class_numbers(labels: Tensor) -> Tensor:
    """Return labels that are all class numbers: 0 in place of void, which :func:`counted_pixels` leaves out."""
    return ops.where(ops.equal(labels, VOID), ops.zeros_like(labels), labels)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values`` over the pixels where ``mask`` is 1; 0, with zero gradient, when there is none."""
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)


def probabilities(logits: Tensor, class_id: int | None) -> Tensor:
    """Return softmax of logits (B, H, W, C), or the sigmoid of a specialist's log-odds (B, H, W, 1)."""
    return ops.softmax(logits, axis=-1) if class_id is None else ops.sigmoid(logits)


def truth_maps(labels: Tensor, classes: int, class_id: int | None) -> Tensor:
    """Return float32 (B, H, W, C) with 1 where a pixel is of a class, or (B, H, W, 1) for a specialist's class.

    Void pixels are of class 0: leave them out by :func:`counted_pixels`.
    """
    if class_id is None:
        return ops.one_hot(class_numbers(labels), classes, dtype="float32")
    return ops.expand_dims(ops.cast(ops.equal(labels, class_id), "float32"), -1)
