"""Finished masks as members: label maps of another tool or run, joined with the images, that vote beside nets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, ModelError
from engine.models.adapt.labels import votes
from engine.models.contract import ModelContract
from engine.models.members import Member
from engine.sources.base import Batch, Source
from engine.sources.fingerprint import fingerprint
from engine.sources.labels import as_labels, open_labels
from engine.utils import console

BATCH = 64
Rows = Callable[[Sequence[str]], list[int]]
# Reads the maps from one row up to another: uint8 (rows, pixels).
Read = Callable[[int, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class MaskMember(Member):
    """A member without nets: it is given the ids of a batch instead of its pixels.

    Attributes:
        file: the file or folder of the masks, with its key where it has one.
        rows: the rows of the masks that belong to images, by the images' ids.
        read: reads masks by their rows.
    """

    file: Path
    rows: Rows
    read: Read

    @property
    def path(self) -> Path:
        """Return where the masks lie."""
        return self.file

    def vote(self, batch: Batch, out: NDArray[np.float32]) -> None:
        """Write 1 for the class of each pixel of a batch and 0 for all others.

        Args:
            batch: the images; their ids alone count.
            out: float32 (batch, classes, pixels), the result.

        Raises:
            ModelError: an image is none of those that were joined.
            InputError: the masks are damaged, or hold a label that is no class.
        """
        labels = np.empty((len(batch.ids), out.shape[2]), np.uint8)
        rows = self.rows(batch.ids)
        begin = 0
        # Rows that follow each other are read at once.
        for end in range(1, len(rows) + 1):
            if end == len(rows) or rows[end] != rows[end - 1] + 1:
                labels[begin:end] = self.read(rows[begin], rows[end - 1] + 1)
                begin = end
        votes(out, labels, self.name)


def open_mask_member(
    path: Path, images: Source, classes: tuple[str, ...], ignored_class: int | None = None
) -> MaskMember:
    """Open masks as a member.

    Masks and images are joined by their ids, and where one of the two has none row by row.

    Args:
        path: file or folder, with the key of an array where one is needed.
        images: all images they belong to.
        classes: names of the classes; labels are checked against their number.
        ignored_class: what the member declares, or None.

    Raises:
        InputError: the masks cannot be read, are of another size, or lack an image.
    """
    contract = ModelContract(classes, kind="labels", ignored_class=ignored_class)
    masks = open_labels(path, like=images)
    _check_size(masks, images)
    rows = _joined(masks, images)
    checksum = fingerprint(str(path))
    return MaskMember(path.name, (), contract, checksum, path, rows, _reader(masks, len(classes)))


def _check_size(masks: Source, images: Source) -> None:
    flat = 1 in (masks.size[0], images.size[0])
    if np.prod(masks.size) != np.prod(images.size) if flat else masks.size != images.size:
        raise InputError(
            f"{masks.name} holds masks of {masks.size[0]}x{masks.size[1]}, {images.name} holds images of "
            f"{images.size[0]}x{images.size[1]}: they must be of one size"
        )


def _joined(masks: Source, images: Source) -> Rows:
    """Return what finds the rows of images."""
    if masks.ids is images.ids or not (masks.named or images.named):
        _check_count(masks, images)
        if not images.named:
            return _by_number(len(images), masks.name)
        return _by_id({name: row for row, name in enumerate(images.ids)}, images, masks.name)
    if masks.named:
        index = {name: row for row, name in enumerate(masks.ids)}
        if len(index) < len(masks):
            raise InputError(f"{masks.name} has an id twice: each mask needs a name of its own")
        missing = next((name for name in images.ids if name not in index), None)
        if missing is None:
            return _by_id(index, images, masks.name)
        if images.named:
            raise InputError(f"{masks.name} has no mask of image {missing} of {images.name}: name the masks alike")
    _check_count(masks, images)
    order = _first_ids(masks, images)
    console.say(f"{masks.name}: its masks are those of {images.name} row by row, in the order {order}")
    if images.named:
        return _by_id({name: row for row, name in enumerate(images.ids)}, images, masks.name)
    return _by_number(len(images), masks.name)


def _first_ids(masks: Source, images: Source) -> str:
    ids = (images if images.named else masks).ids
    return ", ".join(ids[:3]) + (", ..." if len(ids) > 3 else "")


def _check_count(masks: Source, images: Source) -> None:
    if len(masks) != len(images):
        raise InputError(
            f"{masks.name} holds {len(masks)} masks, {images.name} holds {len(images)} images, and no ids join them: "
            "give one each"
        )


def _by_id(index: dict[str, int], images: Source, name: str) -> Rows:
    if images.named and len(set(images.ids)) < len(images):
        raise InputError(f"{images.name} has an id twice: images need names of their own to be joined with {name}")

    def rows(ids: Sequence[str]) -> list[int]:
        try:
            return [index[item] for item in ids]
        except KeyError as error:
            raise ModelError(f"{name} has no mask of image {error.args[0]}") from None

    return rows


def _by_number(count: int, name: str) -> Rows:
    def rows(ids: Sequence[str]) -> list[int]:
        found = [int(item) for item in ids]
        if max(found, default=0) >= count:
            raise ModelError(f"{name} has no mask of image {max(found)}")
        return found

    return rows


def _reader(masks: Source, classes: int) -> Read:
    """Return what reads masks in any order; those that can be read in order alone go to a temporary file first."""
    if masks.at is None:
        return _spooled(masks, classes)
    at: Callable[[int, int], NDArray[Any]] = masks.at

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        return _checked(Batch(start, list(masks.ids[start:stop]), at(start, stop)), classes, masks.name)

    return read


def _checked(batch: Batch, classes: int, name: str) -> NDArray[np.uint8]:
    """Return uint8 (batch, pixels); whatever a truth may hold beside its classes, each pixel of a member has one."""
    labels = as_labels(batch, classes, name)
    if int(labels.max(initial=0)) >= classes:
        image, pixel = np.argwhere(labels >= classes)[0]
        raise InputError(
            f"{name}: label map {batch.ids[image]} holds {labels[image, pixel]}; allowed are 0 to {classes - 1}"
        )
    return labels


def _spooled(masks: Source, classes: int) -> Read:
    shape = (len(masks), masks.size[0] * masks.size[1])
    with tempfile.TemporaryFile(prefix="maskfuse-") as file:
        try:
            for batch in masks.batches(BATCH):
                file.write(_checked(batch, classes, masks.name).data)
            file.flush()
        except OSError as error:
            raise InputError(f"cannot keep {masks.name} in a temporary file ({error.strerror or error})") from None
        held = np.memmap(file, np.uint8, "r", shape=shape)
    return lambda start, stop: held[start:stop]
