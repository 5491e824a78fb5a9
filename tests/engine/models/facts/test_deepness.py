"""Metadata as Deepness documents it: each value encoded as JSON under a key of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts.deepness import OWN_KEYS, read_deepness
from tests.engine.models.facts.hostile import TEXTS, json_values, settled


def written(**values: Any) -> dict[str, str]:
    return {key: json.dumps(value) for key, value in values.items()}


FULL = written(
    model_type="Segmentor",
    class_names={0: "_background", 1: "building", 2: "woodland", 3: "water", 4: "road"},
    resolution=50,
    tiles_size=512,
    tiles_overlap=15,
    seg_thresh=0.5,
    seg_small_segment=7,
    standardization_mean=[0.485, 0.456, 0.406],
    standardization_std=[0.229, 0.224, 0.225],
)


def test_it_reads_what_the_plugin_documents() -> None:
    facts = read_deepness(FULL)
    assert facts is not None
    assert facts.origin == "its metadata (Deepness)"
    assert facts.fields == {
        "classes": ("_background", "building", "woodland", "water", "road"),
        "scale": 1 / 255,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "resolution": 0.5,
    }
    assert facts.notes["tile size"] == "512 pixels"
    assert facts.notes["tile overlap"] == "15 %"
    assert "below 0.5" in facts.notes["threshold"] and "--foreground-threshold" in facts.notes["threshold"]
    assert "7 pixels" in facts.notes["small segments"]


def test_without_standardization_pixels_are_scaled_to_0_1() -> None:
    facts = read_deepness(written(model_type="Segmentor", resolution=100))
    assert facts is not None
    assert facts.fields == {"scale": 1 / 255, "mean": (0.0,), "std": (1.0,), "resolution": 1.0}


def test_half_a_standardization_is_not_applied_and_said() -> None:
    facts = read_deepness({key: value for key, value in FULL.items() if key != "standardization_std"})
    assert facts is not None
    assert (facts.fields["mean"], facts.fields["std"]) == ((0.0,), (1.0,))
    assert "not applied" in facts.notes["standardization"]


def test_names_are_read_too_as_json_or_as_the_text_of_a_dict() -> None:
    for names in ('{"0": "land", "1": "water"}', "{0: 'land', 1: 'water'}"):
        facts = read_deepness({"model_type": '"Segmentor"', "names": names})
        assert facts is not None
        assert facts.fields["classes"] == ("land", "water")


def test_class_names_alone_say_nothing_of_scaling() -> None:
    facts = read_deepness(written(class_names={"1": "b", "0": "a"}))
    assert facts is not None
    assert facts.fields == {"classes": ("a", "b")}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"model_type": "segformer", "resolution": "high", "names": "['a', 'b']"},
        {"class_names": "a,b,c"},
        {"maskfuse.contract": "{}"},
    ],
)
def test_other_peoples_keys_are_left_alone(metadata: dict[str, str]) -> None:
    assert read_deepness(metadata) is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": '"Detector"'}, "Detector; a Segmentor"),
        ({"model_type": '"Regressor"'}, "Regressor; a Segmentor"),
        ({"class_names": '{"0": "a", "2": "b"}'}, "class ids 0, 2; 0 to n - 1"),
        ({"class_names": '{"0": "a", "00": "b"}'}, "one class id twice"),
        ({"class_names": '{"0": "a", "0": "b"}'}, "dict of names"),
        ({"class_names": '{"a": 0}'}, "a class id"),
        ({"class_names": '{"0": "a", "1": "a"}'}, "'a' stands there twice"),
        ({"class_names": '{"0": "a", "1": "b\\u001b"}'}, "printable"),
        ({"class_names": "{}"}, "no class"),
        ({"class_names": "3"}, "names by class id"),
        ({"class_names": json.dumps({index: f"name {index}" for index in range(300)})}, "300 of them"),
        ({"class_names": "x" * 100_001}, "at most 100000"),
        ({"standardization_mean": "[NaN]"}, "NaN is no JSON number"),
        ({"standardization_mean": "[1e999]"}, "finite number"),
        ({"standardization_mean": '"0.5"'}, "finite number"),
        ({"standardization_mean": "[0.1, 0.2]"}, "2 means and 3 deviations"),
        ({"standardization_std": "[0, 1, 1]"}, "1e-30"),
        ({"resolution": "-3"}, "between 0 and"),
        ({"seg_thresh": "[" * 90_000}, "is not JSON"),
        ({"tiles_size": "true"}, "whole number"),
    ],
)
def test_hostile_values_are_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ContractError) as error:
        read_deepness({**FULL, **changes})
    assert told in str(error.value) and str(error.value).isprintable()
    assert str(error.value).startswith("its metadata (Deepness)")


def test_a_detector_is_seen_by_its_keys() -> None:
    with pytest.raises(ContractError, match="Detector"):
        read_deepness(written(det_conf=0.5, det_iou_thresh=0.4))


@given(
    st.dictionaries(
        st.sampled_from([*OWN_KEYS, "names", "model_type", "resolution"]),
        st.one_of(json_values().map(json.dumps), TEXTS),
    )
)
def test_any_metadata_is_read_or_refused(metadata: dict[str, str]) -> None:
    settled(lambda: read_deepness(metadata))
