"""staple: the most likely truth and the reliability of each member, estimated jointly from the label maps only.

S. K. Warfield, K. H. Zou, W. M. Wells: Simultaneous Truth and Performance Level Estimation (STAPLE), IEEE Transactions
on Medical Imaging 23(7), 2004; for several labels T. Rohlfing, D. B. Russakoff, C. R. Maurer, 2004. Each image is
fitted separately, so the result does not depend on batches.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.blocks import scratch
from engine.kernels.decode import SCORES, decide_block
from engine.kernels.exponential import exp_in_place
from engine.kernels.jit import kernel, part

MOST_ROUNDS = 100
# The fit has converged when no entry of any confusion matrix changes by more than this per iteration.
SETTLED = 1e-5
# A reliability of exactly 0 would exclude a class permanently.
LEAST = 1e-7
# Patterns of labels are numbered if fewer than this are possible.
MOST_NUMBERED = 2.0**62
# Multiplied by this, similar numbers differ in the middle bits (Knuth's multiplicative hashing).
SPREAD = 2654435761
# An entry of the hash table that no pattern has; the one image of scores of patterns.
EMPTY, ONLY = np.int64(-1), np.int64(0)


def staple(task: Task) -> None:
    """Score of a class = its posterior probability under the fitted reliabilities.

    A weight multiplies a member's log-likelihood, in units of the least weight above 0; members with weight 0 do not
    participate. Members choose among the classes not suppressed, unless there is a threshold or the stage is ``fused``;
    suppressed classes are then replaced afterwards.
    """
    rule = task.rule()
    weights = task.weights.mean(axis=1)
    taking_part = np.flatnonzero(weights > 0)
    exponents = weights[taking_part] / weights[taking_part].min()
    first = task.decoding.threshold is None and task.decoding.vote_stage == "members"
    voted = rule.allowed if first else np.ones(len(rule.allowed), np.bool_)
    decoded = *task.scratch(), rule, task.labels, task.kept
    _staple(task.logits, taking_part, exponents, np.flatnonzero(voted), _room(task, len(taking_part)), *decoded)


class Room(NamedTuple):
    """Scratch memory of one image; taken here, since a kernel that allocates compiles longer.

    Attributes:
        found: int32 (members, pixels), the members' labels.
        patterns: int32 (pixels, members), the labels of each pattern.
        counts: float64 (pixels,), pixels of each pattern.
        owner: int64 (pixels,), the pattern of each pixel.
        codes: int64 (pixels,), the number of each pattern.
        slots: int64 (a power of 2,), hash table of the patterns.
        belief: float64 (pixels, classes), the posterior of each pattern.
        flat: float64 (pixels * classes,), the same memory.
        prior: float64 (classes,).
        tables: float64 (3, members, classes, classes).
        decided: uint8 (pixels,), the class of each pattern.
        kept: float32 (1, classes, pixels), the decoded scores of each pattern, as those of the task.
    """

    found: NDArray[np.int32]
    patterns: NDArray[np.int32]
    counts: NDArray[np.float64]
    owner: NDArray[np.int64]
    codes: NDArray[np.int64]
    slots: NDArray[np.int64]
    belief: NDArray[np.float64]
    flat: NDArray[np.float64]
    prior: NDArray[np.float64]
    tables: NDArray[np.float64]
    decided: NDArray[np.uint8]
    kept: NDArray[np.float32]


def _room(task: Task, members: int) -> Room:
    classes, pixels = task.logits.shape[2:]
    belief = np.empty((pixels, classes))
    return Room(
        scratch(members, pixels, dtype=np.int32),
        scratch(pixels, members, dtype=np.int32),
        np.empty(pixels),
        np.empty(pixels, np.int64),
        np.empty(pixels, np.int64),
        np.empty(1 << (2 * pixels - 1).bit_length(), np.int64),
        belief,
        belief.reshape(-1),
        np.empty(classes),
        np.empty((3, members, classes, classes)),
        np.empty(pixels, np.uint8),
        np.empty((1, task.kept.shape[1], pixels), np.float32),
    )


@part
def label_image(logits, image, members, voted, found, best, label):  # type: ignore[no-untyped-def]
    """Write each member's labels of one image into ``found``, int32 (members, pixels)."""
    pixels, block = logits.shape[3], best.size
    for k in range(members.size):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            own, choice = best[: stop - start], label[: stop - start]
            rows.copy(own, logits[members[k], image, voted[0], start:stop])
            rows.fill(choice, np.int32(voted[0]))
            for j in range(1, voted.size):
                rows.take_greater(own, choice, logits[members[k], image, voted[j], start:stop], np.int32(voted[j]))
            rows.copy(found[k, start:stop], choice)


