"""What the engine does between sessions and masks, said in ONNX: scaling, calibration, fusion, decoding.

Each step repeats the engine's float32 arithmetic in the engine's order, so that labels differ at most where two scores
are equal within rounding. Softmax is written out: over planar maps it is many times faster than the operator, which
turns the array around first.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import PlanError
from engine.fusion.decoding import Decoding, Rule
from engine.fusion.strategies.vote import MOST_UNITS, voting_units
from engine.inference.ensemble import Ensemble
from engine.models.adapt.binary import LEAST_PROBABILITY
from engine.models.contract import ModelContract
from engine.models.members import FLOOR, Member
from engine.models.net import Net
from exporters.compose import Composer, maps_of

STRATEGIES = ("mean-logit", "mean-prob", "vote")
# A probability of 1 in the whole numbers in which the engine breaks ties.
_FIXED_POINT = 2.0**30


def check_packable(ensemble: Ensemble) -> None:
    """Refuse what one graph cannot hold.

    Raises:
        PlanError: naming it, and what can be packed.
    """
    strategy, decoding = ensemble.variant.strategy, ensemble.variant.decoding
    if strategy not in STRATEGIES:
        raise PlanError(f"strategy {strategy!r} cannot be packed; those that can are {', '.join(STRATEGIES)}")
    kept_out = {
        "flips": len(ensemble.flips) > 1,
        "threshold": decoding.threshold is not None,
        "min_region": decoding.min_region > 0,
    }
    for name, held in kept_out.items():
        if held:
            raise PlanError(f"{name} cannot be packed; leave it out of the plan, or run the plan with the engine")
    if decoding.prior and strategy == "vote":
        raise PlanError("a prior cannot be packed with the strategy vote; leave it out, or take mean-prob")


class Inputs:
    """Scaled images, computed once for all members that share a scaling."""

    def __init__(self, graph: Composer, images: str, channels: int) -> None:
        """Start from the raw images of a graph."""
        self._graph, self._images, self._channels = graph, images, channels
        self._held: dict[tuple[object, ...], str] = {}

    def of(self, contract: ModelContract) -> str:
        """Return the tensor a net with this contract reads."""
        key = (contract.input_layout, contract.channels, contract.scale, contract.mean, contract.std)
        if key not in self._held:
            self._held[key] = self._prepare(contract)
        return self._held[key]

    def _prepare(self, contract: ModelContract) -> str:
        graph, tensor = self._graph, self._images
        if contract.channels != self._channels:
            tensor = graph.add("Concat", *[tensor] * contract.channels, axis=1)
        if contract.scale != 1.0:
            tensor = graph.add("Mul", tensor, graph.constant(contract.scale))
        if any(contract.mean):
            tensor = graph.add("Sub", tensor, graph.row(contract.mean))
        if contract.std != (1.0,):
            tensor = graph.add("Div", tensor, graph.row(contract.std))
        if contract.input_layout == "NHWC":
            tensor = graph.add("Transpose", tensor, perm=[0, 2, 3, 1])
        return tensor


def add_voter(
    graph: Composer, member: Member, models: dict[str, Any], inputs: Inputs, prefix: str, skip: Collection[int]
) -> str:
    """Add one member of the ensemble.

    Args:
        graph: what to add to.
        member: a net, a set of specialists or a file with a whole set.
        models: the nets' graphs by checksum.
        inputs: the scaled images.
        prefix: what its names begin with.
        skip: classes that are suppressed; a set counts there as if that specialist had not run.

    Returns:
        The tensor of its logits, float32 (batch, classes, height, width).
    """
    classes = len(member.contract.classes)
    if not member.is_set:
        (net,) = member.nets
        return _net_maps(graph, net, models, inputs, prefix, None)[0]
    maps: dict[int, str] = {}
    for net in member.nets:
        held = net.contract
        if held.class_id is not None:
            if held.class_id not in skip:
                maps[held.class_id] = _net_maps(graph, net, models, inputs, f"{prefix}k{held.class_id}_", None)[0]
            continue
        running = [class_id for class_id in range(classes) if class_id not in skip]
        maps = dict(zip(running, _net_maps(graph, net, models, inputs, prefix, running), strict=True))
    return _joined(graph, maps, classes)


def _net_maps(
    graph: Composer, net: Net, models: dict[str, Any], inputs: Inputs, prefix: str, wanted: list[int] | None
) -> list[str]:
    """Add one net; return its calibrated logits as one tensor, or as one a wanted class."""
    model, held = models[net.checksum], net.contract
    feed = inputs.of(held)
    apart = None
    if wanted is not None and held.output_layout == "NCHW":
        apart = maps_of(model, net.output_name, len(held.classes))
    if wanted is None:
        (whole,) = graph.absorb(model, prefix, feed, [net.output_name])
        return [_logits(graph, whole, held, None)]
    if apart is not None:
        found = graph.absorb(model, prefix, feed, [apart[class_id] for class_id in wanted])
    else:
        (whole,) = graph.absorb(model, prefix, feed, [net.output_name])
        axis = 1 if held.output_layout == "NCHW" else 3
        found = [graph.add("Gather", whole, graph.constant([class_id], np.int64), axis=axis) for class_id in wanted]
    return [_logits(graph, tensor, held, class_id) for tensor, class_id in zip(found, wanted, strict=True)]


def _logits(graph: Composer, tensor: str, held: ModelContract, class_id: int | None) -> str:
    """Turn what a net puts out into calibrated planar logits; ``class_id`` picks the calibration of one map."""
    tensor = graph.cast(tensor, np.float32)
    if held.output_layout == "NHWC":
        tensor = graph.add("Transpose", tensor, perm=[0, 3, 1, 2])
    if held.activation == "probabilities":
        tensor = graph.add("Max", tensor, graph.constant(LEAST_PROBABILITY))
        if held.kind != "multiclass":
            tensor = graph.add("Min", tensor, graph.constant(np.float32(1 - 2**-24)))
            tensor = graph.add("Div", tensor, graph.add("Sub", graph.constant(1.0), tensor))
        tensor = graph.add("Log", tensor)
    if held.calibration is not None:
        biases, temperatures = held.calibration
        index = class_id or 0
        tensor = graph.add("Add", tensor, graph.constant(biases[index]))
        tensor = graph.add("Div", tensor, graph.constant(temperatures[index]))
    return tensor


def _joined(graph: Composer, maps: dict[int, str], classes: int) -> str:
    """Join one-class maps; a class without one gets the logit of a specialist that did not run."""
    order = sorted(maps)
    joined = graph.add("Concat", *(maps[class_id] for class_id in order), axis=1)
    if len(order) == classes:
        return joined
    pads = graph.constant([0, 1, 0, 0, 0, 0, 0, 0], np.int64)
    padded = graph.add("Pad", joined, pads, graph.constant(FLOOR))
    places = [order.index(class_id) + 1 if class_id in maps else 0 for class_id in range(classes)]
    if places == list(range(classes)):
        return padded
    return graph.add("Gather", padded, graph.constant(places, np.int64), axis=1)


def add_fusion(
    graph: Composer, logits: Sequence[str], strategy: str, weights: npt.NDArray[np.float64], decoding: Decoding
) -> tuple[str, str]:
    """Add fusion and decoding.

    Args:
        graph: what to add to.
        logits: one tensor a member, in the order in which they are summed.
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
    parts = logits if strategy == "mean-logit" else [_softmax(graph, tensor) for tensor in logits]
    fused = _weighted_sum(graph, parts, weights.astype(np.float32))
    scores = _decoded(graph, fused, rule)
    return graph.add("ArgMax", scores, axis=1, keepdims=0), scores


