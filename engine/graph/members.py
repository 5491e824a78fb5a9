"""What the engine does with the output of one member, said in ONNX: brought to planar logits of the images' size.

Each step repeats the engine's float32 arithmetic in the engine's order (:mod:`engine.models.net`), so that labels
differ at most where two scores are equal within rounding.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.graph import geometry
from engine.graph.compose import Composer
from engine.graph.geometry import Sides
from engine.graph.images import Fed, Inputs
from engine.graph.nodes import maps_of
from engine.graph.rebatch import constants_of
from engine.models.adapt.binary import LEAST_PROBABILITY
from engine.models.adapt.class_map import FLOOR, ClassMap
from engine.models.contract import ModelContract
from engine.models.foreign import as_planes
from engine.models.members import Member
from engine.models.net import Net


@dataclass(frozen=True)
class Part:
    """What a member's net is, as far as its nodes need it.

    Attributes:
        model: its graph, of the operator set of all; it takes the packed graph's batch.
        rank: axes of its output.
        resized: whether its maps have another size than its input.
    """

    model: Any
    rank: int
    resized: bool


def part_of(model: Any, net: Net, images: npt.NDArray[Any]) -> Part:
    """Return what a net is, by running it on raw images (image, height, width, channels).

    Raises:
        EngineError: it cannot take them.
    """
    fed = net.windows(net.prepare(images))
    maps = net.session.run(net.output_name, fed)
    sides = fed.shape[2:] if net.contract.input_layout == "NCHW" else fed.shape[1:3]
    return Part(model, maps.ndim, as_planes(maps, net.contract.output_layout).shape[2:] != sides)


def add_voter(
    graph: Composer, member: Member, parts: dict[str, Part], inputs: Inputs, prefix: str, skip: Collection[int]
) -> str:
    """Add one member of the ensemble.

    Args:
        graph: what to add to.
        member: a net, a set of specialists or a file with a whole set.
        parts: the nets by checksum.
        inputs: the prepared images.
        prefix: what its names begin with.
        skip: classes that are suppressed; a set counts there as if that specialist had not run.

    Returns:
        The tensor of its logits, float32 (batch, classes, height, width); NaN where the engine would refuse an image.
    """
    classes = len(member.contract.classes)
    if not member.is_set:
        (net,) = member.nets
        return _net_maps(graph, net, parts, inputs, prefix, None)[0]
    maps: dict[int, str] = {}
    for net in member.nets:
        held = net.contract
        if held.class_id is not None:
            if held.class_id not in skip:
                maps[held.class_id] = _net_maps(graph, net, parts, inputs, f"{prefix}k{held.class_id}_", None)[0]
            continue
        running = [class_id for class_id in range(classes) if class_id not in skip]
        maps = dict(zip(running, _net_maps(graph, net, parts, inputs, prefix, running), strict=True))
    return _joined(graph, maps, classes)


def _net_maps(
    graph: Composer, net: Net, parts: dict[str, Part], inputs: Inputs, prefix: str, wanted: list[int] | None
) -> list[str]:
    """Add one net; return its calibrated logits as one tensor, or as one a wanted class."""
    part, held = parts[net.checksum], net.contract
    fed = inputs.of(net)
    feeds = {name: graph.constant(value, value.dtype) for name, value in constants_of(net).items()}
    feeds[net.session.input_name] = fed.tensor
    apart = None
    if wanted is not None and held.output_layout == "NCHW":
        apart = maps_of(part.model, net.output_name, len(held.classes))
    if apart is not None and wanted is not None:
        found = graph.absorb(part.model, prefix, feeds, [apart[class_id] for class_id in wanted])
        found = [_sized(graph, tensor, held, part, fed, inputs.sides, 1) for tensor in found]
    else:
        (whole,) = graph.absorb(part.model, prefix, feeds, [net.output_name])
        whole = _sized(graph, whole, held, part, fed, inputs.sides, held.outputs)
        if wanted is None:
            return [_logits(graph, whole, net)]
        found = [graph.add("Gather", whole, graph.constant([class_id], np.int64), axis=1) for class_id in wanted]
    return [_scores(graph, tensor, held, class_id) for tensor, class_id in zip(found, wanted or (), strict=True)]


def _sized(graph: Composer, tensor: str, held: ModelContract, part: Part, fed: Fed, sides: Sides, count: int) -> str:
    """Return the maps of a net as planes of the images' size: float32, or int64 labels (batch, 1, height, width)."""
    if part.rank == 3:
        tensor = graph.add("Unsqueeze", tensor, graph.constant([1], np.int64))
    elif held.output_layout == "NHWC":
        tensor = graph.add("Transpose", tensor, perm=[0, 3, 1, 2])
    tensor = graph.cast(tensor, np.int64 if held.kind == "labels" else np.float32)
    if fed.grid is not None:
        tensor = geometry.joined(graph, tensor, count, fed.grid)
    if part.resized or fed.stretched:
        labels = held.kind == "labels"
        resize = geometry.nearest if labels or held.maps_resize == "nearest" else geometry.bilinear
        return resize(graph, tensor, fed.whole, sides)
    return geometry.cropped(graph, tensor, sides) if fed.cut else tensor


