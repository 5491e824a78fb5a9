"""The outlier remover: images whose mask is identical to that of others are planted or mislabelled."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.metrics import VOID
from trainers.data import TASK_KEY, group_of_tiles, read_npz, split_arrays
from trainers.files import refuse_existing, replacing

SHEET_COLUMNS = 8
SHEET_CELLS = 64
_PALETTE = np.array(
    [[40, 40, 40], [201, 148, 92], [113, 150, 190], [238, 214, 140], [178, 72, 62], [120, 170, 110], [160, 110, 180]],
    np.uint8,
)


@dataclass(frozen=True)
class Cleaned:
    """Numbers of images removed and kept, and the indices of the removed ones."""

    removed: int
    kept: int
    places: NDArray[np.int64]


def find_outliers(labels: NDArray[Any], min_count: int = 3) -> list[NDArray[np.int64]]:
    """Find images with identical masks.

    Masks of a single class (and void, 255) do not count: flat ground is labelled the same everywhere, so many good
    tiles share them.

    Args:
        labels: masks (N, H, W) of any numeric type.
        min_count: how many images must share a mask.

    Returns:
        One array of indices per mask shared by ``min_count`` images or more, the largest set first.
    """
    sharing: dict[bytes, list[int]] = defaultdict(list)
    for place, mask in enumerate(labels):
        known = mask[mask != VOID]
        if len(known) and known.min() != known.max():
            sharing[hashlib.sha256(np.ascontiguousarray(mask).tobytes()).digest()].append(place)
    found = [np.array(places, np.int64) for places in sharing.values() if len(places) >= min_count]
    return sorted(found, key=lambda places: (-len(places), int(places[0])))


def clean(
    data: Path,
    out: Path,
    groups: str | Path | None = None,
    sheet: Path | None = None,
    min_count: int = 3,
    overwrite: bool = False,
) -> Cleaned:
    """Write a training file without its outliers, in the same layout, plus ``kept``, the indices of the rest.

    Args:
        data: the training file; see :mod:`trainers.data` for its layouts.
        out: the file to write. It has every key of the input, and ``groups`` if they are known.
        groups: the group of each tile, see :func:`trainers.data.load`.
        sheet: PNG file for the removed images, each above its mask.
        min_count: least number of images that share a mask.
        overwrite: replace existing results.

    Raises:
        EngineError: the data do not fit, nothing would be left, or a result exists.
    """
    refuse_existing([out, *([sheet] if sheet else [])], overwrite)
    arrays = read_npz(data)
    images, labels = split_arrays(arrays, data)
    grouping = group_of_tiles(arrays, len(labels), data, groups)
    sets = find_outliers(labels, min_count)
    removed = np.sort(np.concatenate(sets)) if sets else np.empty(0, np.int64)
    kept = np.setdiff1d(np.arange(len(labels)), removed)
    if kept.size == 0:
        raise InputError(f"{data}: all {len(labels)} images share masks; nothing would be left, so raise --min-count")
    result = _without(arrays, kept, grouping)
    with replacing(out) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, **result)
    if sheet is not None:
        with replacing(sheet) as partial:
            draw_sheet(partial, images, labels, sets)
    return Cleaned(len(removed), len(kept), removed)


def _without(
    arrays: dict[str, NDArray[Any]], kept: NDArray[np.int64], grouping: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Return the arrays of the cleaned file; ``kept`` always refers to the original file."""
    rows = (TASK_KEY,) if TASK_KEY in arrays else ("images", "labels")
    result: dict[str, Any] = {key: value[kept] if key in rows else value for key, value in arrays.items()}
    before = arrays.get("kept")
    result["kept"] = before[kept] if before is not None and len(before) == len(arrays[rows[0]]) else kept
    if grouping is not None:
        result["groups"] = grouping[kept]
    return result


def draw_sheet(path: Path, images: NDArray[Any], labels: NDArray[Any], sets: list[NDArray[np.int64]]) -> None:
    """Draw up to 64 removed images as a PNG grid, each above its mask, labelled with its index and its set.

    Args:
        path: the file.
        images: (N, H, W, C) of 0 to 255.
        labels: (N, H, W).
        sets: indices of each set of outliers; the sets take turns, so that each one is shown.
    """
    from PIL import Image, ImageDraw

    height, width = labels.shape[1:]
    shown = _in_turn(sets)[:SHEET_CELLS]
    total = sum(map(len, sets))
    cell, margin, head = (width + 6, 2 * height + 22), 6, 26
    rows = max(-(-len(shown) // SHEET_COLUMNS), 1)
    canvas = Image.new("RGB", (margin + SHEET_COLUMNS * cell[0], head + margin + rows * cell[1]), "white")
    draw = ImageDraw.Draw(canvas)
    title = f"{total} images removed in {len(sets)} sets of one mask each; {len(shown)} shown"
    draw.text((margin, 8), title if total else "no image was removed", fill="black")
    for number, (which, place) in enumerate(shown):
        left, top = margin + number % SHEET_COLUMNS * cell[0], head + number // SHEET_COLUMNS * cell[1]
        draw.text((left, top), f"image {place}  set {which + 1}", fill="black")
        canvas.paste(Image.fromarray(np.clip(images[place].mean(axis=-1), 0, 255).astype(np.uint8)), (left, top + 13))
        colours = _PALETTE[labels[place].astype(np.int64) % len(_PALETTE)]
        canvas.paste(Image.fromarray(colours), (left, top + 13 + height))
    canvas.save(path, format="PNG")


def _in_turn(sets: list[NDArray[np.int64]]) -> list[tuple[int, int]]:
    """Return (set, place) pairs: the first of every set, then the second of every set, and so on."""
    longest = max(map(len, sets), default=0)
    return [(which, int(places[k])) for k in range(longest) for which, places in enumerate(sets) if k < len(places)]
