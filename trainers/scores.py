"""Validation scores of the training loop: one confusion matrix over the set, and the conventions named in the docs.

The engine has all conventions; training needs these few after every epoch and nothing of the engine's kernels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.metrics import VOID

Labels = NDArray[np.uint8]
Logits = NDArray[np.float32]


def confusion(truth: Labels, predicted: Labels, classes: int) -> NDArray[np.int64]:
    """Return the confusion matrix (classes, classes) int64 of two label arrays of one shape; rows are the truth.

    Pixels whose truth is void (255, no class) are left out.
    """
    known = truth < classes
    pairs = truth[known].astype(np.int64) * classes + predicted[known].astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def class_ious(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the intersection over union of each class; NaN where the denominator TP + FP + FN is 0."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    return np.divide(hits, union, out=np.full_like(hits, np.nan), where=union > 0)


def keras_ignore(matrix: NDArray[np.int64], ignored: int | None) -> float:
    """Return the mean IoU as ``keras.metrics.MeanIoU(ignore_class=ignored)`` counts it.

    Pixels whose true class is the ignored one are dropped; the mean runs over every class with a denominator above 0,
    the ignored one among them: one stray prediction of it costs a whole class. With no ignored class all pixels count.
    """
    counted = matrix.copy()
    if ignored is not None:
        counted[ignored] = 0
    ious = class_ious(counted)
    return float(np.nanmean(ious)) if np.isfinite(ious).any() else 0.0


def decode(logits: Logits, suppressed: int | None = None) -> Labels:
    """Return the labels uint8 (N, H, W) of logits (N, H, W, C), with one class suppressed outright when given."""
    if suppressed is not None:
        logits = logits.copy()
        logits[..., suppressed] = -np.inf
    return logits.argmax(axis=-1).astype(np.uint8)


def specialist_iou(truth: Labels, log_odds: Logits, class_id: int, ignored: int | None) -> float:
    """Return the IoU of one class where its log-odds (N, H, W, 1) are above 0, ``ignored`` and void left out."""
    counted = truth != VOID if ignored is None else (truth != VOID) & (truth != ignored)
    real = (truth == class_id) & counted
    found = (log_odds[..., 0] > 0) & counted
    union = np.count_nonzero(real | found)
    return float(np.count_nonzero(real & found) / union) if union else 0.0
