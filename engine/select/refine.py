"""The last steps of a selection, on the ensemble chosen so far: views of the images, and the clean-up of each class.

As everywhere, a step is decided on all images, and once more without each fold; it is taken where the cross-fitted
score rises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from engine.fusion.cleanup import ClassCleanup
from engine.fusion.decoding import Decoding
from engine.select.biases import LEAST_GAIN
from engine.select.crossfit import Fitted, Level
from engine.select.deadline import NEVER, Deadline
from engine.select.pool import Choice, Pool
from engine.select.ragged import pixel_counts
from engine.select.whole_images import REGION_SIZES, best_unharmed, score

VIEWED, BY_CLASS = "+ views", "+ clean-up per class"
# Least probabilities that are tried for each class.
LEAST_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
# The clean-up of a class is searched on as many images as have this many pixels, evenly spread; it is scored on all.
MOST_PIXELS = 1 << 24


@dataclass(frozen=True)
class Step:
    """What one step did.

    Attributes:
        name: of the step.
        kept: whether it helped.
        before: the cross-fitted score without it.
        after: the same with it.
    """

    name: str
    kept: bool
    before: float
    after: float


@dataclass(frozen=True)
class Refined:
    """A selection after its last steps.

    Attributes:
        fitted: the levels, with one more for each step that helped.
        steps: what was tried.
    """

    fitted: Fitted
    steps: tuple[Step, ...]


@dataclass
class _Search:
    """What the steps share.

    Attributes:
        pool: members and truth.
        folds: int64 (images,).
        convention: the metric.
        deadline: once over, nothing further is tried.
        tried: candidates scored so far.
    """

    pool: Pool
    folds: NDArray[np.int64]
    convention: str
    deadline: Deadline
    tried: int = 0

    def seen(self, images: NDArray[np.int64], place: int) -> NDArray[np.bool_]:
        """Return which of some images a choice may be made with: the first with all, the others without their fold."""
        return np.ones(len(images), np.bool_) if place == 0 else self.folds[images] != place - 1

    def matrices(
        self, choices: Sequence[Choice], candidates: Sequence[Sequence[Decoding]], images: NDArray[np.int64]
    ) -> list[NDArray[np.int64]]:
        """Return each choice's int64 (candidates, images, classes, classes); equal questions are asked once."""
        known: dict[tuple[Choice, tuple[Decoding, ...]], NDArray[np.int64]] = {}
        # Choices of several folds that differ in nothing but the score they were found with are one.
        keys = [(replace(choice, score=0.0), tuple(tried)) for choice, tried in zip(choices, candidates, strict=True)]
        for choice, tried in dict.fromkeys(keys):
            known[choice, tried] = self.pool.cleaned_confusions(choice, tried, images)
            self.tried += len(tried)
        return [known[key] for key in keys]


def refine(
    pool: Pool,
    fitted: Fitted,
    folds: NDArray[np.int64],
    convention: str,
    clean_up: bool = True,
    deadline: Deadline = NEVER,
) -> Refined:
    """Try views, where the pool has some, then the clean-up of each class.

    Args:
        pool: members and truth.
        fitted: the levels, one of them chosen.
        folds: int64 (images,).
        convention: the metric.
        clean_up: whether to try the clean-up of classes.
        deadline: once over, no further step is begun, and a step under way keeps what it has found.
    """
    held = _Search(pool, folds, convention, deadline)
    steps: list[Step] = []
    wanted = [VIEWED] if pool.viewed else []
    wanted += [BY_CLASS] if clean_up and find_spec("cc3d") is not None else []
    for name in wanted:
        if deadline.over:
            break
        level = fitted.best
        before = [level.choice, *level.fold_choices]
        choices = _viewed(held, before) if name == VIEWED else _cleaned(held, before)
        shown = score(pool, level.cross, convention)
        if choices == before:
            steps.append(Step(name, False, shown, shown))
            continue
        cross = _crossed(held, choices[1:])
        after = score(pool, cross, convention)
        kept = bool(np.nan_to_num(after) >= np.nan_to_num(shown) + LEAST_GAIN)
        if kept:
            same = pool.confusions(choices[0])
            kept = bool(np.nan_to_num(score(pool, same, convention)) >= _floor(pool, fitted, convention))
        steps.append(Step(name, kept, shown, after))
        if kept:
            more = Level(name, choices[0], tuple(choices[1:]), cross, same)
            fitted = replace(fitted, levels=(*fitted.levels, more), chosen=len(fitted.levels))
    return Refined(replace(fitted, tried=fitted.tried + held.tried), tuple(steps))


