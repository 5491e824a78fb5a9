"""staple: the most likely truth and the reliability of each member, learned together from the label maps alone.

S. K. Warfield, K. H. Zou, W. M. Wells: Simultaneous Truth and Performance Level Estimation (STAPLE), IEEE Transactions
on Medical Imaging 23(7), 2004; for several labels T. Rohlfing, D. B. Russakoff, C. R. Maurer, 2004. Each image is
fitted by itself, so the result does not depend on batches.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.blocks import block_of
from engine.kernels.decode import argmax_block
from engine.kernels.jit import kernel
from engine.strategies.task import Task

MOST_ROUNDS = 100
# The fit has settled when no entry of any confusion matrix moves by more than this in a round.
SETTLED = 1e-5
# A reliability of exactly 0 would silence a class for good.
LEAST = 1e-7


def staple(task: Task) -> None:
    """Score of a class = its posterior probability under the fitted reliabilities.

    A weight multiplies a member's log-likelihood, in units of the least weight above 0; members with weight 0 take no
    part. Members label among the classes that are not suppressed, unless there is a threshold.
    """
    rule = task.rule()
    weights = task.weights.mean(axis=1)
    taking_part = np.flatnonzero(weights > 0)
    exponents = weights[taking_part] / weights[taking_part].min()
    voted = rule.allowed if task.decoding.threshold is None else np.ones(len(rule.allowed), np.bool_)
    _staple(task.logits, taking_part, exponents, voted, rule, task.labels)


@kernel
def label_image(logits, image, members, voted, found, best, label):  # type: ignore[no-untyped-def]
    """Write each member's labels of one image into ``found``, int32 (members, pixels)."""
    pixels = logits.shape[3]
    block = best.size
    first = 0
    while not voted[first]:
        first += 1
    for k in range(members.size):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            rows.copy(best[:n], logits[members[k], image, first, start:stop])
            rows.fill(label[:n], np.int32(first))
            for c in range(first + 1, voted.size):
                if voted[c]:
                    rows.take_greater(best[:n], label[:n], logits[members[k], image, c, start:stop], np.int32(c))
            rows.copy(found[k, start:stop], label[:n])


@kernel
def gather_patterns(found, classes, patterns, counts, owner):  # type: ignore[no-untyped-def]
    """Merge pixels on which all members say the same: they share one belief, and there are few such patterns.

    Args:
        found: int32 (members, pixels), the members' labels.
        classes: number of classes.
        patterns: int32 (members, pixels), the result: labels of each pattern, in its first columns.
        counts: float64 (pixels,), the result: pixels of each pattern.
        owner: int64 (pixels,), the result: the pattern of each pixel.

    Returns:
        The number of patterns.
    """
    members, pixels = found.shape
    if members * np.log2(classes) > 62:
        # Too many members to number the patterns: every pixel is one.
        for i in range(pixels):
            owner[i] = i
            counts[i] = 1.0
        patterns[:] = found
        return pixels
    codes = np.zeros(pixels, np.int64)
    for k in range(members):
        for i in range(pixels):
            codes[i] = codes[i] * classes + found[k, i]
    order = np.argsort(codes)
    last = -1
    for at in range(pixels):
        i = order[at]
        if at == 0 or codes[i] != codes[order[at - 1]]:
            last += 1
            counts[last] = 0.0
            for k in range(members):
                patterns[k, last] = found[k, i]
        counts[last] += 1.0
        owner[i] = last
    return last + 1


@kernel
def start_from_majority(found, exponents, belief):  # type: ignore[no-untyped-def]
    """Set float64 (classes, patterns) ``belief`` to the shares of the votes."""
    total = exponents.sum()
    belief[:] = 0.0
    for k in range(found.shape[0]):
        for i in range(found.shape[1]):
            belief[found[k, i], i] += exponents[k] / total


@kernel
def reliabilities(found, counts, belief, tables):  # type: ignore[no-untyped-def]
    """Set ``tables[k, c, l]`` to the probability that member k says l where the truth is c; return the largest move."""
    members, classes, _ = tables.shape
    moved = 0.0
    sums = np.empty((classes, classes), np.float64)
    for k in range(members):
        sums[:] = 0.0
        for i in range(found.shape[1]):
            for c in range(classes):
                sums[c, found[k, i]] += counts[i] * belief[c, i]
        for c in range(classes):
            total = sums[c].sum()
            for said in range(classes):
                value = max(sums[c, said] / total, LEAST) if total > 0 else 1.0 / classes
                moved = max(moved, abs(value - tables[k, c, said]))
                tables[k, c, said] = value
    return moved


@kernel
def beliefs(found, exponents, tables, prior, belief):  # type: ignore[no-untyped-def]
    """Set ``belief`` to the posterior of each class given the members' labels and reliabilities."""
    members, classes, _ = tables.shape
    logs = np.log(tables)
    for k in range(members):
        logs[k] *= exponents[k]
    for i in range(found.shape[1]):
        peak = -np.inf
        for c in range(classes):
            value = prior[c]
            for k in range(members):
                value += logs[k, c, found[k, i]]
            belief[c, i] = value
            peak = max(peak, value)
        total = 0.0
        for c in range(classes):
            belief[c, i] = np.exp(belief[c, i] - peak)
            total += belief[c, i]
        for c in range(classes):
            belief[c, i] /= total


@kernel
def _staple(logits, members, exponents, voted, rule, labels):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    block = block_of(classes)
    found = np.empty((members.size, pixels), np.int32)
    held = np.empty((members.size, pixels), np.int32)
    weight = np.empty(pixels, np.float64)
    owner = np.empty(pixels, np.int64)
    tables = np.empty((members.size, classes, classes), np.float64)
    prior = np.empty(classes, np.float64)
    scores = np.empty((classes, block), np.float32)
    best = np.empty(block, np.float32)
    label = np.empty(block, np.int32)
    for b in range(batch):
        label_image(logits, b, members, voted, found, best, label)
        count = gather_patterns(found, classes, held, weight, owner)
        patterns, counts = held[:, :count].copy(), weight[:count]
        belief = np.empty((classes, count), np.float64)
        start_from_majority(patterns, exponents, belief)
        for c in range(classes):
            prior[c] = np.log(max((belief[c] * counts).sum() / pixels, LEAST))
        tables[:] = 0.0
        for _ in range(MOST_ROUNDS):
            if reliabilities(patterns, counts, belief, tables) < SETTLED:
                break
            beliefs(patterns, exponents, tables, prior, belief)
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            for c in range(classes):
                for i in range(n):
                    scores[c, i] = belief[c, owner[start + i]]
            argmax_block(labels[b, start:stop], scores, rule, False, best[:n], label[:n])
