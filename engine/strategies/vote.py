"""vote: each member votes for its best class; a tie goes to the tied class with the higher mean probability.

Votes and the tie-break are summed in whole numbers, so the result cannot depend on the order of the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.kernels import rows
from engine.kernels.blocks import block_of, scratch
from engine.kernels.jit import kernel
from engine.kernels.registers import MOST_SLOTS, slots_of
from engine.kernels.voting import add_packed_votes, break_ties, count_top, count_votes, positions, settle, top_of_packed
from engine.strategies.task import Task

# The sum of one column of voting units: leaves room in int32 for a class bias, in int64 for the tie-break.
MOST_UNITS = 2**30
# Where the counts of all classes fit side by side into an int32, one addition a member counts for all classes.
PACKED_BITS = 31


class TieBreak(NamedTuple):
    """What a tie is decided by.

    Attributes:
        units: int32 (members, classes), the weights as whole numbers.
        spread: int32 (classes,), what one unit counts for.
        allowed: int64 (count,), the classes that may win, ascending.
    """

    units: NDArray[np.int32]
    spread: NDArray[np.int32]
    allowed: NDArray[np.int64]


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
    tie = TieBreak(units.astype(np.int32), spread.astype(np.int32), np.flatnonzero(allowed))
    width = int(units.sum(axis=0).max()).bit_length()
    block = block_of(classes, task.logits.shape[3])
    if plain and classes <= MOST_SLOTS and width * classes <= PACKED_BITS:
        shifts = (width * np.arange(classes)).astype(np.int32)
        sets = np.flatnonzero(voted), slots_of(int(voted.sum())), tie.allowed, slots_of(len(tie.allowed))
        work = scratch(3, block, dtype=np.int32)
        _vote_packed(task.logits, *sets, shifts, np.int32(2**width - 1), tie, work, task.labels, task.ties)
    else:
        votes, best = scratch(classes + 3, block, dtype=np.int32), scratch(block)
        settled = gain, bias, least
        _vote(task.logits, np.flatnonzero(voted), *settled, tie, votes, best, task.labels, task.ties)


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
def _vote_packed(logits, ids, slots, allowed, allowed_slots, shifts, mask, tie, work, labels, ties):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = work.shape[1]
    payloads = np.empty(classes, np.int32)
    for b in range(batch):
        ties[b] = 0
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            packed, label, tied = work[0, :n], work[1, :n], work[2, :n]
            rows.fill(packed, np.int32(0))
            for m in range(members):
                for c in range(classes):
                    payloads[c] = tie.units[m, c] << shifts[c]
                add_packed_votes(packed, logits[m, b], start, payloads, ids, slots)
            count = top_of_packed(packed, label, tied, shifts, mask, allowed, allowed_slots)
            if count > 0:
                ties[b] += count
                at = positions(tied, count)
                votes = np.empty((classes, count), np.int32)
                for c in range(classes):
                    for k in range(count):
                        votes[c, k] = (packed[at[k]] >> shifts[c]) & mask
                break_ties(label, at, votes, tie, logits, b, start)
            rows.narrow(labels[b, start : start + n], label)


@kernel
def _vote(logits, voted, gain, bias, least, tie, votes, best, labels, ties):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    block = best.size
    for b in range(batch):
        ties[b] = 0
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            top, label, tied = votes[classes, :n], votes[classes + 1, :n], votes[classes + 2, :n]
            count_votes(votes, logits, b, tie.units, voted, best[:n], label, start, start + n)
            settle(votes, n, tie.spread, gain, bias, least)
            count = count_top(votes, tie.allowed, top, label, tied)
            if count > 0:
                ties[b] += count
                at = positions(tied, count)
                held = np.empty((classes, count), np.int32)
                for c in range(classes):
                    for k in range(count):
                        held[c, k] = votes[c, at[k]]
                break_ties(label, at, held, tie, logits, b, start)
            rows.narrow(labels[b, start : start + n], label)
