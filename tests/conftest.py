"""What all tests share: the command lines run in this process, nets and images, and the repository's root."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer

from engine.cli import app
from engine.utils import console
from tests.helpers.properties import load_profile

if TYPE_CHECKING:
    from tests.helpers.runs import Dying
    from tests.helpers.world import World

ROOT = Path(__file__).resolve().parent.parent

# Before any test is imported: settings made there take what they do not say from the profile.
load_profile()

# The tests of `pytest -m quick`: the fastest of every folder, by measured durations.
QUICK = (
    "docs/test_docs.py",
    "docs/test_generated_pages.py",
    "docs/test_layout.py",
    "end_to_end/test_cli.py::test_help_and_version_",
    "end_to_end/test_imports.py::test_public_names",
    "end_to_end/test_independent.py",
    "end_to_end/test_zoo.py",
    "engine/compare/test_command.py::test_intervals_",
    "engine/compare/test_command.py::test_pixels_of_any_kind_",
    "engine/compare/test_folding.py",
    "engine/fusion/test_cleanup.py",
    "engine/fusion/test_fuse.py",
    "engine/fusion/test_regions.py",
    "engine/inference/tiles/test_grid.py",
    "engine/kernels/",
    "engine/models/runtimes/test_providers.py",
    "engine/models/test_contract.py",
    "engine/models/test_folds.py",
    "engine/models/test_members.py",
    "engine/models/test_net.py",
    "engine/models/test_views.py::test_names_",
    "engine/models/test_views.py::test_symmetries_",
    "engine/outputs/test_open.py",
    "engine/runs/durable/test_journal.py",
    "engine/runs/test_options.py",
    "engine/runs/test_plan.py",
    "engine/scores/test_risk.py",
    "engine/select/test_command.py::test_a_sample_",
    "engine/select/test_command.py::test_folds_",
    "engine/select/test_command.py::test_mean_iou_",
    "engine/select/test_ragged.py",
    "engine/select/test_refine.py",
    "engine/serve/test_batching.py",
    "engine/sources/test_numpy_files.py",
    "engine/sources/test_open.py",
    "engine/sources/test_parquet.py",
    "engine/sources/test_remote.py",
    "engine/test_bootstrap.py",
    "engine/test_metrics.py::test_another_",
    "engine/test_metrics.py::test_each_",
    "engine/test_metrics.py::test_labels_",
    "engine/test_metrics.py::test_nothing_",
    "engine/test_metrics.py::test_one_",
    "engine/test_metrics.py::test_true_",
    "engine/utils/test_palette.py",
    "exporters/page/test_runtime.py::test_npm_",
    "exporters/page/test_runtime.py::test_what_is_not_there",
    "exporters/page/test_runtime.py::test_without_npm",
    "exporters/test_measures.py",
    "fuzz/test_fuzz.py::test_contracts",
    "fuzz/test_fuzz.py::test_journals",
    "fuzz/test_fuzz.py::test_plans",
    "trainers/test_data.py",
    "trainers/test_folds.py",
    "trainers/test_outliers.py",
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules without a quick test unread under ``-m quick``: some of them import TensorFlow."""
    if config.option.markexpr != "quick" or collection_path.suffix != ".py":
        return None
    name = collection_path.relative_to(ROOT / "tests").as_posix()
    return None if any(name.startswith(entry.partition("::")[0]) for entry in QUICK) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the quick tests."""
    for item in items:
        if item.nodeid.partition("tests/")[2].startswith(QUICK):
            item.add_marker(pytest.mark.quick)


@dataclass(frozen=True)
class Result:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run a typer application in this process as its entry point would; capture what its process would print."""

    def run(app: typer.Typer, *arguments: object) -> Result:
        capfd.readouterr()
        code = 0
        try:
            console.exit_code(lambda: app([str(argument) for argument in arguments]))
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else int(left.code is not None)
        sys.stdout.flush()
        held = capfd.readouterr()
        return Result(code, held.out, held.err)

    return run


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nets, images and labels that most tests share; made once, never written to."""
    pytest.importorskip("onnx", reason="the tests build their nets with the onnx package")
    from tests.helpers.world import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def engine(call: Callable[..., Result]) -> Callable[..., Result]:
    """Run ``engine ARGUMENTS`` in this process."""
    return lambda *arguments: call(app, *arguments)


@pytest.fixture(scope="session")
def process() -> Callable[..., Result]:
    """Run ``python -m engine.cli ARGUMENTS`` (or another module) as a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, module: tuple[str, ...] = ("-m", "engine.cli")) -> Result:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default::RuntimeWarning"}
        done = subprocess.run(
            [sys.executable, *module, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment,
            timeout=120,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def many_images(tmp_path: Path) -> Path:
    """Enough images for five shards of eight."""
    from tests.helpers.runs import COUNT
    from tests.helpers.world import HEIGHT, WIDTH

    pixels = np.random.default_rng(5).integers(0, 240, (COUNT, HEIGHT, WIDTH)).astype(np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    return tmp_path / "images.npy"


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Dying:
    from tests.helpers.runs import Dying

    return Dying(monkeypatch)
