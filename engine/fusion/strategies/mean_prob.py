"""mean-prob: the weighted mean of the members' softmax probabilities (soft vote)."""

from __future__ import annotations

import numpy as np

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.blocks import PART, scratch
from engine.kernels.decode import SCORES, decide_block
from engine.kernels.jit import kernel
from engine.kernels.registers import MOST_SLOTS, slots_of
from engine.kernels.softmax import add_softmax, softmax_terms

ZERO = np.float32(0.0)


def mean_prob(task: Task) -> None:
    """Score of a class = sum over members of weight x probability."""
    classes = task.logits.shape[2]
    scores, best, label = task.scratch()
    rest = scores, best, label, task.rule(), task.labels, task.kept
    if classes <= MOST_SLOTS:
        _mean_prob(task.logits, task.single_weights, np.arange(classes), slots_of(classes), *rest)
    else:
        terms, total, peak = scratch(classes, PART), scratch(PART), scratch(PART)
        _mean_prob_of_many(task.logits, task.single_weights, terms, total, peak, *rest)


@kernel
def _mean_prob(logits, weights, ids, slots, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = best.size
    for b in range(batch):
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            for c in range(classes):
                rows.fill(scores[c, :n], ZERO)
            for m in range(members):
                add_softmax(scores, logits[m, b], start, n, weights[m], ids, slots)
            decide_block(labels[b, start : start + n], kept, b, start, scores, rule, SCORES, best[:n], label[:n])


@kernel
def _mean_prob_of_many(logits, weights, terms, total, peak, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block, part = best.size, peak.size
    for b in range(batch):
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            for c in range(classes):
                rows.fill(scores[c, :n], ZERO)
            for m in range(members):
                for low in range(0, n, part):
                    p = min(part, n - low)
                    softmax_terms(terms, total[:p], peak[:p], logits[m, b], start + low, start + low + p)
                    for c in range(classes):
                        rows.add_product(scores[c, low : low + p], terms[c, :p], total[:p], weights[m, c])
            decide_block(labels[b, start : start + n], kept, b, start, scores, rule, SCORES, best[:n], label[:n])
