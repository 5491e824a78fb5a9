"""docs/extending.md followed literally in a copy of the repository: what it adds passes the tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def passed(copy: Path, *arguments: str) -> int:
    """Run some tests in the copy; return how many passed, none having failed."""
    done = run(copy, "pytest", *arguments, "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout[-2000:]
    return int(re.findall(r"(\d+) passed", done.stdout)[-1])


def engine(copy: Path, *arguments: str) -> str:
    """Run ``engine ARGUMENTS`` in the copy; return its stdout."""
    done = run(copy, "engine.cli", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_strategy_is_added_by_the_page(copy: Path) -> None:
    files = [
        "engine/fusion/strategies/min_prob.py",
        *["engine/fusion/strategies/__init__.py"] * 2,
        "tests/helpers/reference.py",
    ]
    assert follow("A strategy", copy) == files
    assert passed(copy, "tests/engine/fusion/test_fuse.py", "-k", "min-prob") >= 3
    told = engine(copy, "ensemble", "--strategy", "min-prob", "--limit", "4", "-o", "masks.npy", "--json")
    assert '"min-prob"' in told


def test_an_architecture_is_added_by_the_page(copy: Path) -> None:
    pytest.importorskip("keras", reason="training needs maskfuse[train]")
    assert follow("An architecture", copy) == [
        "trainers/models/linknet.py",
        *["trainers/models/__init__.py"] * 2,
        "trainers/names.py",
    ]
    assert passed(copy, "tests/trainers/test_models.py", "-k", "linknet") >= 6


def test_an_input_format_is_added_by_the_page(copy: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="the recipe reads HDF5 by h5py")
    assert follow("An input format", copy) == [
        "engine/sources/hdf5.py",
        *["engine/sources/open.py"] * 2,
        "engine/sources/spec.py",
        "tests/engine/sources/test_hdf5.py",
    ]
    assert passed(copy, "tests/engine/sources/test_hdf5.py", "tests/engine/sources/test_open.py") >= 10
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 64, 128)).astype(np.uint8), rng.integers(1, 5, (5, 64, 128))
    np.savez(copy / "x.npz", images=images, labels=labels)
    with h5py.File(copy / "x.h5", "w") as file:
        file["images"], file["labels"] = images, labels
    scores = []
    for form in ("npz", "h5"):
        arguments = ("-i", f"x.{form}:images", "--labels", f"x.{form}:labels", "-o", f"{form}.npy", "--json")
        told = json.loads(engine(copy, "ensemble", "-m", "engine/samples", *arguments))
        scores.append({(row["name"], *row["suppressed"]): row["miou"] for row in told["scores"]})
    assert scores[0] == scores[1]
    assert (copy / "npz.npy").read_bytes() == (copy / "h5.npy").read_bytes()
    refused = run(copy, "engine.cli", "ensemble", "-m", "engine/samples", "-i", "x.txt")
    assert refused.returncode == 2


def test_an_output_format_is_added_by_the_page(copy: Path) -> None:
    files = ["engine/outputs/tar.py", *["engine/outputs/open.py"] * 2, "tests/engine/outputs/test_tar.py"]
    assert follow("An output format", copy) == files
    assert passed(copy, "tests/engine/outputs", "-k", "tar") >= 9
    for name in ("masks.npy", "masks.tar"):
        engine(copy, "ensemble", "--limit", "6", "-o", name, "--preview", f"{name}.png")
    masks = np.load(copy / "masks.npy")
    with tarfile.open(copy / "masks.tar") as archive:
        pictures = [archive.extractfile(member) for member in archive.getmembers()]
        for stream, mask in zip(pictures, masks, strict=True):
            assert stream is not None
            np.testing.assert_array_equal(np.asarray(Image.open(stream)), mask)
    refused = run(copy, "engine.cli", "ensemble", "--limit", "6", "-o", "masks.txt")
    assert ".tar (palette PNGs)" in refused.stderr


def test_a_runtime_is_added_by_the_page(copy: Path) -> None:
    pytest.importorskip("onnx", reason="the recipe runs nets by the onnx package")
    files = ["engine/models/runtimes/reference.py", "engine/models/runtimes/__init__.py"]
    assert follow("A runtime", copy) == files
    assert passed(copy, "tests/engine/inference/test_tuning.py", "-k", "reference") == 1
    told = engine(copy, "ensemble", "--limit", "2", "-o", "masks.npy", "--runtime", "reference", "--json")
    assert {member["runtime"] for member in json.loads((copy / "masks.npy.json").read_text())["members"]} == {
        "reference"
    }
    assert json.loads(told)["images"] == 2


def test_a_convention_is_added_by_the_page(copy: Path) -> None:
    assert follow("A metric convention", copy) == ["engine/metrics.py", "tests/helpers/reference.py"]
    assert passed(copy, "tests/engine/test_metrics.py", "tests/engine/test_bootstrap.py") >= 15
    labels = np.random.default_rng(0).integers(1, 5, (5, 8, 8)).astype(np.uint8)
    np.save(copy / "truth.npy", labels)
    np.save(copy / "masks.npy", np.where(labels == 1, 2, labels))
    miou = json.loads(engine(copy, "evaluate", "masks.npy", "--labels", "truth.npy", "--json"))["miou"]
    shares = np.bincount(labels.ravel(), minlength=5) / labels.size
    expected = shares[2] * shares[2] / (shares[1] + shares[2]) + shares[3] + shares[4]
    assert miou["frequency-weighted"] == pytest.approx(expected, abs=1e-6)


def test_a_package_of_your_own_is_what_the_page_says() -> None:
    """The groups and the kinds of objects that the page names are those that the engine looks for."""
    from engine.utils import plugins

    (shown,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    groups = tomllib.loads(shown)["project"]["entry-points"]
    assert set(groups) == {plugins.STRATEGIES, plugins.RUNTIMES}
