"""Candidate ensembles against the truth: sum, argmax and counting in one pass over sampled pixels.

Pixels are in segments of one true class each, so a row of the confusion matrix is a histogram of labels. Scores are
integers: sums do not depend on the order of the members, and equal scores are true ties (the lowest class wins).

Memory is laid out block after block, a block being up to :data:`BLOCK` pixels of one segment: the block of pixels
start..stop of an array with R rows begins at start * R and contains row after row. So a pass over all candidates of a
block reads one stretch of memory, which was measured twice as fast as rows of all pixels.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import kernel, part

# Pixels per block, so that sums, labels and the rows of a few members stay in the first-level caches.
BLOCK = 1024


@part
def take_greater_sum(best, label, base, row, candidate):  # type: ignore[no-untyped-def]
    """Where ``base + row`` beats ``best``, put it there and ``candidate`` into ``label``; all int32."""
    for i in range(best.size):
        new, old, known = np.int32(base[i] + row[i]), best[i], label[i]
        label[i] = candidate if new > old else known
        best[i] = new if new > old else old


@part
def add_times(row, term, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * term``; all int32."""
    for i in range(row.size):
        row[i] += np.int32(factor * term[i])


@part
def count_labels(label, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts``, int32 (classes,), how often each label occurs in an int32 row."""
    left = label.size
    for c in range(counts.size - 1):
        found = 0
        for i in range(label.size):
            found += 1 if label[i] == c else 0
        counts[c] += found
        left -= found
    counts[counts.size - 1] += left


@kernel
def pack(table, packed, first, starts):  # type: ignore[no-untyped-def]
    """Insert one member's scores into those of all members.

    Args:
        table: (classes, pixels).
        packed: flat, (rows * pixels,), of the same type; written to.
        first: index of the member's first row in it.
        starts: int64 (segments + 1,), start of each segment, and the end.
    """
    classes, pixels = table.shape
    height = packed.size // max(pixels, 1)
    for s in range(starts.size - 1):
        for start in range(starts[s], starts[s + 1], BLOCK):
            stop = min(start + BLOCK, starts[s + 1])
            n = stop - start
            for c in range(classes):
                at = start * height + (first + c) * n
                rows.copy(packed[at : at + n], table[c, start:stop])


@kernel
def add_member(base, packed, first, factor, starts, classes):  # type: ignore[no-untyped-def]
    """Add ``factor`` times a member to the sum ``base``, flat int32 (classes * pixels,)."""
    height = packed.size // max(base.size // classes, 1)
    for s in range(starts.size - 1):
        for start in range(starts[s], starts[s + 1], BLOCK):
            n = min(BLOCK, starts[s + 1] - start)
            at = start * height + first * n
            own = base[start * classes : (start + n) * classes]
            add_times(own, packed[at : at + n * classes], np.int32(factor))


@kernel
def count_additions(base, packed, starts, counts):  # type: ignore[no-untyped-def]
    """Count the labels of ``base`` plus each single member.

    Args:
        base: int32 (classes * pixels,), the sum so far, in blocks.
        packed: int16 or int32 (members * classes * pixels,), the members' scores, in blocks.
        starts: int64 (segments + 1,).
        counts: int32 (members, segments, classes), added to.
    """
    members, _, classes = counts.shape
    best = np.empty(BLOCK, np.int32)
    label = np.empty(BLOCK, np.int32)
    for s in range(starts.size - 1):
        for start in range(starts[s], starts[s + 1], BLOCK):
            n = min(BLOCK, starts[s + 1] - start)
            for m in range(members):
                rows.fill(best[:n], np.int32(-(2**31)))
                rows.fill(label[:n], np.int32(0))
                for c in range(classes):
                    own = start * classes + c * n
                    at = start * members * classes + (m * classes + c) * n
                    take_greater_sum(best[:n], label[:n], base[own : own + n], packed[at : at + n], np.int32(c))
                count_labels(label[:n], counts[m, s])


@kernel
def count_sets(packed, sets, starts, counts):  # type: ignore[no-untyped-def]
    """Count the labels of each multiset of members; cheap if consecutive sets differ in few members.

    Args:
        packed: int16 or int32 (members * classes * pixels,), the members' scores, in blocks.
        sets: int32 (candidates, members), how often it contains each member.
        starts: int64 (segments + 1,).
        counts: int32 (candidates, segments, classes), added to.
    """
    candidates, members = sets.shape
    classes = counts.shape[2]
    best = np.empty(BLOCK, np.int32)
    label = np.empty(BLOCK, np.int32)
    sums = np.empty(classes * BLOCK, np.int32)
    zeros = np.zeros(BLOCK, np.int32)
    for s in range(starts.size - 1):
        for start in range(starts[s], starts[s + 1], BLOCK):
            n = min(BLOCK, starts[s + 1] - start)
            rows.fill(sums, np.int32(0))
            for k in range(candidates):
                for m in range(members):
                    change = sets[k, m] - (sets[k - 1, m] if k > 0 else np.int32(0))
                    if change != 0:
                        at = (start * members + m * n) * classes
                        add_times(sums[: n * classes], packed[at : at + n * classes], np.int32(change))
                rows.fill(best[:n], np.int32(-(2**31)))
                rows.fill(label[:n], np.int32(0))
                for c in range(classes):
                    take_greater_sum(best[:n], label[:n], sums[c * n : c * n + n], zeros[:n], np.int32(c))
                count_labels(label[:n], counts[k, s])
