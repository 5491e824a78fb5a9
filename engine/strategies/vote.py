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
from engine.kernels.blocks import block_of
from engine.kernels.jit import kernel
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
    decoding, rule = task.decoding, task.rule()
    units = np.stack([voting_units(column) for column in task.weights.T], axis=1)
    # Equal ratios everywhere: the counts may stay small, which is faster, unless something finer is to be added.
    plain = not decoding.bias and not decoding.prior and decoding.threshold is None and (units[:, 0] == units.T).all()
    spread = np.ones(classes, np.int64) if plain else MOST_UNITS // units.sum(axis=0)
    total = units.sum(axis=0) * spread
    # Gains above 1 could leave the range of int32: dividing all scores by the greatest changes no label.
    shrink = max(1.0, float(rule.gain.max()))
    gain = rule.gain.astype(np.float64) / shrink
    raised = np.rint(rule.bias.astype(np.float64) * total / shrink)
    bias = np.clip(raised, 1 - MOST_UNITS, MOST_UNITS - 1).astype(np.int32)
    least = np.ceil((decoding.threshold or 0.0) * total).astype(np.int32)
    least[rule.allowed] = 0
    everything = np.ones(classes, np.bool_)
    voted = rule.allowed if decoding.threshold is None and decoding.vote_stage == "members" else everything
    allowed = rule.allowed if decoding.threshold is None else everything
    whole, spread = units.astype(np.int32), spread.astype(np.int32)
    _vote(task.logits, whole, spread, gain, bias, least, np.flatnonzero(voted), allowed, task.labels, task.ties)


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
def best_payload(payload, image, payloads, voted, best, start, stop):  # type: ignore[no-untyped-def]
    """Set int32 ``payload`` to that of the member's best class among those voted for, pixel by pixel.

    Args:
        payload: int32 (pixels,), the result.
        image: float32 (classes, all pixels), the member's logits.
        payloads: int32 (classes,).
        voted: int64 (count,), the classes a member may vote for, ascending.
        best: float32 (pixels,) scratch.
        start: first pixel.
        stop: one past the last pixel.
    """
    if voted.size == 1:
        rows.fill(payload, payloads[voted[0]])
        return
    a, b = voted[0], voted[1]
    rows.set_greater_two(best, payload, image[a, start:stop], image[b, start:stop], payloads[a], payloads[b])
    k = 2
    while k + 1 < voted.size:
        a, b = voted[k], voted[k + 1]
        rows.take_greater_two(best, payload, image[a, start:stop], image[b, start:stop], payloads[a], payloads[b])
        k += 2
    if k < voted.size:
        a = voted[k]
        rows.take_greater(best, payload, image[a, start:stop], payloads[a])


@kernel
def count_votes(votes, logits, image, units, voted, packed, best, payload, start, stop):  # type: ignore[no-untyped-def]
    """Set int32 (classes, pixels) ``votes`` to the units each class got; ``packed`` is int32 (pixels,) scratch.

    Where the counts of all classes fit side by side into 31 bits, one addition a member counts for all classes.
    """
    members, classes = units.shape
    n = stop - start
    width = 1
    for c in range(classes):
        while units[:, c].sum() >= 1 << width:
            width += 1
    payloads = np.empty(classes, np.int32)
    if width * classes <= 31:
        rows.fill(packed, np.int32(0))
        for m in range(members):
            for c in range(classes):
                payloads[c] = units[m, c] << (c * width)
            best_payload(payload, logits[m, image], payloads, voted, best, start, stop)
            rows.add(packed, payload)
        mask = np.int32((1 << width) - 1)
        for c in range(classes):
            row, shift = votes[c, :n], np.int32(c * width)
            for i in range(n):
                row[i] = (packed[i] >> shift) & mask
        return
    for c in range(classes):
        payloads[c] = c
        rows.fill(votes[c, :n], np.int32(0))
    for m in range(members):
        best_payload(payload, logits[m, image], payloads, voted, best, start, stop)
        for c in voted:
            rows.add_where_equal(votes[c, :n], payload, np.int32(c), units[m, c])


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
                new, old, known, held = row[i], top[i], tied[i], label[i]
                equal = np.int32(1) if new == old else known
                tied[i] = np.int32(0) if new > old else equal
                label[i] = np.int32(c) if new > old else held
                top[i] = new if new > old else old
    count = 0
    for i in range(tied.size):
        count += tied[i]
    return count


@kernel
def break_ties(label, votes, top, tied, logits, units, spread, image, start, allowed):  # type: ignore[no-untyped-def]
    """Give each tied pixel to the tied class with the highest mean probability, the lowest id of equals.

    The probabilities are weighted and summed as whole numbers. Tied pixels are few: they are gathered first, so that
    the softmax runs over them alone.
    """
    members, _, classes, _ = logits.shape
    count = 0
    at = np.empty(label.size, np.int64)
    for i in range(label.size):
        at[count] = i
        count += tied[i]
    terms = np.empty((classes, count), np.float32)
    gathered = np.empty((classes, count), np.float32)
    total = np.empty(count, np.float32)
    peak = np.empty(count, np.float32)
    bits = np.empty(count, np.int32)
    power = bits.view(np.float32)
    means = np.zeros((classes, count), np.int64)
    for m in range(members):
        for c in range(classes):
            source, goal = logits[m, image, c], gathered[c]
            for k in range(count):
                goal[k] = source[start + at[k]]
        softmax_terms(terms, total, peak, bits, power, gathered, 0, count)
        for c in range(classes):
            rows.add_fixed_point(means[c], terms[c], total, np.int64(units[m, c]) * np.int64(spread[c]))
    for k in range(count):
        i = at[k]
        highest = np.int64(-1)
        for c in range(classes):
            if allowed[c] and votes[c, i] == top[i] and means[c, k] > highest:
                highest = means[c, k]
                label[i] = c


@kernel
def settle(votes, size, spread, gain, bias, least):  # type: ignore[no-untyped-def]
    """Strike out what misses its least count, then apply gain and bias, in place.

    Only where there is something to apply are the counts spread to the full range of units: a bias finer than one vote
    must not be rounded away.

    Args:
        votes: int32 (classes, >= size).
        size: pixels of the block.
        spread: int32 (classes,), what one unit becomes.
        gain: float64 (classes,), at most 1.
        bias: int32 (classes,), in units.
        least: int32 (classes,), in units.
    """
    for c in range(votes.shape[0]):
        row = votes[c, :size]
        if spread[c] != 1:
            for i in range(size):
                row[i] *= spread[c]
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
def _vote(logits, units, spread, gain, bias, least, voted, allowed, labels, ties):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    block = block_of(classes)
    votes = np.empty((classes, block), np.int32)
    best = np.empty(block, np.float32)
    packed = np.empty(block, np.int32)
    label = np.empty(block, np.int32)
    top = np.empty(block, np.int32)
    tied = np.empty(block, np.int32)
    for b in range(batch):
        ties[b] = 0
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            count_votes(votes, logits, b, units, voted, packed[:n], best[:n], label[:n], start, stop)
            settle(votes, n, spread, gain, bias, least)
            count = count_top(votes, allowed, top[:n], label[:n], tied[:n])
            if count > 0:
                ties[b] += count
                break_ties(label[:n], votes, top[:n], tied[:n], logits, units, spread, b, start, allowed)
            rows.narrow(labels[b, start:stop], label[:n])
