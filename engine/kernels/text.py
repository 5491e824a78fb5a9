"""Labels -> the text of a submission row."""

from __future__ import annotations

import numpy as np

from engine.kernels.jit import kernel


@kernel
def write_digits(text, labels):  # type: ignore[no-untyped-def]
    """Write labels as decimal numbers with a comma before each.

    Args:
        text: uint8 (>= 4 * pixels,), the result.
        labels: uint8 (pixels,).

    Returns:
        The number of bytes written.
    """
    at = 0
    for i in range(labels.size):
        value = labels[i]
        text[at] = np.uint8(44)
        at += 1
        if value >= 100:
            text[at] = np.uint8(48) + value // np.uint8(100)
            at += 1
        if value >= 10:
            text[at] = np.uint8(48) + value // np.uint8(10) % np.uint8(10)
            at += 1
        text[at] = np.uint8(48) + value % np.uint8(10)
        at += 1
    return at
