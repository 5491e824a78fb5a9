"""Probabilities and maps of doubt as ONNX, the same as :mod:`engine.fusion.evidence` computes, in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.fusion.decoding import Decoding
from engine.fusion.evidence import LOGITS
from engine.graph.compose import Composer

# One more than this factor times a float32 is greater than it.
_NEXT = np.float32(1 + 2.0**-22)
_LEAST = np.float32(2.0**-126)


def add_probabilities(
    graph: Composer, strategy: str, decoded: str, labels: str, classes: int, temperature: float = 1.0
) -> str:
    """Add the probabilities of decoded scores, float32 (batch, classes, height, width), whose argmax is the label.

    Args:
        graph: what to add to.
        strategy: the strategy of the scores.
        decoded: their tensor, -infinity where a class is suppressed.
        labels: the tensor of the labels, int64 (batch, height, width).
        classes: number of classes.
        temperature: divides the logarithms of the probabilities.
    """
    own = _is_label(graph, labels, classes)
    if strategy == LOGITS:
        sharp = decoded if temperature == 1 else graph.add("Mul", decoded, graph.constant(1 / temperature))
        shares = graph.softmax(sharp).shares
    else:
        positive = graph.add("Max", decoded, graph.constant(0.0))
        if temperature != 1:
            peak = graph.add("Max", graph.greatest(positive), graph.constant(_LEAST))
            positive = graph.add("Pow", graph.add("Div", positive, peak), graph.constant(1 / temperature))
        total = _over_classes(graph, "ReduceSum", positive)
        some = graph.add("Greater", total, graph.constant(0.0))
        divided = graph.add("Div", positive, graph.add("Where", some, total, graph.constant(1.0)))
        shares = graph.add("Where", some, divided, graph.cast(own, np.float32))
    others = graph.greatest(graph.add("Where", own, graph.constant(-1.0), shares))
    raised = graph.add("Mul", others, graph.constant(_NEXT))
    ahead = graph.add("Greater", shares, others)
    return graph.add("Where", own, graph.add("Where", ahead, shares, raised), shares)


def add_doubt(
    graph: Composer,
    measure: str,
    shares: str,
    labels: str,
    logits: Sequence[str],
    weights: npt.NDArray[np.float64],
    decoding: Decoding,
) -> str:
    """Add a map of doubt, float32 (batch, height, width), 0 to 1.

    Args:
        graph: what to add to.
        measure: a name from :data:`engine.fusion.evidence.DOUBTS`.
        shares: the tensor of the probabilities.
        labels: that of the labels, int64 (batch, height, width).
        logits: one tensor per member, in the order of ``weights``.
        weights: float64 (members, classes), columns summing to 1.
        decoding: which classes may be predicted.
    """
    classes = weights.shape[1]
    rule = decoding.rule(classes, log_domain=False)
    possible = rule.allowed | (decoding.threshold is not None)
    unit = graph.constant(1 / math.log(possible.sum()) if possible.sum() > 1 else 0.0)
    if measure == "entropy":
        found = graph.add("Mul", _entropy(graph, shares), unit)
    elif measure == "margin":
        own = _is_label(graph, labels, classes)
        mine = graph.greatest(graph.add("Where", own, shares, graph.constant(-1.0)))
        rest = graph.greatest(graph.add("Where", own, graph.constant(0.0), shares))
        found = graph.add("Sub", graph.constant(1.0), graph.add("Sub", mine, rest))
    elif measure == "votes":
        own, none, found = _is_label(graph, labels, classes), graph.constant(0.0), graph.constant(1.0)
        ids = graph.row(np.arange(classes), np.int64)
        for tensor, row in zip(logits, weights.astype(np.float32), strict=True):
            agreed = graph.add("And", graph.add("Equal", graph.best(tensor, possible, keep=True), ids), own)
            share = _over_classes(graph, "ReduceSum", graph.add("Where", agreed, graph.row(row), none))
            found = graph.add("Sub", found, share)
    else:
        found = graph.add("Mul", _mutual(graph, logits, weights.mean(axis=1), possible), unit)
    flat = graph.add("Squeeze", found, graph.constant([1], np.int64))
    return graph.add("Min", graph.add("Max", flat, graph.constant(0.0)), graph.constant(1.0))


def _mutual(
    graph: Composer, logits: Sequence[str], weights: npt.NDArray[np.float64], possible: npt.NDArray[np.bool_]
) -> str:
    """Add the entropy of the members' mean probabilities minus the mean of their entropies, in nats."""
    ids = graph.constant(np.flatnonzero(possible), np.int64)
    mean = within = ""
    for tensor, weight in zip(logits, weights, strict=True):
        shares = graph.softmax(graph.add("Gather", tensor, ids, axis=1)).shares
        factor = graph.constant(weight)
        part, own = graph.add("Mul", shares, factor), graph.add("Mul", _entropy(graph, shares), factor)
        mean = graph.add("Add", mean, part) if mean else part
        within = graph.add("Add", within, own) if within else own
    return graph.add("Sub", _entropy(graph, mean), within)


def _entropy(graph: Composer, shares: str) -> str:
    """Add the entropy over the classes, in nats, kept as an axis of length 1."""
    terms = graph.add("Mul", shares, graph.add("Log", graph.add("Max", shares, graph.constant(_LEAST))))
    return graph.add("Neg", _over_classes(graph, "ReduceSum", terms))


def _over_classes(graph: Composer, kind: str, tensor: str) -> str:
    return graph.add(kind, tensor, graph.constant([1], np.int64))


def _is_label(graph: Composer, labels: str, classes: int) -> str:
    """Add bool (batch, classes, height, width): True for the label."""
    ids = graph.row(np.arange(classes), np.int64)
    return graph.add("Equal", graph.add("Unsqueeze", labels, graph.constant([1], np.int64)), ids)
