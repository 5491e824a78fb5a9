"""Reading training data: the task's own npz, or any npz of images and labels, checked before anything is trained.

Two layouts are supported, distinguished by their keys:

* ``training_set`` (N, 2, H, W): an image of 0 to 255 and a mask of class numbers in each row (the task's own file);
* ``images`` (N, H, W) or (N, H, W, C) and ``labels`` (N, H, W), with ``groups`` (N,) when tiles overlap, and
  ``class_names`` in label order where the classes have names.

The label 255 is void: such pixels have no class and count neither in the loss nor in any score.

Nothing is unpickled: arrays of Python objects are refused.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.metrics import VOID
from engine.sources.groups import group_values
from engine.utils.boundary import refusing

TASK_KEY = "training_set"
TASK_CLASSES = ("background", "soil", "bedrock", "sand", "big rock")
MAX_CLASSES = 255


@dataclass(frozen=True)
class Dataset:
    """Tiles and their labels.

    Attributes:
        images: uint8 (N, H, W, C).
        labels: uint8 (N, H, W), class numbers, and 255 (void) where a pixel has no class.
        groups: int64 (N,), equal for tiles that overlap; None when unknown.
        class_names: names in label order.
        index: int64 (N,), the index of each tile in the file it was read from.
        soft: a teacher's probabilities, float16 (N, classes, H, W), all 0 for a pixel without; None without a teacher.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    groups: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    index: NDArray[np.int64]
    soft: NDArray[np.float16] | None = None

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.images)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return the pixels of each class, int64 (classes,); void pixels are of none."""
        return class_counts(self.labels, len(self.class_names))

    def take(self, chosen: NDArray[np.int64]) -> Dataset:
        """Return the tiles at these indices."""
        groups = None if self.groups is None else self.groups[chosen]
        soft = None if self.soft is None else self.soft[chosen]
        return Dataset(self.images[chosen], self.labels[chosen], groups, self.class_names, self.index[chosen], soft)

    def joined(self, other: Dataset, path: Path) -> Dataset:
        """Return these tiles and more, each a group of its own, which are numbered from -1 down.

        Raises:
            InputError: the further tiles, read from ``path``, are of another size or number of channels.
        """
        if self.images.shape[1:] != other.images.shape[1:]:
            raise InputError(
                f"{path}: tiles of {other.images.shape[1:]} (height, width, channels); "
                f"{self.images.shape[1:]} are needed"
            )
        images, labels = (np.concatenate(pair) for pair in ((self.images, other.images), (self.labels, other.labels)))
        index = np.concatenate([self.index, -1 - other.index])
        groups = None
        if self.groups is not None:
            groups = np.concatenate([self.groups, self.groups.max() + 1 + np.arange(len(other))])
        return Dataset(images, labels, groups, self.class_names, index, _joined_soft(self, other))


def _joined_soft(one: Dataset, other: Dataset) -> NDArray[np.float16] | None:
    if one.soft is None and other.soft is None:
        return None
    classes = len(one.class_names)
    parts = [
        np.zeros((len(data), classes, *data.labels.shape[1:]), np.float16) if data.soft is None else data.soft
        for data in (one, other)
    ]
    return np.concatenate(parts)


def check_npz(path: Path) -> None:
    """Refuse a file that is no archive of arrays; nothing of it is read.

    Raises:
        InputError: it is missing, not an npz, or cut off.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an .npz file")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path}: not an .npz archive, or truncated; write it with numpy.savez or download it again")


