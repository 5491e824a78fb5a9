"""Maps that are each decided by itself: one class against the background, or several that do not exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import numpy as np
from numpy.typing import NDArray

# A probability of 0 becomes this log-odds, log(2**-126): finite, so that one sure member cannot turn a sum into NaN.
LEAST_PROBABILITY = np.float32(2.0**-126)


def log_odds(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log(p / (1 - p)) in float32, finite for p = 0 and p = 1."""
    clipped = np.clip(probabilities, LEAST_PROBABILITY, np.float32(1 - 2**-24))
    return np.log(clipped / (1 - clipped))


def two_classes(out: NDArray[np.float32], odds: NDArray[np.float32], threshold: float = 0.5) -> None:
    """Write the scores of background and foreground: 0 and the log-odds, moved so that ``threshold`` decides.

    The softmax of the two is then the foreground's probability, with its odds divided by the threshold's.

    Args:
        out: float32 (batch, 2, pixels), the result.
        odds: float32 (batch, pixels), log-odds of the foreground.
        threshold: the probability from which on a pixel is foreground, inside 0..1.
    """
    out[:, 0] = 0
    np.subtract(odds, np.float32(log(threshold / (1 - threshold))), out=out[:, 1])


def above(odds: NDArray[np.float32], thresholds: Sequence[float]) -> None:
    """Move log-odds (batch, classes, pixels) in place so that those above 0 are above each class's threshold."""
    shifts = [log(value / (1 - value)) for value in thresholds]
    odds -= np.asarray(shifts, np.float32)[:, None]


def pairs(logits: NDArray[np.float32], class_id: int) -> NDArray[np.float32]:
    """Return one class of log-odds (members, batch, classes, pixels) as two classes, absent (0) and present."""
    out = np.zeros((*logits.shape[:2], 2, logits.shape[3]), np.float32)
    out[:, :, 1] = logits[:, :, class_id]
    return out