def _weighted_sum(graph: Composer, parts: Sequence[str], weights: npt.NDArray[Any]) -> str:
    total = ""
    for part, row in zip(parts, weights, strict=True):
        same = bool((row == row[0]).all())
        factor = graph.constant(row[0], row.dtype) if same else graph.row(row, row.dtype)
        term = graph.add("Mul", part, factor)
        total = graph.add("Add", total, term) if total else term
    return total


def _decoded(graph: Composer, scores: str, rule: Rule) -> str:
    if (rule.gain != 1).any():
        scores = graph.add("Mul", scores, graph.row(rule.gain))
    row = np.where(rule.allowed, rule.bias, np.float32(-np.inf))
    return graph.add("Add", scores, graph.row(row)) if row.any() else scores


def _softmax(graph: Composer, tensor: str) -> str:
    terms = graph.add("Exp", graph.add("Sub", tensor, graph.greatest(tensor)))
    total = graph.add("ReduceSum", terms, graph.constant([1], np.int64))
    return graph.add("Mul", terms, graph.add("Reciprocal", total))


def _vote(
    graph: Composer, logits: Sequence[str], weights: npt.NDArray[np.float64], decoding: Decoding
) -> tuple[str, str]:
    """Votes in whole numbers; among the classes with the most, the highest mean probability, then the lowest id."""
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
        if not voted.all():
            tensor = graph.add("Add", tensor, graph.row(np.where(voted, 0.0, -np.inf)))
        choice = graph.add("Equal", graph.add("ArgMax", tensor, axis=1, keepdims=1), ids)
        votes = graph.add("Add", votes, graph.add("Where", choice, graph.row(row, np.int32), none))
    if not rule.allowed.all():
        votes = graph.add("Where", graph.row(rule.allowed, np.bool_), votes, graph.constant(-(2**31), np.int32))
    top = graph.add("Equal", votes, graph.greatest(votes))
    means = _exact_means(graph, logits, units)
    decided = graph.add("Where", top, means, graph.constant(-1.0, np.float64))
    labels = graph.add("ArgMax", decided, axis=1, keepdims=0)
    shares = graph.add("Mul", graph.cast(votes, np.float32), graph.row(1.0 / total))
    return labels, _decoded(graph, shares, rule._replace(bias=np.zeros(classes, np.float32)))


def _exact_means(graph: Composer, logits: Sequence[str], units: npt.NDArray[np.int64]) -> str:
    """Sum probabilities as whole multiples of 2**-30: in float64 that is exact for units that sum to at most 2**23."""
    small = units // np.gcd.reduce(units, axis=None)
    parts = []
    for tensor in logits:
        scaled = graph.add("Mul", _softmax(graph, tensor), graph.constant(_FIXED_POINT))
        parts.append(graph.cast(graph.add("Floor", scaled), np.float64))
    return _weighted_sum(graph, parts, small.astype(np.float64))
