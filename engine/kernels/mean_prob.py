"""mean-prob: the weighted mean of the members' softmax probabilities (soft vote)."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.decode import argmax_block
from engine.kernels.jit import BLOCK, kernel


@kernel
def softmax_terms(terms, total, peak, bits, power, image, start, stop):  # type: ignore[no-untyped-def]
    """Set ``terms`` to exp(logit - greatest logit) a class and ``total`` to one over their sum.

    Args:
        terms: float32 (classes, >= pixels), the result.
        total: float32 (pixels,), the result.
        peak: float32 (pixels,) scratch.
        bits: int32 (pixels,) scratch.
        power: the same memory as ``bits``, as float32.
        image: float32 (classes, all pixels), the logits.
        start: first pixel.
        stop: one past the last pixel.
    """
    classes = image.shape[0]
    size = stop - start
    rows.copy(peak, image[0, start:stop])
    for c in range(1, classes):
        rows.raise_to(peak, image[c, start:stop])
    rows.fill(total, np.float32(0.0))
    for c in range(classes):
        term = terms[c, :size]
        rows.exp_below(term, bits, power, image[c, start:stop], peak)
        rows.add(total, term)
    rows.invert(total)


@kernel
def mean_prob(logits, weights, bias, allowed, labels):  # type: ignore[no-untyped-def]
    """Fuse and decode a batch in one pass; arguments as in :func:`engine.kernels.mean_logit.mean_logit`."""
    members, batch, classes, pixels = logits.shape
    scores = np.empty((classes, BLOCK), np.float32)
    terms = np.empty((classes, BLOCK), np.float32)
    total = np.empty(BLOCK, np.float32)
    best = np.empty(BLOCK, np.float32)
    label = np.empty(BLOCK, np.int32)
    bits = np.empty(BLOCK, np.int32)
    power = bits.view(np.float32)
    for b in range(batch):
        for start in range(0, pixels, BLOCK):
            stop = min(start + BLOCK, pixels)
            size = stop - start
            for c in range(classes):
                rows.fill(scores[c, :size], np.float32(0.0))
            for m in range(members):
                softmax_terms(terms, total[:size], best[:size], bits[:size], power[:size], logits[m, b], start, stop)
                for c in range(classes):
                    rows.add_product(scores[c, :size], terms[c, :size], total[:size], weights[m, c])
            argmax_block(labels[b, start:stop], scores, bias, allowed, best[:size], label[:size])
