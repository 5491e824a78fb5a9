"""What `engine compare` shows, as candidates of a selection: members and strategies, without and with a class bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.select.additive import ADDITIVE
from engine.select.biases import fused_lines, tune_bias
from engine.select.deadline import NEVER, Deadline
from engine.select.pool import Choice, Pool
from engine.select.sample import Sample
from engine.select.search import Scorer
from engine.utils.threads import available_cores


@dataclass(frozen=True)
class Fit:
    """A choice made on all images, and once more without each fold.

    Attributes:
        choice: the choice made with all images.
        fold_choices: the choices made without each fold.
    """

    choice: Choice
    fold_choices: tuple[Choice, ...]

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
    return [*everyone, *(single(pool, member) for member in range(size))]


def single(pool: Pool, member: int) -> Choice:
    """Return a member alone."""
    counts = tuple(int(index == member) for index in range(len(pool.members)))
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

    Args:
        sample: the pixels to search on.
        rows: the choices.
        scorers: of the additive strategies.
        folds: number of folds.
        deadline: once over, no further row is begun.
        advance: called after each row.

    Returns:
        One fit per row that was begun before the deadline, and the number of candidates scored.
    """

    def work(row: Choice) -> tuple[Fit, int] | None:
        if deadline.over:
            return None
        scorer = scorers.get(row.strategy) if row.strategy in ADDITIVE else None
        lines = fused_lines(sample, row) if scorer is None else scorer.lines(row.counts)
        parts = [replace(lines, fold=fold) for fold in (None, *range(folds))]
        tuned, *others = (tune_bias(row, part) for part in parts)
        advance()
        return Fit(tuned, tuple(others)), sum(part.tried for part in parts)

    with ThreadPoolExecutor(available_cores()) as threads:
        done = [found for found in threads.map(work, rows) if found is not None]
    return [fit for fit, _ in done], sum(tried for _, tried in done)
