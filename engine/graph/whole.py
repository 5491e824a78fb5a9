"""A whole ensemble as one ONNX graph: images prepared, nets, views, fusion, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import ModelError, PlanError
from engine.fusion.calibration import Calibration
from engine.fusion.decoding import Decoding
from engine.graph.compose import LEAST_OPSET, Composer, at_opset, opset_of, read_model
from engine.graph.fusion import Fused, add_flags, add_fusion
from engine.graph.geometry import turned, turned_back
from engine.graph.images import Inputs
from engine.graph.members import Part, add_voter, bounded, part_of
from engine.graph.rebatch import rebatched
from engine.graph.trial import random_tiles
from engine.models.adapt.binary import LEAST_PROBABILITY
from engine.models.adapt.class_map import FLOOR
from engine.models.folds import each_fold
from engine.models.members import Member
from engine.models.net import Net
from engine.models.open_session import batch_of
from engine.models.views import PLAIN, VIEW_MEANS, View

INPUT = "images"
# The largest protobuf message, minus room for the fusion.
MOST_BYTES = 2**31 - 2**20
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
        views: what each member runs on; the first is the image itself.
        calibrations: temperature and bias of each member's logits; empty for none.
        view_mean: what of the views is averaged, ``logits`` or ``probabilities``.
    """

    members: Sequence[Member]
    weights: npt.NDArray[np.float64]
    strategy: str
    decoding: Decoding
    views: tuple[View, ...] = (PLAIN,)
    calibrations: tuple[Calibration, ...] = ()
    view_mean: str = VIEW_MEANS[0]

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
        logits: of each member, float32 (batch, classes, height, width).
        flags: for each member where it computes NaN or infinity, bool (batch, 1, 1, 1).
        batch: images that the graph takes: a number, or the name of an open axis.
    """

    graph: Composer
    fused: list[Fused]
    logits: list[str]
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
    if len(whole.views) > 1 and batch != "batch":
        raise PlanError(f"a member takes batches of {batch} alone, so views cannot join its batch: leave them out")
    groups = _groups(graph, images, whole.views, form)
    merged = [_merged(graph, member, parts, groups, f"m{slot}_", whole) for slot, member in enumerate(whole.members)]
    logits = [tensor for tensor, _ in merged]
    if whole.calibrations:
        logits = [_calibrated(graph, *pair) for pair in zip(logits, whole.calibrations, strict=True)]
    # Probabilities hide an infinity of the logits that they are made of.
    checked = logits if whole.view_mean == VIEW_MEANS[0] else [tensor for _, tensor in merged]
    return Built(graph, _fused(graph, logits, whole), logits, add_flags(graph, checked), batch)


def _groups(graph: Composer, images: str, views: Sequence[View], form: Form) -> list[tuple[Sequence[View], Inputs]]:
    """Return the views that can be one batch, as nets read them: where sides may differ, transposed ones apart."""
    square = form.size is not None and form.size[0] == form.size[1]
    found: list[tuple[Sequence[View], Inputs]] = []
    for transpose in (False, True):
        own = [view for view in views if square or view.transpose == transpose]
        if not own or (square and transpose):
            continue
        size = form.size[::-1] if form.size is not None and transpose else form.size
        shown = [turned(graph, images, view) for view in own]
        batch = graph.add("Concat", *shown, axis=0) if len(shown) > 1 else shown[0]
        found.append((own, Inputs(graph, batch, form.kind, form.channels, size)))
    return found


def _calibrated(graph: Composer, logits: str, calibration: Calibration) -> str:
    """Return a member's logits, changed by its bias and temperature."""
    if calibration.bias:
        logits = graph.add("Add", logits, graph.row(calibration.bias, np.float32))
    if calibration.temperature == 1:
        return logits
    return graph.add("Mul", logits, graph.constant(np.float32(1 / calibration.temperature)))


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


def _merged(
    graph: Composer,
    member: Member,
    parts: dict[str, Part],
    groups: Sequence[tuple[Sequence[View], Inputs]],
    prefix: str,
    whole: Whole,
) -> tuple[str, str]:
    """Return a member's logits, the mean over folds and views brought back to the image, and the mean of the logits."""
    folds = [
        _viewed(graph, one, parts, groups, f"{prefix[:-1]}f{number}_" if member.folds else prefix, whole)
        for number, one in enumerate(each_fold(member))
    ]
    mean = _mean(graph, [_mean(graph, list(of_one)) for of_one in zip(*folds, strict=True)])
    shown = [part for fold in folds for part in fold]
    if len(shown) == 1 or whole.view_mean == VIEW_MEANS[0]:
        return mean, mean
    several = member.is_set or whole.is_multilabel
    shares = _mean(graph, [graph.add("Sigmoid", part) if several else graph.softmax(part).shares for part in shown])
    shares = bounded(graph, shares, "Less", LEAST_PROBABILITY)
    if several:
        shares = bounded(graph, shares, "Greater", np.float32(1 - 2**-24))
        shares = graph.add("Div", shares, graph.add("Sub", graph.constant(1.0), shares))
    logits = graph.add("Log", shares)
    floor = graph.constant(FLOOR)
    return graph.add("Where", graph.add("LessOrEqual", shown[0], floor), floor, logits), mean


def _viewed(
    graph: Composer,
    member: Member,
    parts: dict[str, Part],
    groups: Sequence[tuple[Sequence[View], Inputs]],
    prefix: str,
    whole: Whole,
) -> list[str]:
    """Return the logits of a member (of one of its folds) on each view, brought back to the image."""
    classes = len(whole.members[0].contract.classes)
    found: dict[View, str] = {}
    for number, (views, inputs) in enumerate(groups):
        maps = add_voter(
            graph, member, parts, inputs, f"{prefix[:-1]}v{number}_" if number else prefix, whole.decoding.suppress
        )
        if len(whole.views) == 1:
            return [maps]
        sides = graph.side(maps, 2), graph.side(maps, 3)
        apart = graph.add("Reshape", maps, graph.shape(len(views), -1, classes, *sides))
        for index, view in enumerate(views):
            part = graph.add("Gather", apart, graph.constant(index, np.int64), axis=0)
            found[view] = turned_back(graph, part, view)
    return [found[view] for view in whole.views]


def _mean(graph: Composer, parts: Sequence[str]) -> str:
    total = parts[0]
    if len(parts) == 1:
        return total
    for part in parts[1:]:
        total = graph.add("Add", total, part)
    return graph.add("Mul", total, graph.constant(1 / len(parts)))


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
        group = batch_of(net)
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
