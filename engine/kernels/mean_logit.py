"""mean-logit: the weighted mean of the members' logits (the normalised geometric mean of their probabilities)."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.decode import argmax_block
from engine.kernels.jit import BLOCK, kernel


@kernel
def mean_logit(logits, weights, bias, allowed, labels):  # type: ignore[no-untyped-def]
    """Fuse and decode a batch in one pass.

    Args:
        logits: float32 (members, batch, classes, pixels), C-contiguous.
        weights: float32 (members, classes).
        bias: float32 (classes,).
        allowed: bool (classes,).
        labels: uint8 (batch, pixels), the result.
    """
    members, batch, classes, pixels = logits.shape
    scores = np.empty((classes, BLOCK), np.float32)
    best = np.empty(BLOCK, np.float32)
    label = np.empty(BLOCK, np.int32)
    for b in range(batch):
        for start in range(0, pixels, BLOCK):
            stop = min(start + BLOCK, pixels)
            size = stop - start
            for c in range(classes):
                score = scores[c, :size]
                rows.fill(score, np.float32(0.0))
                for m in range(members):
                    rows.add_scaled(score, logits[m, b, c, start:stop], weights[m, c])
            argmax_block(labels[b, start:stop], scores, bias, allowed, best[:size], label[:size])
