"""Scores of a block of pixels -> labels: class bias, suppression, argmax."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import kernel


@kernel
def argmax_block(labels, scores, bias, allowed, best, label):  # type: ignore[no-untyped-def]
    """Write the best allowed class of each pixel; the lowest id wins an exact tie.

    Args:
        labels: uint8 (pixels,), the result.
        scores: float32 (classes, pixels); left changed (the bias is added in place).
        bias: float32 (classes,).
        allowed: bool (classes,), at least one of them true.
        best: float32 (pixels,) scratch.
        label: int32 (pixels,) scratch.
    """
    size = labels.size
    first = 0
    while not allowed[first]:
        first += 1
    rows.fill(label, np.int32(first))
    rows.copy(best, scores[first, :size])
    rows.fill(labels, np.uint8(0))
    for i in range(size):
        best[i] += bias[first]
    for c in range(first + 1, scores.shape[0]):
        if allowed[c]:
            row = scores[c, :size]
            for i in range(size):
                row[i] += bias[c]
            rows.take_greater(best, label, row, np.int32(c))
    rows.narrow(labels, label)
