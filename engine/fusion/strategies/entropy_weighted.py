"""entropy-weighted: soft vote with less weight for uncertain members, by exp(-entropy) at each pixel."""

from __future__ import annotations

import numpy as np

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.blocks import PART, scratch
from engine.kernels.decode import SCORES, decide_block
from engine.kernels.exponential import weigh_by_surety
from engine.kernels.jit import kernel
from engine.kernels.softmax import softmax_terms

ZERO = np.float32(0.0)


def entropy_weighted(task: Task) -> None:
    """Score of a class = sum over members of weight x exp(-H(q)) x q, with H the entropy of q in nats.

    The scores are not divided by their sum: the labels do not need it. A suppression threshold and a class bias
    apply to them unnormalised, with a sum of at most 1.
    """
    scores, best, label = task.scratch()
    work = scratch(task.logits.shape[2] + 3, PART)
    _entropy_weighted(task.logits, task.single_weights, work, scores, best, label, task.rule(), task.labels, task.kept)


@kernel
def _entropy_weighted(logits, weights, work, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block, part = best.size, work.shape[1]
    for b in range(batch):
        for start in range(0, pixels, block):
            n = min(block, pixels - start)
            for c in range(classes):
                rows.fill(scores[c, :n], ZERO)
            for m in range(members):
                for low in range(0, n, part):
                    p = min(part, n - low)
                    at = start + low
                    total, peak, sure = work[classes, :p], work[classes + 1, :p], work[classes + 2, :p]
                    softmax_terms(work, total, peak, logits[m, b], at, at + p)
                    # -H = sum of q * (z - peak) - log(sum of terms), so exp(-H) = exp(that sum) / (sum of terms).
                    rows.fill(sure, ZERO)
                    for c in range(classes):
                        rows.add_surprise(sure, work[c, :p], total, logits[m, b, c, at : at + p], peak)
                    weigh_by_surety(total, sure)
                    for c in range(classes):
                        rows.add_product(scores[c, low : low + p], work[c, :p], total, weights[m, c])
            decide_block(labels[b, start : start + n], kept, b, start, scores, rule, SCORES, best[:n], label[:n])
