"""mean-prob: the weighted mean of the members' softmax probabilities (soft vote)."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.decode import argmax_block
from engine.kernels.jit import BLOCK, kernel
from engine.kernels.softmax import softmax_terms
from engine.strategies.task import Task


def mean_prob(task: Task) -> None:
    """Score of a class = sum over members of weight x probability."""
    _mean_prob(task.logits, task.single_weights, task.rule(), task.labels)


@kernel
def _mean_prob(logits, weights, rule, labels):  # type: ignore[no-untyped-def]
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
            n = stop - start
            for c in range(classes):
                rows.fill(scores[c, :n], np.float32(0.0))
            for m in range(members):
                softmax_terms(terms, total[:n], best[:n], bits[:n], power[:n], logits[m, b], start, stop)
                for c in range(classes):
                    rows.add_product(scores[c, :n], terms[c, :n], total[:n], weights[m, c])
            argmax_block(labels[b, start:stop], scores, rule, False, best[:n], label[:n])
