"""True label maps of scenes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.metrics import VOID
from engine.sources.base import Source
from engine.sources.coding import LabelCoding
from engine.sources.joining import partners
from engine.sources.labels import check_two_values, has_pictures, refuse_lossy
from engine.sources.layout import Role
from engine.sources.pictures import picture_files
from engine.sources.scene import Rows, Scene
from engine.sources.scenes import Scenes, first_scenes, open_scenes
from engine.sources.spec import is_url
from engine.utils import console

# Rows of a scene that are looked at together.
STRIP = 256


def open_scene_labels(spec: str, scenes: Scenes, coding: LabelCoding, limit: int = 0) -> Scenes:
    """Open the true label maps of scenes, as stored and in the scenes' order.

    Args:
        spec: as of :func:`engine.sources.scenes.open_scenes`.
        scenes: all scenes.
        coding: what the maps hold; decides whether colours are read.
        limit: how many scenes are looked at, from the first; 0 for all.

    Raises:
        InputError: not readable, JPEG, or not of these scenes.
    """
    path = Path(spec)
    role: Role = "labels" if coding.palette is None else "images"
    files = (
        [path] if is_url(spec) or not path.is_dir() or not has_pictures(path) else list(picture_files(path).values())
    )
    refuse_lossy(files)
    truths = open_scenes(spec, role)
    if coding.is_plain:
        check_two_values(truths.name, _strips(truths))
    if len(scenes.ids) == len(truths.ids) == 1 or not (scenes.named and truths.named and truths.files):
        return first_scenes(truths, limit)
    order, told = partners(scenes, truths, limit)
    for line in told:
        console.say(line)
    if order == list(range(len(order))):
        return first_scenes(truths, limit)

    def each() -> Generator[Scene, None, None]:
        for index, name in zip(order, scenes.ids, strict=False):
            with contextlib.closing(open_scenes(truths.files[index], role).each()) as opened:
                yield from (replace(scene, id=name) for scene in opened)

    return replace(
        truths,
        ids=list(scenes.ids[: len(order)]),
        sizes=[truths.sizes[index] for index in order],
        places=[truths.places[index] for index in order],
        nodata=[truths.nodata[index] for index in order],
        files=[truths.files[index] for index in order],
        each=each,
    )


def maps_of(scenes: Scenes, classes: int) -> Source:
    """Return label maps as :func:`coded_scenes` gives them, each read whole; 255 where they have no data.

    Args:
        scenes: the label maps.
        classes: number of classes, whose values mark no gaps; 0 where nobody says, and then 0 alone is one for certain.
    """

    def read(count: int) -> Iterator[NDArray[Any]]:
        with contextlib.closing(scenes.each()) as opened:
            for scene in opened:
                yield _whole(scene, classes)[None]

    ids = list(scenes.ids) if len(scenes.ids) > 1 else ["0"]
    sizes = tuple(scenes.sizes)
    return Source(scenes.name, ids, sizes[0], 1, read, named=scenes.named and len(ids) > 1, sizes=sizes)


def _whole(scene: Scene, classes: int) -> NDArray[Any]:
    labels = scene.rows(0, scene.size[0])
    if scene.valid is None:
        return labels
    gone = ~scene.valid(0, scene.size[0])
    if scene.nodata is not None and scene.nodata in range(classes or 1):
        gone &= labels[..., 0] != scene.nodata
    return np.where(gone[..., None], np.int64(VOID), labels)


def coded_scenes(scenes: Scenes, coding: LabelCoding) -> Scenes:
    """Return label maps of scenes with class numbers in place of what is stored."""
    if coding.is_plain:
        return scenes

    decides = bool(coding.ids) or coding.palette is not None
    # Stands for pixels without data while the others are decoded.
    some_class = np.array(coding.ids[:1] or [0], np.int64)
    if coding.palette is not None:
        some_class = np.array(coding.palette.colours[0], np.uint8)

    def rows(scene: Scene) -> Rows:
        def read(start: int, stop: int) -> NDArray[Any]:
            stored = scene.rows(start, stop)
            gone = _without_class(scene, coding, stored, start, stop) if decides else None
            if gone is not None:
                stored = np.where(gone[..., None], some_class, stored)
            labels = coding.decode(stored[None], scenes.name, [scene.id])[0]
            return labels if gone is None else np.where(gone[..., None], np.uint8(VOID), labels)

        return read

    def each() -> Generator[Scene, None, None]:
        with contextlib.closing(scenes.each()) as opened:
            for scene in opened:
                found = replace(scene, rows=rows(scene), channels=1)
                # Pixels without data are void already, and their value may be a class number.
                yield replace(found, valid=None, nodata=None) if decides else found

    return replace(scenes, each=each, channels=1)


def _without_class(
    scene: Scene, coding: LabelCoding, stored: NDArray[Any], start: int, stop: int
) -> NDArray[np.bool_] | None:
    """Return which pixels of some rows have no data and so no class, bool (rows, width); None where all have data."""
    if scene.valid is None:
        return None
    gone = ~scene.valid(start, stop)
    # A nodata value that is an id as well marks pixels of this class.
    return gone & (stored[..., 0] != scene.nodata) if scene.nodata in coding.ids else gone


def _strips(scenes: Scenes) -> Iterator[NDArray[Any]]:
    """Yield all scenes, some rows at a time."""
    with contextlib.closing(scenes.each()) as opened:
        for scene in opened:
            height, step = scene.size[0], max(scene.block, STRIP)
            for start in range(0, height, step):
                maps = scene.rows(start, min(start + step, height))
                if scene.valid is not None:
                    # A file that states 255 for pixels without data leaves nothing open.
                    maps = maps[scene.valid(start, min(start + step, height)) | (maps != VOID).any(axis=-1)]
                yield maps
