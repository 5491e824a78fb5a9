"""The promise a model file carries: read back as written, refused when it contradicts itself."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from engine.errors import ContractError
from engine.models.contract import MAX_CLASSES, ModelContract
from engine.models.fields import TYPES, checked_fields

FULL = ModelContract(
    classes=("background", "größe", "a, b"),
    kind="specialist",
    class_id=2,
    group="set",
    input_layout="NCHW",
    output_layout="NHWC",
    activation="probabilities",
    size=(64, 128),
    channels=3,
    scale=1 / 255,
    mean=(0.1, 0.2, 0.3),
    std=(0.5,),
    ignored_class=0,
    bias=-0.25,
    temperature=1.5,
    architecture="unet",
    version="0.1",
    notes={"score": 0.7, "run": "abc", "epochs": 3, "ema": True},
)


def raw(**changes: object) -> str:
    return json.dumps({"schema": 1, "classes": ["a", "b"], **changes})


@pytest.mark.parametrize("contract", [FULL, ModelContract(classes=("a", "b"))])
def test_it_reads_back_what_it_wrote(contract: ModelContract) -> None:
    text = contract.to_json()
    assert ModelContract.from_json(text) == contract
    assert "\n" not in text
    assert json.loads(text)["schema"] == 1


def test_every_field_is_checked() -> None:
    assert set(TYPES) == {field.name for field in fields(ModelContract)}


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("classes", ["a"], "1 of them"),
        ("classes", [str(index) for index in range(MAX_CLASSES + 1)], "257 of them"),
        ("classes", ["a", "a"], "twice"),
        ("classes", ["a", "b\n"], "printable"),
        ("classes", ["a", "b" * 201], "200"),
        ("classes", "ab", "list of texts"),
        ("classes", ["a", 1], "list of texts"),
        ("kind", "semantic", "multiclass or specialist"),
        ("kind", "specialist", "class_id"),
        ("class_id", 1, "class_id"),
        ("class_id", True, "whole number"),
        ("ignored_class", 2, "0 to 1"),
        ("ignored_class", -1, "0 to 1"),
        ("input_layout", "CHW", "NCHW or NHWC"),
        ("output_layout", "", "NCHW or NHWC"),
        ("activation", "sigmoid", "logits or probabilities"),
        ("size", [64], "[height, width]"),
        ("size", [64, 0], "above 0"),
        ("size", [64.0, 128.0], "[height, width]"),
        ("channels", 0, "1 to 64"),
        ("channels", 10**12, "whole number"),
        ("scale", 0, "1e-30"),
        ("scale", 1e-40, "1e-30"),
        ("scale", "1/255", "a number"),
        ("mean", [0, 0], "2 values for 1 channels"),
        ("mean", [], "0 values"),
        ("mean", 0.5, "list of numbers"),
        ("std", [0], "std"),
        ("temperature", 0, "temperature"),
        ("temperature", -1, "temperature"),
        ("notes", {"a": [1]}, "table"),
        ("notes", {"a\n": 1}, "table"),
        ("colour", 1, "unknown field 'colour'"),
        ("schema", 2, "schema 2"),
    ],
)
def test_a_false_field_is_refused_by_name(field: str, value: object, told: str) -> None:
    with pytest.raises(ContractError) as refusal:
        ModelContract.from_json(raw(**{field: value}))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"schema": 1}', '{"schema": 1, "classes": ["a", "b"], "scale": NaN}']
    + [f'{{"schema": 1, "classes": ["a", "b"], "{name}": 1e999}}' for name in ("scale", "bias", "temperature")]
    + ['{"schema": 1, "classes": ["a", "b"], "notes": {"x": -1e999}}', '{"schema": ' + "1" * 5000 + "}"],
)
def test_what_is_no_contract_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        ModelContract.from_json(text)


def test_notes_are_added_to_a_copy() -> None:
    noted = FULL.noted(parity=1e-6)
    assert noted.notes == {**FULL.notes, "parity": 1e-6}
    assert "parity" not in FULL.notes


def test_outputs() -> None:
    assert FULL.outputs == 1
    assert ModelContract(classes=("a", "b", "c")).outputs == 3


def test_stated_lists_become_tuples() -> None:
    assert checked_fields({"mean": [0.5], "classes": ["a"], "scale": 1}) == {
        "mean": (0.5,),
        "classes": ("a",),
        "scale": 1.0,
    }
