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
