"""The engine's steps between logits and masks as ONNX: fusion, decoding, and a flag where a member fails.

Each step repeats the engine's float32 arithmetic in the engine's order, so that labels differ at most where two scores
are equal within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.fusion.decoding import Decoding, Rule
from engine.graph.compose import Composer
from engine.graph.scores import SCORES
from engine.graph.votes import count_votes
from engine.models.adapt.labels import NOT_FINITE

# What operators of ONNX state exactly: all but staple, whose number of iterations depends on the images.
STRATEGIES = (*SCORES, "vote")


class Fused(NamedTuple):
    """Tensors of a fused batch.

    Attributes:
        labels: int64 (batch, height, width).
        scores: float32 (batch, classes, height, width): what the argmax decides on, -infinity where suppressed.
        ties: bool (batch, 1, height, width), where a vote was tied; empty for strategies without votes.
    """

    labels: str
    scores: str
    ties: str = ""


def add_fusion(
    graph: Composer, logits: Sequence[str], strategy: str, weights: npt.NDArray[np.float64], decoding: Decoding
) -> Fused:
    """Add fusion and decoding.

    Args:
        graph: what to add to.
        logits: one tensor per member, float32 (batch, classes, height, width), in the order of summation.
        strategy: one of :data:`STRATEGIES`.
        weights: float64 (members, classes), columns summing to 1.
        decoding: bias, prior, suppression.
    """
    if strategy == "vote":
        found = count_votes(graph, logits, weights, decoding)
        everything = np.ones_like(found.allowed)
        shown = _suppressed(graph, found.shares, found.allowed if decoding.threshold is None else everything)
        return Fused(graph.best(found.decided, found.allowed), shown, found.ties)
    rule = decoding.rule(weights.shape[1], log_domain=strategy == "mean-logit")
    scores = SCORES[strategy](graph, logits, weights)
    if decoding.threshold is not None:
        scores = _drop_unlikely(graph, scores, rule, log_domain=strategy == "mean-logit")
        rule = rule._replace(allowed=np.ones_like(rule.allowed))
    scores = _ruled(graph, scores, rule)
    return Fused(graph.best(scores, rule.allowed), _suppressed(graph, scores, rule.allowed))


def add_flags(graph: Composer, logits: Sequence[str]) -> list[str]:
    """Add for each member where it computes NaN or infinity: bool (batch, 1, 1, 1).

    A sum of zeros is NaN if one of the values was NaN or infinite.
    """
    axes = graph.constant([1, 2, 3], np.int64)
    zero = graph.constant(0.0)
    return [graph.add("IsNaN", graph.add("ReduceSum", graph.add("Mul", tensor, zero), axes)) for tensor in logits]


def add_marks(graph: Composer, labels: str, flags: Sequence[str]) -> str:
    """Add labels, int64 (batch, height, width), with :data:`NOT_FINITE` in all pixels of images that a member fails on.

    An argmax over NaN would give a label by its place.
    """
    failed = flags[0]
    for flag in flags[1:]:
        failed = graph.add("Or", failed, flag)
    failed = graph.add("Squeeze", failed, graph.constant([1], np.int64))
    return graph.add("Where", failed, graph.constant(NOT_FINITE, np.int64), labels)


def _drop_unlikely(graph: Composer, scores: str, rule: Rule, log_domain: bool) -> str:
    """Set suppressed classes to -infinity where their probability is below the threshold, as the kernel: in float64."""
    likely = graph.cast(scores, np.float64)
    if log_domain:
        terms = graph.add("Exp", graph.add("Sub", likely, graph.cast(graph.greatest(scores), np.float64)))
        likely = graph.add("Div", terms, graph.add("ReduceSum", terms, graph.constant([1], np.int64)))
    low = graph.add("Less", likely, graph.constant(float(rule.threshold), np.float64))
    if not rule.allowed.all():
        low = graph.add("And", low, graph.row(~rule.allowed, np.bool_))
        return graph.add("Where", low, graph.constant(-np.inf), scores)
    return scores


def _ruled(graph: Composer, scores: str, rule: Rule) -> str:
    if (rule.gain != 1).any():
        scores = graph.add("Mul", scores, graph.row(rule.gain))
    bias = np.where(rule.allowed, rule.bias, np.float32(0))
    return graph.add("Add", scores, graph.row(bias)) if bias.any() else scores


def _suppressed(graph: Composer, scores: str, allowed: npt.NDArray[np.bool_]) -> str:
    """Add scores that are -infinity for suppressed classes, for those who read them."""
    return scores if allowed.all() else graph.add("Add", scores, graph.row(np.where(allowed, 0.0, -np.inf)))
