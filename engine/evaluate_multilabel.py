"""Scores binary masks of classes that do not exclude each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.errors import InputError, PlanError
from engine.sources.numpy_files import ArrayFile
from engine.sources.open import open_array
from engine.sources.spec import is_url, split_key
from engine.sources.unchanged import Unchanged

BATCH = 64


@dataclass(frozen=True)
class ClassScore:
    """How well the binary masks of one class agree with the truth.

    Attributes:
        name: the class.
        iou: intersection over union; NaN where neither has a pixel.
        precision: share of the predicted pixels that are true; NaN where none is predicted.
        recall: share of the true pixels that are predicted; NaN where none is true.
        pixels: true pixels.
    """

    name: str
    iou: float
    precision: float
    recall: float
    pixels: int


def evaluate_multilabel(predicted: str, labels: str, classes: str = "") -> list[ClassScore] | None:
    """Score binary masks of classes that do not exclude each other, (images, classes, height, width) on both sides.

    Args:
        predicted: .npz or .npy.
        labels: .npz or .npy of the same shape; whatever is not 0 counts as present.
        classes: names separated by commas; empty for ``class 0``, ``class 1``, ...

    Returns:
        One score per class; None where the masks are not of that form.

    Raises:
        InputError: the two have different shapes.
        PlanError: another number of names.
    """
    read = Unchanged(predicted, labels)
    sides = [_class_masks(spec) for spec in (predicted, labels)]
    if sides[0] is None or sides[1] is None:
        return None
    guess, truth = sides[0], sides[1]
    if guess.shape != truth.shape:
        raise InputError(f"{predicted} holds masks {guess.shape}, {labels} {truth.shape}: both need one shape")
    names = tuple(classes.split(",")) if classes else tuple(f"class {index}" for index in range(guess.shape[1]))
    if len(names) != guess.shape[1]:
        raise PlanError(f"--classes: {len(names)} names for masks of {guess.shape[1]} classes: give one per class")
    both, predicted_pixels, true_pixels = (np.zeros(len(names), np.int64) for _ in range(3))
    for ours, theirs in zip(guess.chunks(BATCH), truth.chunks(BATCH), strict=True):
        present, true = ours != 0, theirs != 0
        both += (present & true).sum(axis=(0, 2, 3))
        predicted_pixels += present.sum(axis=(0, 2, 3))
        true_pixels += true.sum(axis=(0, 2, 3))
    read.check()
    with np.errstate(invalid="ignore"):
        iou = both / (predicted_pixels + true_pixels - both)
        precision, recall = both / predicted_pixels, both / true_pixels
    rows = zip(names, iou, precision, recall, true_pixels, strict=True)
    return [ClassScore(name, float(i), float(p), float(r), int(n)) for name, i, p, r, n in rows]


def _class_masks(spec: str) -> ArrayFile | None:
    path, key = split_key(spec)
    if is_url(spec) or path.suffix.lower() not in (".npz", ".npy") or not path.exists():
        return None
    array = open_array(path, key, "labels")
    return array if len(array.shape) == 4 and array.shape[1] > 1 and array.shape[3] > 1 else None
