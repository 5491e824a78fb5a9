"""A network on held-out tiles: its logits, and the raw and the suppressed score of a run."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from trainers import scores
from trainers.batches import scaled
from trainers.compiled import on_accelerator
from trainers.config import FitConfig
from trainers.data import Dataset

#: Tiles of a prediction where a call costs more than its tiles do.
LARGE = 256


def predict(model: keras.Model, data: Dataset, batch_size: int = 32) -> NDArray[np.float32]:
    """Return the logits float32 (N, H, W, maps) of a dataset, in batches of this size, or larger ones on a GPU."""
    if on_accelerator():
        batch_size = max(batch_size, LARGE)
    parts = [
        keras.ops.convert_to_numpy(model.predict_on_batch(scaled(data.images[start : start + batch_size])))
        for start in range(0, len(data), batch_size)
    ]
    return np.concatenate(parts)


def evaluate(config: FitConfig, logits: NDArray[np.float32], truth: Dataset) -> tuple[float, float]:
    """Return the raw and the suppressed score of logits.

    Multi-class: MIoU under ``keras-ignore`` without and with the ignored class suppressed. Specialist: IoU of its class
    over all pixels, and over those of the other classes than the ignored one (all pixels when it is its own).
    """
    ignored = config.ignored_class
    if config.class_id is not None:
        left_out = None if ignored == config.class_id else ignored
        raw = scores.specialist_iou(truth.labels, logits, config.class_id, None)
        return raw, scores.specialist_iou(truth.labels, logits, config.class_id, left_out)
    classes = len(truth.class_names)
    raw, suppressed = (
        scores.keras_ignore(scores.confusion(truth.labels, scores.decode(logits, chosen), classes), ignored)
        for chosen in (None, ignored)
    )
    return raw, suppressed


def score_name(config: FitConfig) -> str:
    """Return what the score of a run is, in words."""
    if config.class_id is not None:
        return f"IoU of class {config.class_id} at log-odds above 0"
    return "MIoU (keras-ignore)" if config.ignored_class is not None else "MIoU (all classes)"
