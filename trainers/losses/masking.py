"""Which pixels count, and the mean over them."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def counted_pixels(labels: Tensor, ignored: int | None) -> Tensor:
    """Return 1.0 where a pixel of the labels (B, H, W) counts and 0.0 where its class is the ignored one, float32."""
    if ignored is None:
        return ops.ones_like(labels, dtype="float32")
    return ops.cast(ops.not_equal(labels, ignored), "float32")


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of ``values`` over the pixels where ``mask`` is 1; 0, with zero gradient, when there is none."""
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)
