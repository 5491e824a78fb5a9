"""STAC Items with the Machine Learning Model extension, as its examples and tools write them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts.stac_mlm import read_stac_file, read_stac_metadata
from engine.models.facts.stac_scaling import read_scaling
from tests.engine.models.facts.hostile import json_values, settled

ITEM: dict[str, Any] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "stac_extensions": ["https://stac-extensions.github.io/mlm/v1.4.0/schema.json"],
    "id": "field-boundaries",
    "geometry": None,
    "properties": {
        "datetime": "2024-08-27T23:59:59Z",
        "mlm:name": "U-Net_efficientnet-b3",
        "mlm:architecture": "U-Net",
        "mlm:framework": "pytorch",
        "mlm:tasks": ["semantic-segmentation"],
        "mlm:input": [
            {
                "name": "model_input",
                "bands": ["B4", "B3", {"name": "B2"}, "B8A"],
                "input": {
                    "shape": [-1, 4, 256, 256],
                    "dim_order": ["batch", "channel", "height", "width"],
                    "data_type": "float32",
                },
                "value_scaling": [{"type": "z-score", "mean": 1100.5 + band, "stddev": 300} for band in range(4)],
                "resize_type": "interpolation-linear",
                "pre_processing_function": None,
            }
        ],
        "mlm:output": [
            {
                "name": "model_output",
                "tasks": ["semantic-segmentation"],
                "result": {
                    "shape": [-1, 3, 256, 256],
                    "dim_order": ["batch", "class", "height", "width"],
                    "data_type": "float32",
                },
                "classification:classes": [
                    {"value": 2, "name": "boundary", "description": "Edge of a field"},
                    {"value": 0, "name": "other", "description": "No field", "nodata": True},
                    {"value": 1, "name": "field", "description": "A field"},
                ],
                "post_processing_function": None,
            }
        ],
    },
    "links": [],
    "assets": {"model": {"href": "./net.onnx", "roles": ["mlm:model"], "mlm:artifact_type": "onnx"}},
}


def item(**changes: Any) -> dict[str, Any]:
    """Return an Item with changed parts: ``input__resize_type`` is the input's, ``output__tasks`` the output's."""
    changed = copy.deepcopy(ITEM)
    for key, value in changes.items():
        part, _, name = key.partition("__")
        place = changed["properties"] if part == "properties" else changed["properties"][f"mlm:{part}"][0]
        place[name.replace("___", ":")] = value
    return changed


def read(written: dict[str, Any]) -> Any:
    return read_stac_metadata({"stac": json.dumps(written)})


@pytest.mark.parametrize("name", ["net.json", "net.stac.json"])
def test_an_item_beside_the_model_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(ITEM, indent=2), "utf-8")
    facts = read_stac_file(tmp_path / "net.onnx")
    assert facts is not None
    assert facts.origin == name
    assert facts.fields == {
        "input_layout": "NCHW",
        "output_layout": "NCHW",
        "channels": 4,
        "size": (256, 256),
        "fit": "resize",
        "scale": 1.0,
        "mean": (1100.5, 1101.5, 1102.5, 1103.5),
        "std": (300.0, 300.0, 300.0, 300.0),
        "classes": ("other", "field", "boundary"),
    }
    assert facts.notes == {
        "bands": "B4, B3, B2, B8A",
        "name": "U-Net_efficientnet-b3",
        "architecture": "U-Net",
        "nodata": "class 0 marks pixels without data",
    }


def test_it_is_found_in_metadata_under_any_key_or_as_bare_properties() -> None:
    expected = read(ITEM)
    assert expected.origin == "its metadata (STAC)"
    assert read_stac_metadata({"x": "{}", "mlm-metadata": json.dumps(ITEM["properties"])}).fields == expected.fields
    bare = {key: json.dumps(value) for key, value in ITEM["properties"].items() if key.startswith("mlm:")}
    assert read_stac_metadata(bare).fields == expected.fields
    assert read_stac_metadata({"stac": '{"type": "Feature"}', "names": "{0: 'a'}"}) is None


def test_other_files_of_that_name_are_left_alone(tmp_path: Path) -> None:
    assert read_stac_file(tmp_path / "net.onnx") is None
    (tmp_path / "net.json").write_text('{"images": [1, 2', "utf-8")
    assert read_stac_file(tmp_path / "net.onnx") is None
    (tmp_path / "net.json").write_bytes(b"\xff" * 2_000_000)
    assert read_stac_file(tmp_path / "net.onnx") is None
    (tmp_path / "net.stac.json").mkdir()
    assert read_stac_file(tmp_path / "net.onnx") is None


def test_a_free_size_is_no_size() -> None:
    facts = read(item(input__input={"shape": [-1, -1, -1, 4], "dim_order": ["batch", "height", "width", "channel"]}))
    assert facts.fields["input_layout"] == "NHWC"
    assert facts.fields["channels"] == 4
    assert "size" not in facts.fields


def test_labels_are_seen_by_the_axes_of_the_result() -> None:
    facts = read(item(output__result={"dim_order": ["batch", "height", "width"], "data_type": "uint8"}))
    assert facts.fields["kind"] == "labels"


def test_the_image_among_several_inputs_and_the_segmenting_output_are_taken() -> None:
    taken, given_out = ITEM["properties"]["mlm:input"][0], ITEM["properties"]["mlm:output"][0]
    day = {"name": "day", "bands": [], "input": {"shape": [-1, 2], "dim_order": ["batch", "time"]}}
    depth = {"name": "depth", "tasks": ["regression"], "result": {"shape": [-1], "dim_order": ["batch"]}}
    facts = read(item(properties__mlm___input=[day, taken], properties__mlm___output=[depth, given_out]))
    assert facts == read(ITEM)


def test_spellings_of_first_versions() -> None:
    shape = {"shape": [-1, 4, 256, 256], "dim_order": "bchw"}
    classes = ITEM["properties"]["mlm:output"][0]["classification:classes"]
    changed = item(
        input__input=shape, output__result=[{"dim_order": list("bchw")}], output__classification_classes=classes
    )
    del changed["properties"]["mlm:output"][0]["classification:classes"]
    assert read(changed) == read(ITEM)


def test_made_up_classes_count_as_made_up() -> None:
    made_up = [{"value": index, "name": f"class_{index}"} for index in range(2)]
    facts = read(item(**{"output__classification___classes": made_up}))
    assert facts.fields["classes"] == ("class 0", "class 1")


@pytest.mark.parametrize("resize", ["interpolation-cubic", "crop", "wrap-fill-outliers"])
def test_other_resizing_is_shown_and_not_done(resize: str) -> None:
    facts = read(item(input__resize_type=resize))
    assert "fit" not in facts.fields and facts.notes["resize"] == resize
    assert read(item(input__resize_type="pad")).fields["fit"] == "pad"


RAW = np.array([0.0, 1.0, 17.5, 255.0, 4000.0])
MIXED = [{"type": "offset", "value": 9}, {"type": "scale", "value": 4}, {"type": None}]


@pytest.mark.parametrize(
    ("scaling", "formulas"),
    [
        ([{"type": "min-max", "minimum": 0, "maximum": 255}], [lambda x: x / 255]),
        ([{"type": "min-max", "minimum": 100, "maximum": 3100}], [lambda x: (x - 100) / 3000]),
        ([{"type": "z-score", "mean": 12, "stddev": 3}], [lambda x: (x - 12) / 3]),
        ([{"type": "scale", "value": 10000}], [lambda x: x / 10000]),
        (MIXED, [lambda x: x - 9, lambda x: x / 4, lambda x: x]),
        (None, [lambda x: x]),
    ],
)
def test_scaling_means_what_the_specification_says(scaling: Any, formulas: list[Any]) -> None:
    fields = read_scaling({"value_scaling": scaling}, "here").fields
    for channel, formula in enumerate(formulas):
        mean, std = (fields[key][channel % len(fields[key])] for key in ("mean", "std"))
        np.testing.assert_allclose((RAW * fields["scale"] - mean) / std, formula(RAW), rtol=1e-12)


def test_0_to_255_reads_like_a_scale_of_one_over_255() -> None:
    fields = read_scaling({"value_scaling": [{"type": "min-max", "minimum": 0, "maximum": 255}] * 3}, "here").fields
    assert fields == {"scale": 1 / 255, "mean": (0.0,), "std": (1.0,)}


STATISTICS = {"minimum": None, "maximum": None, "mean": [10.0, 20.0], "stddev": [2.0, 4.0], "count": None}


@pytest.mark.parametrize(
    "older",
    [
        {"norm_by_channel": True, "norm_type": "z-score", "statistics": STATISTICS, "norm_with_clip_values": None},
        {"norm_type": "z_score", "statistics": {"mean": [10.0, 20.0], "stddev": [2.0, 4.0]}},
        {"norm_type": "z-score", "statistics": [{"mean": 10, "stddev": 2}, {"mean": 20, "stddev": 4}]},
        {"scaling": [{"type": "z-score", "mean": 10, "stddev": 2}, {"type": "z-score", "mean": 20, "stddev": 4}]},
    ],
)
def test_older_versions_say_the_same(older: dict[str, Any]) -> None:
    function = {"format": "python", "expression": "torchgeo.datamodules.eurosat.EuroSATDataModule.collate_fn"}
    facts = read_scaling({**older, "pre_processing_function": function}, "here")
    assert facts.fields == {"scale": 1.0, "mean": (10.0, 20.0), "std": (2.0, 4.0)}
    assert "eurosat" in facts.notes["preprocessing"]


@pytest.mark.parametrize(
    "silent",
    [
        {},
        {"norm_type": None, "statistics": None},
        {"value_scaling": None, "pre_processing_function": {"format": "python", "expression": "f"}},
        {"value_scaling": [{"type": "clip", "minimum": 0, "maximum": 255}]},
        {"value_scaling": [{"type": "processing", "format": "gdal-calc", "expression": "A * 2"}]},
        {"norm_type": "l2", "statistics": STATISTICS},
        {"norm_type": "z-score", "statistics": STATISTICS, "norm_clip": [0, 1]},
    ],
)
def test_what_is_not_said_or_not_linear_stays_open(silent: dict[str, Any]) -> None:
    facts = read_scaling(silent, "here")
    assert facts.fields == {}
    assert bool(facts.notes) == any(key != "statistics" and value for key, value in silent.items())


DETECTING = {"properties__mlm___tasks": ["object-detection"], "output__tasks": ["object-detection"]}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (DETECTING, "its task is object-detection; a net for semantic-segmentation"),
        ({"input__input": {"shape": [1, 3], "dim_order": ["batch", "channel", "height", "width"]}}, "one whole number"),
        ({"input__input": {"shape": [1, 3, 1.5, 2], "dim_order": list("bchw")}}, "whole number"),
        ({"input__input": 3}, "an object is needed"),
        ({"input__value_scaling": [{"type": "z-score", "mean": 1}]}, "stddev of z-score"),
        ({"input__value_scaling": [{"type": "scale", "value": 0}]}, "divides by 0"),
        ({"input__value_scaling": [{"type": "min-max", "minimum": 5, "maximum": 5}]}, "divides by 0"),
        ({"input__input": {"shape": [1], "dim_order": {"batch": 0}}}, "a list of names of axes"),
        ({"properties__mlm___input": "image"}, "a list of at most 64 objects"),
        (
            {"input__norm_type": "z-score", "input__value_scaling": None, "input__pre_processing_function": "f"}
            | {"input__statistics": {"mean": [1, 2], "stddev": [1, 2, 3]}},
            "different lengths",
        ),
        ({"input__value_scaling": [{"type": None}] * 65}, "65 entries"),
        ({"input__bands": [{"name": "B\x1b"}]}, "printable"),
        ({"output__classification___classes": [{"value": 0, "name": "a"}, {"value": 2, "name": "b"}]}, "ids 0, 2"),
        ({"output__classification___classes": [{"value": 0, "name": "a"}] * 2}, "stands there twice"),
        ({"output__classification___classes": [{"value": 0}, {"value": 1, "name": "b"}]}, "a text is needed"),
        ({"output__classification___classes": "ab"}, "a list of objects"),
        ({"properties__mlm___input": [ITEM["properties"]["mlm:input"][0]] * 2}, "2 of 2 inputs"),
        ({"properties__mlm___output": [{}, {}]}, "0 of 2 outputs"),
    ],
)
def test_hostile_items_are_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ContractError) as error:
        read(item(**changes))
    assert told in str(error.value) and str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"mlm:input": ' + b"[" * 200_000, "is not JSON"),
        (b'{"mlm:input": [], "mlm:input": []}', "'mlm:input' stands there twice"),
        (b'{"mlm:input": NaN}', "NaN is no JSON number"),
        (b'{"mlm:input": "\xff"}', "is not UTF-8"),
        (b'["mlm:input", "mlm:output"]', "an object is needed"),
        (b'{"mlm:input": "' + b"x" * 1_000_000 + b'"}', "larger than 1000000 bytes"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "net.json").write_bytes(content)
    with pytest.raises(ContractError) as error:
        read_stac_file(tmp_path / "net.onnx")
    assert str(error.value).startswith("net.json") and told in str(error.value) and str(error.value).isprintable()


KEYS = ("type", "mean", "stddev", "minimum", "maximum", "value", "name", "shape", "dim_order", "z-score", "scale")


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(
            ["input", "value_scaling", "bands", "resize_type", "norm_type", "statistics", "pre_processing_function"]
        ),
        json_values(*KEYS),
    ),
    st.dictionaries(st.sampled_from(["tasks", "result", "classification:classes"]), json_values(*KEYS)),
    json_values("semantic-segmentation"),
)
def test_any_item_is_read_or_refused(taken: dict[str, Any], given_out: dict[str, Any], tasks: Any) -> None:
    properties = {"mlm:input": [taken], "mlm:output": [given_out], "mlm:tasks": tasks}
    settled(lambda: read_stac_metadata({key: json.dumps(value) for key, value in properties.items()}))
    settled(lambda: read_stac_metadata({"stac": json.dumps({"properties": properties})}))
