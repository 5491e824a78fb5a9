"""Label maps from every form the engine writes or a user has: arrays, folders of PNGs, submission CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.metrics import MOST_CLASSES, VOID
from engine.sources.base import Batch, Source
from engine.sources.coding import PLAIN, LabelCoding, check_values, coded, seen_values
from engine.sources.joining import joined
from engine.sources.numpy_files import array_files
from engine.sources.open import KEYS, open_source, pictures_source, split_key
from engine.sources.pictures import SUFFIXES as PICTURES
from engine.sources.pictures import picture_files
from engine.sources.reading import PLAIN as AS_STORED
from engine.sources.reading import Reading
from engine.sources.record import as_recorded
from engine.sources.rle_coco import coco_source
from engine.sources.scenes import open_scenes, whole_scenes
from engine.sources.spec import is_url, shown
from engine.sources.submission import open_submission
from engine.utils.sides import told_size

# Arrays that may be one map by themselves: those of two axes.
ONE_MAP = (".npy", ".zarr")
BATCH = 64


def open_labels(
    spec: str | Path,
    coding: LabelCoding = PLAIN,
    like: Source | None = None,
    rle: str = "",
    any_size: bool = False,
) -> Source:
    """Open label maps: a ``.csv``, a ``.json`` of COCO, or what :func:`engine.sources.open.open_source` reads.

    A CSV knows no height: its maps are (1, pixels).

    Args:
        spec: the file, folder or URL.
        coding: what the maps hold in place of class numbers; what comes out are class numbers.
        like: the images, or other masks of them; Kaggle's and COCO's run lengths are joined with their ids and size.
        rle: how run lengths are counted, see :func:`engine.sources.submission.open_submission`.
        any_size: whether pictures may be of different sizes.

    Raises:
        InputError: nothing there or not readable as label maps, JPEG among them.
    """
    return coded(_stored(spec, coding, like, rle, replace(AS_STORED, any_size=any_size)), coding)


def open_truth(
    spec: str | Path, images: Source, coding: LabelCoding = PLAIN, limit: int = 0, quiet: bool = False
) -> Source:
    """Open the true label maps of images, in the images' order; see :func:`engine.sources.joining.joined`.

    Args:
        spec: as of :func:`open_labels`.
        images: all images.
        coding: what the maps hold in place of class numbers.
        limit: how many images are looked at, from the first; 0 for all.
        quiet: say nothing.

    Raises:
        InputError: not readable, not of these images, or 0 and 255 alone where nothing says what 255 is.
    """
    truth = joined(images, open_labels(spec, coding, images, any_size=bool(images.sizes)), limit, quiet)
    if coding.leaves_255_open:
        check_two_values(truth.name, (batch.pixels for batch in truth.batches(BATCH)))
    return truth


def refuse_lossy(files: Sequence[Any]) -> None:
    """Refuse label maps as JPEG, whose values are not those that were saved.

    Raises:
        InputError: naming the file.
    """
    for file in files:
        if Path(str(file)).suffix.lower() in (".jpg", ".jpeg"):
            raise InputError(f"{file} is a JPEG, which changes class ids: save the label map as PNG from its source")


def check_two_values(name: str, maps: Iterator[NDArray[Any]]) -> None:
    """Refuse label maps that hold 0 and 255 alone; reading ends at the first other value."""
    seen: set[float] = set()
    for some in maps:
        if not ((some == 0) | (some == VOID)).all():
            return
        seen |= set(np.unique(some).tolist())
    check_values(np.array(sorted(seen)), name)


def _stored(spec: str | Path, coding: LabelCoding, like: Source | None, rle: str, reading: Reading) -> Source:
    """Open label maps as they are stored."""
    path = Path(spec)
    if path.suffix.lower() == ".csv":
        if is_url(str(spec)):
            raise InputError(f"{shown(str(spec))}: a submission is read from this machine alone, copy it here")
        return open_submission(path, like, rle)
    if path.suffix.lower() == ".json":
        return coco_source(path, like)
    local = not is_url(str(spec))
    if local and split_key(str(spec))[0].suffix.lower() in ONE_MAP and coding.palette is None:
        scenes = open_scenes(spec, "labels")
        if scenes.alone:
            return whole_scenes(scenes)
    one = local and path.suffix.lower() in PICTURES and path.is_file()
    if one or (local and path.is_dir() and has_pictures(path)):
        refuse_lossy([path] if one else list(picture_files(path).values()))
    if coding.palette is not None:
        source = (
            pictures_source(str(path), {path.stem: path}, "images")
            if one
            else open_source(_with_key(spec), "images", reading=reading)
        )
    else:
        source = open_source(spec, "labels", reading=reading)
    # One picture by itself matches any other, whatever the two files are called.
    if one:
        return replace(source, ids=["0"], named=False)
    return as_recorded(source, split_key(str(spec))[0]) if local else source


def has_pictures(folder: Path) -> bool:
    """Return whether a folder or one inside it holds pictures."""
    return any(file.suffix.lower() in PICTURES for file in folder.rglob("*"))


def _with_key(spec: str | Path) -> str | Path:
    """Return an .npz with the key that label maps have by default: their colours are read as images are."""
    path, key = split_key(str(spec))
    if key or path.suffix.lower() != ".npz" or not path.is_file():
        return spec
    found = array_files(path)
    return next((f"{path}:{name}" for name in KEYS["labels"] if name in found), spec)


def as_labels(batch: Batch, classes: int, name: str) -> NDArray[np.uint8]:
    """Return a batch of label maps as uint8 (batch, pixels); 255 is void where it is no class.

    Raises:
        InputError: a value is neither a class id nor void; the message names the map, the value and all that were seen.
    """
    maps = batch.pixels.reshape(len(batch.pixels), -1)
    bad = ~((maps >= 0) & (maps < classes))
    if maps.dtype.kind == "f":
        bad |= maps != np.floor(maps)
    if classes < MOST_CLASSES:
        bad &= maps != VOID
    if bad.any():
        image, pixel = np.argwhere(bad)[0]
        raise InputError(
            f"{name}: label map {batch.ids[image]} holds {maps[image, pixel]}; allowed are 0 to {classes - 1}; seen "
            f"are {seen_values(maps)}: {_advice(maps, classes, maps[image, pixel])}"
        )
    return np.ascontiguousarray(maps, dtype=np.uint8)


def _advice(maps: NDArray[Any], classes: int, value: Any) -> str:
    """Return which option reads these values."""
    whole = np.unique(maps[maps == np.floor(maps)] if maps.dtype.kind == "f" else maps)
    ids = [int(item) for item in whole if item != VOID and abs(item) < MOST_CLASSES]
    if maps.dtype.kind == "f" and not (np.isfinite(value) and value == np.floor(value)):
        return "class ids are whole numbers"
    if len(ids) == classes and ids[0] >= 0:
        return f"add --label-ids {','.join(map(str, ids))}"
    return f"state the ids of the {classes} classes with --label-ids, or --void {int(value)} where it is no class"


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
    check_sizes(images, labels)
    # Row numbers of an array match any names one by one, but never numbers that are merely in another order.
    comparable = (images.named and labels.named) or set(images.ids) == set(labels.ids)
    if comparable and list(images.ids) != list(labels.ids):
        differing = next((a, b) for a, b in zip(images.ids, labels.ids, strict=True) if a != b)
        raise InputError(f"{labels.name} has id {differing[1]} where {images.name} has {differing[0]}: sort them alike")


def check_sizes(images: Source, labels: Source) -> None:
    """Refuse labels of another size than the images; maps of one row (of a CSV) match by their pixels.

    Raises:
        InputError: naming both sizes.
    """
    if images.sizes or labels.sizes:
        pairs = zip(images.ids, *([*(side.sizes or [side.size] * len(side))] for side in (images, labels)), strict=True)
        for name, ours, theirs in pairs:
            if ours != theirs:
                raise InputError(
                    f"{labels.name}: the label map of {name} is {told_size(theirs)}, the image {told_size(ours)}: they "
                    "must be of one size"
                )
        return
    flat = 1 in (labels.size[0], images.size[0])
    same = np.prod(images.size) == np.prod(labels.size) if flat else images.size == labels.size
    if not same:
        raise InputError(
            f"{labels.name} holds maps of {labels.size[0]}x{labels.size[1]}, "
            f"{images.name} holds {images.size[0]}x{images.size[1]}: they must be of one size"
        )
