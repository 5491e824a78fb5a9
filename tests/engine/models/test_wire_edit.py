"""Messages taken apart and put together again, against the onnx package."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from engine.models.wire import pieces
from engine.models.wire_edit import all_of, node, tensor, text, with_fields
from tests.helpers.nets import save_net

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=300)


@given(kind=NAMES, inputs=st.lists(NAMES, max_size=4), outputs=st.lists(NAMES, max_size=4), axis=st.integers(0, 2**40))
def test_nodes_are_those_of_onnx(kind: str, inputs: list[str], outputs: list[str], axis: int) -> None:
    found = onnx.NodeProto.FromString(node(kind, inputs, outputs, axis=axis))
    assert found == helper.make_node(kind, inputs, outputs, axis=axis)


@given(name=NAMES, values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=9))
def test_tensors_are_those_of_onnx(name: str, values: list[int]) -> None:
    held = np.array(values, np.int64)
    assert onnx.TensorProto.FromString(tensor(name, held)) == numpy_helper.from_array(held, name)


def test_what_is_not_changed_stays_byte_for_byte(tmp_path) -> None:
    model = save_net(tmp_path / "a.onnx").read_bytes()
    assert b"".join(bytes(piece) for _, piece in pieces(memoryview(model))) == model
    assert with_fields(memoryview(model), {}) == model


def test_fields_are_replaced_dropped_and_added(tmp_path) -> None:
    held = onnx.load(save_net(tmp_path / "a.onnx"))
    graph = memoryview(held.graph.SerializeToString())
    assert text(graph, 2) == held.graph.name
    first, *others = all_of(graph, 1)
    changed = onnx.GraphProto.FromString(with_fields(graph, {1: [*others, first], 12: [], 10: [b"a note"]}))
    assert list(changed.node) == [*held.graph.node[1:], held.graph.node[0]]
    assert not changed.output
    assert changed.doc_string == "a note"
    assert changed.initializer == held.graph.initializer
