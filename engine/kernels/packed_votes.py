"""Votes with the counts of all classes side by side in one int32: one addition per member counts for every class."""

from __future__ import annotations

import numpy as np

from engine.kernels.exponential import exp_of
from engine.kernels.jit import part
from engine.kernels.registers import get, load, put, registers, rows_of, store

ZERO = np.float32(0.0)
STRETCH = 8


@part
def add_packed_votes(packed, image, start, payloads, ids, slots):  # type: ignore[no-untyped-def]
    """Add a member's votes: the payload of its best class among those voted for, pixel by pixel.

    Args:
        packed: int32 (pixels,), counts of all classes side by side; added to.
        image: float32 (classes, all pixels), the member's logits.
        start: first pixel.
        payloads: int32 (classes,), the number a vote for each adds.
        ids: int64 (count,), the classes a member may vote for, ascending.
        slots: a tuple as long as ``ids``.
    """
    logit = rows_of(image, ids, start, slots)
    payload = registers(slots, np.int32(0))
    for k in range(len(slots)):
        put(payload, k, payloads[ids[k]])
    for i in range(packed.size):
        best, vote = load(logit, 0, i), get(payload, 0)
        for k in range(1, len(slots)):
            value = load(logit, k, i)
            vote = get(payload, k) if value > best else vote
            best = value if value > best else best
        packed[i] += vote


@part
def top_of_packed(packed, label, tied, shifts, mask, ids, slots):  # type: ignore[no-untyped-def]
    """Set ``label`` to the first allowed class with the most votes and ``tied`` to 1 where another has as many.

    Args:
        packed: int32 (pixels,), counts of all classes side by side.
        label: int32 (pixels,), the result.
        tied: int32 (pixels,), the result.
        shifts: int32 (classes,), first bit of each count.
        mask: int32 with as many one bits as a count has.
        ids: int64 (count,), the allowed classes, ascending.
        slots: a tuple as long as ``ids``.

    Returns:
        The number of tied pixels.
    """
    shift, name = registers(slots, np.int32(0)), registers(slots, np.int32(0))
    for k in range(len(slots)):
        put(shift, k, shifts[ids[k]])
        put(name, k, np.int32(ids[k]))
    count = 0
    for i in range(packed.size):
        top, known, equals = np.int32(-1), np.int32(0), np.int32(0)
        for k in range(len(slots)):
            votes = (packed[i] >> get(shift, k)) & mask
            same = np.int32(1) if votes == top else equals
            equals = np.int32(0) if votes > top else same
            known = get(name, k) if votes > top else known
            top = votes if votes > top else top
        label[i] = known
        tied[i] = equals
        count += equals
    return count


@part
def positions(at, tied):  # type: ignore[no-untyped-def]
    """Set the first of int64 ``at`` to where ``tied`` is 1; stretches without a tie are skipped at once."""
    found = 0
    whole = tied.size // STRETCH * STRETCH
    for start in range(0, whole, STRETCH):
        some = np.int32(0)
        for j in range(STRETCH):
            some |= tied[start + j]
        if some:
            for j in range(STRETCH):
                if tied[start + j]:
                    at[found] = start + j
                    found += 1
    for i in range(whole, tied.size):
        if tied[i]:
            at[found] = i
            found += 1


@part
def gather(row, source, at):  # type: ignore[no-untyped-def]
    """Set ``source[at]``."""
    for k in range(row.size):
        row[k] = source[at[k]]


@part
def gather_classes(goal, image, start, at, ids, slots):  # type: ignore[no-untyped-def]
    """Set float32 (classes, >= positions) ``goal`` to ``image[:, start + at]``."""
    source, row = rows_of(image, ids, start, slots), rows_of(goal, ids, 0, slots)
    for k in range(at.size):
        i = at[k]
        for c in range(len(slots)):
            store(row, c, k, load(source, c, i))


@part
def add_counted_softmax(means, logits, size, units, scale, ids, slots):  # type: ignore[no-untyped-def]
    """Add ``units * round_down(probability * scale)`` of a member, all classes of a pixel in registers.

    Args:
        means: int32 (classes, >= size), added to.
        logits: float32 (classes, >= size), the member's.
        size: number of pixels.
        units: int32 (classes,), the member's weights.
        scale: float32, such that sums of all members stay below 2**31.
        ids: int64 (classes,), 0, 1, ...
        slots: a tuple as long as there are classes.
    """
    classes = len(slots)
    logit, mean = rows_of(logits, ids, 0, slots), rows_of(means, ids, 0, slots)
    held, sums, unit = registers(slots, ZERO), registers(slots, np.int32(0)), registers(slots, np.int32(0))
    for c in range(classes):
        put(unit, c, units[c])
    for k in range(size):
        peak = load(logit, 0, k)
        for c in range(1, classes):
            value = load(logit, c, k)
            peak = value if value > peak else peak
        total = ZERO
        for c in range(classes):
            term = exp_of(load(logit, c, k) - peak)
            put(held, c, term)
            total += term
        share = scale / total
        for c in range(classes):
            put(sums, c, np.int32(load(mean, c, k) + get(unit, c) * np.int32(get(held, c) * share)))
        for c in range(classes):
            store(mean, c, k, get(sums, c))


@part
def pick_tied(choice, packed, means, shifts, mask, ids, slots):  # type: ignore[no-untyped-def]
    """Set ``choice`` to the class with the highest mean among those with the most votes, the lowest id of equals.

    Args:
        choice: int32 (pixels,), the result.
        packed: int32 (pixels,), counts of all classes side by side.
        means: int32 (classes, pixels), not negative.
        shifts: int32 (classes,), first bit of each count.
        mask: int32 with as many one bits as a count has.
        ids: int64 (count,), the allowed classes, ascending.
        slots: a tuple as long as ``ids``.
    """
    mean = rows_of(means, ids, 0, slots)
    shift, name = registers(slots, np.int32(0)), registers(slots, np.int32(0))
    for j in range(len(slots)):
        put(shift, j, shifts[ids[j]])
        put(name, j, np.int32(ids[j]))
    for k in range(packed.size):
        top, highest, known = np.int32(-1), np.int32(-1), np.int32(0)
        for j in range(len(slots)):
            votes = (packed[k] >> get(shift, j)) & mask
            value = load(mean, j, k)
            highest = np.int32(-1) if votes > top else highest
            top = votes if votes > top else top
            value = value if votes == top else np.int32(-2)
            known = get(name, j) if value > highest else known
            highest = value if value > highest else highest
        choice[k] = known
