"""Nets that put out labels: each becomes a vote, 1 for its class and 0 for every other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError

# The label of a packed file for an image for which a member of it computes NaN or infinity.
NOT_FINITE = 255


def votes(out: NDArray[np.float32], labels: NDArray, name: str, not_finite: int | None = None) -> None:
    """Write 1 for the class of each label and 0 for all others.

    Args:
        out: float32 (batch, classes, pixels), the result.
        labels: whole numbers (batch, pixels).
        name: the net, for the message.
        not_finite: the label that says that the net could not predict a pixel: NaN is written for it. None for none.

    Raises:
        ModelError: a label is no class.
    """
    classes = out.shape[1]
    unknown = labels == not_finite if not_finite is not None and not_finite >= classes else None
    if unknown is not None and unknown.any():
        labels = np.where(unknown, 0, labels).astype(labels.dtype)
    else:
        unknown = None
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high >= classes:
        raise ModelError(f"{name} outputs label {high if high >= classes else low}; its classes are 0 to {classes - 1}")
    np.equal(labels[:, None], np.arange(classes, dtype=labels.dtype)[:, None], out=out, casting="unsafe")
    if unknown is not None:
        np.copyto(out, np.float32(np.nan), where=unknown[:, None])
