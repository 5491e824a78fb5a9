"""Loops over one-dimensional contiguous rows of one dtype: the form LLVM turns into packed instructions.

Every function writes its first argument and returns nothing. All rows of a call have the same length.
"""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import kernel

LOG2_E = np.float32(1.4426950408889634)
# Below this power of two a float32 leaves its normal range: such a term is nothing beside the greatest one, which is 1.
LEAST_POWER = np.float32(-126.0)
# 2**f on [-0.5, 0.5] as a polynomial of degree 5 with the least relative error (9.2e-8) of those that are 1 at 0.
P0 = np.float32(1.0)
P1 = np.float32(0.6931469775985029)
P2 = np.float32(0.2402224208429438)
P3 = np.float32(0.05550733743741306)
P4 = np.float32(0.009671512710364791)
P5 = np.float32(0.0013264727262220074)
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
def set_scaled_three(row, a, b, c, fa, fb, fc):  # type: ignore[no-untyped-def]
    """Set ``fa * a + fb * b + fc * c``."""
    for i in range(row.size):
        row[i] = fa * a[i] + fb * b[i] + fc * c[i]


@kernel
def add_scaled_three(row, a, b, c, fa, fb, fc):  # type: ignore[no-untyped-def]
    """Add ``fa * a + fb * b + fc * c``: three runs through memory at once keep it busier than one after the other."""
    for i in range(row.size):
        row[i] += fa * a[i] + fb * b[i] + fc * c[i]


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
        new, old = other[i], row[i]
        row[i] = new if new > old else old


@kernel
def raise_to_two(row, a, b):  # type: ignore[no-untyped-def]
    """Keep the greatest of the three."""
    for i in range(row.size):
        first, second, old = a[i], b[i], row[i]
        greater = second if second > first else first
        row[i] = greater if greater > old else old


@kernel
def set_greater(row, a, b):  # type: ignore[no-untyped-def]
    """Set the greater of ``a`` and ``b``."""
    for i in range(row.size):
        first, second = a[i], b[i]
        row[i] = second if second > first else first


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
    split_exp(row, bits, source, peak)
    for i in range(row.size):
        row[i] *= power[i]


@kernel
def exp_below_adding(row, total, bits, power, source, peak):  # type: ignore[no-untyped-def]
    """As :func:`exp_below`, and add the result to ``total``."""
    split_exp(row, bits, source, peak)
    for i in range(row.size):
        value = row[i] * power[i]
        row[i] = value
        total[i] += value


@kernel
def split_exp(row, bits, source, peak):  # type: ignore[no-untyped-def]
    """Split ``exp(source - peak)`` into ``row`` times a power of two, whose float32 bits go to ``bits``."""
    for i in range(row.size):
        t = (source[i] - peak[i]) * LOG2_E
        t = t if t > LEAST_POWER else LEAST_POWER
        n = np.floor(t + HALF)
        f = t - n
        row[i] = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * P5))))
        bits[i] = (np.int32(n) + np.int32(127)) << np.int32(23)


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
def take_greater_two(best, label, a, b, candidate_a, candidate_b):  # type: ignore[no-untyped-def]
    """As :func:`take_greater` for ``a``, then for ``b``, in one run."""
    for i in range(best.size):
        first, second, old, known = a[i], b[i], best[i], label[i]
        known = candidate_a if first > old else known
        old = first if first > old else old
        label[i] = candidate_b if second > old else known
        best[i] = second if second > old else old


@kernel
def set_greater_two(best, label, a, b, candidate_a, candidate_b):  # type: ignore[no-untyped-def]
    """Set ``best`` to the greater of the two and ``label`` to its candidate; ``a`` wins an exact tie."""
    for i in range(best.size):
        first, second = a[i], b[i]
        label[i] = candidate_b if second > first else candidate_a
        best[i] = second if second > first else first


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
