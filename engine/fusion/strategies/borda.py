"""borda: each member ranks the classes; the weighted mean of the ranks decides (Borda 1781)."""

from __future__ import annotations

import numpy as np

from engine.fusion.strategies.task import Task
from engine.fusion.strategies.vote import voting_units
from engine.kernels import rows
from engine.kernels.decode import SCORES, decide_block
from engine.kernels.jit import kernel

# Integers up to here are exact in float32, so that equal ranks are true ties in any order of the members.
MOST_EXACT = 2**24
ZERO = np.float32(0.0)


def borda(task: Task) -> None:
    """Score of a class = sum over members of weight x (classes it beats + half of those it equals) / (classes - 1)."""
    classes = task.logits.shape[2]
    most = MOST_EXACT // (2 * (classes - 1))
    units = np.stack([voting_units(column, most) for column in task.weights.T], axis=1)
    share = 1.0 / (2.0 * (classes - 1) * units.sum(axis=0))
    scores, best, label = task.scratch()
    whole, share = units.astype(np.float32), share.astype(np.float32)
    _borda(task.logits, whole, share, scores, best, label, task.rule(), task.labels, task.kept)


@kernel
def _borda(logits, units, share, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = best.size
    for b in range(batch):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            for c in range(classes):
                rows.fill(scores[c, :n], ZERO)
                for m in range(members):
                    own = logits[m, b, c, start:stop]
                    for d in range(classes):
                        if d != c:
                            rows.add_beaten(scores[c, :n], own, logits[m, b, d, start:stop], units[m, c])
                rows.scale(scores[c, :n], share[c])
            decide_block(labels[b, start:stop], kept, b, start, scores, rule, SCORES, best[:n], label[:n])
