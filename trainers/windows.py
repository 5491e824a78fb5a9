"""Windows of the pictures that tiles were cut from: what a net learns from then shows each tile's surroundings.

Tiles of 64x128 that overlap by half show each pixel up to four times, and never more of its surroundings than a tile.
Put back together (:mod:`engine.sources.placement`), they can be cut anew into larger windows. A net trained on those
predicts tiles that are put back together in the same way: ``[input] stitch = true`` in the plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.inference.tiles.grid import Tiling
from engine.metrics import VOID
from engine.sources.nodata import fill_mirrored
from engine.sources.open import open_source
from engine.sources.placement import Placement, find_placement
from engine.sources.spec import split_key
from engine.utils.console import say
from trainers.data import TASK_KEY, Dataset, check_npz, load
from trainers.files import refuse_existing, replacing


@dataclass(frozen=True)
class Stitched:
    """What was written: ``windows`` cut from ``pictures``, of which ``alone`` are single tiles; from ``tiles``."""

    tiles: int
    pictures: int
    alone: int
    windows: int


def stitch(data: str, out: Path, window: Tiling, groups: str | Path | None = None, overwrite: bool = False) -> Stitched:
    """Put overlapping tiles back together and write windows of the pictures they make.

    Args:
        data: a training file, or images without labels as the engine's ``--input`` takes them.
        out: npz file to write: ``images`` uint8 (M, h, w, C), ``groups`` int64 (M,), one a picture (or the tiles' own),
            and where there are labels ``labels`` uint8 (M, h, w), 255 where a window shows no tile, and
            ``class_names``. Pixels that no tile shows are filled from their mirrored neighbours.
        window: size and overlap of the windows.
        groups: the group of each tile, see :func:`trainers.data.load`.
        overwrite: replace ``out`` if it exists.

    Raises:
        EngineError: the data do not fit, no tile overlaps another, or tiles of two groups overlap.
    """
    refuse_existing([out], overwrite)
    tiles, labelled = _tiles(data, groups)
    placement = find_placement(tiles.images)
    if len(placement.images) == len(tiles):
        raise InputError(
            f"{data}: none of its {len(tiles)} tiles overlaps another (by equal pixels): there is nothing to stitch"
        )
    if placement.contradictory:
        say(f"note: {placement.contradictory} tiles overlap in ways that contradict each other; they stay alone")
    cut = list(_windows(tiles, placement, window))
    arrays: dict[str, Any] = {"images": np.stack([pixels for pixels, _, _ in cut])}
    arrays["groups"] = np.array([group for _, _, group in cut], np.int64)
    if labelled:
        arrays |= {"labels": np.stack([mask for _, mask, _ in cut]), "class_names": np.array(tiles.class_names)}
    with replacing(out) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    alone = sum(len(found) == 1 for found in placement.images)
    return Stitched(len(tiles), len(placement.images), alone, len(cut))


def _tiles(data: str, groups: str | Path | None) -> tuple[Dataset, bool]:
    """Return the tiles of a file, and whether they have labels."""
    path = Path(data)
    if path.suffix == ".npz" and split_key(data)[1] == "":
        check_npz(path)
        with np.load(path, allow_pickle=False) as archive:
            labelled = TASK_KEY in archive.files or "labels" in archive.files
        if labelled:
            return load(path, groups), True
    if groups:
        raise InputError(f"{data}: groups are of labelled tiles, and these have no labels; leave out --groups")
    images = np.concatenate([batch.pixels for batch in open_source(data).batches(256)])
    if images.dtype != np.uint8:
        raise InputError(f"{data}: images of {images.dtype}; windows are cut from uint8 images")
    labels = np.full(images.shape[:3], VOID, np.uint8)
    return Dataset(images, labels, None, (), np.arange(len(images))), False


def _windows(
    tiles: Dataset, placement: Placement, window: Tiling
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], int]]:
    """Yield the pixels, labels and group of each window that shows a tile."""
    for picture, members in enumerate(placement.images):
        pixels, shown = placement.joined(tiles.images, picture)
        labels, _ = placement.joined(tiles.labels, picture, fill=VOID)
        group = picture if tiles.groups is None else _group(tiles.groups[members])
        rows, columns = window.axes(shown.shape)
        for down in map(rows.pixels, range(len(rows.starts))):
            for across in map(columns.pixels, range(len(columns.starts))):
                valid = shown[np.ix_(down, across)]
                if not valid.any():
                    continue
                mask = labels[np.ix_(down, across)]
                # Beyond the picture it is mirrored: those pixels are surroundings, and are not learned twice.
                mask[_repeated(down)] = VOID
                mask[:, _repeated(across)] = VOID
                yield fill_mirrored(pixels[np.ix_(down, across)], valid), mask, group


def _repeated(places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which places of a window show a pixel that the window has shown before."""
    first = np.zeros(len(places), np.bool_)
    first[np.unique(places, return_index=True)[1]] = True
    return ~first


def _group(groups: NDArray[np.int64]) -> int:
    found = np.unique(groups)
    if len(found) > 1:
        raise InputError(
            f"tiles of the groups {found[0]} and {found[1]} overlap, so folds by these groups would share pixels: "
            "correct the groups, or leave out --groups"
        )
    return int(found[0])
