"""median-prob and trimmed-mean: averages per class that are robust to a broken member.

Members are not sorted: for each, the weight below its value is summed, pair by pair and whole rows at a time. This
gives the part of its own weight that lies in the middle.
"""

from __future__ import annotations

import numpy as np

from engine.fusion.strategies.task import Task
from engine.fusion.strategies.vote import voting_units
from engine.kernels import rows
from engine.kernels.blocks import PART, scratch
from engine.kernels.decode import SCORES, decide_block
from engine.kernels.jit import kernel, part
from engine.kernels.softmax import softmax_terms

# Share of the weight that trimmed-mean drops at each end: of four equal members, the lowest and the highest.
TRIM = 0.25
# Integers up to here, and their halves, are exact in float32, so that weights that meet in the middle do so exactly.
MOST_EXACT = 2**23
ZERO = np.float32(0.0)


def median_prob(task: Task) -> None:
    """Score of a class = weighted median over members of its probability; of an even number, the middle of the two."""
    _fuse(task, 0.5)


def trimmed_mean(task: Task) -> None:
    """Score of a class = weighted mean over members of its probability without a quarter of the weight at each end.

    A member across the border counts with the share of its weight inside.
    """
    _fuse(task, TRIM)


def _fuse(task: Task, trim: float) -> None:
    units = np.stack([voting_units(column, MOST_EXACT) for column in task.weights.T], axis=1).astype(np.float32)
    members, _, classes, pixels = task.logits.shape
    part = min(PART, pixels)
    scores, work, label = scratch(classes, part), scratch(members + 2, part), scratch(part, dtype=np.int32)
    terms = scratch(members, classes, part)
    _middle(task.logits, units, np.float32(trim), terms, work, scores, label, task.rule(), task.labels, task.kept)


@part
def middle_row(score, terms, below, units, c, trim):  # type: ignore[no-untyped-def]
    """Set one class's scores: the mean between the shares ``trim`` and ``1 - trim`` of the sorted weight.

    Args:
        score: float32 (pixels,), the result.
        terms: float32 (members, classes, >= pixels), the probabilities.
        below: float32 (>= members, >= pixels) scratch.
        units: float32 (members, classes), whole numbers, at least one per class above 0.
        c: the class.
        trim: share of the weight dropped at each end; 0.5 gives the median.
    """
    members, size = terms.shape[0], score.size
    total = ZERO
    for m in range(members):
        rows.fill(below[m, :size], ZERO)
        total += units[m, c]
    for m in range(members):
        for k in range(m + 1, members):
            own, other = terms[m, c, :size], terms[k, c, :size]
            rows.add_rank(below[m, :size], below[k, :size], own, other, units[m, c], units[k, c])
    rows.fill(score, ZERO)
    low = trim * total
    for m in range(members):
        if units[m, c] > ZERO and low + low == total:
            rows.add_median(score, terms[m, c, :size], below[m, :size], units[m, c], low)
        elif units[m, c] > ZERO:
            rows.add_inside(score, terms[m, c, :size], below[m, :size], units[m, c], low, total - low)
    if low + low != total:
        rows.scale(score, np.float32(1.0) / (total - low - low))


@kernel
def _middle(logits, units, trim, terms, work, scores, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    part = label.size
    for b in range(batch):
        for start in range(0, pixels, part):
            stop = min(start + part, pixels)
            n = stop - start
            share, peak = work[members, :n], work[members + 1, :n]
            for m in range(members):
                softmax_terms(terms[m], share, peak, logits[m, b], start, stop)
                for c in range(classes):
                    rows.multiply(terms[m, c, :n], share)
            for c in range(classes):
                middle_row(scores[c, :n], terms, work, units, c, trim)
            decide_block(labels[b, start:stop], kept, b, start, scores, rule, SCORES, peak, label[:n])
