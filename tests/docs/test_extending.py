"""docs/extending.md followed literally in a copy of the repository: what it adds passes the tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
COPIED = ("engine", "exporters", "trainers", "tests")


def follow(part: str, copy: Path) -> list[str]:
    """Do what the blocks of a part say; return the files that were written or changed."""
    section = re.search(rf"^## {part}\n(.*?)(?=^## |\Z)", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert section is not None
    done = []
    for kind, name, text in re.findall(r'```(python|diff) title="([^"]+)"\n(.*?)```', section[1], flags=re.DOTALL):
        path = copy / name
        if kind == "python":
            assert not path.exists()
            path.write_text(text)
        else:
            before, *added = text.splitlines()
            assert all(line.startswith("+") for line in added)
            held = path.read_text()
            assert held.count(before[1:] + "\n") == 1, f"{name}: {before[1:]!r} is to be there once"
            new = "".join(line[1:] + "\n" for line in added)
            path.write_text(held.replace(before[1:] + "\n", before[1:] + "\n" + new))
        done.append(name)
    return done


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the sources with their compiled kernels, which numba takes by the files' times."""
    for name in COPIED:
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(copy), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, "-m", *arguments], cwd=copy, env=environment, capture_output=True, text=True)


def test_a_strategy_is_added_by_the_page(copy: Path) -> None:
    files = [
        "engine/fusion/strategies/min_prob.py",
        *["engine/fusion/strategies/__init__.py"] * 2,
        "tests/helpers/reference.py",
    ]
    assert follow("A strategy", copy) == files
    tested = run(copy, "pytest", "tests/engine/fusion/test_fuse.py", "-k", "min-prob", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout[-2000:]
    assert re.search(r"[3-9]\d* passed", tested.stdout)
    used = run(copy, "engine.cli", "ensemble", "--strategy", "min-prob", "--limit", "4", "-o", "masks.npy", "--json")
    assert used.returncode == 0, used.stderr
    assert '"min-prob"' in used.stdout


def test_an_architecture_is_added_by_the_page(copy: Path) -> None:
    pytest.importorskip("keras", reason="training needs maskfuse[train]")
    assert follow("An architecture", copy) == ["trainers/models/linknet.py", *["trainers/models/__init__.py"] * 2]
    tested = run(copy, "pytest", "tests/trainers/test_models.py", "-k", "linknet", "-p", "no:cacheprovider")
    assert tested.returncode == 0, tested.stdout[-2000:]
    assert re.search(r"[6-9]\d* passed", tested.stdout)
