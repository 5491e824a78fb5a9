"""mean-prob: the weighted mean of the members' softmax probabilities (soft vote)."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.blocks import block_of, part_of
from engine.kernels.decode import argmax_block
from engine.kernels.jit import kernel
from engine.kernels.softmax import exp_terms, greatest_logits
from engine.strategies.task import Task


def mean_prob(task: Task) -> None:
    """Score of a class = sum over members of weight x probability."""
    _mean_prob(task.logits, task.single_weights, task.rule(), task.labels)


@kernel
def _mean_prob(logits, weights, rule, labels):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = block_of(classes)
    part = part_of(block)
    scores = np.empty((classes, block), np.float32)
    best = np.empty(block, np.float32)
    label = np.empty(block, np.int32)
    terms = np.empty((classes, part), np.float32)
    total = np.empty(part, np.float32)
    bits = np.empty(part, np.int32)
    power = bits.view(np.float32)
    for b in range(batch):
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            for c in range(classes):
                rows.fill(scores[c, :n], np.float32(0.0))
            for m in range(members):
                # The one pass that waits for memory runs over the whole block, the arithmetic over parts of it.
                greatest_logits(best[:n], logits[m, b], start, start + n)
                for low in range(0, n, part):
                    p = min(part, n - low)
                    peak, at = best[low : low + p], start + low
                    exp_terms(terms, total[:p], peak, bits[:p], power[:p], logits[m, b], at, at + p)
                    for c in range(classes):
                        rows.add_product(scores[c, low : low + p], terms[c, :p], total[:p], weights[m, c])
            argmax_block(labels[b, start : start + n], scores, rule, False, best[:n], label[:n])
