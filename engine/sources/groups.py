"""Which images belong together: one group a scene, read from an array beside the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.numpy_files import array_files
from engine.sources.open import split_key

# Keys that are found by themselves.
KEYS = ("groups", "group", "panorama", "scene")


def read_groups(spec: str | Path, images: int) -> NDArray[np.int64]:
    """Read the group of each image from ``.npz[:key]`` or ``.npy``: whole numbers or texts, one an image.

    Args:
        spec: the file, with the key of an .npz after a colon.
        images: how many images there are.

    Returns:
        int64 (images,): the groups, numbered from 0 in the order of their names.

    Raises:
        InputError: nothing there, another shape or length, or values that name nothing (floats with a fraction, NaN).
    """
    label, values = group_values(spec)
    if len(values) != images:
        raise InputError(f"{label} holds {len(values)} groups for {images} images: give one each")
    return np.unique(values, return_inverse=True)[1].astype(np.int64)


def group_values(spec: str | Path) -> tuple[str, NDArray[Any]]:
    """Read groups as they are stored.

    Args:
        spec: as of :func:`read_groups`.

    Returns:
        What messages call them, and one whole number or text for each image.

    Raises:
        InputError: nothing there, another shape, or values that name nothing (floats with a fraction, NaN).
    """
    path, key = split_key(str(spec))
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"{path}: groups are read from .npz or .npy, one value an image")
    found = array_files(path)
    usable = {name: array for name, array in found.items() if len(array.shape) == 1 and array.dtype.kind in "biufUS"}
    if not key:
        named = [name for name in KEYS if name in usable] or list(usable)
        key = named[0] if named and (len(usable) == 1 or named[0] in KEYS) else key
    if key not in usable:
        listed = ", ".join(f"{name} {array.shape}" for name, array in found.items())
        raise InputError(f"{path}: which array holds the groups? Say {path}:KEY; one value an image; found: {listed}")
    values = np.concatenate([np.zeros(0, usable[key].dtype), *usable[key].chunks(1 << 16)])
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        raise InputError(f"{usable[key].label} holds fractions or NaN: name groups by whole numbers or texts")
    return usable[key].label, values
