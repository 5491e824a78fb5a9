"""Nets that put out labels: each becomes a vote, 1 for its class and 0 for every other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError


def votes(out: NDArray[np.float32], labels: NDArray, name: str) -> None:
    """Write 1 for the class of each label and 0 for all others.

    Args:
        out: float32 (batch, classes, pixels), the result.
        labels: whole numbers (batch, pixels).
        name: the net, for the message.

    Raises:
        ModelError: a label is no class.
    """
    classes = out.shape[1]
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= classes:
        raise ModelError(
            f"{name} puts out label {high if high >= classes else low}; its classes are 0 to {classes - 1}"
        )
    np.equal(labels[:, None], np.arange(classes, dtype=labels.dtype)[:, None], out=out, casting="unsafe")