def _logits(graph: Composer, maps: str, net: Net) -> str:
    """Turn the maps of a whole net into the logits of the ensemble's classes."""
    held = net.contract
    if held.kind == "labels":
        votes = _votes(graph, maps, len(held.classes))
        return votes if net.onto is None else _votes_onto(graph, votes, net.onto)
    logits = _scores(graph, maps, held, None)
    if held.kind == "binary":
        logits = _two_classes(graph, logits, held.foreground_threshold)
    if held.kind == "multilabel":
        shifts = [log(value / (1 - value)) for value in held.thresholds or (0.5,)]
        logits = graph.add("Sub", logits, graph.row(shifts)) if any(shifts) else logits
    return logits if net.onto is None else _onto(graph, logits, net.onto)


def _scores(graph: Composer, tensor: str, held: ModelContract, class_id: int | None) -> str:
    """Turn planes into calibrated logits; ``class_id`` picks the calibration of one map."""
    if held.activation == "probabilities":
        tensor = bounded(graph, tensor, "Less", LEAST_PROBABILITY)
        if held.kind != "multiclass":
            tensor = bounded(graph, tensor, "Greater", np.float32(1 - 2**-24))
            tensor = graph.add("Div", tensor, graph.add("Sub", graph.constant(1.0), tensor))
        tensor = graph.add("Log", tensor)
    if held.calibration is not None:
        biases, temperatures = held.calibration
        index = class_id or 0
        tensor = graph.add("Add", tensor, graph.constant(biases[index]))
        tensor = graph.add("Div", tensor, graph.constant(temperatures[index]))
    return tensor


def bounded(graph: Composer, tensor: str, beyond: str, limit: np.float32) -> str:
    """Bound values by a limit; NaN stays, which the operators Max and Min do not promise."""
    bound = graph.constant(limit)
    return graph.add("Where", graph.add(beyond, tensor, bound), bound, tensor)


def _two_classes(graph: Composer, odds: str, threshold: float) -> str:
    """Add the scores of background and foreground, see :func:`engine.models.adapt.binary.two_classes`."""
    shift = np.float32(log(threshold / (1 - threshold)))
    if shift:
        odds = graph.add("Sub", odds, graph.constant(shift))
    return graph.add("Pad", odds, graph.constant([0, 1, 0, 0, 0, 0, 0, 0], np.int64), graph.constant(0.0))


def _votes(graph: Composer, labels: str, classes: int) -> str:
    """Add 1 for the class of each label and 0 for all others; NaN where a label is no class."""
    own = graph.add("Equal", labels, graph.row(np.arange(classes), np.int64))
    low = graph.add("Less", labels, graph.constant(0, np.int64))
    high = graph.add("Greater", labels, graph.constant(classes - 1, np.int64))
    unknown = graph.add("Or", low, high)
    return graph.add("Where", unknown, graph.constant(np.nan), graph.cast(own, np.float32))


def _onto(graph: Composer, logits: str, onto: ClassMap) -> str:
    """Add the log-probabilities of the ensemble's classes, see :func:`engine.models.adapt.class_map.onto`."""
    terms = graph.add("Exp", graph.add("Sub", logits, graph.greatest(logits)))
    classes = graph.constant([1], np.int64)
    total = graph.add("ReduceSum", terms, classes)
    maps: dict[int, str] = {}
    for target in sorted({target for target in onto.targets if target is not None}):
        mine = [index for index, own in enumerate(onto.targets) if own == target]
        share = graph.add("Gather", terms, graph.constant(mine, np.int64), axis=1)
        share = graph.add("ReduceSum", share, classes) if len(mine) > 1 else share
        share = bounded(graph, graph.add("Div", share, total), "Less", LEAST_PROBABILITY)
        maps[target] = graph.add("Log", share)
    return _joined(graph, maps, len(onto.classes))


def _votes_onto(graph: Composer, votes: str, onto: ClassMap) -> str:
    """Add the votes for the ensemble's classes, see :func:`engine.models.adapt.class_map.votes_onto`."""
    maps: dict[int, str] = {}
    for target in sorted({target for target in onto.targets if target is not None}):
        mine = [index for index, own in enumerate(onto.targets) if own == target]
        part = graph.add("Gather", votes, graph.constant(mine, np.int64), axis=1)
        maps[target] = graph.add("ReduceSum", part, graph.constant([1], np.int64)) if len(mine) > 1 else part
    return _joined(graph, maps, len(onto.classes), np.float32(0))


def _joined(graph: Composer, maps: dict[int, str], classes: int, missing: np.float32 = FLOOR) -> str:
    """Join one-class maps; a class without one gets a constant: the logit of a class that a member does not know."""
    order = sorted(maps)
    joined = graph.add("Concat", *(maps[class_id] for class_id in order), axis=1)
    if len(order) == classes:
        return joined
    pads = graph.constant([0, 1, 0, 0, 0, 0, 0, 0], np.int64)
    padded = graph.add("Pad", joined, pads, graph.constant(missing))
    places = [order.index(class_id) + 1 if class_id in maps else 0 for class_id in range(classes)]
    if places == list(range(classes)):
        return padded
    return graph.add("Gather", padded, graph.constant(places, np.int64), axis=1)
