"""entropy-weighted: soft vote in which a member counts for less where it is unsure, by exp(-entropy) at each pixel."""

from __future__ import annotations

import numpy as np

from engine.kernels import rows
from engine.kernels.blocks import block_of
from engine.kernels.decode import argmax_block
from engine.kernels.jit import kernel
from engine.kernels.softmax import softmax_terms
from engine.strategies.task import Task


def entropy_weighted(task: Task) -> None:
    """Score of a class = sum over members of weight x exp(-H(q)) x q, with H the entropy of q in nats.

    The scores are not divided by their sum: the labels do not need it. A threshold of suppression and a class bias see
    them as they are, at most 1 in sum.
    """
    _entropy_weighted(task.logits, task.single_weights, task.rule(), task.labels)


@kernel
def _entropy_weighted(logits, weights, rule, labels):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = block_of(classes)
    scores = np.empty((classes, block), np.float32)
    terms = np.empty((classes, block), np.float32)
    total = np.empty(block, np.float32)
    peak = np.empty(block, np.float32)
    sure = np.empty(block, np.float32)
    zero = np.zeros(block, np.float32)
    label = np.empty(block, np.int32)
    bits = np.empty(block, np.int32)
    power = bits.view(np.float32)
    for b in range(batch):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            for c in range(classes):
                rows.fill(scores[c, :n], np.float32(0.0))
            for m in range(members):
                softmax_terms(terms, total[:n], peak[:n], bits[:n], power[:n], logits[m, b], start, stop)
                # -H = sum of q * (z - peak) - log(sum of terms), so exp(-H) = exp(that sum) / (sum of terms).
                rows.fill(sure[:n], np.float32(0.0))
                for c in range(classes):
                    rows.add_surprise(sure[:n], terms[c, :n], total[:n], logits[m, b, c, start:stop], peak[:n])
                rows.exp_below(peak[:n], bits[:n], power[:n], sure[:n], zero[:n])
                rows.multiply(peak[:n], total[:n])
                rows.multiply(total[:n], peak[:n])
                for c in range(classes):
                    rows.add_product(scores[c, :n], terms[c, :n], total[:n], weights[m, c])
            argmax_block(labels[b, start:stop], scores, rule, False, peak[:n], label[:n])
