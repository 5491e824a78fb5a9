"""What a user has on the disk: three nets, some images, their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.helpers.nets import save_member

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


def make_world(folder: Path) -> World:
    """Write it into a folder that is there."""
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
