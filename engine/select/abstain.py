"""The threshold of doubt that bounds a selection's risk on new groups, see :mod:`engine.scores.risk`.

Every image's labels and doubt come from the choice that was made without its fold, so that nothing was fitted on the
groups that calibrate the threshold. The choice of the plan is that of all folds: the bound assumes that it is no worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from engine.errors import PlanError
from engine.fusion.evidence import Evidence
from engine.metrics import VOID
from engine.scores.risk import Bound, DoubtCounts, control, corrected, too_few
from engine.select.pool import BATCH, Choice, Pool
from engine.select.ragged import one_size
from engine.utils.threads import available_cores


def check_groups(groups: int, alpha: float) -> None:
    """Refuse a risk that no threshold can keep on so few groups.

    Raises:
        PlanError: saying how many groups it takes, or which risk they allow.
    """
    if told := too_few(groups, alpha):
        raise PlanError(f"--unknown-risk: {told}")


def bounded(pool: Pool, fold_choices: Sequence[Choice], folds: NDArray[np.int64], doubt: str, alpha: float) -> Bound:
    """Return the greatest threshold of doubt with an expected risk of at most ``alpha`` on a new group.

    Args:
        pool: members and truth.
        fold_choices: the choices made without each fold.
        folds: int64 (images,).
        doubt: the measure, a name from :data:`engine.fusion.doubt.DOUBTS`.
        alpha: bound on the expected share of a new group's scored pixels that have a class, and a wrong one.

    Raises:
        PlanError: no threshold keeps it.
    """
    parts = [np.flatnonzero(folds == fold) for fold in range(len(fold_choices))]
    counted = [_counts(pool, choice, own, doubt) for choice, own in zip(fold_choices, parts, strict=True)]
    order = np.argsort(np.concatenate(parts))
    counts = DoubtCounts.joined(counted).chosen(order).grouped(pool.groups)
    found = control(counts, alpha)
    if found is None:
        least = corrected(counts)[counts.coverage > 0]
        raise PlanError(
            f"--unknown-risk {alpha:g}: no threshold of {doubt} keeps it on {len(counts.pixels):,} groups, as even the "
            f"surest pixels are wrong too often: ask for {least[0] if len(least) else 1:.3g} or more"
        )
    return found


def _counts(pool: Pool, choice: Choice, tiles: NDArray[np.int64], doubt: str) -> DoubtCounts:
    """Count the doubt of some images, each a group of its own."""
    evidence = Evidence(doubt=doubt, doubt_type="float32")

    def work(part: NDArray[np.int64]) -> DoubtCounts:
        labels, found = pool.explained(choice, part, evidence)
        assert found.doubt is not None
        truth = pool.truth[part]
        ignored = VOID if pool.ignored_class is None else pool.ignored_class
        scored = (truth < len(pool.classes)) & (truth != ignored)
        return DoubtCounts.of(found.doubt, labels != truth, scored)

    parts = one_size(tiles, pool.sizes, BATCH)
    with ThreadPoolExecutor(available_cores()) as threads:
        return DoubtCounts.joined(list(threads.map(work, parts)))
