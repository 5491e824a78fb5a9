"""vote: each member votes for its best class; a tie goes to the tied class with the higher mean probability.

Votes and the tie-break are summed in whole numbers, so the result cannot depend on the order of the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np
from numpy.typing import NDArray

from engine.kernels import rows
from engine.kernels.jit import BLOCK, kernel
from engine.kernels.softmax import softmax_terms
from engine.strategies.task import Task

# The sum of one column of voting units: leaves room in int32 for a class bias, in int64 for the tie-break.
MOST_UNITS = 2**30
# Below any count of votes: a class that a threshold has struck out.
STRUCK = np.int32(-(2**31))


def vote(task: Task) -> None:
    """Score of a class = share of the votes; a member votes for its best class with its weight.

    With the stage ``members`` (and no threshold) a member votes among the classes that are not suppressed, otherwise
    among all, and what is suppressed is replaced afterwards. ``task.ties`` counts the pixels a tie-break decided.
    """
    classes = task.logits.shape[2]
    units = np.stack([voting_units(column) for column in task.weights.T], axis=1)
    # Spread to the full range, so that a bias finer than one vote is not rounded away; the ratios stay exact.
    units *= MOST_UNITS // units.sum(axis=0)
    total = units.sum(axis=0)
    rule = task.rule()
    # Gains above 1 could leave the range of int32: dividing all scores by the greatest changes no label.
    shrink = max(1.0, float(rule.gain.max()))
    gain = rule.gain.astype(np.float64) / shrink
    bias = np.clip(np.rint(rule.bias.astype(np.float64) * total / shrink), 1 - MOST_UNITS, MOST_UNITS - 1).astype(
        np.int32
    )
    least = np.ceil(np.minimum(task.decoding.threshold or 0.0, 1.0) * total).astype(np.int32)
    unconditional = task.decoding.threshold is None
    voted = rule.allowed
    if task.decoding.vote_stage == "fused" or not unconditional:
        voted = np.ones(classes, np.bool_)
    allowed = rule.allowed if unconditional else np.ones(classes, np.bool_)
    least[rule.allowed] = 0
    _vote(task.logits, units.astype(np.int32), gain, bias, least, voted, allowed, task.labels, task.ties)


def voting_units(weights: Sequence[float] | NDArray[np.float64], most: int = MOST_UNITS) -> NDArray[np.int64]:
    """Return whole numbers in the ratio of the weights, so that sums of votes are exact and ties are true ties.

    Args:
        weights: (members,), not negative, summing to 1. Ratios of whole numbers up to 100,000 in sum (1/6 and 2/6,
            say, though neither is a float) are found again exactly; finer ones are rounded to their sum / most.
        most: what they may sum to.

    Returns:
        int64 (members,), summing to at most ``most``.
    """
    fractions = [Fraction(float(weight)).limit_denominator(100_000) for weight in weights]
    if abs(float(sum(fractions)) - 1) > 1e-9:
        fractions = [Fraction(float(weight)) for weight in weights]
    scale = lcm(*(fraction.denominator for fraction in fractions))
    whole = [int(fraction * scale) for fraction in fractions]
    shared = gcd(*whole)
    whole = [value // shared for value in whole]
    total = sum(whole)
    if total > most:
        whole = [value * most // total for value in whole]
    return np.asarray(whole, np.int64)


@kernel
def cast_votes(votes, image, units, voted, best, label, start, stop):  # type: ignore[no-untyped-def]
    """Add one member's weight to its best class at each pixel.

    Args:
        votes: int32 (classes, pixels), added to.
        image: float32 (classes, all pixels), the member's logits.
        units: int32 (classes,), the member's weight a class.
        voted: bool (classes,), the classes a member may vote for.
        best: float32 (pixels,) scratch.
        label: int32 (pixels,) scratch.
        start: first pixel.
        stop: one past the last pixel.
    """
    first = 0
    while not voted[first]:
        first += 1
    rows.copy(best, image[first, start:stop])
    rows.fill(label, np.int32(first))
    for c in range(first + 1, voted.size):
        if voted[c]:
            rows.take_greater(best, label, image[c, start:stop], np.int32(c))
    for c in range(first, voted.size):
        if voted[c]:
            rows.add_where_equal(votes[c, : best.size], label, np.int32(c), units[c])


@kernel
def count_top(votes, allowed, top, label, tied):  # type: ignore[no-untyped-def]
    """Set the most votes of an allowed class, the first class that has them, and 1 where another has as many.

    Returns:
        The number of tied pixels.
    """
    first = 0
    while not allowed[first]:
        first += 1
    rows.copy(top, votes[first, : top.size])
    rows.fill(label, np.int32(first))
    rows.fill(tied, np.int32(0))
    for c in range(first + 1, allowed.size):
        if allowed[c]:
            row = votes[c, : top.size]
            for i in range(top.size):
                new, old, known = row[i], top[i], tied[i]
                equal = np.int32(1) if new == old else known
                tied[i] = np.int32(0) if new > old else equal
            rows.take_greater(top, label, row, np.int32(c))
    count = 0
    for i in range(tied.size):
        count += tied[i]
    return count


@kernel
def take_likelier(label, highest, mean, row, top, candidate):  # type: ignore[no-untyped-def]
    """Where ``row`` has ``top`` votes and ``mean`` beats ``highest``, take the candidate; int64 means, int32 votes."""
    for i in range(label.size):
        new, old, known, votes, most = mean[i], highest[i], label[i], row[i], top[i]
        better = (votes == most) & (new > old)
        label[i] = candidate if better else known
        highest[i] = new if better else old


@kernel
def settle(votes, size, gain, bias, least):  # type: ignore[no-untyped-def]
    """Strike out what misses its least count, then apply gain and bias, in place.

    Args:
        votes: int32 (classes, >= size).
        size: pixels of the block.
        gain: float64 (classes,), at most 1.
        bias: int32 (classes,), in units.
        least: int32 (classes,), in units.
    """
    for c in range(votes.shape[0]):
        row = votes[c, :size]
        if least[c] > 0:
            for i in range(size):
                row[i] = STRUCK if row[i] < least[c] else row[i]
        if gain[c] != 1.0:
            for i in range(size):
                row[i] = row[i] if row[i] == STRUCK else np.int32(row[i] * gain[c])
        if bias[c] != 0:
            for i in range(size):
                row[i] = row[i] if row[i] == STRUCK else row[i] + bias[c]


@kernel
def _vote(logits, units, gain, bias, least, voted, allowed, labels, ties):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    votes = np.empty((classes, BLOCK), np.int32)
    means = np.empty((classes, BLOCK), np.int64)
    terms = np.empty((classes, BLOCK), np.float32)
    best = np.empty(BLOCK, np.float32)
    total = np.empty(BLOCK, np.float32)
    label = np.empty(BLOCK, np.int32)
    top = np.empty(BLOCK, np.int32)
    bits = np.empty(BLOCK, np.int32)
    power = bits.view(np.float32)
    highest = np.empty(BLOCK, np.int64)
    for b in range(batch):
        ties[b] = 0
        for start in range(0, pixels, BLOCK):
            stop = min(start + BLOCK, pixels)
            n = stop - start
            for c in range(classes):
                rows.fill(votes[c, :n], np.int32(0))
            for m in range(members):
                cast_votes(votes, logits[m, b], units[m], voted, best[:n], label[:n], start, stop)
            settle(votes, n, gain, bias, least)
            count = count_top(votes, allowed, top[:n], label[:n], bits[:n])
            if count > 0:
                ties[b] += count
                for c in range(classes):
                    rows.fill(means[c, :n], np.int64(0))
                for m in range(members):
                    softmax_terms(terms, total[:n], best[:n], bits[:n], power[:n], logits[m, b], start, stop)
                    for c in range(classes):
                        rows.add_fixed_point(means[c, :n], terms[c, :n], total[:n], np.int64(units[m, c]))
                # Untied pixels have one class with the most votes, so this leaves them as they are.
                rows.fill(highest[:n], np.int64(-1))
                for c in range(classes):
                    if allowed[c]:
                        take_likelier(label[:n], highest[:n], means[c, :n], votes[c, :n], top[:n], np.int32(c))
            rows.narrow(labels[b, start:stop], label[:n])
