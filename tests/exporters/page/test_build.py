"""A page's folder: complete or not there, and nothing else is ever replaced by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from engine.errors import ContractError, EngineError, InputError, ModelError, OutputError
from engine.models.opening import inspect_net
from engine.utils.palette import colours
from exporters.cli import app
from exporters.pack import pack
from exporters.page import build, runtime
from tests.conftest import Result
from tests.exporters.page.conftest import World
from tests.helpers.nets import FIVE, save_member


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    save_member(tmp_path / "a.onnx")
    (tmp_path / "plan.toml").write_text('[[members]]\nmodel = "a.onnx"\n')
    return pack(tmp_path / "plan.toml", tmp_path / "packed.onnx").path


def test_the_command_makes_a_folder_that_stands_alone(
    world: World, package: Path, tmp_path: Path, call: Callable[..., Result]
) -> None:
    out = tmp_path / "deep" / "page"
    done = call(app, "page", world.packed["tiles"], "--out", out, "--runtime", package)
    assert done.code == 0, done.err
    assert re.search(
        r"wrote .*page \([\d.]+ MB; a browser without a GPU loads [\d.]+ MB\)", done.err.replace("\n", " ")
    )
    assert f"python -m http.server --bind 127.0.0.1 --directory {out}" in done.err.replace("\n", "")
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {*build.PARTS, build.FACTS, build.NET, *(f"runtime/{name}" for name in runtime.FILES)}
    # Every part that one of them names is there.
    for name in build.PARTS:
        text = (out / name).read_text("utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
        for named in re.findall(r"[\"'](?:\./)?([\w/.-]+\.(?:js|css|svg|json|onnx|mjs))[\"']", text):
            assert named in found, (name, named)
    assert [path.name for path in out.parent.iterdir()] == ["page"]
    again = call(app, "page", world.packed["odd"], "--out", out, "--runtime", package)
    assert again.code == 2
    assert "already exists; choose another name or give --overwrite" in again.err.replace("\n", " ")
    assert call(app, "page", world.packed["odd"], "--out", out, "--runtime", package, "--overwrite").code == 0
    assert json.loads((out / build.FACTS).read_text("utf-8"))["title"] == "odd packed"
    assert [path.name for path in out.parent.iterdir()] == ["page"]


def test_what_the_page_is_told(packed: Path) -> None:
    facts = build.page_facts(inspect_net(packed))
    expected = {
        "title": "packed", "input": "images", "kind": "float32", "channels": 1, "size": None, "batch": None,
        "doubt": False, "not_finite": 255,
    }  # fmt: skip
    assert {key: facts[key] for key in expected} == expected
    shown = [{"name": name, "colour": list(colour)} for name, colour in zip(FIVE, colours(5), strict=True)]
    assert facts["classes"] == shown


def test_a_fixed_batch_is_told(packed: Path) -> None:
    model = onnx.load(packed)
    for port in (*model.graph.input, *model.graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, packed)
    assert build.page_facts(inspect_net(packed))["batch"] == 2


def refused(kind: type[EngineError], told: str, *arguments: Any, **named: Any) -> None:
    with pytest.raises(kind, match=told):
        build.make_page(*arguments, **named)


def test_wrong_models(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "page"
    refused(InputError, "no such model", tmp_path / "none.onnx", out)
    refused(
        ContractError,
        "a.onnx: not a packed ensemble; make one of the plan first: exporters pack",
        tmp_path / "a.onnx",
        out,
    )
    (tmp_path / "text.onnx").write_text("no net")
    refused(ModelError, "text.onnx", tmp_path / "text.onnx", out)
    save_member(tmp_path / "bands.onnx", channels=5)
    (tmp_path / "bands.toml").write_text('[[members]]\nmodel = "bands.onnx"\n')
    bands = pack(tmp_path / "bands.toml", tmp_path / "packed bands.onnx").path
    refused(InputError, "takes images of 5 channels; a page reads pictures, of 1 or 3", bands, out)
    assert not out.exists()


def test_wrong_folders(packed: Path, tmp_path: Path) -> None:
    refused(OutputError, "a file; the page is a folder", packed, packed)
    refused(OutputError, "is a file, not a folder; choose another name", packed, packed / "page")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    refused(OutputError, "already exists", packed, mine)
    refused(OutputError, "holds other files than a page's, which would be lost", packed, mine, overwrite=True)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_a_runtime_that_is_refused_leaves_nothing(packed: Path, tmp_path: Path) -> None:
    refused(InputError, "lacks dist/ort", packed, tmp_path / "page", runtime_from=tmp_path)
    assert not [path for path in tmp_path.iterdir() if "page" in path.name]
