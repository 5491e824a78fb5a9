"""What runs in a net's place in float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import ModelError
from engine.graph import half
from engine.models.contract import METADATA_KEY
from engine.models.opening import open_net
from engine.models.twins import TWIN_NOTE, twin_of
from tests.helpers.nets import save_member


def halves(model: onnx.ModelProto) -> int:
    return sum(item.data_type == TensorProto.FLOAT16 for item in model.graph.initializer)


def save_twin(path: Path, checksum: str) -> Path:
    """The net's float16 file, with a bias of its own."""
    model = half.in_float16(onnx.load(path))
    for item in model.graph.initializer:
        if item.name == "b2":
            item.CopyFrom(numpy_helper.from_array(np.full(5, 9, np.float16), "b2"))
    contract = open_net(path).contract.noted(**{TWIN_NOTE: checksum})
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    twin = path.with_name(f"{path.stem}_fp16.onnx")
    onnx.save(model, twin)
    return twin


def test_a_graph_is_converted_in_memory(tmp_path):
    net = open_net(save_member(tmp_path / "net.onnx"))
    model = onnx.load(net.path)
    found = half.lowered(model, net)
    assert halves(found) == 4
    assert halves(model) == 0
    assert found.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert half.lowered(found, net) is found


def test_its_file_of_exporters_quantize_is_taken_if_it_is_of_this_net(tmp_path):
    net = open_net(save_member(tmp_path / "net.onnx"))
    model = onnx.load(net.path)
    twin = save_twin(net.path, "0" * 64)
    assert twin_of(net, half.FLOAT16) is None
    twin = save_twin(net.path, net.checksum)
    assert twin_of(net, half.FLOAT16) == twin
    biases = [numpy_helper.to_array(item) for item in half.lowered(model, net).graph.initializer if item.name == "b2"]
    assert (biases[0] == 9).all()
    twin.write_text("no model")
    assert twin_of(net, half.FLOAT16) is None


def test_what_the_library_cannot_convert_is_one_line(tmp_path, monkeypatch):
    def fails(model):
        raise ValueError("no such type\nmore")

    net = open_net(save_member(tmp_path / "net.onnx"))
    monkeypatch.setattr(half, "in_float16", fails)
    with pytest.raises(ModelError, match=r"net.onnx: no float16 of it \(ValueError: no such type\): leave out"):
        half.lowered(onnx.load(net.path), net)
