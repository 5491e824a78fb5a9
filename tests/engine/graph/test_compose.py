"""Whole models merged into one graph."""

from __future__ import annotations

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from engine.graph.compose import LEAST_OPSET, SHARED_BYTES, Composer
from tests.helpers.nets import IR_VERSION

LENGTH = SHARED_BYTES  # float32, so well above what is shared


def shift(value: float):
    """Return a model that adds a large constant weight."""
    weight = numpy_helper.from_array(np.full(LENGTH, value, np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weight"], ["y"])],
        "shift",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [LENGTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [LENGTH])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", LEAST_OPSET)], ir_version=IR_VERSION)


def run(graph: Composer, parts: list[str]) -> np.ndarray:
    graph.call("Sum", parts, "out")
    make = helper.make_tensor_value_info
    model = graph.finish([make("in", TensorProto.FLOAT, [LENGTH])], [make("out", TensorProto.FLOAT, [LENGTH])])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"in": np.zeros(LENGTH, np.float32)})[0]


def test_models_that_nobody_else_holds_keep_their_own_weights():
    """Each is new, so an address may come up twice; its weights must not."""
    graph = Composer(LEAST_OPSET)
    parts = [graph.absorb(shift(2.0**index), f"m{index}_", {"x": "in"}, ["y"])[0] for index in range(12)]
    assert (run(graph, parts) == 2.0**12 - 1).all()


def test_a_model_inserted_twice_shares_its_weights():
    graph, model = Composer(LEAST_OPSET), shift(3.0)
    parts = [graph.absorb(model, prefix, {"x": "in"}, ["y"])[0] for prefix in ("a_", "b_")]
    assert (run(graph, parts) == 6.0).all()
    assert sum(item.name.endswith("weight") for item in graph._initializers) == 1
