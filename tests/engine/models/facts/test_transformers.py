"""Folders as transformers and optimum write them: config.json and preprocessor_config.json beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts import Facts
from engine.models.facts.transformers import read_transformers
from tests.engine.models.facts.hostile import json_values, settled

NAMES = ("wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "window", "grass", "cabinet")
CONFIG: dict[str, Any] = {
    "architectures": ["SegformerForSemanticSegmentation"],
    "decoder_hidden_size": 256,
    # As transformers sorts texts: 10 before 2.
    "id2label": {str(index): NAMES[index] for index in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)},
    "model_type": "segformer",
    "num_channels": 3,
    "transformers_version": "4.39.3",
}
PROCESSOR: dict[str, Any] = {
    "do_normalize": True,
    "do_reduce_labels": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "SegformerImageProcessor",
    "image_std": [0.229, 0.224, 0.225],
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 512, "width": 512},
}


def folder(tmp_path: Path, config: Any = None, processor: Any = None, model: str = "model.onnx") -> Path:
    for name, value in (("config.json", config), ("preprocessor_config.json", processor)):
        if value is not None:
            (tmp_path / name).write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    path = tmp_path / model
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return path


def processed(tmp_path: Path, **changes: Any) -> Facts:
    """Return what is read of the processor with some keys changed; ``...`` takes a key out."""
    raw = {key: value for key, value in {**PROCESSOR, **changes}.items() if value is not ...}
    (facts,) = read_transformers(folder(tmp_path, processor=raw))
    return facts


@pytest.mark.parametrize("model", ["model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx"])
def test_both_files_are_read(tmp_path: Path, model: str) -> None:
    config, processor = read_transformers(folder(tmp_path, CONFIG, PROCESSOR, model))
    assert config.origin == "config.json"
    assert config.fields == {"classes": NAMES, "channels": 3}
    assert config.notes == {"architecture": "SegformerForSemanticSegmentation", "model type": "segformer"}
    assert processor.origin == "preprocessor_config.json"
    assert processor.fields == {
        "scale": 0.00392156862745098,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "fit": "resize",
    }
    assert processor.notes["resize"] == "512x512, bilinear"
    assert processor.notes["labels"].startswith("class k of the net is value k + 1 of its label files")


def test_links_of_a_download_cache_are_followed_from_where_they_stand(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0a1b").touch()
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    (snapshot / "model.onnx").symlink_to("../blobs/0a1b")
    assert [facts.origin for facts in read_transformers(snapshot / "model.onnx")] == ["config.json"]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    assert read_transformers(folder(tmp_path, CONFIG, PROCESSOR, "net.onnx")) == []
    assert read_transformers(folder(tmp_path, {"port": 8080}, {"steps": []})) == []
    (tmp_path / "config.json").write_text("{ not json", "utf-8")
    assert read_transformers(tmp_path / "model.onnx") == []


def test_labels_nobody_named_count_as_made_up(tmp_path: Path) -> None:
    (facts,) = read_transformers(folder(tmp_path, {**CONFIG, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    assert facts.fields["classes"] == ("class 0", "class 1")
    (facts,) = read_transformers(folder(tmp_path, {"model_type": "segformer"}))
    assert facts.fields == {}


@pytest.mark.parametrize(
    ("size", "note", "fit"),
    [
        (512, "512x512, bilinear", True),
        ([384, 512], "384x512, bilinear", True),
        ({"height": 384, "width": 512}, "384x512, bilinear", True),
        ({"shortest_edge": 256}, "shorter side 256, bilinear", False),
        ({"shortest_edge": 800, "longest_edge": 1333}, "shorter side 800, longer side 1333, bilinear", False),
        ({"longest_edge": 1024}, "longer side 1024, bilinear", False),
        ({"max_height": 600, "max_width": 800}, "height at most 600, width at most 800, bilinear", False),
    ],
)
def test_sizes_in_every_form(tmp_path: Path, size: Any, note: str, fit: bool) -> None:
    facts = processed(tmp_path, size=size)
    assert facts.notes["resize"] == note
    assert ("fit" in facts.fields) == fit
    assert "size" not in facts.fields  # what the images are resized to; the net may take any


def test_bicubic_resizing_and_crops_are_shown_and_not_done(tmp_path: Path) -> None:
    facts = processed(tmp_path, resample=3)
    assert facts.notes["resize"] == "512x512, bicubic" and "fit" not in facts.fields
    facts = processed(tmp_path, do_center_crop=True, crop_size={"height": 480, "width": 480})
    assert facts.notes["crop"] == "480x480" and "fit" not in facts.fields
    facts = processed(tmp_path, do_resize=False, ensure_multiple_of=32)
    assert "resize" not in facts.notes and facts.notes["stride"] == "sides are multiples of 32"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"image_mean": 0.5, "image_std": 0.5}, {"scale": 0.00392156862745098, "mean": (0.5,), "std": (0.5,)}),
        # Before 4.25 neither was written: images became 0..1 on the way.
        ({"do_rescale": ..., "rescale_factor": ...}, {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406)}),
        ({"do_normalize": False}, {"scale": 0.00392156862745098, "mean": (0.0,), "std": (1.0,)}),
        ({"do_normalize": ..., "image_mean": ..., "image_std": ...}, {"mean": (0.0,), "std": (1.0,)}),
        ({"do_rescale": False, "image_mean": [123.675, 116.28, 103.53]}, {"scale": 1.0}),
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, {"mean": (1.0,)}),
        ({"do_flip_channel_order": True}, {"channel_order": "bgr"}),
        ({"do_flip_channel_order": False}, {}),
    ],
)
def test_scaling_in_every_form(tmp_path: Path, changes: dict[str, Any], fields: dict[str, Any]) -> None:
    found = processed(tmp_path, **changes).fields
    assert found == {**found, **fields}
    assert found.get("channel_order") == fields.get("channel_order")


def test_what_is_not_written_stays_open(tmp_path: Path) -> None:
    facts = processed(tmp_path, do_rescale=False)
    assert "scale" not in facts.fields and "state --scale" in facts.notes["scaling"]
    facts = processed(tmp_path, image_mean=...)
    assert not {"scale", "mean", "std"} & facts.fields.keys() and "state --scale" in facts.notes["scaling"]


@pytest.mark.parametrize("key", ["do_reduce_labels", "reduce_labels"])
def test_reduced_labels_are_said(tmp_path: Path, key: str) -> None:
    assert "labels" not in processed(tmp_path, do_reduce_labels=False).notes
    assert "label" in processed(tmp_path, **{"do_reduce_labels": ..., key: True}).notes["labels"]


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("SegformerForImageClassification", "classifies whole images"),
        ("DetrForObjectDetection", "detects objects"),
        ("Mask2FormerForUniversalSegmentation", "masks of queries"),
        ("MaskFormerForInstanceSegmentation", "masks of queries"),
        ("DPTForDepthEstimation", "estimates depth"),
    ],
)
def test_other_heads_are_refused(tmp_path: Path, head: str, told: str) -> None:
    with pytest.raises(ContractError) as error:
        read_transformers(folder(tmp_path, {**CONFIG, "architectures": [head]}))
    assert head in str(error.value) and told in str(error.value) and "ForSemanticSegmentation" in str(error.value)


@pytest.mark.parametrize(
    ("config", "processor", "told"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, None, "class ids 0, 2"),
        ({"id2label": {"0": "a", "1": "a"}}, None, "'a' stands there twice"),
        ({"id2label": {"0": "a", "1": "b\n"}}, None, "printable"),
        ({"id2label": 3}, None, "names by class id"),
        ({"model_type": 3}, None, "a text is needed"),
        ({"num_channels": 0}, None, "from 1 to 64"),
        (None, {"size": {"depth": 3}}, "names no side"),
        (None, {"size": {"height": 0, "width": 512}}, "whole number"),
        (None, {"size": 512.5}, "whole number"),
        (None, {"image_mean": [0.1, 0.2]}, "2 means and 3 deviations"),
        (None, {"image_std": [0, 0, 0]}, "1e-30"),
        (None, {"image_mean": "a"}, "finite number"),
        (None, {"image_mean": [float("nan")] * 3}, "NaN is no JSON number"),
        (None, {"rescale_factor": 0}, "between 0 and"),
        (None, {"do_normalize": "yes"}, "true or false"),
        (None, {"resample": 9}, "from 0 to 5"),
    ],
)
def test_hostile_values_are_refused(tmp_path: Path, config: Any, processor: Any, told: str) -> None:
    path = folder(tmp_path, config and {**CONFIG, **config}, processor and {**PROCESSOR, **processor})
    with pytest.raises(ContractError) as error:
        read_transformers(path)
    assert told in str(error.value) and str(error.value).isprintable()


KEYS = ("height", "width", "shortest_edge", "longest_edge")
ANY_CONFIG = st.dictionaries(st.sampled_from(["architectures", "id2label", "num_channels"]), json_values())
ANY_PROCESSOR = st.dictionaries(st.sampled_from(sorted({*PROCESSOR, "crop_size"})), json_values(*KEYS))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(ANY_CONFIG, ANY_PROCESSOR)
def test_any_files_are_read_or_refused(tmp_path: Path, config: dict[str, Any], processor: dict[str, Any]) -> None:
    marked = {"model_type": "segformer", **config}, {"image_processor_type": "SegformerImageProcessor", **processor}
    path = folder(tmp_path, *marked)
    settled(lambda: read_transformers(path))
