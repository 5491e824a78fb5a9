"""Loops over one-dimensional contiguous rows of one dtype: the form LLVM turns into packed instructions.

Every function writes its first argument and returns nothing. All rows of a call have the same length.
"""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import kernel

LOG2_E = np.float32(1.4426950408889634)
# Below this power of two a float32 leaves its normal range: such a term is nothing beside the greatest one, which is 1.
LEAST_POWER = np.float32(-126.0)
# 2**f on [-0.5, 0.5] as a polynomial of degree 6 (Taylor coefficients ln(2)**n / n!); relative error below 2e-7.
P0 = np.float32(1.0)
P1 = np.float32(0.6931471805599453)
P2 = np.float32(0.24022650695910072)
P3 = np.float32(0.05550410866482158)
P4 = np.float32(0.009618129107628477)
P5 = np.float32(0.0013333558146428443)
P6 = np.float32(0.00015403530393381608)
FIXED_POINT = np.float32(2.0**30)
HALF = np.float32(0.5)
ONE = np.float32(1.0)


@kernel
def fill(row, value):  # type: ignore[no-untyped-def]
    """Set every element."""
    for i in range(row.size):
        row[i] = value


@kernel
def copy(row, source):  # type: ignore[no-untyped-def]
    """Copy ``source``."""
    for i in range(row.size):
        row[i] = source[i]


@kernel
def add(row, term):  # type: ignore[no-untyped-def]
    """Add ``term`` element by element."""
    for i in range(row.size):
        row[i] += term[i]


@kernel
def multiply(row, factor):  # type: ignore[no-untyped-def]
    """Multiply element by element."""
    for i in range(row.size):
        row[i] *= factor[i]


@kernel
def scale(row, factor):  # type: ignore[no-untyped-def]
    """Multiply by one factor for the row."""
    for i in range(row.size):
        row[i] *= factor


@kernel
def set_scaled(row, term, factor):  # type: ignore[no-untyped-def]
    """Set ``factor * term`` with one factor for the row."""
    for i in range(row.size):
        row[i] = factor * term[i]


@kernel
def add_scaled(row, term, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * term`` with one factor for the row."""
    for i in range(row.size):
        row[i] += factor * term[i]


@kernel
def add_product(row, term, other, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * term * other`` element by element."""
    for i in range(row.size):
        row[i] += factor * term[i] * other[i]


@kernel
def add_surprise(row, term, other, value, peak):  # type: ignore[no-untyped-def]
    """Add ``term * other * (value - peak)`` element by element."""
    for i in range(row.size):
        row[i] += term[i] * other[i] * (value[i] - peak[i])


@kernel
def add_beaten(row, own, other, amount):  # type: ignore[no-untyped-def]
    """Add ``2 * amount`` where ``own`` is above ``other``, ``amount`` where they are equal."""
    twice = amount + amount
    for i in range(row.size):
        a, b, old = own[i], other[i], row[i]
        equal = amount if a == b else np.float32(0.0)
        row[i] = old + (twice if a > b else equal)


@kernel
def count_equal(row, value, peak):  # type: ignore[no-untyped-def]
    """Add 1 where ``value`` is the peak."""
    for i in range(row.size):
        row[i] += ONE if value[i] == peak[i] else np.float32(0.0)


@kernel
def add_odds(row, term, other, value, peak):  # type: ignore[no-untyped-def]
    """Add ``term / other`` where ``value`` is below the peak."""
    for i in range(row.size):
        odds = term[i] / other[i]
        row[i] += odds if value[i] < peak[i] else np.float32(0.0)


@kernel
def take_surer(row, term, rest, least):  # type: ignore[no-untyped-def]
    """Where ``rest`` is below ``least`` take ``term``; where it equals it, the greater of the two."""
    for i in range(row.size):
        new, old, a, b = term[i], row[i], rest[i], least[i]
        greater = new if new > old else old
        kept = greater if a == b else old
        row[i] = new if a < b else kept


@kernel
def lower_to(row, other):  # type: ignore[no-untyped-def]
    """Keep the smaller of the two."""
    for i in range(row.size):
        new, old = other[i], row[i]
        row[i] = new if new < old else old


@kernel
def raise_to(row, other):  # type: ignore[no-untyped-def]
    """Keep the greater of the two."""
    for i in range(row.size):
        row[i] = other[i] if other[i] > row[i] else row[i]


@kernel
def invert(row):  # type: ignore[no-untyped-def]
    """Replace each element by its reciprocal."""
    for i in range(row.size):
        row[i] = ONE / row[i]


@kernel
def exp_below(row, bits, power, source, peak):  # type: ignore[no-untyped-def]
    """Set ``row = exp(source - peak)`` for float32 ``source <= peak``; absolute error below 4e-7.

    ``power`` is the float32 view of the int32 scratch row ``bits``. Writing the exponent through the one and reading it
    through the other in two passes keeps each loop to buffers that LLVM can tell apart.
    """
    for i in range(row.size):
        t = (source[i] - peak[i]) * LOG2_E
        t = t if t > LEAST_POWER else LEAST_POWER
        n = np.floor(t + HALF)
        f = t - n
        row[i] = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * (P5 + f * P6)))))
        bits[i] = (np.int32(n) + np.int32(127)) << np.int32(23)
    for i in range(row.size):
        row[i] *= power[i]


@kernel
def take_greater(best, label, row, candidate):  # type: ignore[no-untyped-def]
    """Where ``row`` beats ``best``, put it there and ``candidate`` into the int32 row ``label``."""
    for i in range(best.size):
        # All three loads stand before the first store: otherwise LLVM leaves the loop scalar, eight times slower.
        new, old, known = row[i], best[i], label[i]
        label[i] = candidate if new > old else known
        best[i] = new if new > old else old


@kernel
def add_fixed_point(row, term, other, factor):  # type: ignore[no-untyped-def]
    """Add ``factor * round_down(term * other * 2**30)`` to an int64 row; ``term * other`` lies within 0..1."""
    for i in range(row.size):
        row[i] += factor * np.int64(np.int32(term[i] * other[i] * FIXED_POINT))


@kernel
def add_where_equal(row, label, wanted, amount):  # type: ignore[no-untyped-def]
    """Add ``amount`` where ``label`` is ``wanted``; all int32."""
    for i in range(row.size):
        row[i] += amount if label[i] == wanted else np.int32(0)


@kernel
def narrow(row, label):  # type: ignore[no-untyped-def]
    """Write int32 labels into a uint8 row."""
    for i in range(row.size):
        row[i] = np.uint8(label[i])
