"""max-confidence: each pixel is decided by the member that is surest of it."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.blocks import block_of
from engine.kernels.decode import argmax_block
from engine.kernels.jit import kernel
from engine.kernels.softmax import probabilities
from engine.strategies.task import Task


def max_confidence(task: Task) -> None:
    """Score of a class = its probability by the member whose top probability is highest at the pixel.

    How sure a member is, is told by what it leaves to all other classes: a top probability within 1e-7 of 1 would be
    rounded to 1, what is left of it is not. A member takes part when it has a weight above 0; how much above does not
    matter. Members that are equally sure are merged by the greater of their probabilities, class by class, so their
    order never shows.
    """
    taking_part = np.flatnonzero((task.weights > 0).any(axis=1))
    _max_confidence(task.logits, taking_part, task.rule(), task.labels)


@kernel
def _max_confidence(logits, taking_part, rule, labels):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    block = block_of(classes)
    scores = np.empty((classes, block), np.float32)
    terms = np.empty((classes, block), np.float32)
    total = np.empty(block, np.float32)
    rest = np.empty(block, np.float32)
    least = np.empty(block, np.float32)
    best = np.empty(block, np.float32)
    label = np.empty(block, np.int32)
    bits = np.empty(block, np.int32)
    power = bits.view(np.float32)
    for b in range(batch):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            rows.fill(least[:n], np.float32(np.inf))
            for c in range(classes):
                rows.fill(scores[c, :n], np.float32(0.0))
            for m in taking_part:
                probabilities(terms, total[:n], best[:n], bits[:n], power[:n], logits[m, b], start, stop)
                rows.fill(rest[:n], np.float32(-1.0))
                for c in range(classes):
                    rows.count_equal(rest[:n], logits[m, b, c, start:stop], best[:n])
                # The odds of all other classes against the top one, smallest terms untouched by the 1 of the top.
                for c in range(classes):
                    rows.add_odds(rest[:n], terms[c, :n], total[:n], logits[m, b, c, start:stop], best[:n])
                for c in range(classes):
                    rows.take_surer(scores[c, :n], terms[c, :n], rest[:n], least[:n])
                rows.lower_to(least[:n], rest[:n])
            argmax_block(labels[b, start:stop], scores, rule, False, best[:n], label[:n])
