"""Counting and checking loops: confusion matrices, non-finite logits."""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import kernel

EXPONENT = np.int32(0x7F800000)


@kernel
def count_confusion(truth, predicted, confusion):  # type: ignore[no-untyped-def]
    """Add each pixel to its image's confusion matrix.

    Args:
        truth: uint8 (batch, pixels).
        predicted: uint8 (batch, pixels).
        confusion: int64 (batch, classes, classes), rows are the truth; added to.
    """
    for b in range(truth.shape[0]):
        matrix = confusion[b]
        for i in range(truth.shape[1]):
            matrix[truth[b, i], predicted[b, i]] += 1


@kernel
def first_not_finite(bits):  # type: ignore[no-untyped-def]
    """Return the first image that contains NaN or infinity, or -1.

    Args:
        bits: int32 (batch, values), the memory of float32 values: all exponent bits set means NaN or infinity.
    """
    for b in range(bits.shape[0]):
        row = bits[b]
        found = np.int32(0)
        for i in range(row.size):
            found |= np.int32(1) if (row[i] & EXPONENT) == EXPONENT else np.int32(0)
        if found:
            return b
    return -1
