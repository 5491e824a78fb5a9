"""The graph that a device runs: uint8 pixels up; labels, ties and the images that a member fails on down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.errors import ModelError
from engine.graph.compose import LEAST_OPSET, Composer, at_opset, opset_of, read_model
from engine.graph.package import load_onnx
from engine.graph.whole import INPUT, Form, Replace, Whole, build
from engine.models.net import Net
from engine.models.open_session import batch_of

LABELS, TIES, FAILED = "labels", "ties", "failed"


@dataclass(frozen=True)
class DeviceModel:
    """A graph whose input is ``images``, (batch, height, width, channels).

    Its outputs are ``labels``, uint8 (batch, masks, height, width), ``failed``, uint8 (members, batch), 1 where a
    member computes NaN or infinity, and, where votes can tie, ``ties``, int64 (batch,): tied pixels.

    Attributes:
        data: the serialized model.
        batch: the one number of images it takes; 0 for any.
        masks: masks of an image.
        members: number of members.
        counts_ties: whether it has the output ``ties``.
    """

    data: bytes
    batch: int
    masks: int
    members: int
    counts_ties: bool


def device_model(whole: Whole, form: Form, replace: Replace | None = None) -> DeviceModel:
    """Return the graph of an ensemble for a device.

    Args:
        whole: the ensemble; a packed file may be its only member.
        form: the images, of one size, in the layout NHWC.
        replace: see :func:`engine.graph.whole.build`.

    Raises:
        EngineError: what one graph cannot hold, see :func:`engine.graph.whole.build`.
    """
    if whole.members[0].contract.kind == "packed":
        return _packed(whole.nets[0], form)
    built = build(whole, form, replace)
    graph = built.graph
    one, rest = graph.constant([1], np.int64), graph.constant([1, 2, 3], np.int64)
    masks = [graph.cast(graph.add("Unsqueeze", found.labels, one), np.uint8) for found in built.fused]
    _named(graph, LABELS, graph.add("Concat", *masks, axis=1))
    ties = [graph.cast(found.ties, np.int64) for found in built.fused if found.ties]
    if ties:
        total = ties[0]
        for part in ties[1:]:
            total = graph.add("Add", total, part)
        _named(graph, TIES, graph.add("Reshape", graph.add("ReduceSum", total, rest), graph.constant([-1], np.int64)))
    return _finished(graph, form, built.flags, built.batch, len(masks), bool(ties))


def _packed(net: Net, form: Form) -> DeviceModel:
    """Return a packed ensemble's graph between the same input and outputs; labels that are no class say it failed."""
    model = read_model(net.path)
    opset = max(LEAST_OPSET, opset_of(model))
    graph = Composer(opset)
    images = graph.add("Transpose", INPUT, perm=[0, 3, 1, 2])
    if net.kind != form.kind:
        images = graph.cast(images, net.kind)
    feeds = {net.session.input_name: images}
    (labels,) = graph.absorb(at_opset(model, opset, net.path), "m0_", feeds, [net.output_name])
    sides = form.size or form.trial
    labels = graph.add("Reshape", labels, graph.constant([-1, 1, *sides], np.int64))
    unknown = graph.add(
        "Greater", graph.cast(labels, np.int32), graph.constant(len(net.contract.classes) - 1, np.int32)
    )
    count = graph.add("ReduceSum", graph.cast(unknown, np.int32), graph.constant([1, 2, 3], np.int64))
    failed = graph.add("Greater", count, graph.constant(0, np.int32))
    _named(graph, LABELS, graph.cast(labels, np.uint8))
    return _finished(graph, form, [failed], batch_of(net) or "batch", 1, False)


def _finished(
    graph: Composer, form: Form, flags: list[str], batch: int | str, masks: int, counts_ties: bool
) -> DeviceModel:
    onnx = load_onnx()
    row = graph.constant([1, -1], np.int64)
    flat = [graph.cast(graph.add("Reshape", flag, row), np.uint8) for flag in flags]
    _named(graph, FAILED, graph.add("Concat", *flat, axis=0))
    make, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    kind = types.UINT8 if form.kind == "uint8" else types.FLOAT
    outputs: list[Any] = [make(LABELS, types.UINT8, [batch, masks, *(form.size or form.trial)])]
    outputs.append(make(FAILED, types.UINT8, [len(flags), batch]))
    if counts_ties:
        outputs.append(make(TIES, types.INT64, [batch]))
    shape = [batch, *(form.size or form.trial), form.channels]
    try:
        data = graph.finish([make(INPUT, kind, shape)], outputs).SerializeToString()
    except Exception as error:  # protobuf's own, where it is larger than one message may be
        raise ModelError(f"the members are too large for one graph ({type(error).__name__})") from None
    return DeviceModel(data, batch if isinstance(batch, int) else 0, masks, len(flags), counts_ties)


def _named(graph: Composer, name: str, tensor: str) -> None:
    graph.call("Identity", [tensor], name)
