"""Soft targets, a teacher's probabilities: read from the files of :mod:`trainers.soft_targets` and checked."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.metrics import VOID
from trainers.config import FitConfig
from trainers.data import Dataset, load, read_npz

SCORES = "scores"
#: How far the probabilities of a pixel may be from a sum of 1: those of float16 are rounded.
TOLERANCE = 0.02
_CHUNK = 256


def is_soft(path: Path) -> bool:
    """Return whether an npz holds soft targets."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{SCORES}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def with_soft(data: Dataset, path: Path) -> Dataset:
    """Return training tiles with their soft targets.

    Raises:
        InputError: the file has other tiles or classes, or no probabilities.
    """
    arrays = read_npz(path)
    return replace(data, soft=_scores(arrays, path, data.class_names, (len(data), *data.labels.shape[1:])))


def load_extra(path: Path, class_names: tuple[str, ...]) -> Dataset:
    """Return further training tiles, of hard labels or of soft targets.

    Raises:
        InputError: the file does not fit.
    """
    if not is_soft(path):
        return load(path, class_names=class_names)
    arrays = read_npz(path)
    images = arrays.get("images")
    if images is None or images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InputError(f"{path}: soft targets need images, uint8 (N, H, W) or (N, H, W, C): write them again")
    images = images[..., None] if images.ndim == 3 else images
    labels = np.full(images.shape[:3], VOID, np.uint8)
    soft = _scores(arrays, path, class_names, labels.shape)
    return Dataset(images, labels, None, class_names, np.arange(len(images)), soft)


def _scores(
    arrays: dict[str, NDArray[Any]], path: Path, names: tuple[str, ...], shape: tuple[int, ...]
) -> NDArray[np.float16]:
    if SCORES not in arrays:
        raise InputError(f"{path}: contains {', '.join(arrays) or 'nothing'}; soft targets have scores: see distil")
    found = arrays[SCORES]
    wanted = (shape[0], len(names), *shape[1:])
    if found.shape != wanted or found.dtype.kind != "f":
        raise InputError(
            f"{path}: scores of shape {found.shape}, type {found.dtype}; probabilities {wanted} (tiles, classes, "
            "height, width) of these tiles are needed"
        )
    own = tuple(map(str, arrays.get("class_names", np.array(names))))
    if own != names:
        raise InputError(f"{path}: its teacher knows {', '.join(own)}; the data have {', '.join(names)}")
    for start in range(0, len(found), _CHUNK):
        part = found[start : start + _CHUNK].astype(np.float32)
        total = part.sum(axis=1)
        if not (part.min() >= 0 and np.all((np.abs(total - 1) <= TOLERANCE) | (total == 0))):
            raise InputError(f"{path}: scores are no probabilities: each pixel's must be 0 or more and sum to 1")
    return found.astype(np.float16, copy=False)


def check_soft(config: FitConfig) -> None:
    """Refuse what soft targets do not go with.

    Raises:
        PlanError: naming the option.
    """
    if not (config.soft or (config.extra and is_soft(Path(config.extra)))):
        return
    for name, wrong, told in (
        ("class-id", config.class_id is not None, "soft targets are of all classes; train a network of all classes"),
        ("paste", config.paste > 0, "pasted pixels have no soft targets; omit it"),
        ("repeat", config.repeat > 1, "tiles with soft targets are not repeated; omit it"),
    ):
        if wrong:
            raise PlanError(f"{name}: {told}")
