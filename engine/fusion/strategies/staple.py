"""staple: the most likely truth and the reliability of each member, estimated jointly from the label maps only.

S. K. Warfield, K. H. Zou, W. M. Wells: Simultaneous Truth and Performance Level Estimation (STAPLE), IEEE Transactions
on Medical Imaging 23(7), 2004; for several labels T. Rohlfing, D. B. Russakoff, C. R. Maurer, 2004. Each image is
fitted separately, so the result does not depend on batches.
"""

from __future__ import annotations

import math

import numpy as np

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.blocks import scratch
from engine.kernels.decode import decide_block
from engine.kernels.exponential import exp_in_place
from engine.kernels.jit import kernel

MOST_ROUNDS = 100
# The fit has converged when no entry of any confusion matrix changes by more than this per iteration.
SETTLED = 1e-5
# A reliability of exactly 0 would exclude a class permanently.
LEAST = 1e-7
# Patterns of labels are numbered if fewer than this are possible.
MOST_NUMBERED = 2.0**62
# Multiplied by this, similar numbers differ in the middle bits (Knuth's multiplicative hashing).
SPREAD = 2654435761


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
    pixels = task.logits.shape[3]
    scores, best, label = task.scratch()
    found = scratch(len(taking_part), pixels, dtype=np.int32)
    patterns = scratch(pixels, len(taking_part), dtype=np.int32)
    decoded = rule, task.labels, task.kept
    _staple(task.logits, taking_part, exponents, np.flatnonzero(voted), found, patterns, scores, best, label, *decoded)


@kernel
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


@kernel
def gather_patterns(found, classes, patterns, counts, owner):  # type: ignore[no-untyped-def]
    """Merge pixels with the same labels from all members: they share one belief, and there are few such patterns.

    Args:
        found: int32 (members, pixels), the members' labels.
        classes: number of classes.
        patterns: int32 (pixels, members), the result: labels of each pattern, in its first rows.
        counts: float64 (pixels,), the result: pixels of each pattern.
        owner: int64 (pixels,), the result: the pattern of each pixel.

    Returns:
        The number of patterns.
    """
    members, pixels = found.shape
    most = 1.0
    for _ in range(members):
        most *= classes
    size = 1
    while size < 2 * pixels:
        size *= 2
    table = np.full(size, -1, np.int64)
    codes = np.empty(pixels, np.int64)
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


@kernel
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


@kernel
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


@kernel
def beliefs(said, exponents, tables, logs, prior, belief):  # type: ignore[no-untyped-def]
    """Set ``belief`` to the posterior of each class given the members' labels and reliabilities.

    ``logs`` is scratch of the shape of ``tables``.
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
    exp_in_place(belief.reshape(patterns * classes))
    for i in range(patterns):
        own = belief[i]
        total = 0.0
        for c in range(classes):
            total += own[c]
        for c in range(classes):
            own[c] /= total


@kernel
def fit(said, counts, exponents, belief, tables):  # type: ignore[no-untyped-def]
    """Set float64 (patterns, classes) ``belief`` to the fitted posterior; ``tables`` is scratch of three tables."""
    patterns, classes = belief.shape
    start_from_majority(said, exponents, belief)
    prior, pixels = np.empty(classes, np.float64), 0.0
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
        beliefs(said, exponents, known, logs, prior, belief)


@kernel
def _staple(logits, members, exponents, voted, found, patterns, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    counts = np.empty(pixels, np.float64)
    owner = np.empty(pixels, np.int64)
    decided = np.empty(pixels, np.uint8)
    kept_classes = kept.shape[1]
    kept_patterns = np.empty((1, kept_classes, pixels), np.float32)
    tables = np.empty((3, members.size, classes, classes), np.float64)
    held = np.empty((pixels, classes), np.float64)
    block = best.size
    for b in range(batch):
        label_image(logits, b, members, voted, found, best, label)
        count = gather_patterns(found, classes, patterns, counts, owner)
        belief = held[:count]
        fit(patterns[:count], counts, exponents, belief, tables)
        for start in range(0, count, block):
            n = min(block, count - start)
            for c in range(classes):
                for i in range(n):
                    scores[c, i] = np.float32(belief[start + i, c])
            decide_block(decided[start : start + n], kept_patterns, 0, start, scores, rule, False, best[:n], label[:n])
        for i in range(pixels):
            labels[b, i] = decided[owner[i]]
        for c in range(kept_classes):
            for i in range(pixels):
                kept[b, c, i] = kept_patterns[0, c, owner[i]]
