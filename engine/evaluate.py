"""Scores masks that exist already, from any form they can have."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import GroupedCounts, Interval, interval
from engine.errors import InputError, PlanError
from engine.metrics import CONVENTIONS, Score, Trap, confusion_matrices, find_trap
from engine.sources.groups import read_groups
from engine.sources.labels import as_labels, check_match, open_labels
from engine.sources.places import check_same_places

BATCH = 64
MOST_CLASSES = 256


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


def evaluate(predicted: str, labels: str, classes: str = "", ignored_class: str = "0", groups: str = "") -> Evaluation:
    """Compare masks with true masks, batch by batch.

    Args:
        predicted: submission CSV, .npz, .npy or folder.
        labels: the same forms.
        classes: names separated by commas, or their number; empty for as many as the masks hold.
        ignored_class: id, or ``none``.
        groups: file with the group of each image, for intervals; see :func:`engine.sources.groups.read_groups`.

    Raises:
        InputError: the two do not belong together, hold labels outside the classes, or the groups do not fit.
        PlanError: impossible options.
    """
    ignored = _ignored(ignored_class)
    names = _names(classes)
    if names and ignored is not None and ignored >= len(names):
        raise PlanError(f"--ignored-class {ignored}: there are {len(names)} classes, 0 to {len(names) - 1}")
    count = len(names) or MOST_CLASSES
    check_same_places(predicted, labels)
    guesses, truths = open_labels(predicted), open_labels(labels)
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
