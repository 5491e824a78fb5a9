"""What `engine compare` shows, as candidates of a selection: members and strategies, without and with a class bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.fusion.decoding import Decoding
from engine.select.additive import ADDITIVE
from engine.select.biases import Lines, fused_lines, tune_bias
from engine.select.deadline import NEVER, Deadline
from engine.select.pool import Choice, Pool
from engine.select.sample import Sample
from engine.select.search import Scorer
from engine.utils.threads import available_cores

# How many rows are searched for class biases without each fold too.
FINALISTS = 4


@dataclass(frozen=True)
class Fit:
    """A choice made on all images, and once more without each fold.

    Attributes:
        choice: the choice made with all images.
        fold_choices: the choices made without each fold.
    """

    choice: Choice
    fold_choices: tuple[Choice, ...]

    @property
    def is_fixed(self) -> bool:
        """Return whether all choices are the same, so that no fold decides anything."""
        return set(self.fold_choices) == {self.choice}

    def cross(self, pool: Pool, folds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64 (images, classes, classes): each image by a choice made without it."""
        if len(set(self.fold_choices)) == 1:
            return pool.confusions(self.fold_choices[0])
        cross = np.empty((len(folds), len(pool.classes), len(pool.classes)), np.int64)
        for fold, choice in enumerate(self.fold_choices):
            images = np.flatnonzero(folds == fold)
            cross[images] = pool.confusions(choice, images)
        return cross


def plain_rows(pool: Pool, strategies: Sequence[str]) -> list[Choice]:
    """Return each strategy of all members, and each single member."""
    size = len(pool.members)
    everyone = [Choice(name, (1,) * size, pool.decoding) for name in strategies]
    return [*everyone, *(single(pool, member) for member in pool.standing)]


def single(pool: Pool, member: int) -> Choice:
    """Return a member alone; labels as they are, for they hold no second choice for a suppressed class."""
    counts = tuple(int(index == member) for index in range(len(pool.members)))
    if member in pool.voters:
        return Choice("vote", counts, Decoding())
    return Choice("mean-logit", counts, pool.decoding)


def tuned_rows(
    sample: Sample,
    rows: Sequence[Choice],
    scorers: dict[str, Scorer],
    folds: int,
    deadline: Deadline = NEVER,
    advance: Callable[[], object] = lambda: None,
) -> tuple[list[Fit], int]:
    """Search the class biases of rows, as `engine compare` does.

    Each row is searched on all images. The :data:`FINALISTS` best are then searched without each fold.

    Args:
        sample: the pixels to search on.
        rows: the choices.
        scorers: of the additive strategies.
        folds: number of folds.
        deadline: once over, no further row is begun.
        advance: called after each row, and after each finalist.

    Returns:
        One fit per finalist begun before the deadline, and the number of candidates scored.
    """
    tried = 0

    def lines_of(row: Choice) -> Lines:
        scorer = scorers.get(row.strategy) if row.strategy in ADDITIVE else None
        return fused_lines(sample, row) if scorer is None else scorer.lines(row.counts)

    def tuned(row: Choice, lines: Lines, fold: int | None) -> Choice:
        nonlocal tried
        part = replace(lines, fold=fold, tried=0)
        found = tune_bias(row, part)
        tried += part.tried
        return found

    def begun(row: Choice) -> tuple[Choice, Choice] | None:
        if deadline.over:
            return None
        found = tuned(row, lines_of(row), None)
        advance()
        return row, found

    def finished(pair: tuple[Choice, Choice]) -> Fit | None:
        if deadline.over:
            return None
        row, whole = pair
        lines = lines_of(row)
        fit = Fit(whole, tuple(tuned(row, lines, fold) for fold in range(folds)))
        advance()
        return fit

    with ThreadPoolExecutor(available_cores()) as threads:
        done = sorted((pair for pair in threads.map(begun, rows) if pair), key=lambda pair: -pair[1].score)
        fits = [fit for fit in threads.map(finished, done[:FINALISTS]) if fit]
    return fits, tried
