"""max-confidence: each pixel is decided by the most confident member."""

from __future__ import annotations

import numpy as np

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.blocks import PART, scratch
from engine.kernels.decode import SCORES, decide_block
from engine.kernels.jit import kernel
from engine.kernels.softmax import softmax_terms

ZERO = np.float32(0.0)
INFINITE = np.float32(np.inf)


def max_confidence(task: Task) -> None:
    """Score of a class = its probability under the member whose top probability is highest at the pixel.

    Confidence is measured by the probability left to all other classes: a top probability within 1e-7 of 1 would be
    rounded to 1, the rest is not. A member participates if its weight is above 0, whatever its size. Equally confident
    members are merged by the greater of their probabilities, per class, so their order does not matter.
    """
    taking_part = np.flatnonzero((task.weights > 0).any(axis=1))
    scores, best, label = task.scratch()
    work = scratch(task.logits.shape[2] + 4, PART)
    _max_confidence(task.logits, taking_part, work, scores, best, label, task.rule(), task.labels, task.kept)


@kernel
def _max_confidence(logits, taking_part, work, scores, least, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    _, batch, classes, pixels = logits.shape
    block, part = least.size, work.shape[1]
    for b in range(batch):
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            rows.fill(least[:n], INFINITE)
            for c in range(classes):
                rows.fill(scores[c, :n], ZERO)
            for m in taking_part:
                for low in range(0, n, part):
                    p = min(part, n - low)
                    at = start + low
                    share, peak = work[classes, :p], work[classes + 1, :p]
                    rest, count = work[classes + 2, :p], work[classes + 3, :p]
                    softmax_terms(work, share, peak, logits[m, b], at, at + p)
                    rows.fill(rest, ZERO)
                    rows.fill(count, ZERO)
                    # The sum of all other classes relative to the top one, without losing small terms to the top's 1.
                    for c in range(classes):
                        rows.add_left(rest, count, work[c, :p], logits[m, b, c, at : at + p], peak)
                    rows.add_but_one(rest, count)
                    surest = least[low : low + p]
                    for c in range(classes):
                        rows.take_surer(scores[c, low : low + p], work[c, :p], share, rest, surest)
                    rows.lower_to(surest, rest)
            decide_block(labels[b, start : start + n], kept, b, start, scores, rule, SCORES, least[:n], label[:n])