def class_counts(labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Return how many of some labels are of each class, int64 (classes,); void is of none."""
    return np.bincount(labels.ravel(), minlength=classes)[:classes]


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return all arrays of an npz file.

    Raises:
        InputError: the file is missing, not an npz, damaged, or contains Python objects.
    """
    check_npz(path)
    with refusing(lambda why: _unreadable(path, why)), np.load(path, allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    stray = [key for key, value in arrays.items() if not isinstance(value, np.ndarray)]
    if stray:
        raise InputError(f"{path}: {', '.join(stray)} are not NumPy arrays; save plain numeric arrays")
    return arrays


def _unreadable(path: Path, why: str) -> str:
    if "pickle" in why or "Object arrays" in why:
        return f"{path}: contains Python objects, which are not read; save plain numeric arrays"
    return f"{path}: damaged ({why}); download or write it again"


def load(path: Path, groups: str | Path | None = None, class_names: tuple[str, ...] = ()) -> Dataset:
    """Read and check a training file.

    Args:
        path: the npz file.
        groups: .npz[:key] or .npy: the group of each tile of the file, or of the file it was cleaned from.
        class_names: names in label order; empty: those of the file, the task's own for its file, else ``class 0``,
            ``class 1`` and so on.

    Raises:
        InputError: keys, shapes, types or values do not fit; the message says which and what is allowed.
    """
    arrays = read_npz(path)
    images, labels = split_arrays(arrays, path)
    count = len(images)
    if count == 0:
        raise InputError(f"{path}: contains no tile; at least one is required")
    if 0 in images.shape:
        raise InputError(f"{path}: tiles of {images.shape[1:]} (height, width, channels) have no pixel")
    images, labels = _pixels(images, path), _class_numbers(labels, path)
    own = () if "class_names" not in arrays else tuple(map(str, arrays["class_names"].ravel()))
    names = _names(class_names or own, labels, TASK_KEY in arrays, path)
    grouping = group_of_tiles(arrays, count, path, groups)
    return Dataset(images, labels, grouping, names, np.arange(count))


def split_arrays(arrays: dict[str, NDArray[Any]], path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return images (N, H, W, C) and labels (N, H, W) from the arrays of a training file, checked by shape.

    Raises:
        InputError: the keys or the shapes are of neither layout.
    """
    if TASK_KEY in arrays:
        pairs = _numeric(arrays[TASK_KEY], TASK_KEY, path)
        if pairs.ndim != 4 or pairs.shape[1] != 2:
            raise InputError(f"{path}: {TASK_KEY} has shape {pairs.shape}; (N, 2, H, W) with image and mask is needed")
        return pairs[:, 0, :, :, None], pairs[:, 1]
    if "images" not in arrays or "labels" not in arrays:
        have = ", ".join(arrays) or "nothing"
        raise InputError(f"{path}: contains {have}; training needs {TASK_KEY}, or images and labels")
    images, labels = (_numeric(arrays[key], key, path) for key in ("images", "labels"))
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or labels.ndim != 3 or images.shape[:3] != labels.shape:
        raise InputError(
            f"{path}: images {images.shape} and labels {labels.shape} do not fit; "
            "(N, H, W) or (N, H, W, C) and (N, H, W) are needed"
        )
    return images, labels


def group_of_tiles(
    arrays: dict[str, NDArray[Any]], count: int, path: Path, groups: str | Path | None
) -> NDArray[np.int64] | None:
    """Return the group of each tile as int64 (N,), or None if neither the data nor a groups file provides it.

    Groups are given as to the engine, see :func:`engine.sources.groups.read_groups`. Those of the original, uncleaned
    file also work: ``kept`` says which of them remain.

    Raises:
        InputError: the groups have another length or cannot be read.
    """
    if groups is None:
        if "groups" not in arrays:
            return None
        source, found = str(path), arrays["groups"]
        if found.ndim != 1 or found.dtype.kind not in "biuUS":
            raise InputError(
                f"{path}: groups of shape {found.shape}, type {found.dtype}; one number or name per tile is required"
            )
    else:
        source, found = group_values(groups)
    kept = arrays.get("kept")
    if len(found) != count and kept is not None and _selects(kept, count, len(found)):
        found = found[kept]
    if len(found) != count:
        raise InputError(f"{source}: {len(found)} groups for {count} tiles; give the groups of this file")
    return (
        np.unique(found, return_inverse=True)[1].astype(np.int64)
        if found.dtype.kind in "US"
        else found.astype(np.int64)
    )


def _selects(kept: NDArray[Any], count: int, length: int) -> bool:
    """Return whether ``kept`` contains ``count`` valid indices into an array of ``length``."""
    if kept.ndim != 1 or len(kept) != count or kept.dtype.kind not in "iu":
        return False
    return count > 0 and int(kept.min()) >= 0 and int(kept.max()) < length


def _numeric(array: NDArray[Any], key: str, path: Path) -> NDArray[Any]:
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: {key} has type {array.dtype}; integers or floats are required")
    return array


def _pixels(images: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Return the images as uint8; floats must lie in 0..255 and are rounded to the nearest grey level."""
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 255:
        raise InputError(f"{path}: image values from {low:g} to {high:g}; allowed are 0 to 255")
    rounded = np.rint(images).astype(np.uint8)
    if images.dtype.kind == "f" and high <= 1 and not np.array_equal(rounded, images):
        raise InputError(f"{path}: image values are fractions of 1; allowed are 0 to 255: multiply them by 255")
    return np.ascontiguousarray(rounded)


def _class_numbers(labels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    low, high = float(labels.min()), float(labels.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > VOID:
        raise InputError(
            f"{path}: labels from {low:g} to {high:g}; allowed are integers 0 to {MAX_CLASSES - 1}, and {VOID} for void"
        )
    whole = labels.astype(np.uint8)
    if labels.dtype.kind == "f" and not np.array_equal(whole, labels):
        raise InputError(f"{path}: labels contain fractions; they must be integer class numbers")
    seen = np.unique(whole).tolist()
    if seen == [VOID]:
        raise InputError(f"{path}: all labels are {VOID} (void), so there is no class to learn; give class numbers")
    if seen == [0, VOID]:
        raise InputError(
            f"{path}: labels are 0 and {VOID} alone, and {VOID} is void (no class); write 1 where it is a class"
        )
    return np.ascontiguousarray(whole)


def _names(given: tuple[str, ...], labels: NDArray[np.uint8], task: bool, path: Path) -> tuple[str, ...]:
    highest = int(labels[labels != VOID].max())
    names = given or (TASK_CLASSES if task else tuple(f"class {k}" for k in range(max(highest + 1, 2))))
    if not 2 <= len(names) <= MAX_CLASSES:
        raise InputError(f"{path}: {len(names)} class names; allowed are 2 to {MAX_CLASSES}")
    if highest >= len(names):
        raise InputError(
            f"{path}: labels up to {highest}, but {len(names)} class names ({', '.join(names)}); "
            "name every class with --class-names, or relabel"
        )
    return names
