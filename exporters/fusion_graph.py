"""The engine's steps between logits and masks as ONNX: fusion, decoding, and a mark where a member fails.

Each step repeats the engine's float32 arithmetic in the engine's order, so that labels differ at most where two scores
are equal within rounding. Softmax is written out: over planar maps it is many times faster than the operator, which
turns the array around first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import PlanError
from engine.fusion.decoding import Decoding, Rule
from engine.fusion.strategies.vote import MOST_UNITS, voting_units
from engine.inference.ensemble import Ensemble
from engine.models.adapt.labels import NOT_FINITE
from exporters.compose import Composer

STRATEGIES = ("mean-logit", "mean-prob", "vote")
# A probability of 1 in the integers with which the engine breaks ties.
_FIXED_POINT = 2.0**30


def check_packable(ensemble: Ensemble) -> None:
    """Refuse what one graph cannot express.

    Raises:
        PlanError: naming it and what can be packed.
    """
    strategy, decoding = ensemble.variant.strategy, ensemble.variant.decoding
    if strategy not in STRATEGIES:
        raise PlanError(f"strategy {strategy!r} cannot be packed; those that can are {', '.join(STRATEGIES)}")
    kept_out = {
        "flips": len(ensemble.flips) > 1,
        "threshold": decoding.threshold is not None,
        "min_region": decoding.min_region > 0,
        f"decode {decoding.decode}": decoding.decode != "argmax",
        "a multi-label member": ensemble.is_multilabel,
    }
    for name, held in kept_out.items():
        if held:
            raise PlanError(f"{name} cannot be packed; remove it from the plan, or run the plan with the engine")
    if len(ensemble.classes) > NOT_FINITE:
        raise PlanError(
            f"{len(ensemble.classes)} classes cannot be packed; at most {NOT_FINITE} can: the label {NOT_FINITE} says "
            "that a member computes NaN or infinity"
        )
    if decoding.prior and strategy == "vote":
        raise PlanError("a prior cannot be packed with the strategy vote; remove it, or use mean-prob")


def add_fusion(
    graph: Composer, logits: Sequence[str], strategy: str, weights: npt.NDArray[np.float64], decoding: Decoding
) -> tuple[str, str]:
    """Add fusion and decoding.

    Args:
        graph: what to add to.
        logits: one tensor per member, in the order of summation.
        strategy: one of :data:`STRATEGIES`.
        weights: float64 (members, classes), columns summing to 1.
        decoding: bias, prior and suppression.

    Returns:
        The tensors of the labels, int64 (batch, height, width), and of the scores, float32 (batch, classes, height,
        width): fused logits, probabilities or shares of the votes after prior and bias, -infinity where suppressed.
    """
    classes = weights.shape[1]
    if strategy == "vote":
        return _vote(graph, logits, weights, decoding)
    rule = decoding.rule(classes, log_domain=strategy == "mean-logit")
    parts = logits if strategy == "mean-logit" else [softmax(graph, tensor) for tensor in logits]
    fused = _weighted_sum(graph, parts, weights.astype(np.float32))
    scores = _ruled(graph, fused, rule)
    return best(graph, scores, rule.allowed, keep=False), _suppressed(graph, scores, rule.allowed)


def add_marks(graph: Composer, labels: str, logits: Sequence[str]) -> str:
    """Add labels, int64 (batch, height, width), with :data:`NOT_FINITE` in all pixels of images that a member fails on.

    An argmax over NaN would give a label by its place. A sum of zeros is NaN if one of the values was NaN or infinite.
    """
    total = ""
    for tensor in logits:
        nothing = graph.add("Mul", tensor, graph.constant(0.0))
        part = graph.add("ReduceSum", nothing, graph.constant([1, 2, 3], np.int64))
        total = graph.add("Add", total, part) if total else part
    failed = graph.add("Squeeze", graph.add("IsNaN", total), graph.constant([1], np.int64))
    return graph.add("Where", failed, graph.constant(NOT_FINITE, np.int64), labels)


def best(graph: Composer, scores: str, allowed: npt.NDArray[np.bool_], keep: bool) -> str:
    """Add the best of the allowed classes, the lowest where several are, as int64; ``keep`` keeps the axis."""
    if allowed.all():
        return graph.add("ArgMax", scores, axis=1, keepdims=int(keep))
    ids = graph.constant(np.flatnonzero(allowed), np.int64)
    place = graph.add("ArgMax", graph.add("Gather", scores, ids, axis=1), axis=1, keepdims=int(keep))
    return graph.add("Gather", ids, place, axis=0)


def _weighted_sum(graph: Composer, parts: Sequence[str], weights: npt.NDArray[Any]) -> str:
    total = ""
    for part, row in zip(parts, weights, strict=True):
        same = bool((row == row[0]).all())
        factor = graph.constant(row[0], row.dtype) if same else graph.row(row, row.dtype)
        term = graph.add("Mul", part, factor)
        total = graph.add("Add", total, term) if total else term
    return total


def _ruled(graph: Composer, scores: str, rule: Rule) -> str:
    if (rule.gain != 1).any():
        scores = graph.add("Mul", scores, graph.row(rule.gain))
    bias = np.where(rule.allowed, rule.bias, np.float32(0))
    return graph.add("Add", scores, graph.row(bias)) if bias.any() else scores


def _suppressed(graph: Composer, scores: str, allowed: npt.NDArray[np.bool_]) -> str:
    """Add scores that are -infinity for suppressed classes, for those who read them."""
    return scores if allowed.all() else graph.add("Add", scores, graph.row(np.where(allowed, 0.0, -np.inf)))


def softmax(graph: Composer, tensor: str) -> str:
    """Add the softmax over the classes."""
    terms = graph.add("Exp", graph.add("Sub", tensor, graph.greatest(tensor)))
    total = graph.add("ReduceSum", terms, graph.constant([1], np.int64))
    return graph.add("Mul", terms, graph.add("Reciprocal", total))


def _vote(
    graph: Composer, logits: Sequence[str], weights: npt.NDArray[np.float64], decoding: Decoding
) -> tuple[str, str]:
    """Integer votes; among the classes with the most, the highest mean probability, then the lowest id."""
    classes = weights.shape[1]
    rule = decoding.rule(classes, log_domain=False)
    units = np.stack([voting_units(column) for column in weights.T], axis=1)
    units *= MOST_UNITS // units.sum(axis=0)
    total = units.sum(axis=0)
    bias = np.clip(np.rint(rule.bias.astype(np.float64) * total), 1 - MOST_UNITS, MOST_UNITS - 1).astype(np.int32)
    voted = rule.allowed if decoding.vote_stage == "members" else np.ones(classes, np.bool_)
    ids, votes = graph.row(np.arange(classes), np.int64), graph.row(bias, np.int32)
    none = graph.constant(0, np.int32)
    for tensor, row in zip(logits, units, strict=True):
        choice = graph.add("Equal", best(graph, tensor, voted, keep=True), ids)
        votes = graph.add("Add", votes, graph.add("Where", choice, graph.row(row, np.int32), none))
    if not rule.allowed.all():
        votes = graph.add("Where", graph.row(rule.allowed, np.bool_), votes, graph.constant(-(2**31), np.int32))
    top = graph.add("Equal", votes, graph.greatest(votes))
    means = _exact_means(graph, logits, units)
    decided = graph.add("Where", top, means, graph.constant(-1.0, np.float64))
    shares = graph.add("Mul", graph.cast(votes, np.float32), graph.row(1.0 / total))
    shares = _ruled(graph, shares, rule._replace(bias=np.zeros(classes, np.float32)))
    return best(graph, decided, rule.allowed, keep=False), _suppressed(graph, shares, rule.allowed)


def _exact_means(graph: Composer, logits: Sequence[str], units: npt.NDArray[np.int64]) -> str:
    """Sum probabilities as integer multiples of 2**-30: exact in float64 for units that sum to at most 2**23."""
    small = units // np.gcd.reduce(units, axis=None)
    parts = []
    for tensor in logits:
        scaled = graph.add("Mul", softmax(graph, tensor), graph.constant(_FIXED_POINT))
        parts.append(graph.cast(graph.add("Floor", scaled), np.float64))
    return _weighted_sum(graph, parts, small.astype(np.float64))
