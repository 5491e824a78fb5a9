"""Graphs that declare one number of images alone: the same graph for any number, where that computes the same."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from engine.graph.package import load_onnx
from engine.models.net import Net
from engine.models.ports import Ports
from engine.models.runtimes.onnxruntime import OnnxSession, open_raw

# Outputs this close, relative to the greatest of them, are equal within rounding: kernels differ with the batch.
_ROUNDING = 1e-5


def group_of(net: Net) -> int:
    """Return how many images a graph takes at once, or 0 where it takes any number."""
    first = Ports.of(_raw(net)).image(tuple(net.contract.constants)).shape[0]
    return first if isinstance(first, int) else 0


def constants_of(net: Net) -> dict[str, npt.NDArray[Any]]:
    """Return the values of a graph's further inputs."""
    return Ports.of(_raw(net)).filled(net.contract.constants)


def rebatched(model: Any, net: Net, images: npt.NDArray[Any]) -> Any | None:
    """Return a model that takes any number of images, or None where it would compute something else.

    Args:
        model: the model of a net that takes one number alone; left as it is.
        net: the same, opened.
        images: raw images (image, height, width, channels) that both are compared on; at least three.
    """
    group = group_of(net)
    fed = net.windows(net.prepare(images))
    expected = net.session.run(net.output_name, fed)
    constants = constants_of(net)
    for free in (_declared_open, _reshapes_open):
        copy = type(model)()
        copy.CopyFrom(model)
        free(copy, net, group)
        try:
            session = open_raw(copy.SerializeToString(), "cpu")
            same = all(
                _same(session.run([net.output_name], {**constants, net.session.input_name: fed[:count]})[0], expected)
                for count in sorted({1, 2, len(fed)})
            )
        except Exception:  # the runtime's errors share no public base class; a graph that fails is no candidate
            continue
        if same:
            return copy
    return None


def _same(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    expected = expected[: len(found)]
    if found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool((found == expected).all())
    peak = max(1.0, float(np.abs(expected, dtype=np.float64).max(initial=0)))
    rounding = max(_ROUNDING, 4 * float(np.finfo(found.dtype).eps))
    return bool((np.abs(found.astype(np.float64) - expected) <= rounding * peak).all())


def _declared_open(model: Any, net: Net, group: int) -> None:
    """Forget the batch that the image input and the outputs declare, and the shapes of inner tensors."""
    images = [item for item in model.graph.input if item.name == net.session.input_name]
    for tensor in (*images, *model.graph.output):
        axes = tensor.type.tensor_type.shape.dim
        if len(axes) and axes[0].dim_value == group:
            axes[0].dim_param = "batch"
    del model.graph.value_info[:]


def _reshapes_open(model: Any, net: Net, group: int) -> None:
    """As :func:`_declared_open`; targets of Reshape and sizes of Resize that name the batch follow their input's."""
    _declared_open(model, net, group)
    onnx = load_onnx()
    known = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        value = next((item.t for item in node.attribute if node.op_type == "Constant" and item.name == "value"), None)
        if value is not None:
            known[node.output[0]] = onnx.numpy_helper.to_array(value)
    places = {"Reshape": 1, "Resize": 3, "Expand": 1}
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for index, node in enumerate(nodes):
        at = places.get(node.op_type, len(node.input))
        target = known.get(node.input[at]) if at < len(node.input) else None
        if target is not None and target.ndim == 1 and len(target) > 1 and target[0] == group:
            name = f"open_batch_{index}"
            parts = [
                onnx.helper.make_node("Shape", [node.input[0]], [f"{name}_shape"]),
                onnx.helper.make_node("Slice", [f"{name}_shape", f"{name}_0", f"{name}_1"], [f"{name}_batch"]),
                onnx.helper.make_node("Concat", [f"{name}_batch", f"{name}_rest"], [name], axis=0),
            ]
            for end, values in (("0", [0]), ("1", [1]), ("rest", target[1:])):
                value = np.asarray(values, np.int64)
                model.graph.initializer.append(onnx.numpy_helper.from_array(value, f"{name}_{end}"))
            node.input[at] = name
            model.graph.node.extend(parts)
        model.graph.node.append(node)


def _raw(net: Net) -> Any:
    return cast(OnnxSession, net.session).raw
