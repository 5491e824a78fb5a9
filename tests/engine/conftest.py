"""Nets, images and labels that the engine's tests share; made once, never written to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.cli import app
from tests.conftest import ROOT, Result
from tests.engine.nets import save_member
from tests.engine.runs import COUNT as MANY
from tests.engine.runs import Dying

pytest.importorskip("onnx", reason="the tests build their nets with the onnx package")

HEIGHT, WIDTH, COUNT = 8, 16, 7


@dataclass(frozen=True)
class World:
    """A folder as a user has it.

    Attributes:
        folder: where everything lies.
        models: folder with three members (a, b, c) of five classes.
        images: uint8 (7, 8, 16).
        labels: uint8 (7, 8, 16), classes 0 to 4.
        images_file: the images as ``images.npz``.
        labels_file: the labels as ``labels.npz``.
    """

    folder: Path
    models: Path
    images: np.ndarray
    labels: np.ndarray
    images_file: Path
    labels_file: Path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    models = folder / "models"
    models.mkdir()
    for seed, name in enumerate("abc"):
        save_member(models / f"{name}.onnx", seed)
    draw = np.random.default_rng(3)
    # Below the level that poisons a poisoned net.
    images = draw.integers(0, 240, (COUNT, HEIGHT, WIDTH)).astype(np.uint8)
    labels = draw.integers(0, 5, (COUNT, HEIGHT, WIDTH)).astype(np.uint8)
    np.savez(folder / "images.npz", images=images)
    np.savez(folder / "labels.npz", labels=labels)
    return World(folder, models, images, labels, folder / "images.npz", folder / "labels.npz")


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
