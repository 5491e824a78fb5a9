"""Loops over one-dimensional contiguous rows of one dtype: the form LLVM turns into vector instructions.

Every function writes its first argument and returns nothing. All rows of a call have the same length.
"""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import part

FIXED_POINT = np.float32(2.0**30)
ZERO = np.float32(0.0)
HALF = np.float32(0.5)
ONE = np.float32(1.0)
LOWEST = np.float32(-np.inf)


@part
def fill(row, value):  # type: ignore[no-untyped-def]
    """Set every element."""
    for i in range(row.size):
        row[i] = value


@part
def copy(row, source):  # type: ignore[no-untyped-def]
    """Copy ``source``."""
    for i in range(row.size):
        row[i] = source[i]


@part
def add(row, term):  # type: ignore[no-untyped-def]
    """Add ``term`` element by element."""
    for i in range(row.size):
        row[i] += term[i]


@part
def set_scaled(row, term, factor):  # type: ignore[no-untyped-def]
    """Set ``factor * term`` with one factor for the row."""
    for i in range(row.size):
        row[i] = factor * term[i]


@part
def add_scaled(row, term, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * term`` with one factor for the row."""
    for i in range(row.size):
        row[i] += factor * term[i]


@part
def set_scaled_three(row, a, b, c, fa, fb, fc):  # type: ignore[no-untyped-def]
    """Set ``fa * a + fb * b + fc * c``."""
    for i in range(row.size):
        row[i] = fa * a[i] + fb * b[i] + fc * c[i]


@part
def add_scaled_three(row, a, b, c, fa, fb, fc):  # type: ignore[no-untyped-def]
    """Add ``fa * a + fb * b + fc * c``: three streams at once use memory better than one after the other."""
    for i in range(row.size):
        row[i] += fa * a[i] + fb * b[i] + fc * c[i]


@part
def multiply(row, factor):  # type: ignore[no-untyped-def]
    """Multiply element by element."""
    for i in range(row.size):
        row[i] *= factor[i]


@part
def scale(row, factor):  # type: ignore[no-untyped-def]
    """Multiply by one factor for the row."""
    for i in range(row.size):
        row[i] *= factor


@part
def add_product(row, term, other, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * term * other`` element by element."""
    for i in range(row.size):
        row[i] += term[i] * (factor * other[i])


@part
def add_surprise(row, term, other, value, peak):  # type: ignore[no-untyped-def]
    """Add ``term * other * (value - peak)`` element by element."""
    for i in range(row.size):
        row[i] += term[i] * other[i] * (value[i] - peak[i])


@part
def add_beaten(row, own, other, amount):  # type: ignore[no-untyped-def]
    """Add ``2 * amount`` where ``own`` is above ``other``, ``amount`` where they are equal."""
    twice = amount + amount
    for i in range(row.size):
        a, b, old = own[i], other[i], row[i]
        equal = amount if a == b else ZERO
        row[i] = old + (twice if a > b else equal)


@part
def add_left(row, count, term, value, peak):  # type: ignore[no-untyped-def]
    """Add ``term`` to ``row`` where ``value`` is below the peak, 1 to ``count`` where it is not."""
    for i in range(row.size):
        left, old, known = term[i], row[i], count[i]
        below = value[i] < peak[i]
        row[i] = old + (left if below else ZERO)
        count[i] = known + (ZERO if below else ONE)


@part
def add_but_one(row, count):  # type: ignore[no-untyped-def]
    """Add ``count - 1``."""
    for i in range(row.size):
        row[i] += count[i] - ONE


@part
def take_surer(row, term, share, rest, least):  # type: ignore[no-untyped-def]
    """Where ``rest`` is below ``least`` take ``term * share``; where it equals it, the greater of that and ``row``."""
    for i in range(row.size):
        new, old, a, b = term[i] * share[i], row[i], rest[i], least[i]
        greater = new if new > old else old
        kept = greater if a == b else old
        row[i] = new if a < b else kept


@part
def add_rank(below, other_below, value, other, weight, other_weight):  # type: ignore[no-untyped-def]
    """Add the weight of the smaller to the sum below the greater; of equal ones ``value`` counts as the smaller."""
    for i in range(below.size):
        own, others = below[i], other_below[i]
        greater = value[i] > other[i]
        below[i] = own + (other_weight if greater else ZERO)
        other_below[i] = others + (ZERO if greater else weight)


@part
def add_median(row, value, below, weight, half):  # type: ignore[no-untyped-def]
    """Add ``value`` where its weight covers the middle, half of it where its weight ends there."""
    for i in range(row.size):
        low, old = below[i], row[i]
        high = low + weight
        touches = HALF if low <= half <= high else ZERO
        covers = HALF if low < half < high else ZERO
        row[i] = old + (touches + covers) * value[i]


@part
def add_inside(row, value, below, weight, low, high):  # type: ignore[no-untyped-def]
    """Add ``value`` times the part of its weight between ``low`` and ``high``."""
    for i in range(row.size):
        start, old = below[i], row[i]
        stop = start + weight
        stop = stop if stop < high else high
        start = start if start > low else low
        inside = stop - start
        row[i] = old + (inside if inside > ZERO else ZERO) * value[i]


@part
def lower_to(row, other):  # type: ignore[no-untyped-def]
    """Keep the smaller of the two."""
    for i in range(row.size):
        new, old = other[i], row[i]
        row[i] = new if new < old else old


@part
def raise_to(row, other):  # type: ignore[no-untyped-def]
    """Keep the greater of the two."""
    for i in range(row.size):
        new, old = other[i], row[i]
        row[i] = new if new > old else old


@part
def set_greater(row, a, b):  # type: ignore[no-untyped-def]
    """Set the greater of ``a`` and ``b``."""
    for i in range(row.size):
        first, second = a[i], b[i]
        row[i] = second if second > first else first


@part
def invert(row):  # type: ignore[no-untyped-def]
    """Replace each element by its reciprocal."""
    for i in range(row.size):
        row[i] = ONE / row[i]


@part
def take_greater(best, label, row, candidate):  # type: ignore[no-untyped-def]
    """Where ``row`` beats ``best``, put it there and ``candidate`` into the int32 row ``label``."""
    for i in range(best.size):
        # All three loads come before the first store: otherwise LLVM leaves the loop scalar, eight times slower.
        new, old, known = row[i], best[i], label[i]
        label[i] = candidate if new > old else known
        best[i] = new if new > old else old


@part
def add_fixed_point(row, term, other, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * round_down(term * other * 2**30)`` to an int64 row; ``term * other`` lies within 0..1."""
    for i in range(row.size):
        row[i] += factor * np.int64(np.int32(term[i] * other[i] * FIXED_POINT))


@part
def add_where_equal(row, label, wanted, amount):  # type: ignore[no-untyped-def]
    """Add ``amount`` where ``label`` is ``wanted``; all int32."""
    for i in range(row.size):
        row[i] += amount if label[i] == wanted else np.int32(0)


@part
def narrow(row, label):  # type: ignore[no-untyped-def]
    """Write int32 labels into a uint8 row."""
    for i in range(row.size):
        row[i] = np.uint8(label[i])


@part
def set_shares(row, votes, factor, struck):  # type: ignore[no-untyped-def]
    """Set ``factor * votes`` for int32 votes; minus infinity where they are ``struck``."""
    for i in range(row.size):
        count = votes[i]
        share = factor * np.float32(count)
        row[i] = LOWEST if count == struck else share
