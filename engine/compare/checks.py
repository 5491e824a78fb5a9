"""Whether the facts of a run file fit each other: a file can be whole and say what no comparison would."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from engine.compare.result import REASONS, STATES, Facts, Row
from engine.metrics import CONVENTIONS

# Far above any count, size, speed or score, and what plots and sums take.
MOST = 1e15


def contradiction(facts: Facts) -> str:
    """Return what does not fit, by the name of its field; empty where all fits."""
    return next(_contradictions(facts), "")


def _contradictions(facts: Facts) -> Iterator[str]:
    classes, members = len(facts.classes), len(facts.members)
    scored = list(CONVENTIONS) if facts.labels else []
    if not 2 <= classes <= 256 or not members or not facts.rows:
        yield "classes, members or rows"
    if facts.metric not in CONVENTIONS:
        yield "metric"
    if facts.height < 1 or facts.width < 1 or min(facts.images, facts.workers, facts.sizes) < 1:
        yield "images or workers"
    if not -1 <= facts.ignored_class < classes or not _indices(facts.suppressed, classes):
        yield "ignored_class or suppressed"
    if not 0 <= facts.rarest < classes or not 0 <= facts.fused < len(facts.rows):
        yield "rarest or fused"
    if not set(scored) <= facts.baseline.keys() or not _indices(facts.baseline.values(), len(facts.rows)):
        yield "baseline"
    if not _is_square(facts.agreement, members) or len(facts.disputed_by_class) != classes:
        yield "agreement"
    for row in facts.rows:
        if not _row_fits(row, facts, scored):
            yield f"rows: {row.name[:40]}"
    for curve in facts.curves:
        if not len(curve.confidence) == len(curve.accuracy) == len(curve.weight):
            yield "curves"
    for curve_of_risk in facts.risk_curves:
        if len(curve_of_risk.coverage) != len(curve_of_risk.risk):
            yield "risk_curves"
    # Labels alone have no confidence.
    if bool(facts.labels and not facts.left_out) != bool(facts.risk_curves):
        yield "risk_curves"
    if bool(facts.labels) != bool(facts.curves) and not (facts.labels and facts.left_out):
        yield "curves"
    for tile in facts.tiles:
        fits = 1 <= tile.height <= facts.height and 1 <= tile.width <= facts.width
        if not set(tile.reasons) <= set(REASONS) or not 0 <= tile.index < facts.images or not fits:
            yield "tiles"


def _row_fits(row: Row, facts: Facts, scored: Sequence[str]) -> bool:
    classes = len(facts.classes)
    fits = row.state in STATES and -1 <= row.member < len(facts.members) and row.rate > 0
    fits = fits and sorted(row.scores) == sorted(scored) and len(row.share) == classes
    fits = fits and all(len(bias) in (0, classes) for bias in (row.bias, *row.fold_biases))
    counts = [count for line in row.confusion for count in line]
    return fits and all(count >= 0 for count in counts) and _is_square(row.confusion, classes if facts.labels else 0)


def _is_square(rows: Sequence[Sequence[Any]], side: int) -> bool:
    return len(rows) == side and all(len(row) == side for row in rows)


def _indices(values: Any, count: int) -> bool:
    return all(0 <= value < count for value in values)
