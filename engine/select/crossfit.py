"""Cross-fitted score of a selection: selected on all folds but one, scored on that one, in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.select.biases import LEAST_GAIN
from engine.select.deadline import NEVER, Deadline
from engine.select.pool import Choice, Pool
from engine.select.ragged import Ragged
from engine.select.rows import Fit, plain_rows, single, tuned_rows
from engine.select.sample import Sample
from engine.select.search import Scorer, Settings, prepare_all, search
from engine.select.whole_images import best_single, score, tune_decode, tune_region
from engine.utils.threads import available_cores

SINGLE, PLAIN, SELECTED, BIASED, CLEANED = 0, 1, 2, 3, 5
LEVELS = (
    "best single member",
    "mean of all members",
    "members and weights",
    "+ class bias",
    "+ threshold",
    "+ clean-up",
)
# Stands for the mean where a member outputs labels.
VOTE_OF_ALL = "vote of all members"
# Of the rows of `engine compare`, which are levels of their own: the best without and with a class bias.
ROW_LEVELS = ("best member or strategy", "best of them with class bias")
# Stands before the clean-up where it is tried.
RANKED = "+ rankseg"


@dataclass(frozen=True)
class Level:
    """One of several increasingly elaborate ensembles of the pool, with its score.

    Attributes:
        name: its name in tables.
        choice: the choice made with all images.
        fold_choices: the choices made without each fold.
        cross: int64 (images, classes, classes), each image by a choice made without it.
        same: int64 (images, classes, classes) of ``choice``: optimistic, since it was made with them.
    """

    name: str
    choice: Choice
    fold_choices: tuple[Choice, ...]
    cross: NDArray[np.int64]
    same: NDArray[np.int64]


@dataclass(frozen=True)
class Fitted:
    """All levels, simplest first, and the best of them by cross-fitted score.

    Attributes:
        levels: best single member, mean of all, selected members, and each further step.
        chosen: index of the level with the best cross-fitted score; of nearly equal ones the first.
        passed_over: index of a level with a better one whose plan scores below the best single member on the very
            images it was selected on; None if there is none.
        alone: int64 (members, images, classes, classes) of each single member.
        tried: number of candidates scored.
    """

    levels: tuple[Level, ...]
    chosen: int
    passed_over: int | None
    alone: NDArray[np.int64]
    tried: int

    @property
    def best(self) -> Level:
        """Return the chosen level."""
        return self.levels[self.chosen]


def assign_folds(
    truth: NDArray[np.uint8] | Ragged[np.uint8],
    groups: NDArray[np.int64] | None,
    folds: int,
    classes: int,
    seed: int,
) -> NDArray[np.int64]:
    """Return int64 (images,): the fold of each image; images of one group share a fold, classes are spread evenly.

    Groups are assigned by their largest share of any class, largest first, each to the fold whose class load overlaps
    least with the group's.

    Args:
        truth: uint8 (images, pixels).
        groups: int64 (images,), or None to assign every image separately.
        folds: at least 2.
        classes: number of classes.
        seed: decides between equal choices.

    Raises:
        InputError: fewer groups than folds, or fewer than two folds.
    """
    index = np.arange(len(truth)) if groups is None else groups
    dealt = int(index.max()) + 1
    if not 2 <= folds <= dealt:
        raise InputError(f"{folds} folds of {dealt} groups: give 2 to {dealt} folds, each needs a group of its own")
    pixels = np.stack([np.bincount(image, minlength=classes)[:classes] for image in truth])
    brought = np.zeros((dealt, classes + 1))
    np.add.at(brought, index, np.column_stack([np.ones(len(truth)), pixels]))
    brought /= np.maximum(brought.sum(axis=0), 1)
    shuffled = np.random.default_rng(seed).permutation(dealt)
    order = shuffled[np.argsort(-brought[shuffled].max(axis=1), kind="stable")]
    load = np.zeros((folds, classes + 1))
    sizes = np.zeros(folds, np.int64)
    fold_of = np.empty(dealt, np.int64)
    for place, group in enumerate(order):
        # The last groups go to empty folds, so that none stays empty.
        open_folds = np.flatnonzero(sizes == 0) if dealt - place <= (sizes == 0).sum() else np.arange(folds)
        fold = open_folds[np.argmin(load[open_folds] @ brought[group])]
        fold_of[group] = fold
        load[fold] += brought[group]
        sizes[fold] += 1
    return fold_of[index]


def cross_fit(
    pool: Pool,
    sample: Sample,
    folds: NDArray[np.int64],
    settings: Settings,
    clean_up: bool = True,
    ranked: bool = False,
    rows: Sequence[str] = (),
    budget: float = 0.0,
    advance: Callable[[], object] = lambda: None,
) -> Fitted:
    """Select on all images, and once more without each fold.

    Args:
        pool: members and truth.
        sample: the pixels to search on.
        folds: int64 (images,).
        settings: settings of the search.
        clean_up: whether to try clean-up of small regions.
        ranked: whether to try labels that are decided for whole images, see :mod:`engine.fusion.rankseg`.
        rows: strategies that are tried on all members as they are, as are single members; none for neither.
        budget: approximate seconds for all of it; 0 for no limit.
        advance: called after each of the folds + 1 selections, and after each row.
    """
    whole = Deadline.after(budget) if budget else NEVER
    scorers = prepare_all(sample, settings)
    alone = np.stack([pool.confusions(single(pool, member)) for member in range(len(pool.members))])
    count = int(folds.max()) + 1
    # Selections run side by side; each gets its share of the first half of the time.
    share = budget / 2 * available_cores() / (count + 1)

    def select(fold: int | None) -> tuple[list[Choice], int]:
        seen = np.arange(len(folds)) if fold is None else np.flatnonzero(folds != fold)
        deadline = Deadline.after(share) if budget else NEVER
        steps, tried = search(sample, settings, scorers, fold, deadline)
        if ranked:
            steps = [*steps, tune_decode(pool, steps[-1], seen, sample.convention)]
        last = tune_region(pool, steps[-1], seen, sample.convention) if clean_up and not deadline.over else steps[-1]
        best = single(pool, best_single(pool, alone[:, seen], sample.convention))
        advance()
        return [best, pool.everyone, *steps, last], tried

    with ThreadPoolExecutor(available_cores()) as threads:
        (choices, tried), *others = threads.map(select, [None, *range(count)])
    levels: list[Level] = []
    names = [LEVELS[SINGLE], VOTE_OF_ALL if pool.voters else LEVELS[PLAIN], *LEVELS[SELECTED:]]
    for place, name in enumerate((*names[:-1], RANKED, names[-1]) if ranked else names):
        fit = Fit(choices[place], tuple(found[place] for found, _ in others))
        last = levels[-1] if levels else None
        if last is not None and (last.choice, last.fold_choices) == (fit.choice, fit.fold_choices):
            levels.append(replace(last, name=name))
        else:
            levels.append(_level(name, fit, fit.cross(pool, folds), pool))
    known = {single(pool, member): matrices for member, matrices in enumerate(alone)}
    known[levels[PLAIN].choice] = levels[PLAIN].same
    tried += sum(more for _, more in others)
    if rows:
        found, more = _row_levels(pool, sample, folds, rows, scorers, settings.bias, whole, advance, known)
        levels, tried = [*levels, *found], tried + more
    return Fitted(tuple(levels), *_chosen(pool, levels, alone, sample.convention), alone, tried)


def _row_levels(
    pool: Pool,
    sample: Sample,
    folds: NDArray[np.int64],
    strategies: Sequence[str],
    scorers: dict[str, Scorer],
    bias: bool,
    deadline: Deadline,
    advance: Callable[[], object],
    known: Mapping[Choice, NDArray[np.int64]],
) -> tuple[list[Level], int]:
    """Return the best row without and with a class bias by its cross-fitted score, and the number of candidates."""
    plain = plain_rows(pool, strategies)
    count = int(folds.max()) + 1
    # A bias changes no label of a member that outputs labels.
    moved = [row for row in plain if not set(row.members) <= pool.voters]
    tuned, tried = tuned_rows(sample, moved, scorers, count, deadline, advance) if bias else ([], 0)
    levels = []
    for name, fits in zip(ROW_LEVELS, ([Fit(row, (row,) * count) for row in plain], tuned), strict=True):
        made = [
            (fit, known[fit.choice] if fit.is_fixed and fit.choice in known else fit.cross(pool, folds)) for fit in fits
        ]
        if made:
            best = max(made, key=lambda pair: np.nan_to_num(score(pool, pair[1], sample.convention)))
            levels.append(_level(name, *best, pool))
    return levels, tried + len(plain)


def _level(name: str, fit: Fit, cross: NDArray[np.int64], pool: Pool) -> Level:
    same = cross if fit.is_fixed else pool.confusions(fit.choice)
    return Level(name, fit.choice, fit.fold_choices, cross, same)


def _chosen(pool: Pool, levels: Sequence[Level], alone: NDArray[np.int64], convention: str) -> tuple[int, int | None]:
    """Return the level with the best cross-fitted score, of nearly equal ones the first, and one that was passed over.

    A level whose plan scores below the best single member on the very images it was selected on is passed over.
    """
    scores = [np.nan_to_num(score(pool, level.cross, convention)) for level in levels]
    floor = max(np.nan_to_num(score(pool, alone[member], convention)) for member in pool.standing)
    sound = [np.nan_to_num(score(pool, level.same, convention)) >= floor for level in levels]
    best, chosen = 0, SINGLE
    for place in range(1, len(levels)):
        best = place if scores[place] >= scores[best] + LEAST_GAIN else best
        chosen = place if sound[place] and scores[place] >= scores[chosen] + LEAST_GAIN else chosen
    return chosen, None if best == chosen else best
