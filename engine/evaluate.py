"""Scores masks that exist already, from any form they can have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import zip_longest
from math import isnan

import numpy as np

from engine import console
from engine.errors import InputError, PlanError
from engine.labels import as_labels, check_match, open_labels
from engine.metrics import CONVENTIONS, Score, Trap, class_iou, find_trap, precision_recall

BATCH = 64
MOST_CLASSES = 256


@dataclass(frozen=True)
class Evaluation:
    """The score of a set of masks.

    Attributes:
        score: counts and conventions.
        names: names of the classes.
        trap: what predictions of the ignored class cost, or None.
    """

    score: Score
    names: tuple[str, ...]
    trap: Trap | None


def evaluate(predicted: str, labels: str, classes: str = "", ignored_class: str = "0") -> Evaluation:
    """Compare masks with true masks, batch by batch.

    Args:
        predicted: submission CSV, .npz, .npy or folder.
        labels: the same forms.
        classes: names separated by commas, or their number; empty for as many as the masks hold.
        ignored_class: id, or ``none``.

    Raises:
        InputError: the two do not belong together, or hold labels outside the classes.
        PlanError: impossible options.
    """
    ignored = _ignored(ignored_class)
    names = _names(classes)
    if names and ignored is not None and ignored >= len(names):
        raise PlanError(f"--ignored-class {ignored}: there are {len(names)} classes, 0 to {len(names) - 1}")
    count = len(names) or MOST_CLASSES
    guesses, truths = open_labels(predicted), open_labels(labels)
    check_match(truths, guesses)
    score = Score(count, ignored)
    for truth, guess in zip_longest(truths.batches(BATCH), guesses.batches(BATCH)):
        if truth is None or guess is None:
            raise InputError(f"{predicted} and {labels} end at different places: copy the files again")
        score.update(as_labels(truth, count, truths.name), as_labels(guess, count, guesses.name))
    if not names:
        seen = np.flatnonzero(score.confusion.any(axis=0) | score.confusion.any(axis=1))
        used = max(int(seen.max(initial=0)) + 1, 2, (ignored or 0) + 1)
        score.confusion = np.ascontiguousarray(score.confusion[:used, :used])
        score.classes = used
        names = tuple(f"class {index}" for index in range(used))
    return Evaluation(score, names, find_trap(score.confusion, ignored))


def print_evaluation(result: Evaluation, as_json: bool) -> None:
    """Print an evaluation on stdout, and the trap on stderr."""
    from engine.tables import classes_table, conventions_table

    if as_json:
        print(json.dumps(_as_dict(result), indent=2))
    else:
        out = console.stdout()
        out.print(conventions_table(result.score))
        out.print(classes_table(result.score, result.names))
    if result.trap is not None:
        console.say(f"warning: {result.trap}")


def _as_dict(result: Evaluation) -> dict[str, object]:
    score = result.score
    precision, recall = precision_recall(score.confusion, "labelled", score.ignored_class)
    iou = class_iou(score.confusion, "labelled", score.ignored_class)

    def clean(value: float) -> float | None:
        return None if isnan(value) else round(float(value), 6)

    return {
        "miou": {name: clean(score.mean_iou(name)) for name in CONVENTIONS},
        "ignored_class": score.ignored_class,
        "classes": [
            {"name": name, "iou": clean(i), "precision": clean(p), "recall": clean(r)}
            for name, i, p, r in zip(result.names, iou, precision, recall, strict=True)
        ],
        "confusion": score.confusion.tolist(),
    }


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
