"""mean-logit: the weighted mean of the members' logits (the normalised geometric mean of their probabilities)."""

from __future__ import annotations

from engine.fusion.strategies.task import Task
from engine.kernels import rows
from engine.kernels.decode import LOGITS, decide_block
from engine.kernels.jit import kernel


def mean_logit(task: Task) -> None:
    """Score of a class = sum over members of weight x logit."""
    scores, best, label = task.scratch()
    rule = task.rule(log_domain=True)
    _mean_logit(task.logits, task.single_weights, scores, best, label, rule, task.labels, task.kept)


@kernel
def _mean_logit(logits, weights, scores, best, label, rule, labels, kept):  # type: ignore[no-untyped-def]
    members, batch, classes, pixels = logits.shape
    block = best.size
    for b in range(batch):
        for start in range(0, pixels, block):
            stop = min(start + block, pixels)
            n = stop - start
            for c in range(classes):
                score = scores[c, :n]
                m = 1
                if members < 3:
                    rows.set_scaled(score, logits[0, b, c, start:stop], weights[0, c])
                else:
                    m = 3
                    rows.set_scaled_three(
                        score,
                        logits[0, b, c, start:stop],
                        logits[1, b, c, start:stop],
                        logits[2, b, c, start:stop],
                        weights[0, c],
                        weights[1, c],
                        weights[2, c],
                    )
                while m + 3 <= members:
                    rows.add_scaled_three(
                        score,
                        logits[m, b, c, start:stop],
                        logits[m + 1, b, c, start:stop],
                        logits[m + 2, b, c, start:stop],
                        weights[m, c],
                        weights[m + 1, c],
                        weights[m + 2, c],
                    )
                    m += 3
                while m < members:
                    rows.add_scaled(score, logits[m, b, c, start:stop], weights[m, c])
                    m += 1
            decide_block(labels[b, start:stop], kept, b, start, scores, rule, LOGITS, best[:n], label[:n])
