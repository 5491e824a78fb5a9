"""NAME.toml beside NAME.onnx, and the named ways to scale pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import ContractError
from engine.models.facts import normalization, parse_scale
from engine.models.facts.toml_file import read_toml
from tests.engine.models.facts.hostile import TEXTS, json_values, settled

FULL = """
# what nobody wrote into the file
classes = ["land", "water"]
scale = "1/255"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
size = [512, 512]
fit = "pad"
stride = 32
bands = [4, 3, 2]
channel_order = "bgr"
foreground_threshold = 0.4
output_name = "out"
[constants]
ratio = 2.0
"""


def written(tmp_path: Path, text: str) -> Path:
    (tmp_path / "net.toml").write_text(text, "utf-8")
    return tmp_path / "net.onnx"


def test_contract_fields_are_read(tmp_path: Path) -> None:
    facts = read_toml(written(tmp_path, FULL))
    assert facts is not None
    assert facts.origin == "net.toml"
    assert facts.fields == {
        "classes": ("land", "water"),
        "scale": 1 / 255,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "size": (512, 512),
        "fit": "pad",
        "stride": 32,
        "bands": (4, 3, 2),
        "channel_order": "bgr",
        "foreground_threshold": 0.4,
        "output_name": "out",
        "constants": {"ratio": 2.0},
    }


def test_no_file_a_plan_and_a_run_of_a_trainer_say_nothing(tmp_path: Path) -> None:
    assert read_toml(tmp_path / "net.onnx") is None
    (tmp_path / "net.run.toml").write_text("epochs = 3", "utf-8")
    assert read_toml(tmp_path / "net.onnx") is None
    assert read_toml(written(tmp_path, 'strategy = "vote"\n[[members]]\nmodel = "net.onnx"\n')) is None


RAW = np.arange(256.0)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("0..1", lambda x: x / 255),
        ("-1..1", lambda x: x / 127.5 - 1),
        ("none", lambda x: x),
        ("imagenet", lambda x: (x / 255 - 0.485) / 0.229),
    ],
)
def test_named_ways_to_scale(tmp_path: Path, name: str, formula: Any) -> None:
    way = normalization(name)
    np.testing.assert_allclose((RAW * way["scale"] - way["mean"][0]) / way["std"][0], formula(RAW), atol=1e-12)
    facts = read_toml(written(tmp_path, f'normalize = "{name}"'))
    assert facts is not None and facts.fields == way


@pytest.mark.parametrize(("text", "value"), [("1/255", 1 / 255), (" 1 / 127.5 ", 1 / 127.5), ("2e-3", 0.002)])
def test_a_scale_may_be_a_text(text: str, value: float) -> None:
    assert parse_scale(text) == value


@pytest.mark.parametrize("text", ["", "1/", "1/0", "0", "-1/255", "1/255/2", "1//2", "nan", "1e99", "9" * 500, "a"])
def test_other_texts_are_no_scale(text: str) -> None:
    with pytest.raises(ContractError, match=r"^--scale"):
        parse_scale(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scale = ", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML"),
        ("channels = " + "9" * 5000, "is not TOML"),
        ("channels = 0x" + "f" * 5000, "more than 30 digits"),
        ("colour = 1", "unknown field 'colour'; known are "),
        ("epochs = 3\nlr = 1", "unknown field 'epochs', 'lr'"),
        ("scale = nan", "finite number"),
        ("scale = 'big'", "'big' is no number; write 0.00392157 or 1/255"),
        ("mean = 1979-05-27", "is not a list of numbers"),
        ("normalize = 'imagenet'\nscale = 1", "normalize and scale are both there"),
        ("normalize = 3", "known are imagenet, 0..1, -1..1, none"),
        ("normalize = 'caffe'", "'caffe' is unknown; known are imagenet, 0..1, -1..1, none"),
        ('classes = ["a", "b\\u001b"]', "printable"),
        ("stride = 0", "from 1 to 256"),
        ("# " + "x" * 1_000_000, "larger than 1000000 bytes"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ContractError) as error:
        read_toml(written(tmp_path, text))
    assert str(error.value).startswith("net.toml")
    assert told in str(error.value) and str(error.value).isprintable()


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ContractError, match=r"^net\.toml: is not UTF-8"):
        read_toml(tmp_path / "net.onnx")


FIELDS = ["classes", "scale", "mean", "size", "stride", "constants", "notes", "normalize", "kind", "bias", "members"]


def without_null(value: Any) -> Any:
    """Return a JSON value as TOML can hold it."""
    if isinstance(value, dict):
        return {key.replace("\ud800", "?"): without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_null(item) for item in value if item is not None]
    return value.replace("\ud800", "?") if isinstance(value, str) else value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FIELDS), json_values("a")).map(without_null))
def test_any_toml_is_read_or_refused(tmp_path: Path, raw: dict[str, Any]) -> None:
    path = written(tmp_path, tomli_w.dumps(raw))
    settled(lambda: read_toml(path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS.map(lambda text: text.replace("\ud800", "=")))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    path = written(tmp_path, text)
    settled(lambda: read_toml(path))
