"""Softmax of one member over a block of pixels, as terms and the reciprocal of their sum."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import kernel


@kernel
def softmax_terms(terms, total, peak, bits, power, image, start, stop):  # type: ignore[no-untyped-def]
    """Set ``terms`` to exp(logit - greatest logit) a class and ``total`` to one over their sum.

    Args:
        terms: float32 (classes, >= pixels), the result.
        total: float32 (pixels,), the result.
        peak: float32 (pixels,), the result: the greatest logit.
        bits: int32 (pixels,) scratch.
        power: the same memory as ``bits``, as float32.
        image: float32 (classes, all pixels), the logits.
        start: first pixel.
        stop: one past the last pixel.
    """
    size = stop - start
    greatest_logits(peak, image, start, stop)
    exp_terms(terms[:, :size], total, peak, bits, power, image, start, stop)


@kernel
def greatest_logits(peak, image, start, stop):  # type: ignore[no-untyped-def]
    """Set float32 ``peak`` to the greatest logit of each pixel; arguments as :func:`softmax_terms`."""
    classes = image.shape[0]
    rows.set_greater(peak, image[0, start:stop], image[1, start:stop])
    c = 2
    while c + 1 < classes:
        rows.raise_to_two(peak, image[c, start:stop], image[c + 1, start:stop])
        c += 2
    if c < classes:
        rows.raise_to(peak, image[c, start:stop])


@kernel
def exp_terms(terms, total, peak, bits, power, image, start, stop):  # type: ignore[no-untyped-def]
    """Set ``terms`` and ``total`` for known peaks; arguments as :func:`softmax_terms`."""
    rows.fill(total, np.float32(0.0))
    for c in range(image.shape[0]):
        rows.exp_below_adding(terms[c, : stop - start], total, bits, power, image[c, start:stop], peak)
    rows.invert(total)


@kernel
def probabilities(terms, total, peak, bits, power, image, start, stop):  # type: ignore[no-untyped-def]
    """As :func:`softmax_terms`, with ``terms`` divided by their sum."""
    softmax_terms(terms, total, peak, bits, power, image, start, stop)
    for c in range(image.shape[0]):
        rows.multiply(terms[c, : stop - start], total)
