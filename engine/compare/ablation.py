"""One step at a time: what each part of the pipeline adds to the score, and what it costs in speed.

Best single member, mean of all, suppression, views, selection of members and weights, class bias, clean-up. What is
chosen with the help of labels (the last three) is cross-fitted: no image is scored by a choice that used it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import Bootstrap, ends
from engine.compare.result import Step
from engine.compare.rows import rate
from engine.compare.study import Counts, Study
from engine.fusion.decoding import Decoding
from engine.inference.prediction import Variant
from engine.models.views import FLIPS
from engine.select.crossfit import BIASED, CLEANED, PLAIN, SELECTED, Level, cross_fit
from engine.select.pool import Choice
from engine.select.printing import describe
from engine.select.ragged import one_size
from engine.select.sample import draw
from engine.select.search import Settings
from engine.utils.numbers import images_per_second

TIMED_IMAGES = 32


def ablation(
    study: Study,
    counts: dict[Variant, Counts],
    best_raw: int,
    bootstrap: Bootstrap,
    views: str,
    advance: Callable[[], object] = lambda: None,
) -> list[Step]:
    """Measure the steps.

    Args:
        study: members, logits, truth and folds.
        counts: counts of every plain variant.
        best_raw: index of the best single member, raw.
        bootstrap: the resamples for all intervals.
        views: what members also run on; the step is left out for ``none``.
        advance: called after each of the folds + 1 selections.
    """
    assert study.folds is not None
    members, single = len(study.ensemble.members), Variant("mean-logit", Decoding(), best_raw)
    mean = replace(study.reference, decoding=Decoding())
    told_mean = "+ vote of all" if study.voters else "+ mean of all"
    steps = [
        (
            "best single member",
            study.ensemble.members[best_raw].name,
            counts[single].matrices,
            rate(study, single, counts[single]),
        ),
        (told_mean, f"{mean.strategy} of {members}", counts[mean].matrices, rate(study, mean, counts[mean])),
    ]
    if study.suppressed.suppress:
        told = ", ".join(study.ensemble.classes[index] for index in sorted(study.suppressed.suppress))
        shown = counts[study.reference]
        steps.append(("+ suppression", told, shown.matrices, rate(study, study.reference, shown)))
    pool = study.pool(turned=True)
    sample = draw(pool, study.metric, study.folds, study.pixels, study.seed)
    settings = Settings(seed=study.seed, threshold=False)
    if study.voters:
        settings = replace(settings, strategies=("vote",))
    fitted = cross_fit(pool, sample, study.folds, settings, advance=advance)
    wanted = [(SELECTED, "+ selection"), (BIASED, "+ class bias")]
    if study.store.turned is not None:
        wanted.insert(0, (PLAIN, "+ flips" if views in FLIPS else "+ views"))
    if find_spec("cc3d") is not None:
        wanted.append((CLEANED, "+ clean-up"))
    before: Level | None = None
    for place, name in wanted:
        level = fitted.levels[place]
        kept = before is None or (level.choice, level.fold_choices) != (before.choice, before.fold_choices)
        told = views if place == PLAIN else describe(level.choice) if kept else "does not help: left out"
        matrices = level.same if place == PLAIN else level.cross
        steps.append((name, told, matrices.astype(np.int32), _choice_rate(study, level.choice)))
        before = level
    return _steps(steps, study.metric, bootstrap)


def _steps(found: list[tuple[str, str, NDArray[np.int32], float]], metric: str, bootstrap: Bootstrap) -> list[Step]:
    steps = []
    before: NDArray[np.float64] | None = None
    for name, detail, matrices, speed in found:
        values = bootstrap.values(matrices)[metric]
        change = (float("nan"),) * 3 if before is None else ends(values - before)
        steps.append(Step(name, detail, *ends(values), *change, speed))
        before = values
    return steps


def _choice_rate(study: Study, choice: Choice) -> float:
    """Return the images/s of a choice with views; fusion and decoding are timed on a few images."""
    store = study.store
    pool = study.pool(turned=True)
    tiles = study.all_tiles[:TIMED_IMAGES]
    parts = one_size(tiles, store.sizes, TIMED_IMAGES)
    # Once to load the store's pages into memory, once to measure.
    for _ in range(2):
        began = perf_counter()
        for part in parts:
            pool.labels(choice, part)
        decoding = (perf_counter() - began) / len(tiles)
    used = [study.ensemble.fusion_order[slot] for slot in choice.members]
    seconds = store.turned_seconds if store.turned is not None else store.plain_seconds
    return images_per_second(1, store.workers, sum(seconds[index] for index in used) / store.images + decoding)
