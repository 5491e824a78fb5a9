"""Strategies whose score is a sum over members, as integers that a search can add and subtract exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from engine.select.cache import LEAST_LOG, log_softmax

# The largest sum of scores; leaves room in int32 for a class bias of the same size.
MOST_SUM = 2**30
SMALL = 2**15 - 1
Scores = Callable[[NDArray[np.float32], NDArray[np.int64], int], tuple[NDArray[np.float64], int]]


def member_table(
    strategy: str, logits: NDArray[np.float32], allowed: NDArray[np.int64], most: int, fused: bool = False
) -> tuple[NDArray[np.integer], int]:
    """Return the scores of one member at every pixel.

    Args:
        strategy: a key of :data:`ADDITIVE`.
        logits: float32 (classes, pixels).
        allowed: the classes that can be predicted, ascending.
        most: the maximum number of members (with repetition) in a sum.
        fused: whether members vote among all classes, so that a vote for another class than the allowed ones is lost.

    Returns:
        int16 or int32 (len(allowed), pixels), and the integer that represents a score of 1.
    """
    own = partial(_vote, fused=fused) if strategy == "vote" else ADDITIVE[strategy]
    scores, unit = own(logits, allowed, most)
    kind = np.int16 if unit * float(np.abs(scores).max(initial=0)) <= SMALL else np.int32
    return np.rint(scores * unit).astype(kind), unit


def _mean_logit(logits: NDArray[np.float32], allowed: NDArray[np.int64], most: int) -> tuple[NDArray[np.float64], int]:
    logs = log_softmax(logits)[allowed].astype(np.float64)
    return logs, int(min(SMALL, MOST_SUM // most) // -float(LEAST_LOG))


def _mean_prob(logits: NDArray[np.float32], allowed: NDArray[np.int64], most: int) -> tuple[NDArray[np.float64], int]:
    return np.exp(log_softmax(logits))[allowed].astype(np.float64), min(SMALL, MOST_SUM // most)


def _entropy_weighted(
    logits: NDArray[np.float32], allowed: NDArray[np.int64], most: int
) -> tuple[NDArray[np.float64], int]:
    logs = log_softmax(logits)
    chances = np.exp(logs)
    sure = np.exp((chances * logs).sum(axis=0))
    return (chances * sure)[allowed].astype(np.float64), min(SMALL, MOST_SUM // most)


def _vote(
    logits: NDArray[np.float32], allowed: NDArray[np.int64], most: int, fused: bool = False
) -> tuple[NDArray[np.float64], int]:
    # All tie-breaking probabilities together stay below one vote.
    choice = logits.argmax(axis=0) if fused else allowed[logits[allowed].argmax(axis=0)]
    votes = allowed[:, None] == choice
    unit = MOST_SUM // most
    return votes + np.exp(log_softmax(logits))[allowed].astype(np.float64) / (most + 1), unit


def _borda(logits: NDArray[np.float32], allowed: NDArray[np.int64], most: int) -> tuple[NDArray[np.float64], int]:
    classes = len(logits)
    halves = np.stack([2 * (logits[c] > logits).sum(axis=0) + (logits[c] == logits).sum(axis=0) - 1 for c in allowed])
    # A multiple of the finest rank, so that equal ranks are equal numbers.
    unit = min(SMALL, MOST_SUM // most) // (2 * (classes - 1)) * (2 * (classes - 1))
    return halves / (2 * (classes - 1)), unit


ADDITIVE: dict[str, Scores] = {
    "mean-logit": _mean_logit,
    "mean-prob": _mean_prob,
    "vote": _vote,
    "borda": _borda,
    "entropy-weighted": _entropy_weighted,
}
