"""vote: each member votes for its best class; a tie goes to the tied class with the higher mean probability.

Votes and the tie-break are summed as integers, so the result cannot depend on the order of the members.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.blocks import block_of, scratch
from engine.kernels.decode import NEVER
from engine.kernels.jit import kernel
from engine.kernels.packed_votes import (
    add_counted_softmax,
    add_packed_votes,
    gather,
    gather_classes,
    pick_tied,
    positions,
    top_of_packed,
)
from engine.kernels.registers import MOST_SLOTS, slots_of
from engine.kernels.voting import STRUCK, break_ties, count_top, count_votes, settle

# The sum of one column of voting units: leaves room in int32 for a class bias, in int64 for the tie-break.
MOST_UNITS = 2**30
# If the counts of all classes fit side by side into an int32, one addition per member counts for all classes.
PACKED_BITS = 31
# A count of more bits leaves too few for the probabilities that break ties, which are also summed in an int32.
MOST_WIDTH = 10
# Number of pixels in the widest registers.
PACK = 16


class PackedPlan(NamedTuple):
    """How vote counts are packed side by side in an int32, and how ties are decided.

    Attributes:
        units: int32 (members, classes), the weights as integers.
        payloads: int32 (members, classes), what a vote adds.
        shifts: int32 (classes,), first bit of each class's count.
        mask: as many one bits as a count has.
        scale: factor on probabilities before they are rounded down and summed.
        classes: int64 (classes,), 0, 1, ...
        voted: int64 (count,), the classes a member may vote for, ascending.
        allowed: int64 (count,), the classes that may win, ascending.
    """

    units: NDArray[np.int32]
    payloads: NDArray[np.int32]
    shifts: NDArray[np.int32]
    mask: np.int32
    scale: np.float32
    classes: NDArray[np.int64]
    voted: NDArray[np.int64]
    allowed: NDArray[np.int64]


class TieBreak(NamedTuple):
    """How a tie is decided.

    Attributes:
        units: int32 (members, classes), the weights as integers.
        spread: int32 (classes,), value of one unit.
        allowed: int64 (count,), the classes that may win, ascending.
    """

    units: NDArray[np.int32]
    spread: NDArray[np.int32]
    allowed: NDArray[np.int64]


def vote(task: Task) -> None:
    """Score of a class = share of the votes; a member votes for its best class with its weight.

    With the stage ``members`` (and no threshold) a member votes among the classes not suppressed, otherwise among all,
    and suppressed classes are replaced afterwards. ``task.ties`` counts the pixels decided by the tie-break.
    """
    classes = task.logits.shape[2]
    decoding, rule = task.decoding, task.rule()
    units = np.stack([voting_units(column) for column in task.weights.T], axis=1)
    # Equal ratios everywhere: counts can stay small, which is faster, unless something finer is added.
    plain = not decoding.bias and not decoding.prior and decoding.threshold is None and (units[:, 0] == units.T).all()
    spread = np.ones(classes, np.int64) if plain else MOST_UNITS // units.sum(axis=0)
    total = units.sum(axis=0) * spread
    # Gains above 1 could overflow int32: dividing all scores by the greatest changes no label.
    shrink = max(1.0, float(rule.gain.max()))
    gain = rule.gain.astype(np.float64) / shrink
    raised = np.rint(rule.bias.astype(np.float64) * total / shrink)
    bias = np.clip(raised, 1 - MOST_UNITS, MOST_UNITS - 1).astype(np.int32)
    least = np.ceil((decoding.threshold or 0.0) * total).astype(np.int32)
    least[rule.allowed] = 0
    everything = np.ones(classes, np.bool_)
    voted = rule.allowed if decoding.threshold is None and decoding.vote_stage == "members" else everything
    allowed = rule.allowed if decoding.threshold is None else everything
    block = block_of(classes, task.logits.shape[3])
    at = np.empty(block + PACK, np.int64)
    if task.kept.shape[1]:
        inverse = (1.0 / total).astype(np.float32)
        tie = TieBreak(units.astype(np.int32), spread.astype(np.int32), np.flatnonzero(allowed))
        counts, top = scratch(classes + 1, block, dtype=np.int32), scratch(block)
        _vote_shares(task.logits, np.flatnonzero(voted), gain, bias, least, tie, inverse, counts, top, task.kept)
    width = int(units.sum(axis=0).max()).bit_length()
    if plain and classes <= MOST_SLOTS and width <= MOST_WIDTH and width * classes <= PACKED_BITS:
        plan = packed_plan(units.astype(np.int32), width, np.flatnonzero(voted), np.flatnonzero(allowed))
        slots = slots_of(len(plan.voted)), slots_of(len(plan.allowed)), slots_of(classes)
        work, means = scratch(4, block + PACK, dtype=np.int32), scratch(classes, block + PACK, dtype=np.int32)
        gathered = scratch(classes, block + PACK)
        _vote_packed(task.logits, plan, slots, work, at, gathered, means, task.labels, task.ties)
    else:
        tie = TieBreak(units.astype(np.int32), spread.astype(np.int32), np.flatnonzero(allowed))
        votes, best = scratch(classes + 3, block, dtype=np.int32), scratch(block)
        _vote(task.logits, np.flatnonzero(voted), gain, bias, least, tie, votes, best, at, task.labels, task.ties)


def packed_plan(
    units: NDArray[np.int32], width: int, voted: NDArray[np.int64], allowed: NDArray[np.int64]
) -> PackedPlan:
    """Return how votes of weights ``units``, int32 (members, classes), are packed into ``width`` bits a class."""
    classes = units.shape[1]
    shifts = (width * np.arange(classes)).astype(np.int32)
    return PackedPlan(
        units,
        units << shifts,
        shifts,
        np.int32(2**width - 1),
        np.float32(2.0 ** (30 - width)),
        np.arange(classes),
        voted,
        allowed,
    )


def voting_units(weights: Sequence[float] | NDArray[np.float64], most: int = MOST_UNITS) -> NDArray[np.int64]:
    """Return integers in the ratio of the weights, so that sums of votes are exact and ties are true ties.

    Args:
        weights: (members,), not negative, summing to 1. Ratios of integers with a sum up to 100,000 (such as
            1/6 and 2/6, though neither is a float) are recovered exactly; finer ones are rounded to their sum / most.
        most: maximum of their sum.

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
def _vote_packed(logits, plan, slots, work, at, gathered, means, labels, ties):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = work.shape[1] - PACK
    voted_slots, allowed_slots, class_slots = slots
    for b in range(batch):
        ties[b] = 0
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            packed, label, tied = work[0, :n], work[1, :n], work[2, :n]
            rows.fill(packed, np.int32(0))
            for m in range(members):
                add_packed_votes(packed, logits[m, b], start, plan.payloads[m], plan.voted, voted_slots)
            count = top_of_packed(packed, label, tied, plan.shifts, plan.mask, plan.allowed, allowed_slots)
            if count > 0:
                ties[b] += count
                positions(at, tied)
                # Full packs of pixels: surplus slots repeat the first one.
                whole = -(-count // PACK) * PACK
                for k in range(count, whole):
                    at[k] = at[0]
                where, words, choice = at[:whole], work[2, :whole], work[3, :whole]
                for c in range(classes):
                    rows.fill(means[c, :whole], np.int32(0))
                for m in range(members):
                    gather_classes(gathered, logits[m, b], start, where, plan.classes, class_slots)
                    add_counted_softmax(means, gathered, whole, plan.units[m], plan.scale, plan.classes, class_slots)
                gather(words, packed, where)
                pick_tied(choice, words, means, plan.shifts, plan.mask, plan.allowed, allowed_slots)
                for k in range(count):
                    label[where[k]] = choice[k]
            rows.narrow(labels[b, start : start + n], label)


@kernel
def _vote(logits, voted, gain, bias, least, tie, votes, best, at, labels, ties):  # type: ignore[no-untyped-def]
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
                positions(at, tied)
                held = np.empty((classes, count), np.int32)
                for c in range(classes):
                    gather(held[c], votes[c], at[:count])
                break_ties(label, at[:count], held, tie, logits, b, start)
            rows.narrow(labels[b, start : start + n], label)


@kernel
def _vote_shares(logits, voted, gain, bias, least, tie, inverse, votes, best, kept):  # type: ignore[no-untyped-def]
    """Set float32 (batch, classes, pixels) ``kept`` to the shares of the votes, decoded as the labels are."""
    _, batch, classes, pixels = logits.shape
    block = best.size
    for b in range(batch):
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            count_votes(votes, logits, b, tie.units, voted, best[:n], votes[classes, :n], start, start + n)
            settle(votes, n, tie.spread, gain, bias, least)
            for c in range(classes):
                rows.fill(kept[b, c, start : start + n], NEVER)
            for c in tie.allowed:
                rows.set_shares(kept[b, c, start : start + n], votes[c, :n], inverse[c], STRUCK)
