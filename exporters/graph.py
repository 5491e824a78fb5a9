"""Keras net -> NCHW ONNX graph, and the small graph transformations that follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError, PlanError
from engine.utils.console import first_line
from exporters.archive import Shape
from exporters.backend import load_keras
from exporters.reshapes import fix_reshapes

INPUT = "images"
OUTPUT = "logits"
# 17 keeps global average pooling as one node; 18 writes it as a reduction.
OPSET = 17
OPSETS = range(13, 19)


@dataclass(frozen=True)
class GraphStep:
    """One transformation of a graph: takes a model it may change, returns the model that replaces it."""

    name: str
    apply: Callable[[Any], Any]


def convert(net: Any, shape: Shape, opset: int = OPSET) -> Any:
    """Convert a float32 Keras net to an ONNX model with NCHW input ``images`` and NCHW output ``logits``.

    The batch axis stays dynamic. ``net`` is changed: layers get an equivalent call with a single ONNX operator.

    Args:
        net: functional or sequential net, (batch, height, width, channel) to (batch, height, width, map).
        shape: input and output of the net.
        opset: version of the ONNX operator set.

    Raises:
        PlanError: the opset cannot be written.
        ModelError: the net uses operations that ONNX lacks.
    """
    check_opset(opset)
    load_keras()
    import onnx
    import tensorflow as tf
    import tf2onnx

    _use_resize(net)
    spec = tf.TensorSpec((None, shape.height, shape.width, shape.channels), tf.float32, name=INPUT)

    def forward(images: Any) -> dict[str, Any]:
        return {OUTPUT: tf.cast(net(images, training=False), tf.float32)}

    try:
        with tf.device("/CPU:0"):
            model, _ = tf2onnx.convert.from_function(
                tf.function(forward, input_signature=[spec], autograph=False),
                input_signature=[spec],
                opset=opset,
                inputs_as_nchw=[INPUT],
                outputs_as_nchw=[OUTPUT],
            )
    except Exception as error:  # tf2onnx and the tracer raise anything from KeyError to NotImplementedError.
        raise ModelError(f"the net cannot be converted ({first_line(error, kind=True)})") from None
    foreign = sorted({node.op_type for node in model.graph.node if not onnx.defs.has(node.op_type, node.domain)})
    if foreign:
        raise ModelError(f"the net uses operations that ONNX lacks: {', '.join(foreign)}; replace those layers")
    return name_axes(model, shape)


def check_opset(opset: int) -> None:
    """Refuse an operator set that cannot be written.

    Raises:
        PlanError: naming those that can.
    """
    if opset not in OPSETS:
        raise PlanError(f"opset {opset}; allowed are {OPSETS.start} to {OPSETS.stop - 1}")


def name_axes(model: Any, shape: Shape) -> Any:
    """Name the dynamic axes of input and output and drop the shapes of inner tensors."""
    sides = ((model.graph.input[0], shape.channels), (model.graph.output[0], shape.outputs))
    for tensor, maps in sides:
        axes = tensor.type.tensor_type.shape
        del axes.dim[:]
        for name, value in (("batch", None), ("", maps), ("height", shape.height), ("width", shape.width)):
            axis = axes.dim.add()
            if value is None:
                axis.dim_param = name
            else:
                axis.dim_value = value
    del model.graph.value_info[:]
    return model


def slim(model: Any) -> Any:
    """Fold constants and shape arithmetic and fuse neighbours with onnxslim."""
    import onnxslim

    return onnxslim.slim(model)


def drop_plain_reshapes(model: Any) -> Any:
    """Remove every Reshape that does not change the shape, whatever the batch size.

    Such nodes remain where a transposition of a 1 x 1 map was written as a Reshape and its counterpart was folded.
    """
    import onnx

    shapes = _inner_shapes(onnx.shape_inference.infer_shapes(model))
    constants = {item.name: item for item in model.graph.initializer}
    outputs = {tensor.name for tensor in model.graph.output}
    renamed: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        if node.op_type == "Reshape" and node.output[0] not in outputs and _is_plain(node, shapes, constants):
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    wanted = [item for item in model.graph.initializer if item.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(wanted)
    return model


STEPS = (
    GraphStep("onnxslim", slim),
    GraphStep("plain reshapes", drop_plain_reshapes),
    GraphStep("constant reshapes", fix_reshapes),
)


def count(model: Any) -> tuple[int, int]:
    """Return the number of nodes of a model and the number of transpositions among them."""
    kinds = Counter(node.op_type for node in model.graph.node)
    return sum(kinds.values()), kinds["Transpose"]


def _use_resize(net: Any) -> None:
    """Trace nearest-neighbour upsampling as one resize instead of repeats, which ONNX writes with transpositions."""
    import keras
    import tensorflow as tf

    for layer in net._flatten_layers(include_self=False, recursive=True):
        plain = type(layer) is keras.layers.UpSampling2D and layer.interpolation == "nearest"
        if plain and layer.data_format == "channels_last":
            layer.call = _nearest(tf, tuple(layer.size))


def _nearest(tf: Any, factors: tuple[int, int]) -> Callable[[Any], Any]:
    def call(inputs: Any) -> Any:
        height, width = (
            side if side is not None else tf.shape(inputs)[axis] for axis, side in enumerate(inputs.shape[1:3], 1)
        )
        return tf.image.resize(inputs, (height * factors[0], width * factors[1]), method="nearest")

    return call


def _inner_shapes(model: Any) -> dict[str, list[int | None]]:
    graph = model.graph
    return {
        tensor.name: [
            axis.dim_value if axis.HasField("dim_value") else None for axis in tensor.type.tensor_type.shape.dim
        ]
        for tensor in (*graph.value_info, *graph.input, *graph.output)
        if tensor.type.tensor_type.HasField("shape")
    }


def _is_plain(node: Any, shapes: dict[str, list[int | None]], constants: dict[str, Any]) -> bool:
    import onnx

    before = shapes.get(node.input[0])
    if before is None or node.input[1] not in constants:
        return False
    target = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
    if len(target) != len(before) or None in before[1:]:
        return False
    # With all other axes equal the first one is determined.
    return target[0] in (-1, 0) and target[1:] == before[1:] and 0 not in before[1:]
