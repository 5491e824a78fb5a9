"""log of float32 values above 0, written out so that LLVM vectorises it: library calls prevent vectorisation."""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import part

# Below the least normal float32 the exponent says nothing; such values count as it.
LEAST = np.float32(2.0**-126)
# Bits of the square root of 1/2: fractions are taken between it and its double.
ROOT_BITS = np.int32(0x3F3504F3)
FRACTION, EXPONENT_BITS = np.int32(0x7FFFFF), np.int32(23)
ONE, HALF = np.float32(1.0), np.float32(0.5)
# ln 2 in two parts, and the polynomial of log(1 + x) on that interval: S. L. Moshier's logf (Cephes, 1989).
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
P0, P1, P2 = np.float32(7.0376836292e-2), np.float32(-1.1514610310e-1), np.float32(1.1676998740e-1)
P3, P4, P5 = np.float32(-1.2420140846e-1), np.float32(1.4249322787e-1), np.float32(-1.6668057665e-1)
P6, P7, P8 = np.float32(2.0000714765e-1), np.float32(-2.4999993993e-1), np.float32(3.3333331174e-1)


@part
def log_of(value):  # type: ignore[no-untyped-def]
    """Return the natural logarithm of a float32 of at least 2**-126 (less counts as that); error below 2e-7 relative.

    The exponent is taken from the bits so that the fraction lies between the square root of 1/2 and that of 2.
    """
    bits = np.float32(value if value > LEAST else LEAST).view(np.int32) - ROOT_BITS
    exponent = np.float32(bits >> EXPONENT_BITS)
    x = np.int32((bits & FRACTION) + ROOT_BITS).view(np.float32) - ONE
    square = x * x
    y = P0
    y = y * x + P1
    y = y * x + P2
    y = y * x + P3
    y = y * x + P4
    y = y * x + P5
    y = y * x + P6
    y = y * x + P7
    y = y * x + P8
    y = y * x * square + exponent * LN2_LOW - HALF * square
    return x + y + exponent * LN2_HIGH
