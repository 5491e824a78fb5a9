"""Graphs in float16: what a GPU computes twice as fast, with float32 inputs and outputs."""

from __future__ import annotations

from typing import Any

from engine.errors import ModelError
from engine.graph.compose import at_opset, opset_of, read_model
from engine.graph.package import load_onnx
from engine.models.net import Net
from engine.models.twins import twin_of
from engine.utils.console import first_line

FLOAT16 = "fp16"


def in_float16(model: Any) -> Any:
    """Return a float32 model in float16, with float32 inputs and outputs; ``model`` is changed."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    return convert_float_to_float16(model, keep_io_types=True)


def lowered(model: Any, net: Net) -> Any:
    """Return what runs in a net's place in float16: its NAME_fp16.onnx, or its graph converted in memory.

    Args:
        model: the net's graph, in the operator set and for the batch of all; not modified.
        net: the same, opened.

    Raises:
        ModelError: the library fails on this graph.
    """
    onnx = load_onnx()
    if not any(item.data_type == onnx.TensorProto.FLOAT for item in model.graph.initializer):
        return model  # lower already, or float64
    twin = twin_of(net, FLOAT16)
    opened = any(not axis.dim_value for axis in _batch_axes(model, net))
    if twin is not None and opened:
        found = at_opset(read_model(twin), opset_of(model), twin)
        if any(not axis.dim_value for axis in _batch_axes(found, net)):
            return found
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    try:
        return in_float16(copy)
    except Exception as error:  # the converter raises whatever a graph makes it raise
        why = first_line(error, kind=True)
        raise ModelError(f"{net.path}: no float16 of it ({why}): leave out --precision") from None


def _batch_axes(model: Any, net: Net) -> list[Any]:
    images = (item for item in model.graph.input if item.name == net.session.input_name)
    return [axis for item in images for axis in item.type.tensor_type.shape.dim[:1]]
