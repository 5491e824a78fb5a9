"""Synthetic tiles that a network can learn in seconds, and the real ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from trainers.data import Dataset

NAMES = ("background", "soil", "bedrock", "sand", "big rock")


def tiles(count: int, size: tuple[int, int] = (32, 64), channels: int = 1, classes: int = 5, seed: int = 0) -> Dataset:
    """Blocks whose grey level tells their class, with noise; two tiles a group; every class in every tile."""
    rng = np.random.default_rng(seed)
    height, width = size
    cells = np.stack([rng.permutation(np.arange(8) % classes).reshape(2, 4) for _ in range(count)])
    labels = cells.repeat(height // 2, axis=1).repeat(width // 4, axis=2).astype(np.uint8)
    grey = 20 + labels[..., None] * (200 // classes) + rng.normal(0, 4, (*labels.shape, channels))
    images = np.clip(np.rint(grey), 0, 255).astype(np.uint8)
    return Dataset(images, labels, np.arange(count) // 2, NAMES[:classes], np.arange(count))


def task_array(data: Dataset) -> NDArray[np.float64]:
    return np.stack([data.images[..., 0], data.labels], axis=1).astype(np.float64)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    """Twenty tiles in the layout of the task's own file."""
    path = tmp_path / "tiles.npz"
    data = tiles(20)
    np.savez(path, training_set=task_array(data), test_set=data.images[:3, ..., 0])
    np.savez(tmp_path / "groups.npz", panorama=data.groups)
    return path


@pytest.fixture(scope="session")
def mars(root: Path) -> Path:
    folder = Path(os.environ.get("MASKFUSE_MARS", root.parent / "shared" / "data" / "mars"))
    if not (folder / "mars_for_students.npz").is_file():
        pytest.skip("the real tiles are not at hand: set MASKFUSE_MARS to their folder")
    return folder
