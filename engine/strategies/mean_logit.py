"""mean-logit: the weighted mean of the members' logits (the normalised geometric mean of their probabilities)."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.decode import argmax_block
from engine.kernels.jit import BLOCK, kernel
from engine.strategies.task import Task


def mean_logit(task: Task) -> None:
    """Score of a class = sum over members of weight x logit."""
    _mean_logit(task.logits, task.single_weights, task.rule(log_domain=True), task.labels)


@kernel
def _mean_logit(logits, weights, rule, labels):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    scores = np.empty((classes, BLOCK), np.float32)
    best = np.empty(BLOCK, np.float32)
    label = np.empty(BLOCK, np.int32)
    for b in range(batch):
        for start in range(0, pixels, BLOCK):
            stop = min(start + BLOCK, pixels)
            n = stop - start
            for c in range(classes):
                rows.set_scaled(scores[c, :n], logits[0, b, c, start:stop], weights[0, c])
            for m in range(1, members):
                for c in range(classes):
                    rows.add_scaled(scores[c, :n], logits[m, b, c, start:stop], weights[m, c])
            argmax_block(labels[b, start:stop], scores, rule, True, best[:n], label[:n])
