"""Votes of members counted pixel by pixel, and ties broken by the mean probability."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import part
from engine.kernels.softmax import softmax_terms

# Below any count of votes: a class excluded by a threshold.
STRUCK = np.int32(-(2**31))


@part
def count_votes(votes, logits, image, units, voted, best, choice, start, stop):  # type: ignore[no-untyped-def]
    """Set int32 (classes, pixels) ``votes`` to the units each class got; ``best`` and ``choice`` are scratch rows."""
    n = stop - start
    for c in range(units.shape[1]):
        rows.fill(votes[c, :n], np.int32(0))
    for m in range(units.shape[0]):
        rows.copy(best, logits[m, image, voted[0], start:stop])
        rows.fill(choice, np.int32(voted[0]))
        for k in range(1, voted.size):
            rows.take_greater(best, choice, logits[m, image, voted[k], start:stop], np.int32(voted[k]))
        for c in voted:
            rows.add_where_equal(votes[c, :n], choice, np.int32(c), units[m, c])


@part
def count_top(votes, allowed, top, label, tied):  # type: ignore[no-untyped-def]
    """Set the most votes of any allowed class, the first class that has them, and 1 where another has as many.

    Returns:
        The number of tied pixels.
    """
    rows.copy(top, votes[allowed[0], : top.size])
    rows.fill(label, np.int32(allowed[0]))
    rows.fill(tied, np.int32(0))
    for k in range(1, allowed.size):
        row = votes[allowed[k], : top.size]
        for i in range(top.size):
            new, old, known, held = row[i], top[i], tied[i], label[i]
            equal = np.int32(1) if new == old else known
            tied[i] = np.int32(0) if new > old else equal
            label[i] = np.int32(allowed[k]) if new > old else held
            top[i] = new if new > old else old
    count = 0
    for i in range(tied.size):
        count += tied[i]
    return count


@part
def break_ties(label, at, votes, tie, logits, image, start):  # type: ignore[no-untyped-def]
    """Give each tied pixel to the tied class with the highest mean probability, the lowest id of equals.

    The probabilities are weighted and summed as integers. Tied pixels are few: their logits are gathered first, so
    that the softmax runs only over them.

    Args:
        label: int32 (pixels,), written at the tied pixels.
        at: int64 (count,), the tied pixels.
        votes: int32 (classes, count), their votes.
        tie: :class:`engine.fusion.strategies.vote.TieBreak`.
        logits: float32 (members, batch, classes, all pixels).
        image: which of the batch.
        start: first pixel of the block.
    """
    members, _, classes, _ = logits.shape
    count = at.size
    work = np.empty((2 * classes + 2, count), np.float32)
    gathered, total, peak = work[classes : 2 * classes], work[2 * classes], work[2 * classes + 1]
    means = np.empty((classes, count), np.int64)
    for m in range(members):
        for c in range(classes):
            source, goal = logits[m, image, c], gathered[c]
            for k in range(count):
                goal[k] = source[start + at[k]]
        softmax_terms(work, total, peak, gathered, 0, count)
        for c in range(classes):
            if m == 0:
                rows.fill(means[c], 0)
            rows.add_fixed_point(means[c], work[c], total, np.int64(tie.units[m, c]) * np.int64(tie.spread[c]))
    for k in range(count):
        top, highest = STRUCK, np.int64(-1)
        for c in tie.allowed:
            if votes[c, k] > top or (votes[c, k] == top and means[c, k] > highest):
                top, highest = votes[c, k], means[c, k]
                label[at[k]] = c


@part
def settle(votes, size, spread, gain, bias, least):  # type: ignore[no-untyped-def]
    """Exclude classes below their least count, then apply gain and bias, in place.

    The counts are scaled to the full range of units only if there is something to apply: a bias finer than one vote
    must not be rounded away.

    Args:
        votes: int32 (classes, >= size).
        size: pixels of the block.
        spread: int32 (classes,), value of one unit.
        gain: float64 (classes,), at most 1.
        bias: int32 (classes,), in units.
        least: int32 (classes,), in units.
    """
    for c in range(spread.size):
        row = votes[c, :size]
        for i in range(size):
            value = np.int32(row[i] * spread[c])
            struck = value < least[c]
            changed = np.int32(value * gain[c]) + bias[c]
            row[i] = STRUCK if struck else np.int32(changed)
