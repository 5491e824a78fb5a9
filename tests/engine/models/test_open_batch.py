"""Graphs of a fixed batch, opened for any number: their outputs are those of the reference implementation of ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engine.models.open_batch import opened_batches, same_outputs
from tests.helpers.foreign_nets import CASES, save_foreign

SIDES = (4, 6)


def graph(batch: int, constants: str) -> onnx.ModelProto:
    """A Reshape, an Expand and a Resize with shapes that hold the batch, as initializers or as nodes."""
    targets = {"flat": [batch, 3, 24], "wide": [batch, 3, *SIDES], "sizes": [batch, 3, 8, 12], "other": [24, 3]}
    nodes: list[onnx.NodeProto] = []
    held: list[onnx.TensorProto] = []
    for name, values in targets.items():
        value = numpy_helper.from_array(np.array(values, np.int64), name)
        if constants == "nodes":
            nodes.append(helper.make_node("Constant", [], [name], value=value))
        elif constants == "numbers":
            held.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
        else:
            held.append(value)
    held.append(numpy_helper.from_array(np.arange(6, dtype=np.float32), "row"))
    nodes += [
        helper.make_node("Reshape", ["x", "flat"], ["a"], allowzero=1),
        helper.make_node("Reshape", ["a", "wide"], ["b"]),
        helper.make_node("Expand", ["b", "wide"], ["c"]),
        helper.make_node("Add", ["c", "row"], ["d"]),
        helper.make_node("Resize", ["d", "", "", "sizes"], ["y"], mode="nearest"),
    ]
    made = helper.make_graph(
        nodes,
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, *SIDES]),
            helper.make_tensor_value_info("unused", TensorProto.FLOAT, [batch]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 3, 8, 12])],
        held,
        value_info=[helper.make_tensor_value_info("a", TensorProto.FLOAT, [batch, 3, 24])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"kept": "as it is"})
    return model


def outputs(model: onnx.ModelProto | bytes, images: np.ndarray) -> np.ndarray:
    held = onnx.load_from_string(model) if isinstance(model, bytes) else model
    found: Any = ReferenceEvaluator(held).run(["y"], {"x": images, "unused": np.zeros(len(images), np.float32)})[0]
    return found


@pytest.mark.parametrize("constants", ["initializers", "numbers", "nodes"])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_number_of_images(batch: int, constants: str) -> None:
    model = graph(batch, constants)
    declared, followed = opened_batches(model.SerializeToString(), "x", batch)
    onnx.checker.check_model(onnx.load_from_string(followed), full_check=True)
    images = np.random.default_rng(0).random((6, 3, *SIDES), np.float32)
    expected = np.concatenate([outputs(model, images[at : at + batch]) for at in range(0, 6, batch)])
    for count in (1, 2, 5, 6):
        assert np.array_equal(outputs(followed, images[:count]), expected[:count])
    with pytest.raises(ValueError, match="reshape"):
        outputs(declared, images[:5])


def test_the_rest_of_the_file_stays() -> None:
    model = graph(2, "initializers")
    declared, followed = (onnx.load_from_string(held) for held in opened_batches(model.SerializeToString(), "x", 2))
    for changed in (declared, followed):
        assert changed.metadata_props == model.metadata_props
        assert changed.opset_import == model.opset_import
        axes = changed.graph.input[0].type.tensor_type.shape.dim
        assert [axes[0].dim_param, *(axis.dim_value for axis in axes[1:])] == ["batch", 3, *SIDES]
        assert changed.graph.input[1] == model.graph.input[1]
        assert changed.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
        assert not changed.graph.value_info
    assert list(declared.graph.node) == list(model.graph.node)
    assert list(followed.graph.initializer)[: len(model.graph.initializer)] == list(model.graph.initializer)


def test_a_graph_without_such_shapes_has_one_form(tmp_path: Path) -> None:
    made = save_foreign(tmp_path / "a.onnx", **CASES["batch of 1"].shape)
    assert len(list(opened_batches(made.read_bytes(), "pixels", 1))) == 1


@pytest.mark.parametrize("content", [b"", b"\x08\x07"])
def test_no_graph(content: bytes) -> None:
    assert not list(opened_batches(content, "x", 1))


def test_equal_within_rounding() -> None:
    values = np.array([[1.0, -200.0], [3.0, 4.0]], np.float32)
    assert same_outputs(values[:1] + np.float32(1e-3), values)
    assert not same_outputs(values + np.float32(1e-2), values)
    assert not same_outputs(np.full_like(values, np.nan), values)
    assert not same_outputs(values[:, :1], values)
    labels = np.array([[1, 2]], np.int64)
    assert same_outputs(labels, labels)
    assert not same_outputs(labels + 1, labels)
