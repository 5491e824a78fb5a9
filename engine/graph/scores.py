"""The scores of each strategy as ONNX, in the arithmetic of :mod:`engine.fusion.strategies`.

Softmax is written out: over planar maps it is many times faster than the operator, which turns the array around first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from engine.fusion.strategies.borda import MOST_EXACT as MOST_RANKS
from engine.fusion.strategies.order_statistics import MOST_EXACT, TRIM
from engine.fusion.strategies.vote import voting_units
from engine.graph.compose import Composer, Softmax

Weights = npt.NDArray[np.float64]
Score = Callable[[Composer, Sequence[str], Weights], str]


def mean_logit(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add sum of weight x logit."""
    return graph.weighted_sum(logits, weights.astype(np.float32))


def mean_prob(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add sum of weight x probability."""
    return graph.weighted_sum([graph.softmax(tensor).shares for tensor in logits], weights.astype(np.float32))


def entropy_weighted(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add sum of weight x exp(-entropy) x probability."""
    axis = graph.constant([1], np.int64)
    parts = []
    for tensor in logits:
        held = graph.softmax(tensor)
        surprise = graph.add("ReduceSum", graph.add("Mul", held.shares, held.below), axis)
        factor = graph.add("Mul", graph.add("Mul", held.inverse, held.inverse), graph.add("Exp", surprise))
        parts.append(graph.add("Mul", held.terms, factor))
    return graph.weighted_sum(parts, weights.astype(np.float32))


def max_confidence(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add the probabilities under the member that leaves the least to other classes; of equals the greater ones."""
    scores = least = ""
    for tensor, row in zip(logits, weights, strict=True):
        if not (row > 0).any():
            continue
        held = graph.softmax(tensor)
        rest = _left(graph, held)
        if not scores:
            scores, least = held.shares, rest
            continue
        merged = graph.add("Where", graph.add("Greater", held.shares, scores), held.shares, scores)
        kept = graph.add("Where", graph.add("Equal", rest, least), merged, scores)
        surer = graph.add("Less", rest, least)
        scores = graph.add("Where", surer, held.shares, kept)
        least = graph.add("Where", surer, rest, least)
    return scores


def _left(graph: Composer, held: Softmax) -> str:
    """Add the sum of all classes but the top one, relative to it; further classes at the top count 1 each."""
    axis = graph.constant([1], np.int64)
    lower = graph.add("Less", held.below, graph.constant(0.0))
    small = graph.add("ReduceSum", graph.add("Where", lower, held.terms, graph.constant(0.0)), axis)
    top = graph.add("ReduceSum", graph.add("Where", lower, graph.constant(0.0), graph.constant(1.0)), axis)
    return graph.add("Add", small, graph.add("Sub", top, graph.constant(1.0)))


def borda(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add sum of weight x (classes beaten + half of those equalled) / (classes - 1): whole numbers, then one factor."""
    classes = weights.shape[1]
    most = MOST_RANKS // (2 * (classes - 1))
    units = np.stack([voting_units(column, most) for column in weights.T], axis=1)
    parts = []
    for tensor in logits:
        points = ""
        for other in range(classes):
            rival = graph.add("Gather", tensor, graph.constant([other], np.int64), axis=1)
            for kind in ("Greater", "GreaterOrEqual"):
                beaten = graph.cast(graph.add(kind, tensor, rival), np.float32)
                points = graph.add("Add", points, beaten) if points else beaten
        # Each class equals itself.
        parts.append(graph.add("Sub", points, graph.constant(1.0)))
    share = (1.0 / (2.0 * (classes - 1) * units.sum(axis=0))).astype(np.float32)
    return graph.add("Mul", graph.weighted_sum(parts, units.astype(np.float32)), graph.row(share))


def median_prob(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add the weighted median of the probabilities."""
    probabilities, below, units = _ranked(graph, logits, weights)
    half = graph.row(np.float32(0.5) * units.sum(axis=0, dtype=np.float32))
    score = ""
    for values, low, row in zip(probabilities, below, units, strict=True):
        high = graph.add("Add", low, graph.row(row))
        parts = []
        for under, over in (("LessOrEqual", "GreaterOrEqual"), ("Less", "Greater")):
            inside = graph.add("And", graph.add(under, low, half), graph.add(over, high, half))
            inside = graph.add("And", inside, graph.row(row > 0, np.bool_))
            parts.append(graph.add("Where", inside, graph.constant(0.5), graph.constant(0.0)))
        term = graph.add("Mul", graph.add("Add", *parts), values)
        score = graph.add("Add", score, term) if score else term
    return score


def trimmed_mean(graph: Composer, logits: Sequence[str], weights: Weights) -> str:
    """Add the weighted mean of the probabilities without a share of the weight at each end."""
    probabilities, below, units = _ranked(graph, logits, weights)
    total = units.sum(axis=0, dtype=np.float32)
    low = np.float32(TRIM) * total
    first, last = graph.row(low), graph.row(total - low)
    score = ""
    for values, start, row in zip(probabilities, below, units, strict=True):
        stop = graph.add("Min", graph.add("Add", start, graph.row(row)), last)
        inside = graph.add("Sub", stop, graph.add("Max", start, first))
        inside = graph.add("Max", inside, graph.constant(0.0))
        term = graph.add("Mul", inside, values)
        score = graph.add("Add", score, term) if score else term
    return graph.add("Mul", score, graph.row(np.float32(1.0) / (total - low - low)))


def _ranked(
    graph: Composer, logits: Sequence[str], weights: Weights
) -> tuple[list[str], list[str], npt.NDArray[np.float32]]:
    """Add each member's probabilities and the weight of all members below it; return both and the weights in units."""
    units = np.stack([voting_units(column, MOST_EXACT) for column in weights.T], axis=1).astype(np.float32)
    shares = [graph.softmax(tensor).shares for tensor in logits]
    none = graph.constant(0.0)
    below = [graph.add("Mul", shares[0], none) if len(shares) == 1 else "" for _ in shares]
    for m, own in enumerate(shares):
        for k in range(m + 1, len(shares)):
            greater = graph.add("Greater", own, shares[k])
            gains = {
                m: graph.add("Where", greater, graph.row(units[k]), none),
                k: graph.add("Where", greater, none, graph.row(units[m])),
            }
            for index, gain in gains.items():
                below[index] = graph.add("Add", below[index], gain) if below[index] else gain
    return shares, below, units


# By the names of engine.fusion.strategies.STRATEGIES.
SCORES: dict[str, Score] = {
    "mean-logit": mean_logit,
    "mean-prob": mean_prob,
    "borda": borda,
    "max-confidence": max_confidence,
    "entropy-weighted": entropy_weighted,
    "median-prob": median_prob,
    "trimmed-mean": trimmed_mean,
}