@part
def gather_patterns(found, classes, patterns, counts, owner, codes, table):  # type: ignore[no-untyped-def]
    """Merge pixels with the same labels from all members: they share one belief, and there are few such patterns.

    Args:
        found: int32 (members, pixels), the members' labels.
        classes: number of classes.
        patterns: int32 (pixels, members), the result: labels of each pattern, in its first rows.
        counts: float64 (pixels,), the result: pixels of each pattern.
        owner: int64 (pixels,), the result: the pattern of each pixel.
        codes: int64 (pixels,) scratch.
        table: int64 (a power of 2, at least 2 * pixels) scratch.

    Returns:
        The number of patterns.
    """
    members, pixels = found.shape
    most = 1.0
    for _ in range(members):
        most *= classes
    rows.fill(table, EMPTY)
    size = table.size
    count = 0
    numbered = most < MOST_NUMBERED
    for i in range(pixels):
        pattern, code, at = -1, 0, 0
        # Too many members to number the patterns: every pixel is one.
        if numbered:
            for k in range(members):
                code = code * classes + int(found[k, i])
            at = ((code * SPREAD) >> 20) & (size - 1)
            while table[at] >= 0 and codes[table[at]] != code:
                at = (at + 1) & (size - 1)
            pattern = table[at]
        if pattern < 0:
            pattern = count
            table[at] = pattern
            codes[pattern] = code
            counts[pattern] = 0.0
            for k in range(members):
                patterns[pattern, k] = found[k, i]
            count += 1
        counts[pattern] += 1.0
        owner[i] = pattern
    return count


@part
def start_from_majority(said, exponents, belief):  # type: ignore[no-untyped-def]
    """Set float64 (patterns, classes) ``belief`` to the shares of the votes."""
    total = 0.0
    for k in range(exponents.size):
        total += exponents[k]
    for i in range(said.shape[0]):
        for c in range(belief.shape[1]):
            belief[i, c] = 0.0
        for k in range(exponents.size):
            belief[i, said[i, k]] += exponents[k] / total


@part
def reliabilities(said, counts, belief, sums, tables):  # type: ignore[no-untyped-def]
    """Set ``tables[k, l, c]`` to the probability that member k says l where the truth is c; return the largest step.

    ``sums`` is float64 scratch of the same shape (members, classes, classes).
    """
    members, classes, _ = tables.shape
    for k in range(members):
        for label in range(classes):
            for c in range(classes):
                sums[k, label, c] = 0.0
    for i in range(said.shape[0]):
        for k in range(members):
            row = sums[k, said[i, k]]
            for c in range(classes):
                row[c] += counts[i] * belief[i, c]
    moved = 0.0
    for k in range(members):
        for c in range(classes):
            total = 0.0
            for label in range(classes):
                total += sums[k, label, c]
            for label in range(classes):
                value = max(sums[k, label, c] / total, LEAST) if total > 0 else 1.0 / classes
                moved = max(moved, abs(value - tables[k, label, c]))
                tables[k, label, c] = value
    return moved


@part
def beliefs(said, exponents, tables, logs, prior, belief, flat):  # type: ignore[no-untyped-def]
    """Set ``belief`` to the posterior of each class given the members' labels and reliabilities.

    ``logs`` is scratch of the shape of ``tables``; ``flat`` is the memory of ``belief`` as one row.
    """
    members, classes, _ = tables.shape
    for k in range(members):
        for label in range(classes):
            for c in range(classes):
                logs[k, label, c] = math.log(tables[k, label, c]) * exponents[k]
    patterns = said.shape[0]
    for i in range(patterns):
        own = belief[i]
        for c in range(classes):
            own[c] = prior[c]
        for k in range(members):
            row = logs[k, said[i, k]]
            for c in range(classes):
                own[c] += row[c]
        peak = own[0]
        for c in range(1, classes):
            peak = max(peak, own[c])
        for c in range(classes):
            own[c] -= peak
    exp_in_place(flat)
    for i in range(patterns):
        own = belief[i]
        total = 0.0
        for c in range(classes):
            total += own[c]
        for c in range(classes):
            own[c] /= total


@part
def fit(said, counts, exponents, belief, flat, prior, tables):  # type: ignore[no-untyped-def]
    """Set float64 (patterns, classes) ``belief`` to the fitted posterior.

    ``flat`` is its memory as one row; float64 (classes,) ``prior`` and the three ``tables`` are scratch.
    """
    patterns, classes = belief.shape
    start_from_majority(said, exponents, belief)
    pixels = 0.0
    for c in range(classes):
        prior[c] = 0.0
    for i in range(patterns):
        pixels += counts[i]
        for c in range(classes):
            prior[c] += counts[i] * belief[i, c]
    for c in range(classes):
        prior[c] = math.log(max(prior[c] / pixels, LEAST))
    sums, known, logs = tables[0], tables[1], tables[2]
    for k in range(exponents.size):
        for label in range(classes):
            for c in range(classes):
                known[k, label, c] = 0.0
    for _ in range(MOST_ROUNDS):
        if reliabilities(said, counts, belief, sums, known) < SETTLED:
            break
        beliefs(said, exponents, known, logs, prior, belief, flat)


@kernel
def _staple(logits, members, exponents, voted, room, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    found, patterns, counts, owner, decided = room.found, room.patterns, room.counts, room.owner, room.decided
    block = best.size
    for b in range(batch):
        label_image(logits, b, members, voted, found, best, label)
        count = gather_patterns(found, classes, patterns, counts, owner, room.codes, room.slots)
        belief = room.belief[:count]
        fit(patterns[:count], counts, exponents, belief, room.flat[: count * classes], room.prior, room.tables)
        for start in range(0, count, block):
            n = min(block, count - start)
            for c in range(classes):
                for i in range(n):
                    scores[c, i] = np.float32(belief[start + i, c])
            part_of = decided[start : start + n]
            decide_block(part_of, room.kept, ONLY, start, scores, rule, SCORES, best[:n], label[:n])
        for i in range(pixels):
            labels[b, i] = decided[owner[i]]
        for c in range(kept.shape[1]):
            for i in range(pixels):
                kept[b, c, i] = room.kept[0, c, owner[i]]
