"""Tiny nets of a cross-validation, and each of them as a function for the plain twin."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime

from engine.models.folds import tile_keys
from tests.helpers.nets import save_member


def save_folds(folder: Path, folds: int, images: np.ndarray, start: int = 0) -> list[Path]:
    """Write ``pan-fold0.onnx`` and so on: the net of a fold says that it has not seen every so-manieth image."""
    keys = np.array(tile_keys(images[..., None]))
    return [
        save_member(
            folder / f"pan-fold{fold}.onnx", start + fold, promised={"held_out": tuple(keys[fold::folds].tolist())}
        )
        for fold in range(folds)
    ]


@cache
def run_of(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a net as :func:`tests.helpers.reference.viewed_logits` takes it: grey images in, logits out."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda shown: session.run(None, {"image": (shown.astype(np.float32) * np.float32(1 / 255))[:, None]})[0]
