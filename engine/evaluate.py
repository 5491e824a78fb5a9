"""Scores masks that exist already, from any form they can have."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import GroupedCounts, Interval, interval
from engine.errors import InputError, PlanError
from engine.metrics import CONVENTIONS, Score, Trap, confusion_matrices, find_trap
from engine.sources.base import Source
from engine.sources.groups import read_groups
from engine.sources.labels import as_labels, check_match, open_labels
from engine.sources.numpy_files import ArrayFile
from engine.sources.open import open_array
from engine.sources.spec import is_url, split_key
from engine.sources.submission import RLE_FORMS, rle_form

BATCH = 64
MOST_CLASSES = 256
# Files of run lengths that know no images without foreground; one of them no size either.
SPARSE = ("kaggle", "coco")


@dataclass(frozen=True)
class Evaluation:
    """The score of a set of masks.

    Attributes:
        score: counts and conventions.
        names: names of the classes.
        trap: what predictions of the ignored class cost, or None.
        intervals: bootstrap interval over groups, by convention; empty without groups.
    """

    score: Score
    names: tuple[str, ...]
    trap: Trap | None
    intervals: dict[str, Interval] = field(default_factory=dict)


def evaluate(
    predicted: str, labels: str, classes: str = "", ignored_class: str = "0", groups: str = "", rle: str = ""
) -> Evaluation:
    """Compare masks with true masks, batch by batch.

    Args:
        predicted: submission CSV, .npz, .npy or folder.
        labels: the same forms.
        classes: names separated by commas, or their number; empty for as many as the masks hold.
        ignored_class: id, or ``none``.
        groups: file with the group of each image, for intervals; see :func:`engine.sources.groups.read_groups`.
        rle: the form of files of run lengths, where their header does not tell it: a name out of :data:`RLE_FORMS`.

    Raises:
        InputError: the two do not belong together, hold labels outside the classes, or the groups do not fit.
        PlanError: impossible options.
    """
    ignored = _ignored(ignored_class)
    names = _names(classes)
    if names and ignored is not None and ignored >= len(names):
        raise PlanError(f"--ignored-class {ignored}: there are {len(names)} classes, 0 to {len(names) - 1}")
    count = len(names) or MOST_CLASSES
    guesses, truths = _open_both(predicted, labels, rle)
    check_match(truths, guesses)
    index = read_groups(groups, len(truths)) if groups else None
    counted: list[NDArray[np.int64]] = []
    score = Score(count, ignored)
    for truth, guess in zip_longest(truths.batches(BATCH), guesses.batches(BATCH)):
        if truth is None or guess is None:
            raise InputError(f"{predicted} and {labels} end at different places: copy the files again")
        true, guessed = as_labels(truth, count, truths.name), as_labels(guess, count, guesses.name)
        matrices = confusion_matrices(true, guessed, count)
        score.add(matrices)
        if index is not None:
            counted.append(_trimmed(matrices))
    if not names:
        seen = np.flatnonzero(score.confusion.any(axis=0) | score.confusion.any(axis=1))
        used = max(int(seen.max(initial=0)) + 1, 2, (ignored or 0) + 1)
        score.confusion = np.ascontiguousarray(score.confusion[:used, :used])
        score.classes = used
        names = tuple(f"class {index}" for index in range(used))
    intervals = {}
    if index is not None:
        grouped = GroupedCounts.of(_stacked(counted, len(names)), index, ignored)
        intervals = {name: interval(grouped, name) for name in CONVENTIONS}
    return Evaluation(score, names, find_trap(score.confusion, ignored), intervals)


def _open_both(predicted: str, labels: str, rle: str) -> tuple[Source, Source]:
    """Open masks and truth; run lengths that know no size, or not all images, take both from the other side."""
    forms = [rle_form(predicted), rle_form(labels)]
    if rle and rle not in RLE_FORMS:
        raise PlanError(f"--rle {rle[:40]}; allowed are {', '.join(RLE_FORMS)}")
    if rle and not {rle, *(["kaggle"] if rle == "rows" else [])} & set(forms):
        raise PlanError(f"--rle {rle}: neither {predicted} nor {labels} holds such run lengths: leave it out")
    if forms[1] in SPARSE and forms[0] not in SPARSE:
        guesses = open_labels(predicted, rle=rle)
        return guesses, open_labels(labels, guesses, rle)
    # Of two COCO files the truth names the images.
    truths = open_labels(labels, rle=rle)
    return open_labels(predicted, truths if forms[0] in SPARSE else None, rle), truths


def _trimmed(matrices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the matrices without the classes above the last one that any of them holds."""
    seen = np.flatnonzero(matrices.any(axis=(0, 1)) | matrices.any(axis=(0, 2)))
    used = int(seen.max(initial=0)) + 1
    return matrices[:, :used, :used].copy()


def _stacked(parts: list[NDArray[np.int64]], classes: int) -> NDArray[np.int64]:
    """Return trimmed matrices as one array (images, classes, classes)."""
    whole = np.zeros((sum(map(len, parts)), classes, classes), np.int64)
    start = 0
    for part in parts:
        whole[start : start + len(part), : part.shape[1], : part.shape[1]] = part
        start += len(part)
    return whole


def _ignored(text: str) -> int | None:
    if text == "none":
        return None
    number = _whole(text)
    if number is None or number >= MOST_CLASSES:
        raise PlanError(f"--ignored-class {text[:40]}: give a class id from 0 to {MOST_CLASSES - 1}, or none")
    return number


def _whole(text: str) -> int | None:
    """Return the whole number a text of at most four digits stands for, or None."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 4 else None


def _names(classes: str) -> tuple[str, ...]:
    if not classes:
        return ()
    count = _whole(classes)
    names = tuple(classes.split(",")) if count is None else tuple(f"class {index}" for index in range(count))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise PlanError(f"--classes {classes[:40]}: give their names or their number, 2 to {MOST_CLASSES} of them")
    return names


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
    sides = [_class_masks(spec) for spec in (predicted, labels)]
    if sides[0] is None or sides[1] is None:
        return None
    guess, truth = sides[0], sides[1]
    if guess.shape != truth.shape:
        raise InputError(f"{predicted} holds masks {guess.shape}, {labels} {truth.shape}: both need one shape")
    names = _names(classes) or tuple(f"class {index}" for index in range(guess.shape[1]))
    if len(names) != guess.shape[1]:
        raise PlanError(f"--classes: {len(names)} names for masks of {guess.shape[1]} classes: give one per class")
    both, predicted_pixels, true_pixels = (np.zeros(len(names), np.int64) for _ in range(3))
    for ours, theirs in zip(guess.chunks(BATCH), truth.chunks(BATCH), strict=True):
        present, true = ours != 0, theirs != 0
        both += (present & true).sum(axis=(0, 2, 3))
        predicted_pixels += present.sum(axis=(0, 2, 3))
        true_pixels += true.sum(axis=(0, 2, 3))
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
