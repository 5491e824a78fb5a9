"""A whole ensemble as one ONNX graph: images prepared, nets, flips, fusion, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError, PlanError
from engine.fusion.decoding import Decoding
from engine.graph.compose import LEAST_OPSET, Composer, at_opset, opset_of, read_model
from engine.graph.fusion import Fused, add_flags, add_fusion
from engine.graph.geometry import flipped
from engine.graph.images import Inputs
from engine.graph.members import Part, add_voter, part_of
from engine.graph.rebatch import group_of, rebatched
from engine.graph.trial import random_tiles
from engine.models.members import Member
from engine.models.net import Net

INPUT = "images"
# The largest protobuf message, minus room for the fusion.
MOST_BYTES = 2**31 - 2**20
# Whether rows and columns are reversed.
Flip = tuple[bool, bool]
# Returns the graph that runs in a net's place.
Replace = Callable[[Any, Net], Any]


@dataclass(frozen=True)
class Form:
    """The images of a graph.

    Attributes:
        kind: ``float32``, or ``uint8``.
        channels: channels of a raw image.
        size: (height, width), or None for any.
        trial: (height, width) of random images to try nets on.
        layout: order of the axes, ``NCHW`` or ``NHWC``.
    """

    kind: str
    channels: int
    size: tuple[int, int] | None
    trial: tuple[int, int]
    layout: str = "NCHW"


@dataclass(frozen=True)
class Whole:
    """An ensemble as a graph needs it.

    Attributes:
        members: in the order in which they are summed.
        weights: float64 (members, classes), columns summing to 1.
        strategy: one of :data:`engine.graph.fusion.STRATEGIES`.
        decoding: bias, prior, suppression.
        flips: flipped images that each member also runs on; the first is the image itself.
    """

    members: Sequence[Member]
    weights: npt.NDArray[np.float64]
    strategy: str
    decoding: Decoding
    flips: tuple[Flip, ...] = ((False, False),)

    @property
    def nets(self) -> list[Net]:
        """Return the opened files of all members."""
        return [net for member in self.members for net in member.nets]

    @property
    def is_multilabel(self) -> bool:
        """Return whether each class is decided by itself."""
        return self.members[0].contract.kind == "multilabel"


@dataclass(frozen=True)
class Built:
    """A graph that lacks its outputs.

    Attributes:
        graph: its nodes.
        fused: labels, scores and ties; of a multi-label ensemble one for each class.
        flags: for each member where it computes NaN or infinity, bool (batch, 1, 1, 1).
        batch: images that the graph takes: a number, or the name of an open axis.
    """

    graph: Composer
    fused: list[Fused]
    flags: list[str]
    batch: int | str


def build(whole: Whole, form: Form, replace: Replace | None = None) -> Built:
    """Return the graph of an ensemble.

    Args:
        whole: the ensemble.
        form: what the graph takes.
        replace: returns the model that runs in a net's place, of the same inputs and outputs; None for its own.

    Raises:
        ModelError: a member cannot be read or converted to the operator set of the others, or all are too large for one
            file.
        PlanError: two members take batches of different fixed sizes.
    """
    parts, opset, batch = _parts(whole, form, replace)
    graph = Composer(opset)
    images = INPUT if form.layout == "NCHW" else graph.add("Transpose", INPUT, perm=[0, 3, 1, 2])
    if len(whole.flips) > 1:
        if batch != "batch":
            raise PlanError(f"a member takes batches of {batch} alone, so flips cannot join its batch: leave them out")
        images = graph.add("Concat", *(flipped(graph, images, flip) for flip in whole.flips), axis=0)
    inputs = Inputs(graph, images, form.kind, form.channels, form.size)
    suppress = whole.decoding.suppress
    logits = [
        _unflipped(graph, add_voter(graph, member, parts, inputs, f"m{slot}_", suppress), whole)
        for slot, member in enumerate(whole.members)
    ]
    return Built(graph, _fused(graph, logits, whole), add_flags(graph, logits), batch)


def _fused(graph: Composer, logits: list[str], whole: Whole) -> list[Fused]:
    if not whole.is_multilabel:
        return [add_fusion(graph, logits, whole.strategy, whole.weights, whole.decoding)]
    found = []
    absent = graph.constant([0, 1, 0, 0, 0, 0, 0, 0], np.int64)
    for class_id in range(whole.weights.shape[1]):
        own = graph.constant([class_id], np.int64)
        pairs = [graph.add("Pad", graph.add("Gather", tensor, own, axis=1), absent) for tensor in logits]
        weights = np.repeat(whole.weights[:, class_id : class_id + 1], 2, axis=1)
        found.append(add_fusion(graph, pairs, whole.strategy, weights, whole.decoding))
    return found


def _unflipped(graph: Composer, logits: str, whole: Whole) -> str:
    """Return the mean of the logits of an image and its flips, flipped back; they lie one after the other."""
    count = len(whole.flips)
    if count == 1:
        return logits
    maps = len(whole.members[0].contract.classes)
    sides = graph.side(logits, 2), graph.side(logits, 3)
    apart = graph.add("Reshape", logits, graph.shape(count, -1, maps, *sides))
    total = ""
    for index, flip in enumerate(whole.flips):
        part = graph.add("Gather", apart, graph.constant(index, np.int64), axis=0)
        part = flipped(graph, part, flip)
        total = graph.add("Add", total, part) if total else part
    return graph.add("Mul", total, graph.constant(1 / count))


def _parts(whole: Whole, form: Form, replace: Replace | None) -> tuple[dict[str, Part], int, int | str]:
    """Return the nets by checksum, the operator set of all, and the batch: ``batch`` for any, or a number.

    A graph that declares one number of images is made to take any where that computes the same.
    """
    nets = {net.checksum: net for net in whole.nets}
    total = sum(net.path.stat().st_size for net in nets.values())
    if total > MOST_BYTES:
        raise ModelError(f"the members have {total:,} bytes; one ONNX file can have at most {MOST_BYTES:,}: pack fewer")
    models = {checksum: read_model(net.path) for checksum, net in nets.items()}
    opset = max(LEAST_OPSET, *map(opset_of, models.values()))
    images = random_tiles(form.trial, form.channels, tiles=3)
    parts: dict[str, Part] = {}
    fixed: dict[int, Net] = {}
    for checksum, net in nets.items():
        model = at_opset(models[checksum], opset, net.path)
        group = group_of(net)
        if group:
            opened = rebatched(model, net, images)
            model = model if opened is None else opened
            if opened is None:
                fixed[group] = net
                if net.contract.fit == "pad" and net.contract.size != form.size:
                    raise PlanError(
                        f"{net.path.name} takes batches of {group} alone, so windows of a larger image cannot be "
                        "packed: export it with an open batch, or leave it out"
                    )
        parts[checksum] = part_of(model if replace is None else replace(model, net), net, images)
    if len(fixed) > 1:
        told = ", ".join(f"{net.path.name} takes batches of {group} alone" for group, net in sorted(fixed.items()))
        raise PlanError(f"{told}: one graph cannot run them; export them with an open batch, or leave one out")
    return parts, opset, next(iter(fixed), "batch")
