"""exp of values up to 0, written out so that LLVM vectorises it: library calls prevent vectorisation."""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import part

LOG2_E = np.float32(1.4426950408889634)
# Its exp is near the smallest normal float32: negligible beside the greatest term, which is 1.
LEAST_VALUE = np.float32(-87.0)
ROUNDER = np.float32(1.5 * 2.0**23)
# 2**f on [-0.5, 0.5] as a polynomial of degree 5 with the least relative error (9.2e-8) of those that are 1 at 0.
P0 = np.float32(1.0)
P1 = np.float32(0.6931469775985029)
P2 = np.float32(0.2402224208429438)
P3 = np.float32(0.05550733743741306)
P4 = np.float32(0.009671512710364791)
P5 = np.float32(0.0013264727262220074)
# The same for float64, with a Taylor series.
WIDE_LOG2_E, LN_2, WIDE_ROUNDER = 1.4426950408889634, 0.6931471805599453, 1.5 * 2.0**52


@part
def exp_of(value):  # type: ignore[no-untyped-def]
    """Return exp of a float32 at most 0, down to exp(-87); relative error below 4e-7 and 6e-8 per unit of ``value``.

    Adding 1.5 * 2**23 rounds to an integer in the lowest bits, which is then shifted into the
    exponent of the polynomial's value.
    """
    power = (value if value > LEAST_VALUE else LEAST_VALUE) * LOG2_E
    rounded = power + ROUNDER
    f = power - (rounded - ROUNDER)
    fraction = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * P5))))
    bits = np.float32(fraction).view(np.int32) + (np.float32(rounded).view(np.int32) << np.int32(23))
    return np.int32(bits).view(np.float32)


@part
def exp_in_place(row):  # type: ignore[no-untyped-def]
    """Replace float64 values at most 0 by their exp, down to exp(-700); relative error below 1e-13."""
    for i in range(row.size):
        value = row[i] if row[i] > -700.0 else -700.0
        power = value * WIDE_LOG2_E
        rounded = power + WIDE_ROUNDER
        f = (power - (rounded - WIDE_ROUNDER)) * LN_2
        fraction = 1.0
        for k in range(12, 0, -1):
            fraction = 1.0 + fraction * f / k
        bits = np.float64(fraction).view(np.int64) + (np.float64(rounded).view(np.int64) << 52)
        row[i] = np.int64(bits).view(np.float64)


@part
def exp_below_adding(row, total, source, peak):  # type: ignore[no-untyped-def]
    """Set ``row = exp(source - peak)`` for float32 ``source <= peak`` and add it to ``total``."""
    for i in range(row.size):
        old = total[i]
        value = exp_of(source[i] - peak[i])
        row[i] = value
        total[i] = old + value


@part
def weigh_by_surety(row, surety):  # type: ignore[no-untyped-def]
    """Multiply by itself and by exp of ``surety``, which is at most 0 except for rounding."""
    for i in range(row.size):
        row[i] *= row[i] * exp_of(surety[i])
