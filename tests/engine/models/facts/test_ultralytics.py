"""Metadata as the exporter of Ultralytics writes it: ``str`` of Python values."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts.ultralytics import parse_names, read_ultralytics
from tests.engine.models.facts.hostile import json_values, settled

# The exporter adds str(value) under each key.
WRITTEN: dict[str, Any] = {
    "description": "Ultralytics YOLO26n-sem model trained on cityscapes.yaml",
    "author": "Ultralytics",
    "date": "2026-02-03T10:11:12.131415",
    "version": "8.4.30",
    "license": "AGPL-3.0 License (https://ultralytics.com/license)",
    "docs": "https://docs.ultralytics.com",
    "stride": 32,
    "task": "semantic",
    "batch": 1,
    "imgsz": [1024, 2048],
    "names": {0: "road", 1: "rider's bike", 2: 'a "sign"', 3: "größe"},
    "args": {"batch": 1, "half": False, "dynamic": False, "simplify": True, "opset": None, "nms": False},
    "channels": 3,
    "end2end": False,
}
FULL = {key: str(value) for key, value in WRITTEN.items()}


def test_it_reads_what_the_exporter_writes() -> None:
    facts = read_ultralytics(FULL)
    assert facts is not None
    assert facts.origin == "its metadata (Ultralytics)"
    assert facts.fields == {
        "classes": ("road", "rider's bike", 'a "sign"', "größe"),
        "scale": 1 / 255,
        "mean": (0.0,),
        "std": (1.0,),
        "stride": 32,
        "channels": 3,
        "channel_order": "rgb",
    }
    assert facts.notes == {"image size": "1024x2048"}


def test_names_nobody_gave_count_as_made_up() -> None:
    facts = read_ultralytics({**FULL, "names": str({index: f"class{index}" for index in range(4)}), "imgsz": "640"})
    assert facts is not None
    assert facts.fields["classes"] == ("class 0", "class 1", "class 2", "class 3")
    assert facts.notes == {"image size": "640x640"}


def test_one_name_is_the_foreground() -> None:
    facts = read_ultralytics({**FULL, "names": "{0: 'crack'}"})
    assert facts is not None
    assert facts.fields["classes"] == ("background", "crack")


def test_more_bands_have_no_colour_order() -> None:
    facts = read_ultralytics({**FULL, "channels": "10"})
    assert facts is not None
    assert facts.fields["channels"] == 10 and "channel_order" not in facts.fields


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ("segment", "segment (instance segmentation)"),
        ("detect", "detect (object detection)"),
        ("pose", "pose (pose estimation)"),
        ("obb", "obb (detection of oriented boxes)"),
        ("classify", "classify (classification of whole images)"),
        ("depth", "'depth'"),
    ],
)
def test_other_tasks_are_refused(task: str, told: str) -> None:
    with pytest.raises(ContractError) as error:
        read_ultralytics({**FULL, "task": task})
    assert told in str(error.value) and "the task semantic" in str(error.value)


def test_files_of_others_are_left_alone() -> None:
    assert read_ultralytics({}) is None
    assert read_ultralytics({"names": "{0: 'a', 1: 'b'}", "author": "somebody"}) is None
    bare = {key: FULL[key] for key in ("task", "names", "stride")}
    assert read_ultralytics(bare) is not None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"names": "{0: 'a', 2: 'b'}"}, "class ids 0, 2"),
        ({"names": "{0: 'a', 0: 'b'}"}, "one class id twice"),
        ({"names": "{0: 'a', 1: 'a'}"}, "'a' stands there twice"),
        ({"names": "{0: 'a', 1: __import__('os').name}"}, "dict of names by class id"),
        ({"names": "__import__('os').system('true')"}, "dict of names by class id"),
        ({"names": "{0: 'a' 'b', 1: 'c'}"}, "dict of names by class id"),
        ({"names": "{0: 'a', 1: 'b\\x1b[2J'}"}, "printable"),
        ({"names": "{0: 'a', 1: '\\x'}"}, "not the text of a name"),
        ({"names": "{" * 50_000 + "}"}, "dict of names by class id"),
        ({"names": "{0: '" + "\\'" * 45_000 + "}"}, "dict of names by class id"),
        ({"names": "{" + "0:" * 49_000 + "}"}, "dict of names by class id"),
        ({"names": "{}"}, "no class"),
        ({"names": "{0: 'a'" + " " * 100_000 + "}"}, "at most 100000"),
        ({"stride": "0"}, "from 1 to 256"),
        ({"stride": "32.0"}, "whole number"),
        ({"channels": "65"}, "from 1 to 64"),
        ({"imgsz": "[1, 2, 3]"}, "3 values"),
        ({"imgsz": "(640, 640)"}, "is not JSON"),
    ],
)
def test_hostile_values_are_refused(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ContractError) as error:
        read_ultralytics({**FULL, **changes})
    assert told in str(error.value) and str(error.value).isprintable()


NAMES = st.lists(st.text(alphabet="ab1 ßя中'\"\\{}[]:,()", max_size=20), min_size=2, max_size=12)


@given(NAMES, st.booleans())
def test_any_printable_names_are_read_back(names: list[str], as_dict: bool) -> None:
    # A letter in front keeps the names from looking like made-up ones.
    names = [f"n{name}" for name in names]
    assert parse_names(str(dict(enumerate(names)) if as_dict else names), "here") == tuple(names)


@given(
    st.dictionaries(
        st.sampled_from(["names", "stride", "imgsz", "task", "channels"]),
        st.one_of(json_values().map(str), json_values().map(json.dumps), st.text(alphabet="{}[]'\"\\:,0123 ab\n")),
    )
)
def test_any_metadata_is_read_or_refused(metadata: dict[str, str]) -> None:
    settled(lambda: read_ultralytics({"author": "Ultralytics", "task": "semantic", **metadata}))
