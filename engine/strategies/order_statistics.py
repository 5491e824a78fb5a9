"""median-prob and trimmed-mean: averages a class at a time that a broken member cannot drag away."""

from __future__ import annotations

import numpy as np

from engine.kernels.blocks import block_of
from engine.kernels.decode import argmax_block
from engine.kernels.jit import kernel
from engine.kernels.softmax import probabilities
from engine.strategies.task import Task
from engine.strategies.vote import voting_units

# Share of the weight that trimmed-mean drops at each end: of four equal members, the lowest and the highest.
TRIM = 0.25


def median_prob(task: Task) -> None:
    """Score of a class = weighted median over members of its probability; of an even number, the middle of the two."""
    _fuse(task, 0.5)


def trimmed_mean(task: Task) -> None:
    """Score of a class = weighted mean over members of its probability without a quarter of the weight at each end.

    A member that straddles the border counts with the share of its weight that lies inside.
    """
    _fuse(task, TRIM)


def _fuse(task: Task, trim: float) -> None:
    units = np.stack([voting_units(column) for column in task.weights.T], axis=1).astype(np.float64)
    _middle(task.logits, units, trim, task.rule(), task.labels)


@kernel
def middle_mean(values, weights, order, count, trim):  # type: ignore[no-untyped-def]
    """Return the mean of the middle: what lies between the shares ``trim`` and ``1 - trim`` of the sorted weight.

    Args:
        values: float32 (>= count,).
        weights: float64 (>= count,), whole numbers, at least one above 0.
        order: int64 (>= count,) scratch.
        count: number of members.
        trim: share of the weight dropped at each end; 0.5 gives the median.
    """
    total = 0.0
    for m in range(count):
        total += weights[m]
        at = m
        while at > 0 and values[order[at - 1]] > values[m]:
            order[at] = order[at - 1]
            at -= 1
        order[at] = m
    low, high = trim * total, total - trim * total
    below = 0.0
    summed = 0.0
    for k in range(count):
        m = order[k]
        above = below + weights[m]
        if low == high:
            # The median: the member whose weight covers the middle, or the two that meet there.
            if weights[m] > 0 and below <= low <= above:
                summed += np.float64(values[m]) * (1.0 if below < low < above else 0.5)
        else:
            inside = min(above, high) - max(below, low)
            if inside > 0:
                summed += np.float64(values[m]) * inside / (high - low)
        below = above
    return np.float32(summed)


@kernel
def _middle(logits, units, trim, rule, labels):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = block_of(classes)
    scores = np.empty((classes, block), np.float32)
    terms = np.empty((members, classes, block), np.float32)
    total = np.empty(block, np.float32)
    best = np.empty(block, np.float32)
    label = np.empty(block, np.int32)
    bits = np.empty(block, np.int32)
    power = bits.view(np.float32)
    values = np.empty(members, np.float32)
    weights = np.empty(members, np.float64)
    order = np.empty(members, np.int64)
    for b in range(batch):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            for m in range(members):
                probabilities(terms[m], total[:n], best[:n], bits[:n], power[:n], logits[m, b], start, stop)
            for c in range(classes):
                for m in range(members):
                    weights[m] = units[m, c]
                for i in range(n):
                    for m in range(members):
                        values[m] = terms[m, c, i]
                    scores[c, i] = middle_mean(values, weights, order, members, trim)
            argmax_block(labels[b, start:stop], scores, rule, False, best[:n], label[:n])
