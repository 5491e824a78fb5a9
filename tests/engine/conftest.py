"""Nets, images and labels that the engine's tests share; made once, never written to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.cli import app
from tests.conftest import ROOT, Result
from tests.engine.runs import COUNT as MANY
from tests.engine.runs import Dying
from tests.engine.world import HEIGHT, WIDTH, World, make_world

pytest.importorskip("onnx", reason="the tests build their nets with the onnx package")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
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
    pixels = np.random.default_rng(5).integers(0, 240, (MANY, HEIGHT, WIDTH)).astype(np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    return tmp_path / "images.npy"


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Dying:
    return Dying(monkeypatch)
