"""The rows of a comparison: each member and strategy in each state, compared with the best single member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.bootstrap import Values, ends
from engine.compare.result import Estimate, Row
from engine.compare.study import Counts, Study
from engine.compare.tune import Bias, tune
from engine.inference.prediction import Variant
from engine.metrics import CONVENTIONS, find_trap
from engine.utils.numbers import images_per_second


@dataclass(frozen=True)
class Entry:
    """A row before its estimates are computed.

    Attributes:
        variant: its decoding; if tuned, with the bias found on all images.
        state: ``raw``, ``suppressed`` or ``tuned``.
        counts: counts of its predictions.
        fold_biases: if tuned, the bias used to decode each fold.
    """

    variant: Variant
    state: str
    counts: Counts
    fold_biases: tuple[Bias, ...] = ()


def entries(study: Study, counts: dict[Variant, Counts]) -> list[Entry]:
    """Return every member and strategy, raw, suppressed and (with labels) tuned."""
    made = [Entry(v, "suppressed" if v.decoding.suppress else "raw", done) for v, done in counts.items()]
    if study.truth is None:
        return made
    # A bias changes no label of a member that outputs labels.
    movable = [variant for variant in counts if variant.member not in study.voters]
    basis = [variant for variant in movable if variant.decoding.suppress == study.suppressed.suppress]
    return [*made, *(Entry(done.variant, "tuned", done.counts, done.fold_biases) for done in tune(study, basis))]


def rate(study: Study, variant: Variant, counts: Counts) -> float:
    """Return the images/s of a run of only this variant, from the measured time of its parts."""
    store = study.store
    members = store.plain_seconds if variant.member is None else [store.plain_seconds[variant.member]]
    return images_per_second(store.images, store.workers, sum(members) + counts.seconds)


def baselines(found: Sequence[Entry], values: Sequence[Values]) -> dict[str, int]:
    """Return, per convention, the index of the best row of a single member, in its best state.

    The strictest baseline: it is chosen after scoring, and may be suppressed and tuned like the strategies.
    """
    singles = [index for index, entry in enumerate(found) if entry.variant.member is not None]
    return {
        convention: max(singles, key=lambda index: np.nan_to_num(values[index][convention][0], nan=-1.0))
        for convention in CONVENTIONS
    }


def estimated(study: Study, found: Sequence[Entry], values: Sequence[Values], baseline: dict[str, int]) -> list[Row]:
    """Return the rows with their estimates."""
    rows = []
    for entry, own in zip(found, values, strict=True):
        scores = {}
        for convention in CONVENTIONS:
            gain = own[convention] - values[baseline[convention]][convention]
            scores[convention] = Estimate(*ends(own[convention]), *ends(gain))
        rows.append(_row(study, entry, scores))
    return rows


def plain_rows(study: Study, found: Sequence[Entry]) -> list[Row]:
    """Return the rows of a comparison without labels."""
    return [_row(study, entry, {}) for entry in found]


def _row(study: Study, entry: Entry, scores: dict[str, Estimate]) -> Row:
    counts = entry.counts
    pixels = max(int(counts.predicted.sum()), 1)
    confusion: NDArray[np.int64] = counts.matrices.sum(axis=0, dtype=np.int64)
    return Row(
        study.ensemble.variant_name(entry.variant),
        -1 if entry.variant.member is None else entry.variant.member,
        entry.state,
        rate(study, entry.variant, counts),
        scores,
        (counts.predicted / pixels).tolist(),
        counts.agreed / pixels,
        confusion.tolist() if len(counts.matrices) else [],
        list(entry.variant.decoding.bias),
        [list(bias) for bias in entry.fold_biases],
    )


def find_best(study: Study, found: Sequence[Entry]) -> int:
    """Return the entry whose masks are shown as fused: the best strategy; without labels the suppressed mean."""
    if study.truth is None:
        return next(index for index, entry in enumerate(found) if entry.variant == study.reference)
    return next(index for index, entry in enumerate(found) if entry.variant.member is None)


def trap_of(study: Study, found: Sequence[Entry]) -> str:
    """Return what the class-0 trap costs the best raw strategy; empty if it costs nothing."""
    if study.truth is None:
        return ""
    raw = next((e for e in found if e.variant.member is None and e.state == "raw"), None)
    if raw is None:
        return ""
    trap = find_trap(raw.counts.matrices.sum(axis=0, dtype=np.int64), study.ensemble.ignored_class)
    return "" if trap is None else f"{raw.variant.strategy}, raw: {trap}"
