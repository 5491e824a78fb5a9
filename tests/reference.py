"""Plain NumPy twins of every fast path: float64, no blocks, no tricks. They are what the kernels are held to."""

from __future__ import annotations

from fractions import Fraction

import numpy as np


def softmax(logits):
    """Softmax over the class axis, which is the last but one."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-2, keepdims=True))
    return shifted / shifted.sum(axis=-2, keepdims=True)


def weighted(weights, members, classes):
    """Weights as (members, classes) with columns summing to 1."""
    table = np.ones((members, classes)) if weights is None else np.asarray(weights, np.float64)
    if table.ndim == 1:
        table = np.repeat(table[:, None], classes, axis=1)
    return table / table.sum(axis=0)


def mean_logit_scores(logits, weights=None):
    """(members, batch, classes, pixels) -> (batch, classes, pixels)."""
    table = weighted(weights, logits.shape[0], logits.shape[2])
    return np.einsum("mbcp,mc->bcp", logits.astype(np.float64), table)


def mean_prob_scores(logits, weights=None):
    return np.einsum("mbcp,mc->bcp", softmax(logits), weighted(weights, logits.shape[0], logits.shape[2]))


def vote_scores(logits, weights=None, voted=None):
    """Share of the votes, as exact fractions in an object array (batch, classes, pixels)."""
    members, batch, classes, pixels = logits.shape
    voted = np.ones(classes, bool) if voted is None else voted
    given = [1.0] * members if weights is None else list(weights)
    shares = [Fraction(repr(float(weight))) for weight in given]
    scores = np.full((batch, classes, pixels), Fraction(0), object)
    masked = np.where(voted[:, None], logits, -np.inf)
    winners = masked.argmax(axis=2)
    for m in range(members):
        for c in range(classes):
            scores[:, c][winners[m] == c] += shares[m]
    return scores


def argmax_allowed(scores, allowed, bias=None):
    """Lowest id of the best allowed class."""
    biased = scores if bias is None else scores + np.asarray(bias)[:, None]
    return np.where(allowed[:, None], biased, -np.inf).argmax(axis=-2).astype(np.uint8)


def vote_labels(logits, weights=None, allowed=None, stage="members"):
    """Hard vote: ties go to the higher mean probability, then to the lower id. Returns labels and tied pixels."""
    _, batch, classes, pixels = logits.shape
    allowed = np.ones(classes, bool) if allowed is None else allowed
    votes = vote_scores(logits, weights, allowed if stage == "members" else None)
    means = mean_prob_scores(logits, weights)
    labels = np.zeros((batch, pixels), np.uint8)
    tied = np.zeros((batch, pixels), bool)
    for b in range(batch):
        for p in range(pixels):
            ids = [c for c in range(classes) if allowed[c]]
            top = max(votes[b, c, p] for c in ids)
            best = [c for c in ids if votes[b, c, p] == top]
            tied[b, p] = len(best) > 1
            labels[b, p] = max(best, key=lambda c: (means[b, c, p], -c))
    return labels, tied


def margin(scores, allowed):
    """Distance between the two best allowed scores, (batch, pixels); infinite where one class alone is allowed."""
    masked = np.sort(np.where(allowed[:, None], scores.astype(np.float64), -np.inf), axis=-2)
    return masked[..., -1, :] - masked[..., -2, :]


def confusion(truth, predicted, classes):
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth.ravel().astype(int), predicted.ravel().astype(int)), 1)
    return matrix


def mean_iou(truth, predicted, classes, convention, ignored=0):
    """MIoU straight from its definition, pixel set by pixel set."""
    if convention == "per-image":
        values = [mean_iou(t, p, classes, "labelled", ignored) for t, p in zip(truth, predicted, strict=True)]
        values = [value for value in values if not np.isnan(value)]
        return np.mean(values) if values else np.nan
    counted = truth != ignored if convention in ("keras-ignore", "labelled") else np.ones(truth.shape, bool)
    t, p = truth[counted], predicted[counted]
    averaged = [c for c in range(classes) if convention in ("keras-ignore", "all") or c != ignored]
    values = []
    for c in averaged:
        union = ((t == c) | (p == c)).sum()
        if union:
            values.append(((t == c) & (p == c)).sum() / union)
    return np.mean(values) if values else np.nan
