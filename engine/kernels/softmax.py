"""Softmax of one member over a block of pixels: row by row for any number of classes, in registers for a few."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.exponential import exp_below_adding, exp_of
from engine.kernels.jit import part
from engine.kernels.registers import get, load, put, registers, rows_of, store

ZERO = np.float32(0.0)
ONE = np.float32(1.0)


@part
def softmax_terms(terms, total, peak, image, start, stop):  # type: ignore[no-untyped-def]
    """Set ``terms`` to exp(logit - greatest logit) per class and ``total`` to one over their sum.

    Args:
        terms: float32 (classes, >= pixels), the result.
        total: float32 (pixels,), the result.
        peak: float32 (pixels,), the result: the greatest logit.
        image: float32 (classes, all pixels), the logits.
        start: first pixel.
        stop: one past the last pixel.
    """
    size = stop - start
    rows.set_greater(peak, image[0, start:stop], image[1, start:stop])
    for c in range(2, image.shape[0]):
        rows.raise_to(peak, image[c, start:stop])
    rows.fill(total, ZERO)
    for c in range(image.shape[0]):
        exp_below_adding(terms[c, :size], total, image[c, start:stop], peak)
    rows.invert(total)


@part
def add_softmax(scores, image, start, size, weights, ids, slots):  # type: ignore[no-untyped-def]
    """Add a member's weighted probabilities to the scores, all classes of a pixel in registers.

    Args:
        scores: float32 (classes, >= size), added to.
        image: float32 (classes, all pixels), the logits.
        start: first pixel.
        size: number of pixels.
        weights: float32 (classes,), the member's.
        ids: int64 (classes,), 0, 1, ...
        slots: a tuple as long as there are classes.
    """
    classes = len(slots)
    logit, score = rows_of(image, ids, start, slots), rows_of(scores, ids, 0, slots)
    held, weight = registers(slots, ZERO), registers(slots, ZERO)
    for c in range(classes):
        put(weight, c, weights[c])
    for i in range(size):
        peak = load(logit, 0, i)
        for c in range(1, classes):
            value = load(logit, c, i)
            peak = value if value > peak else peak
        total = ZERO
        for c in range(classes):
            term = exp_of(load(logit, c, i) - peak)
            put(held, c, term)
            total += term
        share = ONE / total
        # All scores are loaded before the first is stored: otherwise LLVM leaves the loop scalar.
        for c in range(classes):
            put(held, c, load(score, c, i) + get(held, c) * (get(weight, c) * share))
        for c in range(classes):
            store(score, c, i, get(held, c))
