"""What the engine may load, and what its public surface is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import engine
from tests.conftest import ROOT, Result
from tests.helpers.world import World

FORBIDDEN = ("tensorflow", "keras", "onnx", "tf2onnx", "onnxslim", "torch", "jax", "ray", "trainers", "exporters")
# Runs the command line in this process, then reports which of the named packages are loaded.
SCRIPT = """
import sys
{extra}
from engine.cli import main
try:
    main()
except SystemExit as left:
    print("code", left.code or 0, file=sys.stderr)
print("loaded", *sorted({{name.split(".")[0] for name in sys.modules}} & set({forbidden!r})), file=sys.stderr)
print("seen", *sorted({{"numba", "onnxruntime", "numpy"}} & set(sys.modules)), file=sys.stderr)
"""


def predict(world: World, place: Path, process: Callable[..., Result], extra: str = "") -> list[str]:
    script = SCRIPT.format(extra=extra, forbidden=FORBIDDEN)
    arguments = ["ensemble", "-m", world.models, "-i", world.images_file, "-o", "masks.csv"]
    arguments += ["--labels", world.labels_file, "--preview", "look.png"]
    done = process(*arguments, cwd=place, module=("-c", script))
    assert "code 0" in done.err, done.err
    assert (place / "masks.csv").is_file()
    return done.err.splitlines()


def test_a_whole_prediction_loads_no_framework(world: World, tmp_path: Path, process: Callable[..., Result]) -> None:
    lines = predict(world, tmp_path, process)
    assert lines[-2] == "loaded"
    assert lines[-1] == "seen numba numpy onnxruntime"


def test_that_check_can_fail(world: World, tmp_path: Path, process: Callable[..., Result]) -> None:
    (tmp_path / "keras.py").touch()
    extra = f"sys.path.insert(0, {str(tmp_path)!r})\nimport keras\nimport onnx.version"
    assert predict(world, tmp_path, process, extra)[-2] == "loaded keras onnx"


def test_imports_point_one_way() -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run(
        [tool, "--no-cache"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_engine_has_no_flat_modules_but_these() -> None:
    """What is new goes into the folder of its step in the way of the data; beside the folders at most eight modules."""
    loose = {path.stem for path in (ROOT / "engine").glob("*.py")}
    assert loose == {"__init__", "errors", "version", "metrics", "bootstrap", "evaluate", "bench"}
    assert len(loose) <= 8


def test_the_order_of_the_layers_names_everything() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = [item for item in contracts if item["type"] == "layers" and item.get("containers") == ["engine"]]
    assert layers["exhaustive"] is True
    assert not layers.get("ignore_imports")
    assert not layers.get("exhaustive_ignores")
    named = [name for layer in layers["layers"] for name in layer.split(" | ")]
    loose = [path.stem for path in (ROOT / "engine").glob("*.py") if path.stem != "__init__"]
    folders = [path.parent.name for path in (ROOT / "engine").glob("*/__init__.py")]
    assert sorted(named) == sorted([*loose, *folders])


def test_a_module_outside_the_order_and_an_import_upwards_are_found(tmp_path: Path) -> None:
    tool = Path(sys.executable).parent / "lint-imports"
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    for package in settings["root_packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "engine" / "stray.py").write_text('"""Somewhere."""\n')
    with (tmp_path / "engine" / "utils" / "files.py").open("a") as file:
        file.write("\nimport engine.sources.base\n")
    done = subprocess.run(
        [tool, "--no-cache"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "stray" in done.stdout
    assert "engine.utils.files -> engine.sources.base" in done.stdout


def test_public_names() -> None:
    before = dir(engine)
    for name in engine.__all__:
        value = getattr(engine, name)
        assert value is not None
        assert type(value) is not type(sys), f"engine.{name} is a module"
    assert dir(engine) == before == sorted(engine.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = engine.no_such_name


def test_public_names_stay_what_they_are(process: Callable[..., Result]) -> None:
    """Whatever is imported later: a submodule must not take the place of a name."""
    script = (
        "import engine, importlib, pkgutil\n"
        "first = {name: getattr(engine, name) for name in engine.__all__}\n"
        "modules = [item.name for item in pkgutil.iter_modules(engine.__path__)]\n"
        "for name in modules: importlib.import_module(f'engine.{name}')\n"
        "assert len(modules) > 15\n"
        "for name, value in first.items():\n"
        "    assert getattr(engine, name) is value and type(value) is not type(engine), name\n"
    )
    done = process(module=("-c", script))
    assert done.code == 0, done.err
