"""Tiles with their true labels, evenly spread over a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import InputError
from engine.models.contract import ModelContract
from engine.sources.base import Batch, RowNumbers, Source
from engine.sources.joining import joined
from engine.sources.labels import as_labels, check_match, open_labels
from engine.sources.numpy_files import array_files
from engine.sources.open import PAIRED_KEY, open_source

MOST_TILES = 512
_LABEL_KEYS = ("labels", "masks")


@dataclass(frozen=True)
class LabelledTiles:
    """Raw tiles (tile, height, width, channel) of any numeric type and labels uint8 (tile, height, width)."""

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.images)


def labelled_tiles(
    path: Path, contract: ModelContract, labels: Path | None = None, limit: int = MOST_TILES
) -> LabelledTiles:
    """Read up to ``limit`` tiles and their labels, evenly spread over the set.

    Args:
        path: ``.npz`` file with the tiles, and the labels where ``labels`` does not name another file; the key
            ``training_set`` has both.
        contract: gives the required classes, size and channels.
        labels: file with the labels, in any format the engine reads.
        limit: how many tiles to take at most.

    Raises:
        InputError: no such file, no labels, labels that do not belong to the tiles, or tiles of another size.
    """
    images, truths = _sources(path, labels)
    truths = joined(images, truths)
    check_match(images, truths)
    check_size(path, (*images.size, images.channels), contract)
    count = len(images)
    wanted = np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(int))
    maps = as_labels(_picked(truths, wanted), len(contract.classes), truths.name)
    return LabelledTiles(_picked(images, wanted).pixels, maps.reshape(-1, *images.size))


def check_size(path: Path, shape: tuple[int, ...], contract: ModelContract) -> None:
    """Refuse tiles that a model cannot take.

    Args:
        path: their file, for the message.
        shape: (height, width, channels) of a tile.
        contract: the model's contract.

    Raises:
        InputError: naming both shapes.
    """
    size = contract.size if contract.size is not None and not contract.fit else shape[:2]
    if contract.bands and max(contract.bands) <= shape[2]:
        channels = shape[2]
    else:
        channels = 1 if contract.grey_as_rgb and shape[2] == 1 else contract.channels
    wanted = (*size, channels)
    if shape != wanted:
        raise InputError(f"{path}: the tiles are {shape}, the model takes {wanted}: give tiles of that size")
    if any(side % contract.stride for side in shape[:2]):
        raise InputError(f"{path}: the tiles are {shape}, the model takes {contract.sides}: give such tiles")


def tiles_source(images: npt.NDArray[Any]) -> Source:
    """Return a source of raw tiles (tile, height, width, channel), of however many channels."""

    def read(count: int) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(images), count):
            yield images[start : start + count]

    size = (images.shape[1], images.shape[2])
    return Source("the tiles", RowNumbers(range(len(images))), size, images.shape[3], read)


def _sources(path: Path, labels: Path | None) -> tuple[Source, Source]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give an .npz file with tiles and labels")
    if labels is not None:
        tiles = open_source(path)
        return tiles, open_labels(labels, like=tiles)
    keys = array_files(path) if path.suffix.lower() == ".npz" else {}
    if any(key in keys for key in _LABEL_KEYS):
        return open_source(path), open_labels(path)
    if PAIRED_KEY in keys:
        return open_source(f"{path}:{PAIRED_KEY}"), open_source(f"{path}:{PAIRED_KEY}", "labels")
    raise InputError(
        f"{path}: it has no labels (keys {', '.join(_LABEL_KEYS)} or {PAIRED_KEY}); name them with --labels"
    )


def _picked(source: Source, wanted: npt.NDArray[np.int64]) -> Batch:
    parts: list[npt.NDArray[Any]] = []
    ids: list[str] = []
    for batch in source.batches(64):
        inside = wanted[(wanted >= batch.start) & (wanted < batch.start + len(batch.ids))] - batch.start
        parts.append(batch.pixels[inside])
        ids.extend(batch.ids[index] for index in inside)
    return Batch(0, ids, np.concatenate(parts))
