"""Where tests lie and what they may import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import QUICK, ROOT

TESTS = ROOT / "tests"
APART = ("benchmarks", "zoo", "scripts")


def imported(path: Path) -> set[str]:
    """Return the packages that a file imports anywhere, each by its first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "importorskip", "run_module", "__import__"):
                found.add(str(node.args[0].value).partition(".")[0])
    return found


def test_no_test_imports_benchmarks_or_scripts() -> None:
    """They are called as processes: the tests hold without them, and they may use the tests' helpers."""
    paths = sorted(TESTS.rglob("*.py"))
    assert len(paths) > 80
    found = {path.relative_to(TESTS).as_posix(): sorted(imported(path) & set(APART)) for path in paths}
    assert {name: packages for name, packages in found.items() if packages} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import benchmarks.table",
        "def f():\n    from benchmarks import table",
        "import importlib\nimportlib.import_module('benchmarks.table')",
    ],
)
def test_that_check_can_fail(line: str, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(line)
    assert "benchmarks" in imported(tmp_path / "test_x.py")


def mirrored(test: Path) -> bool:
    """Return whether tests/engine/A/test_X.py has an engine/A/X of any suffix, or a package of that name."""
    place = ROOT / test.parent.relative_to(TESTS)
    name = test.stem.removeprefix("test_")
    return (place / name / "__init__.py").exists() or any(place.glob(f"{name}.*"))


def test_tests_of_the_engine_lie_and_are_named_as_its_modules() -> None:
    tests = sorted((TESTS / "engine").rglob("test_*.py"))
    assert len(tests) > 25
    assert [test.relative_to(TESTS).as_posix() for test in tests if not mirrored(test)] == []
    assert not mirrored(TESTS / "engine" / "fusion" / "test_fusing.py")


@pytest.mark.parametrize("entry", QUICK)
def test_every_quick_test_exists(entry: str) -> None:
    path, _, name = entry.partition("::")
    assert (TESTS / path).exists()
    assert not name or f"\ndef {name}" in (TESTS / path).read_text("utf-8")


def test_quick_tests_cover_every_folder() -> None:
    folders = {path.parent.relative_to(TESTS).parts[:1] for path in TESTS.rglob("test_*.py")}
    assert {(entry.partition("/")[0],) for entry in QUICK} == folders
