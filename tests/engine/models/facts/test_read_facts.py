"""Everything that is said of one file, in order, from the metadata of a real ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import onnxruntime
import pytest

from engine.errors import ContractError
from engine.models.facts import merged, read_facts
from tests.engine.models.facts.test_deepness import FULL as DEEPNESS
from tests.engine.models.facts.test_transformers import CONFIG, PROCESSOR
from tests.engine.models.facts.test_ultralytics import FULL as ULTRALYTICS
from tests.helpers.nets import save_net


def test_all_origins_are_read_the_metadata_first(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    model = onnx.load(save_net(path, classes=5))
    onnx.helper.set_model_props(model, {**ULTRALYTICS, **DEEPNESS})
    onnx.save(model, path)
    (tmp_path / "model.toml").write_text('activation = "logits"', "utf-8")
    (tmp_path / "model.json").write_text(json.dumps({"properties": {"mlm:input": [], "mlm:output": []}}), "utf-8")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), "utf-8")
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert [facts.origin for facts in read_facts(path, metadata)] == [
        "its metadata (Deepness)",
        "its metadata (Ultralytics)",
        "model.toml",
        "model.json",
        "config.json",
        "preprocessor_config.json",
    ]
    with pytest.raises(
        ContractError, match=r"^mean\[0\]: its metadata \(Deepness\) says 0.485, its metadata \(Ultralytics\) says 0; "
    ):
        merged(read_facts(path, metadata))


def test_a_file_of_which_nothing_is_said(tmp_path: Path) -> None:
    assert read_facts(tmp_path / "net.onnx", {"maskfuse.contract": "{}", "producer": "x"}) == []


def test_a_folder_of_transformers_settles_scaling_and_classes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSOR), "utf-8")
    (tmp_path / "model.toml").write_text('normalize = "imagenet"', "utf-8")
    values, origins = merged(read_facts(tmp_path / "model.onnx", {}))
    assert values["scale"] == 1 / 255 and origins["scale"] == "model.toml"
    assert len(values["classes"]) == 11 and origins["classes"] == "config.json"
