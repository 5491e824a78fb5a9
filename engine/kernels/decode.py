"""Scores of a block of pixels -> labels: gain and bias, suppression, argmax."""

from __future__ import annotations

import math

import numpy as np

from engine.kernels import rows
from engine.kernels.jit import part

ONE = np.float32(1.0)
NEVER = np.float32(-np.inf)
# What scores are. Of these numba compiles one version of a kernel; of True and False one each.
LOGITS, SCORES = np.bool_(True), np.bool_(False)


@part
def argmax_block(labels, scores, rule, log_domain, best, label):  # type: ignore[no-untyped-def]
    """Write the best class of each pixel that the rule allows; the lowest id wins an exact tie.

    Args:
        labels: uint8 (pixels,), the result.
        scores: float32 (classes, >= pixels); modified (gain, bias and threshold are applied in place).
        rule: :class:`engine.fusion.decoding.Rule`.
        log_domain: whether scores are logits; a threshold then applies to their softmax.
        best: float32 (pixels,) scratch.
        label: int32 (pixels,) scratch.
    """
    size = labels.size
    conditional = rule.threshold <= ONE
    if conditional:
        drop_unlikely(scores, size, rule, log_domain)
    first = 0
    while not (rule.allowed[first] or conditional):
        first += 1
    for c in range(first, scores.shape[0]):
        if rule.allowed[c] or conditional:
            row = scores[c, :size]
            bias, gain = rule.bias[c], rule.gain[c]
            if gain != ONE or bias != np.float32(0.0):
                for i in range(size):
                    row[i] = row[i] * gain + bias
            if c == first:
                rows.fill(label, np.int32(c))
                rows.copy(best, row)
            else:
                rows.take_greater(best, label, row, np.int32(c))
    rows.narrow(labels, label)


@part
def decide_block(labels, kept, image, start, scores, rule, log_domain, best, label):  # type: ignore[no-untyped-def]
    """Write labels as :func:`argmax_block` does, and keep the decoded scores where somebody asks for them.

    Args:
        labels: uint8 (pixels,), the result.
        kept: float32 (batch, classes, all pixels), the decoded scores, minus infinity where a class is suppressed;
            (batch, 0, ...) where nobody asks.
        image: which of the batch.
        start: first pixel of the block.
        scores: float32 (classes, >= pixels); modified.
        rule: :class:`engine.fusion.decoding.Rule`.
        log_domain: whether scores are logits.
        best: float32 (pixels,) scratch.
        label: int32 (pixels,) scratch.
    """
    argmax_block(labels, scores, rule, log_domain, best, label)
    size = labels.size
    for c in range(kept.shape[1]):
        row = kept[image, c, start : start + size]
        if rule.allowed[c] or rule.threshold <= ONE:
            rows.copy(row, scores[c, :size])
        else:
            rows.fill(row, NEVER)


@part
def drop_unlikely(scores, size, rule, log_domain):  # type: ignore[no-untyped-def]
    """Set the scores of suppressed classes to minus infinity where their probability is below the threshold."""
    classes = scores.shape[0]
    for i in range(size):
        shift, total = 0.0, 1.0
        if log_domain:
            shift, total = np.float64(scores[0, i]), 0.0
            for c in range(1, classes):
                shift = max(shift, np.float64(scores[c, i]))
            for c in range(classes):
                total += math.exp(np.float64(scores[c, i]) - shift)
        for c in range(classes):
            if not rule.allowed[c]:
                value = np.float64(scores[c, i])
                probability = math.exp(value - shift) / total if log_domain else value
                if probability < rule.threshold:
                    scores[c, i] = NEVER
