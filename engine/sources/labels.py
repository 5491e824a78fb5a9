"""Label maps from every form the engine writes or a user has: arrays, folders of PNGs, submission CSV."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Batch, Source
from engine.sources.open import open_source, split_key
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.rle_coco import coco_source
from engine.sources.scenes import open_scenes, whole_scenes
from engine.sources.spec import is_url, shown
from engine.sources.submission import open_submission

# Arrays that may be one map by themselves: those of two axes.
ONE_MAP = (".npy", ".zarr")


def open_labels(spec: str | Path, like: Source | None = None, rle: str = "") -> Source:
    """Open label maps: a ``.csv``, a ``.json`` of COCO, or what :func:`engine.sources.open.open_source` reads.

    A CSV knows no height: its maps are (1, pixels).

    Args:
        spec: the file, folder or URL.
        like: the images, or other masks of them; Kaggle's and COCO's run lengths are joined with their ids and size.
        rle: how run lengths are counted, see :func:`engine.sources.submission.open_submission`.

    Raises:
        InputError: nothing there or not readable as label maps.
    """
    path = Path(spec)
    if path.suffix.lower() == ".csv":
        if is_url(str(spec)):
            raise InputError(f"{shown(str(spec))}: a submission is read from this machine alone, copy it here")
        return open_submission(path, like, rle)
    if path.suffix.lower() == ".json":
        return coco_source(path, like)
    if not is_url(str(spec)) and split_key(str(spec))[0].suffix.lower() in ONE_MAP:
        scenes = open_scenes(spec, "labels")
        if scenes.alone:
            return whole_scenes(scenes)
    source = open_source(spec, "labels")
    # One picture by itself matches any other, whatever the two files are called.
    return replace(source, ids=["0"], named=False) if path.suffix.lower() in PICTURES and path.is_file() else source


def as_labels(batch: Batch, classes: int, name: str) -> NDArray[np.uint8]:
    """Return a batch of label maps as uint8 (batch, pixels).

    Raises:
        InputError: a value is no class id; the message names the map and the value.
    """
    maps = batch.pixels.reshape(len(batch.pixels), -1)
    bad = ~((maps >= 0) & (maps < classes))
    if maps.dtype.kind == "f":
        bad |= maps != np.floor(maps)
    if bad.any():
        image, pixel = np.argwhere(bad)[0]
        raise InputError(
            f"{name}: label map {batch.ids[image]} holds {maps[image, pixel]}; allowed are 0 to {classes - 1}"
        )
    return np.ascontiguousarray(maps, dtype=np.uint8)


def check_match(images: Source, labels: Source) -> None:
    """Refuse labels that do not belong to the images.

    Raises:
        InputError: another number of maps, another size, other names where both have names, or the same ones in another
            order.
    """
    if len(images) != len(labels):
        raise InputError(
            f"{labels.name} holds {len(labels)} label maps, {images.name} holds {len(images)}: give one each"
        )
    flat = 1 in (labels.size[0], images.size[0])
    same = np.prod(images.size) == np.prod(labels.size) if flat else images.size == labels.size
    if not same:
        raise InputError(
            f"{labels.name} holds maps of {labels.size[0]}x{labels.size[1]}, "
            f"{images.name} holds {images.size[0]}x{images.size[1]}: they must be of one size"
        )
    # Row numbers of an array match any names one by one, but never numbers that are merely in another order.
    comparable = (images.named and labels.named) or set(images.ids) == set(labels.ids)
    if comparable and list(images.ids) != list(labels.ids):
        differing = next((a, b) for a, b in zip(images.ids, labels.ids, strict=True) if a != b)
        raise InputError(f"{labels.name} has id {differing[1]} where {images.name} has {differing[0]}: sort them alike")
