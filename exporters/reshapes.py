"""Reshapes to a target computed from the batch become reshapes to a constant: no shape arithmetic at inference."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.graph.nodes import live_nodes
from exporters.backend import load_onnx
from exporters.self_check import open_session

_BATCHES = (2, 3)


def fix_reshapes(model: Any) -> Any:
    """Give every Reshape with a computed target a constant one, where at most one axis follows the batch.

    That axis is observed on batches of two sizes, not derived; nets that take images of any size are left unchanged,
    since their axes depend on the size as well. The caller compares the result on other batches.
    """
    onnx = load_onnx()
    graph = model.graph
    constants = {item.name for item in graph.initializer}
    open_ones = [node for node in graph.node if node.op_type == "Reshape" and node.input[1] not in constants]
    axes = [axis.dim_value for axis in graph.input[0].type.tensor_type.shape.dim]
    if not open_ones or 0 in axes[1:]:
        return model
    seen = [_shapes(model, [node.output[0] for node in open_ones], (batch, *axes[1:])) for batch in _BATCHES]
    for index, (node, *shapes) in enumerate(zip(open_ones, *seen, strict=True)):
        target = [a if a == b else -1 for a, b in zip(*shapes, strict=True)]
        if target.count(-1) > 1 or 0 in target:
            continue
        name = f"reshape_target_{index}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(target, np.int64), name))
        node.input[1] = name
    kept = live_nodes(graph.node, [item.name for item in graph.output])
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    wanted = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(wanted)
    return model


def _shapes(model: Any, names: list[str], shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shapes of inner tensors for an input of zeros."""
    onnx = load_onnx()
    copy = type(model)()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(copy.SerializeToString())
    found = session.run(names, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})
    return [array.shape for array in found]
