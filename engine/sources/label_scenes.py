"""True label maps of scenes, and label maps of different sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from engine.sources.base import Source
from engine.sources.coding import PLAIN, LabelCoding, coded
from engine.sources.joining import partners
from engine.sources.labels import check_two_values, has_pictures, open_labels, refuse_lossy
from engine.sources.layout import Role
from engine.sources.pictures import picture_files
from engine.sources.scenes import Scene, Scenes, first_scenes, open_scenes, whole_scenes
from engine.sources.spec import is_url
from engine.utils import console

# Rows of a scene that are looked at together.
STRIP = 256


@dataclass(frozen=True)
class VariedMaps(Source):
    """Label maps of different sizes, which are read one by one.

    Attributes:
        sizes: their (height, width); ``size`` is that of the first.
    """

    sizes: Sequence[tuple[int, int]] = ()


def open_maps(spec: str | Path, coding: LabelCoding = PLAIN, like: Source | None = None, rle: str = "") -> Source:
    """Open label maps as :func:`open_labels` does; folders of pictures of different sizes as :class:`VariedMaps`."""
    path = Path(spec)
    if is_url(str(spec)) or not path.is_dir() or path.suffix.lower() == ".zarr" or not has_pictures(path):
        return open_labels(spec, coding, like, rle)
    files = list(picture_files(path).values())
    role: Role = "labels" if coding.palette is None else "images"
    scenes = open_scenes(path, role)
    if scenes.size is not None:
        return open_labels(spec, coding, like, rle)
    refuse_lossy(files)

    def at(start: int, stop: int) -> NDArray[Any]:
        return next(whole_scenes(open_scenes(files[start], role)).read(1))

    def read(count: int) -> Iterator[NDArray[Any]]:
        return (at(index, index + 1) for index in range(len(files)))

    sizes = tuple(scenes.sizes)
    varied = VariedMaps(str(path), scenes.ids, sizes[0], 1, read, named=True, at=at, sizes=sizes)
    return coded(varied, coding)


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
    if len(scenes.ids) == len(truths.ids) == 1 or not (scenes.named and truths.named) or len(files) != len(truths.ids):
        return first_scenes(truths, limit)
    order, told = partners(scenes, truths, limit)
    for line in told:
        console.say(line)
    if order == list(range(len(order))):
        return first_scenes(truths, limit)

    def each() -> Generator[Scene, None, None]:
        for index, name in zip(order, scenes.ids, strict=False):
            with contextlib.closing(open_scenes(files[index], role).each()) as opened:
                yield from (replace(scene, id=name) for scene in opened)

    sizes = [truths.sizes[index] for index in order]
    return replace(truths, ids=list(scenes.ids[: len(order)]), sizes=sizes, each=each)


def coded_scenes(scenes: Scenes, coding: LabelCoding) -> Scenes:
    """Return label maps of scenes with class numbers in place of what is stored."""
    if coding.is_plain:
        return scenes

    def rows(scene: Scene) -> Callable[[int, int], NDArray[Any]]:
        return lambda start, stop: coding.decode(scene.rows(start, stop)[None], scenes.name, [scene.id])[0]

    def each() -> Generator[Scene, None, None]:
        for scene in scenes.each():
            yield replace(scene, rows=rows(scene), channels=1)

    return replace(scenes, each=each, channels=1)


def _strips(scenes: Scenes) -> Iterator[NDArray[Any]]:
    """Yield all scenes, some rows at a time."""
    with contextlib.closing(scenes.each()) as opened:
        for scene in opened:
            height, step = scene.size[0], max(scene.block, STRIP)
            yield from (scene.rows(start, min(start + step, height)) for start in range(0, height, step))
