"""Label maps out of COCO's run lengths: JSON, column by column, an entry an image and category.

The form is that of COCO's results (T.-Y. Lin et al., 2014): ``[{"image_id", "category_id", "segmentation": {"size",
"counts"}}, ...]``; ``counts`` are numbers or the compressed text. A file of annotations with ``images`` works too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.base import Source
from engine.sources.rle import MOST_PIXELS
from engine.sources.rle_join import Piece, joined, painted, source_of, without_suffix

Entries = dict[str, list[tuple[int, dict[str, Any]]]]


def coco_source(path: Path, like: Source | None) -> Source:
    """Open a JSON file of COCO; what no entry covers is class 0, a category's id is the class.

    Args:
        path: the file.
        like: the images, or other masks of them: an image without entries is in no such file. None for the images of
            the file itself.

    Raises:
        InputError: it is no such file, or an image is none of ``like`` or has another size.
    """
    entries, names = _entries(path)
    first = next(iter(entries.values()), None)
    if not first:
        raise InputError(f"{path} has no entries: masks are needed")
    at, entry = first[0]
    size = _size(entry, f"{path} entry {at}")
    if like is None:
        like = Source(str(path), [names.get(key, key) for key in entries], size, 1, lambda count: iter(()), named=True)
    flat = 1 in like.size and like.size[0] * like.size[1] == size[0] * size[1]
    if like.size != size and not flat:
        raise InputError(
            f"{path} entry {at}: image {entry['image_id']} is {size[0]}x{size[1]}, {like.name} holds "
            f"{like.size[0]}x{like.size[1]}: they must be of one size"
        )
    known = {names.get(key, key): key for key in entries}
    if len(known) < len(entries):
        raise InputError(f"{path} names two images alike: file names without their folders must differ")
    found = joined(list(known), like, str(path))

    def label_map(name: str) -> NDArray[np.uint8]:
        held = entries[known[name]]
        pieces = [_piece(entry, size, f"{path} entry {at}") for at, entry in held]
        return painted(pieces, size[0] * size[1], name).reshape(size[1], size[0]).T

    return source_of(str(path), like, found, size, label_map)


def _entries(path: Path) -> tuple[Entries, dict[str, str]]:
    """Return the entries of each image with their numbers, and the images' file names where the file has them."""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): copy it again") from None
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error})") from None
    names: dict[str, str] = {}
    if isinstance(found, Mapping):
        images = found.get("images")
        for image in images if isinstance(images, list) else ():
            if isinstance(image, Mapping) and isinstance(image.get("file_name"), str):
                names[str(image.get("id"))] = without_suffix(image["file_name"])
        found = found.get("annotations")
    if not isinstance(found, list):
        raise InputError(f"{path} is no COCO file: a list of entries with image_id, category_id, segmentation is due")
    entries: Entries = {}
    for at, entry in enumerate(found):
        _check_entry(entry, f"{path} entry {at}")
        entries.setdefault(str(entry["image_id"]), []).append((at, entry))
    return entries, names


def _check_entry(entry: object, where: str) -> None:
    if not isinstance(entry, Mapping) or not {"image_id", "category_id", "segmentation"} <= entry.keys():
        raise InputError(f"{where} lacks image_id, category_id or segmentation: run lengths of COCO are needed")
    if not _is_whole(entry["category_id"]) or not 0 <= entry["category_id"] <= 255:
        raise InputError(f"{where}: category_id {entry['category_id']!r}: classes are whole numbers from 0 to 255")
    if not isinstance(entry["image_id"], str) and not _is_whole(entry["image_id"]):
        raise InputError(f"{where}: image_id {entry['image_id']!r}: a whole number or a text is due")
    if isinstance(entry["segmentation"], list):
        raise InputError(f"{where} holds polygons: turn them into run lengths, as pycocotools' annToRLE does")
    _size(entry, where)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _size(entry: Mapping[str, Any], where: str) -> tuple[int, int]:
    held = entry["segmentation"]
    size = held.get("size") if isinstance(held, Mapping) else None
    if not isinstance(size, list) or len(size) != 2 or not all(_is_whole(side) and side > 0 for side in size):
        raise InputError(f"{where}: segmentation needs a size [height, width] and counts")
    if size[0] * size[1] > MOST_PIXELS:
        raise InputError(f"{where} has more than {MOST_PIXELS} pixels: that is no mask")
    return (size[0], size[1])


def _piece(entry: Mapping[str, Any], size: tuple[int, int], where: str) -> Piece:
    own = _size(entry, where)
    if own != size:
        raise InputError(
            f"{where}: image {entry['image_id']} is {own[0]}x{own[1]}, the first is {size[0]}x{size[1]}: masks of one "
            "size are needed"
        )
    counts = counts_of(entry["segmentation"].get("counts"), f"{where}, image {entry['image_id']}")
    total = int(counts.sum())
    if total != size[0] * size[1]:
        raise InputError(
            f"{where}: the counts of image {entry['image_id']} end at pixel {total}; the image has "
            f"{size[0] * size[1]}: is it of another size?"
        )
    ends = np.cumsum(counts)
    lengths = counts[1::2]
    starts = ends[1::2] - lengths
    kept = lengths > 0
    return Piece(int(entry["category_id"]), starts[kept], lengths[kept], where)


def counts_of(counts: object, where: str) -> NDArray[np.int64]:
    """Return int64 (runs,): the lengths of runs of 0 and 1 in turn, out of numbers or COCO's compressed text.

    Raises:
        InputError: neither of the two, or a length below 0.
    """
    if isinstance(counts, str):
        from engine.kernels.rle import read_counts

        text = np.frombuffer(counts.encode("ascii", "replace"), np.uint8)
        found = np.empty(len(text), np.int64)
        length = read_counts(found, text)
        if length < 0:
            raise InputError(f"{where}: its counts are no compressed run lengths: copy the file again")
        return found[:length]
    if not isinstance(counts, list) or not all(_is_whole(count) and 0 <= count <= MOST_PIXELS for count in counts):
        raise InputError(f"{where}: its counts are neither whole numbers nor a text of compressed ones")
    return np.array(counts, np.int64)
