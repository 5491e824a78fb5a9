"""docs/architecture.md says what is there: every path, every name, the tree of folders, the way of one batch."""

from __future__ import annotations

import ast
import re
import sys
import threading
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType

import pytest

from tests.conftest import ROOT, Result
from tests.helpers.world import World

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
# A paragraph, an item of a list or a row of a table; the names in it are those of the files in it.
PARTS = [part for part in re.split(r"\n\n|\n(?=\d+\. |\| )", PROSE) if "`" in part]
FOLDERS = {path.name for path in (ROOT / "engine").iterdir() if (path / "__init__.py").is_file()}
LOOSE = {path.stem for path in (ROOT / "engine").glob("*.py")}


def quoted(text: str) -> list[str]:
    """Return what stands in backticks, without commands and options."""
    words = re.findall(r"`([^`]+)`", text)
    return [word for word in words if not word.startswith(("-", "engine "))]


@cache
def names_of(path: Path) -> set[str]:
    """Return the functions and classes of a file, methods as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.strip()[:30])
def test_every_path_and_every_name_is_there(part: str) -> None:
    words = quoted(part)
    paths = [word for word in words if "/" in word or word.endswith((".py", ".toml"))]
    for path in paths:
        assert (ROOT / path).exists(), path
    known = set().union(*(names_of(ROOT / path) for path in paths if path.endswith(".py")))
    for word in set(words) - set(paths):
        assert word in known or word in FOLDERS | LOOSE, f"{word} is in none of {paths}"


def test_what_is_checked_can_be_wrong() -> None:
    assert len(PARTS) > 25
    for wrong in (
        "`engine/fuse.py`",
        "`no_such` in `engine/fusion/fuse.py`",
        "`fuse` in `engine/models/net.py`",
        "`x`",
    ):
        with pytest.raises(AssertionError):
            test_every_path_and_every_name_is_there(wrong)


def test_the_tree_is_that_of_the_folders() -> None:
    (block,) = re.findall(r"```text\nengine/\n(.*?)```", PAGE, flags=re.DOTALL)
    modules, *lines = block.splitlines()
    assert sorted(modules.split()) == sorted(LOOSE)
    shown: list[Path] = []
    above: dict[int, Path] = {0: Path("engine")}
    for line in lines:
        found = re.fullmatch(r"( +)([a-z_]+)/ +(\S.*)", line)
        assert found is not None, line
        depth = len(found[1]) // 2
        above[depth] = above[depth - 1] / found[2]
        shown.append(above[depth])
    real = {path.parent.relative_to(ROOT) for path in (ROOT / "engine").rglob("__init__.py")} - {Path("engine")}
    assert len(shown) == len(set(shown))
    assert set(shown) == real
    assert len(PAGE.partition("```text")[2].partition("```")[0].splitlines()) < 40  # one screen


def test_the_tree_stands_in_the_order_of_the_layers() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["engine"])
    floor = {name: height for height, layer in enumerate(layers) for name in layer.split(" | ")}
    shown = re.findall(r"^  ([a-z_]+)/", PAGE, flags=re.MULTILINE)
    assert shown == sorted(shown, key=lambda name: floor[name])


def test_every_folder_says_what_it_holds() -> None:
    for path in (ROOT / "engine").rglob("__init__.py"):
        told = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert told, f"{path} has no docstring"
        assert len(told.splitlines()[0]) > 20, path


def way() -> list[tuple[str, str]]:
    """Return (name, path) of the numbered steps of the way of one batch."""
    return re.findall(r"^\d+\. `([\w.]+)` \(`([^`]+)`\)", PAGE, flags=re.MULTILINE)


def test_a_batch_goes_that_way(world: World, tmp_path: Path, engine: Callable[..., Result]) -> None:
    steps = way()
    assert 4 < len(steps) <= 8
    files = {str(ROOT / path): path for _, path in steps}
    seen: list[tuple[str, str]] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_filename in files:
            step = (frame.f_code.co_qualname, files[frame.f_code.co_filename])
            if step in steps and step not in seen:
                seen.append(step)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        done = engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "masks.csv")
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert done.code == 0, done.err
    assert seen == steps
