"""Fusion and decoding on an NVIDIA GPU: one thread per pixel, logits in, one byte out.

The same scores as the strategies of the same names; neighbouring threads read neighbouring pixels of one row, so every
access to the logits is coalesced. Nothing here is imported before a GPU was found to work (or the simulator is on).
"""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

# Each thread keeps the scores of all classes: more would spill from its registers.
MOST_CLASSES = 32
THREADS = 256
FIXED_POINT = 2.0**30


@cuda.jit
def mean_logit(logits, weights, gain, bias, allowed, labels, broken):  # type: ignore[no-untyped-def]
    """Write the best class by the weighted mean of logits.

    Args:
        logits: float32 (members, batch, classes, pixels).
        weights: float32 (members, classes).
        gain: float32 (classes,), multiplies the score.
        bias: float32 (classes,), then added.
        allowed: uint8 (classes,), 0 for a class that is suppressed.
        labels: uint8 (batch, pixels), the result; the lowest class wins an exact tie.
        broken: uint8 (members, batch), set to 1 where a logit is not finite.
    """
    at = cuda.grid(1)
    if at >= labels.size:
        return
    image, pixel = at // labels.shape[1], at % labels.shape[1]
    scores = cuda.local.array(MOST_CLASSES, np.float32)
    classes = logits.shape[2]
    for c in range(classes):
        scores[c] = np.float32(0.0)
    for m in range(logits.shape[0]):
        for c in range(classes):
            value = logits[m, image, c, pixel]
            if not math.isfinite(value):
                broken[m, image] = 1
            scores[c] += weights[m, c] * value
    labels[image, pixel] = best_class(scores, gain, bias, allowed)


@cuda.jit
def mean_prob(logits, weights, gain, bias, allowed, labels, broken):  # type: ignore[no-untyped-def]
    """Write the best class by the weighted mean of softmax probabilities; arguments as :func:`mean_logit`."""
    at = cuda.grid(1)
    if at >= labels.size:
        return
    image, pixel = at // labels.shape[1], at % labels.shape[1]
    scores = cuda.local.array(MOST_CLASSES, np.float32)
    terms = cuda.local.array(MOST_CLASSES, np.float32)
    classes = logits.shape[2]
    for c in range(classes):
        scores[c] = np.float32(0.0)
    for m in range(logits.shape[0]):
        total = softmax(terms, logits, m, image, pixel)
        if not math.isfinite(total):
            broken[m, image] = 1
        for c in range(classes):
            scores[c] += weights[m, c] * (terms[c] / total)
    labels[image, pixel] = best_class(scores, gain, bias, allowed)


@cuda.jit
def vote(logits, units, spread, gain, bias, voted, allowed, labels, broken, ties):  # type: ignore[no-untyped-def]
    """Write the class with the most votes; a tie goes to the higher mean probability, then to the lower class.

    Args:
        logits: float32 (members, batch, classes, pixels).
        units: int32 (members, classes), votes of each member.
        spread: int32 (classes,), multiplies the counts.
        gain: float64 (classes,), then multiplies them.
        bias: int32 (classes,), then added.
        voted: uint8 (classes,), 0 for a class that no member may vote for.
        allowed: uint8 (classes,), 0 for a class that is suppressed.
        labels: uint8 (batch, pixels), the result.
        broken: uint8 (members, batch), set to 1 where a logit is not finite.
        ties: int32 (batch,), counts the pixels where the most votes were tied.
    """
    at = cuda.grid(1)
    if at >= labels.size:
        return
    image, pixel = at // labels.shape[1], at % labels.shape[1]
    votes = cuda.local.array(MOST_CLASSES, np.int32)
    classes = logits.shape[2]
    for c in range(classes):
        votes[c] = 0
    for m in range(logits.shape[0]):
        winner = -1
        for c in range(classes):
            if not math.isfinite(logits[m, image, c, pixel]):
                broken[m, image] = 1
            if voted[c] and (winner < 0 or logits[m, image, c, pixel] > logits[m, image, winner, pixel]):
                winner = c
        votes[winner] += units[m, winner]
    best, tied = -1, False
    for c in range(classes):
        votes[c] = np.int32(votes[c] * spread[c] * gain[c]) + bias[c]
        if allowed[c]:
            if best < 0 or votes[c] > votes[best]:
                best, tied = c, False
            elif votes[c] == votes[best]:
                tied = True
    if tied:
        cuda.atomic.add(ties, image, 1)
        best = likelier(votes, best, logits, units, spread, allowed, image, pixel)
    labels[image, pixel] = best


@cuda.jit(device=True)
def best_class(scores, gain, bias, allowed):  # type: ignore[no-untyped-def]
    """Return the allowed class of the best score, gain and bias applied."""
    best, most = -1, np.float32(0.0)
    for c in range(gain.size):
        if allowed[c]:
            score = scores[c] * gain[c] + bias[c]
            if best < 0 or score > most:
                best, most = c, score
    return best


@cuda.jit(device=True)
def softmax(terms, logits, member, image, pixel):  # type: ignore[no-untyped-def]
    """Set ``terms`` to exp(logit - greatest logit) and return their sum; NaN where a logit is not finite."""
    classes = logits.shape[2]
    peak = logits[member, image, 0, pixel]
    finite = math.isfinite(peak)
    for c in range(1, classes):
        value = logits[member, image, c, pixel]
        finite = finite and math.isfinite(value)
        peak = max(peak, value)
    total = np.float32(0.0)
    for c in range(classes):
        terms[c] = math.exp(logits[member, image, c, pixel] - peak)
        total += terms[c]
    return total if finite else np.float32(np.nan)


@cuda.jit(device=True)
def likelier(votes, first, logits, units, spread, allowed, image, pixel):  # type: ignore[no-untyped-def]
    """Return which class with as many votes as ``first`` has the highest mean probability, in integers."""
    terms = cuda.local.array(MOST_CLASSES, np.float32)
    means = cuda.local.array(MOST_CLASSES, np.int64)
    classes = logits.shape[2]
    for c in range(classes):
        means[c] = 0
    for m in range(logits.shape[0]):
        total = softmax(terms, logits, m, image, pixel)
        for c in range(classes):
            share = np.int64(terms[c] / total * FIXED_POINT)
            means[c] += np.int64(units[m, c]) * np.int64(spread[c]) * share
    best = first
    for c in range(first + 1, classes):
        if allowed[c] and votes[c] == votes[first] and means[c] > means[best]:
            best = c
    return best
