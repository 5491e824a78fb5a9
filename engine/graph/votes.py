"""Votes of the members as ONNX: whole numbers, ties broken by the mean probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.fusion.decoding import Decoding
from engine.fusion.strategies.vote import MOST_UNITS, voting_units
from engine.graph.compose import Composer

# A probability of 1 in the integers with which the engine breaks ties.
_FIXED_POINT = 2.0**30
# Below any count: a class that may not win.
_STRUCK = -(2**31)


class Votes(NamedTuple):
    """What the votes of a batch decide.

    Attributes:
        decided: float64 (batch, classes, height, width): its argmax is the label.
        shares: float32, the classes' shares of the votes after prior and bias.
        ties: bool (batch, 1, height, width): where several classes have the most votes.
        allowed: bool (classes,), those that may win.
    """

    decided: str
    shares: str
    ties: str
    allowed: npt.NDArray[np.bool_]


def count_votes(graph: Composer, logits: Sequence[str], weights: npt.NDArray[np.float64], decoding: Decoding) -> Votes:
    """Add integer votes; among the classes with the most, the highest mean probability decides.

    Args:
        graph: what to add to.
        logits: one tensor per member, float32 (batch, classes, height, width).
        weights: float64 (members, classes), columns summing to 1.
        decoding: bias, prior, suppression.
    """
    classes = weights.shape[1]
    rule = decoding.rule(classes, log_domain=False)
    units = np.stack([voting_units(column) for column in weights.T], axis=1)
    units *= MOST_UNITS // units.sum(axis=0)
    total = units.sum(axis=0)
    # As the engine: gains above 1 could leave int32, and dividing all scores by the greatest changes no label.
    shrink = max(1.0, float(rule.gain.max()))
    raised = np.rint(rule.bias.astype(np.float64) * total / shrink)
    bias = np.clip(raised, 1 - MOST_UNITS, MOST_UNITS - 1).astype(np.int32)
    everything = np.ones(classes, np.bool_)
    whole = decoding.threshold is not None
    voted = rule.allowed if decoding.vote_stage == "members" and not whole else everything
    votes = _counted(graph, logits, units, voted)
    struck = np.zeros(classes, np.int32)
    if whole:
        least = np.ceil((decoding.threshold or 0.0) * total).astype(np.int32)
        struck = np.where(rule.allowed, 0, least).astype(np.int32)
    unlikely = graph.add("Less", votes, graph.row(struck, np.int32)) if struck.any() else ""
    if (rule.gain != 1).any():
        gain = graph.row(rule.gain.astype(np.float64) / shrink, np.float64)
        votes = graph.cast(graph.add("Mul", graph.cast(votes, np.float64), gain), np.int32)
    if bias.any():
        votes = graph.add("Add", votes, graph.row(bias, np.int32))
    shares = graph.add("Mul", graph.cast(votes, np.float32), graph.row(shrink / total))
    lowest = graph.constant(_STRUCK, np.int32)
    if unlikely:
        votes = graph.add("Where", unlikely, lowest, votes)
    allowed = everything if whole else rule.allowed
    if not allowed.all():
        votes = graph.add("Where", graph.row(allowed, np.bool_), votes, lowest)
    top = graph.add("Equal", votes, graph.greatest(votes))
    count = graph.add("ReduceSum", graph.cast(top, np.int32), graph.constant([1], np.int64))
    ties = graph.add("Greater", count, graph.constant(1, np.int32))
    decided = graph.add("Where", top, _exact_means(graph, logits, units), graph.constant(-1.0, np.float64))
    return Votes(decided, shares, ties, allowed)


def _counted(graph: Composer, logits: Sequence[str], units: npt.NDArray[np.int64], voted: npt.NDArray[np.bool_]) -> str:
    ids, none = graph.row(np.arange(units.shape[1]), np.int64), graph.constant(0, np.int32)
    votes = ""
    for tensor, row in zip(logits, units, strict=True):
        choice = graph.add("Equal", graph.best(tensor, voted, keep=True), ids)
        part = graph.add("Where", choice, graph.row(row, np.int32), none)
        votes = graph.add("Add", votes, part) if votes else part
    return votes


def _exact_means(graph: Composer, logits: Sequence[str], units: npt.NDArray[np.int64]) -> str:
    """Sum probabilities as integer multiples of 2**-30: exact in float64 for units that sum to at most 2**23."""
    small = units // np.gcd.reduce(units, axis=None)
    parts = []
    for tensor in logits:
        scaled = graph.add("Mul", graph.softmax(tensor).shares, graph.constant(_FIXED_POINT))
        parts.append(graph.cast(graph.add("Floor", scaled), np.float64))
    return graph.weighted_sum(parts, small.astype(np.float64))
