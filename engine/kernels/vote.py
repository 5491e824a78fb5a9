"""vote: each member votes for its best class; a tie goes to the tied class with the higher mean probability.

Votes and the tie-break are summed in whole numbers, so the result cannot depend on the order of the members.
"""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import BLOCK, kernel
from engine.kernels.mean_prob import softmax_terms


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
def vote(logits, units, bias_units, voted, allowed, labels, ties):  # type: ignore[no-untyped-def]
    """Fuse and decode a batch in one pass.

    Args:
        logits: float32 (members, batch, classes, pixels), C-contiguous.
        units: int32 (members, classes), the weights as whole numbers; a column sums to at most 2**30.
        bias_units: int32 (classes,), the class bias in the same units.
        voted: bool (classes,), the classes a member may vote for.
        allowed: bool (classes,), the classes the result may hold.
        labels: uint8 (batch, pixels), the result.
        ties: int64 (batch,), the result: pixels that the tie-break decided.
    """
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
                rows.fill(votes[c, :n], bias_units[c])
            for m in range(members):
                cast_votes(votes, logits[m, b], units[m], voted, best[:n], label[:n], start, stop)
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