def _floor(pool: Pool, fitted: Fitted, convention: str) -> float:
    """Return the score of the best single member, below which no plan may be on the images it was selected on."""
    return max(float(np.nan_to_num(score(pool, matrices, convention))) for matrices in fitted.alone[pool.standing])


def _crossed(held: _Search, fold_choices: Sequence[Choice]) -> NDArray[np.int64]:
    classes = len(held.pool.classes)
    cross = np.empty((len(held.folds), classes, classes), np.int64)
    for fold, choice in enumerate(fold_choices):
        own = np.flatnonzero(held.folds == fold)
        cross[own] = held.pool.confusions(choice, own)
    return cross


def _viewed(held: _Search, choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices, each under the views that help most on the images it may be made with."""
    images = np.arange(len(held.folds))
    found = list(choices)
    best = [held.matrices(choices, [[choice.decoding] for choice in choices], images)]
    names = [""]
    for views in held.pool.viewed:
        if held.deadline.over:
            break
        other = [replace(choice, views=views) for choice in choices]
        best.append(held.matrices(other, [[choice.decoding] for choice in other], images))
        names.append(views)
    for place, choice in enumerate(choices):
        seen = held.seen(images, place)
        scores = [np.nan_to_num(score(held.pool, each[place][0][seen], held.convention)) for each in best]
        top = int(np.argmax(scores))
        if scores[top] >= scores[0] + LEAST_GAIN:
            found[place] = replace(choice, views=names[top])
    return found


def _cleaned(held: _Search, choices: Sequence[Choice]) -> list[Choice]:
    """Return the choices with the clean-up of classes that helps on the images they may be made with.

    Class by class, and for each class a least probability, then its regions, then its holes: the best value of each
    that gains and makes no class worse.
    """
    pool, found = held.pool, list(choices)
    count = min(len(held.folds), max(1, int(MOST_PIXELS // pixel_counts(pool.truth).mean())))
    images = np.unique(np.linspace(0, len(held.folds) - 1, count).astype(np.int64))
    for class_id in (class_id for class_id in range(len(pool.classes)) if class_id not in pool.suppress):
        for options in _options():
            if held.deadline.over:
                return found
            tried = [[choice.decoding, *_candidates(pool, choice.decoding, class_id, options)] for choice in found]
            for place, matrices in enumerate(held.matrices(found, tried, images)):
                at = best_unharmed(pool, matrices[:, held.seen(images, place)], held.convention)
                found[place] = replace(found[place], decoding=tried[place][at])
    return found


def _options() -> list[list[dict[str, object]]]:
    regions: list[dict[str, object]] = [{"min_region": size} for size in REGION_SIZES]
    return [[{"threshold": share} for share in LEAST_SHARES], [*regions, {"largest": True}], [{"fill_holes": True}]]


def _candidates(pool: Pool, decoding: Decoding, class_id: int, options: Sequence[dict[str, object]]) -> list[Decoding]:
    """Return a decoding with each of some settings for one class; none where it cannot have them."""
    own = next((item for item in decoding.cleanup if item.class_id == class_id), ClassCleanup(class_id))
    others = [item for item in decoding.cleanup if item.class_id != class_id]
    # Labels have no probabilities.
    if "threshold" in options[0] and (pool.voters or decoding.decode != "argmax"):
        return []
    made = [replace(own, **option) for option in options]  # type: ignore[arg-type]
    return [replace(decoding, cleanup=tuple(sorted((*others, item), key=lambda item: item.class_id))) for item in made]
