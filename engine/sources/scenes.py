"""Scenes: pictures of any size, each of its own, read in strips of rows."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.sources.base import Source
from engine.sources.decode import decode, orientation_of, shape_of
from engine.sources.georeference import Georeference, georeference_of, opened, read_window
from engine.sources.layout import Role, layout_of
from engine.sources.naming import is_glob
from engine.sources.open import KEYS, PAIRED_KEY, open_array, open_source, split_key
from engine.sources.parquet import tables_of
from engine.sources.pictures import SUFFIXES, Once, picture_files, shape_in_words
from engine.sources.reading import PLAIN, Reading, grey
from engine.sources.spec import is_url

TIFF = (".tif", ".tiff")
Rows = Callable[[int, int], NDArray[Any]]


@dataclass(frozen=True)
class Scene:
    """One picture.

    Attributes:
        id: its name.
        size: (height, width) in pixels.
        channels: channels a pixel.
        rows: returns rows ``start`` to ``stop`` as (rows, width, channels).
        block: rows that are stored together; reading fewer costs as much.
        georeference: where it lies, or None.
        is_tiff: whether it came as a TIFF.
    """

    id: str
    size: tuple[int, int]
    channels: int
    rows: Rows
    block: int = 1
    georeference: Georeference | None = None
    is_tiff: bool = False


@dataclass(frozen=True)
class Scenes:
    """A set of scenes, opened one after the other.

    Attributes:
        name: where they come from, for messages.
        ids: their names, in order.
        sizes: their (height, width).
        channels: channels of all of them.
        each: yields them opened, in order; each is closed when the next is asked for.
        alone: whether it is one scene by itself, and no set.
        named: whether the ids are names of their own, and not row numbers.
    """

    name: str
    ids: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    channels: int
    each: Callable[[], Generator[Scene, None, None]]
    alone: bool = False
    named: bool = False

    @property
    def size(self) -> tuple[int, int] | None:
        """Return the (height, width) that all share, or None."""
        return self.sizes[0] if len(set(self.sizes)) == 1 else None


def open_scenes(spec: str | Path, role: Role = "images", reading: Reading = PLAIN) -> Scenes:
    """Open a picture, a folder or pattern of pictures of any sizes, or an array of images or of one scene.

    Args:
        spec: as :func:`engine.sources.open.open_source` takes it.
        role: whether they are images or label maps.
        reading: what is stated about images. An array of two axes is one scene; one of three is one scene where the
            layout says so or the members take as many channels as its first or last axis has elements.

    Raises:
        InputError: nothing there, unusable, or a package is missing.
    """
    from engine.sources.zarr_store import Checked, looks_like_zarr
    from engine.sources.zarr_store import open_array as open_zarr

    path, key = split_key(str(spec))
    if is_url(str(spec)) or (path.exists() and tables_of(path)):
        return _source_scenes(open_source(spec, role, reading=reading))
    label = f"{path}:{key}" if key else str(path)
    if looks_like_zarr(path):
        stored = open_zarr(path, key, KEYS[role])
        # Chunks as long as the scene would hold all of it in memory: then fewer rows, decoded anew for each strip.
        return _array_scenes(Checked(stored, label), stored.shape, label, path.stem, role, reading, stored.chunks)
    if path.is_dir() or is_glob(str(path)):
        return _picture_scenes(str(path), picture_files(path), role, reading, alone=False)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.suffix.lower() in SUFFIXES:
        return _picture_scenes(str(path), {path.stem: path}, role, reading, alone=True)
    if path.suffix.lower() == ".npy":
        array = open_array(path, key, role)
        return _array_scenes(array, array.shape, label, path.stem, role, reading)
    return _source_scenes(open_source(spec, role, reading=reading))


def first_scenes(scenes: Scenes, limit: int) -> Scenes:
    """Return the first ``limit`` scenes; all of them for 0.

    Raises:
        PlanError: the limit is negative.
    """
    if limit < 0:
        raise PlanError(f"--limit {limit}: give a number above 0")
    if limit == 0 or limit >= len(scenes.ids):
        return scenes

    def each() -> Generator[Scene, None, None]:
        with contextlib.closing(scenes.each()) as opened:
            yield from islice(opened, limit)

    return replace(scenes, ids=scenes.ids[:limit], sizes=scenes.sizes[:limit], each=each)


def whole_scenes(scenes: Scenes) -> Source:
    """Return scenes of one size as a source, each held whole while its turn lasts."""
    assert scenes.size is not None
    height, width = scenes.size

    def read(count: int) -> Generator[NDArray[Any], None, None]:
        for scene in scenes.each():
            yield np.asarray(scene.rows(0, height))[None]

    return Source(scenes.name, [str(index) for index in range(len(scenes.ids))], (height, width), scenes.channels, read)


def _array_scenes(
    array: Any,
    shape: tuple[int, ...],
    label: str,
    stem: str,
    role: Role,
    reading: Reading,
    chunks: tuple[int, ...] = (),
) -> Scenes:
    """Return the scenes of an array that can be read in parts."""
    paired = label.endswith(f":{PAIRED_KEY}")
    layout = layout_of(shape, role, label, paired=paired, reading=reading, scene=True)
    ids = [stem] if layout.alone else [str(index) for index in range(shape[0])]
    block = chunks[layout.rows_axis] if chunks else 1
    becomes_grey = role == "images" and reading.rgb_as_grey and layout.channels == 3
    channels = 1 if becomes_grey else layout.channels

    def rows(index: int) -> Rows:
        def read(start: int, stop: int) -> NDArray[Any]:
            found = layout.rows(array, index, start, stop)
            return grey(found) if becomes_grey else found

        return read

    def each() -> Generator[Scene, None, None]:
        for index, name in enumerate(ids):
            yield Scene(name, layout.size, channels, rows(index), block)

    return Scenes(label, ids, [layout.size] * len(ids), channels, each, layout.alone, named=layout.alone)


def _source_scenes(source: Source) -> Scenes:
    """Return the images of a source, each held whole while its turn lasts."""

    def each() -> Generator[Scene, None, None]:
        for batch in source.batches(1):
            yield Scene(batch.ids[0], source.size, source.channels, _rows_of(batch.pixels[0]))

    return Scenes(source.name, source.ids, [source.size] * len(source), source.channels, each, named=source.named)


def _rows_of(pixels: NDArray[Any]) -> Rows:
    return lambda start, stop: pixels[start:stop]


def _picture_scenes(name: str, files: Mapping[str, Path], role: Role, reading: Reading, alone: bool) -> Scenes:
    if reading.layout and role == "images":
        raise InputError(f"--image-layout {reading.layout}: {name} is pictures, whose axes are known: leave it out")
    shapes = [_shape(path, role, reading) for path in files.values()]
    channels = shapes[0][2]
    repeated = reading.grey_as_rgb and role == "images" and {shape[2] for shape in shapes} == {1, 3}
    if repeated:
        channels = 3
    first = next(iter(files.values()))
    for path, shape in zip(files.values(), shapes, strict=True):
        if shape[2] != channels and not (repeated and shape[2] == 1):
            raise InputError(
                f"{path} is {shape_in_words(shape)}, {first.name} is {shape_in_words(shapes[0])}: "
                "all must have the same channels"
            )
    note = Once()

    def each() -> Generator[Scene, None, None]:
        for id_, path in files.items():
            is_tiff = path.suffix.lower() in TIFF
            with _opened_tiff(path, role) if is_tiff else _opened_picture(path, role, reading, note) as scene:
                yield _as_asked(replace(scene, id=id_), channels, role, reading)

    sizes = [(shape[0], shape[1]) for shape in shapes]
    return Scenes(name, list(files), sizes, channels, each, alone, named=True)


def _as_asked(scene: Scene, channels: int, role: Role, reading: Reading) -> Scene:
    """Return a scene with its channels made like those of the set."""
    rows = scene.rows
    if role == "images" and reading.rgb_as_grey and scene.channels == 3:
        return replace(scene, channels=1, rows=lambda start, stop: grey(rows(start, stop)))
    if scene.channels == 1 and channels == 3:
        return replace(scene, channels=3, rows=lambda start, stop: np.repeat(rows(start, stop), 3, axis=2))
    return scene


def _shape(path: Path, role: Role, reading: Reading) -> tuple[int, int, int]:
    """Return (height, width, channels) of a picture from its header."""
    if path.suffix.lower() not in TIFF:
        return shape_of(path, role, reading)
    if reading.exif == "apply" and orientation_of(path) != 1:
        raise InputError(
            f"{path} is a TIFF with an EXIF orientation, and tiles are read as stored: save it upright, or state "
            'exif = "ignore" in the plan\'s [input]'
        )
    with _opened_tiff(path, role) as scene:
        channels = 1 if role == "images" and reading.rgb_as_grey and scene.channels == 3 else scene.channels
        return (*scene.size, channels)


@contextlib.contextmanager
def _opened_picture(path: Path, role: Role, reading: Reading, note: Once) -> Iterator[Scene]:
    """Decode a picture whole: PNG and JPEG cannot be read in parts."""
    pixels = decode(path, role, reading=reading, note=note)
    yield Scene(path.stem, (pixels.shape[0], pixels.shape[1]), pixels.shape[2], _rows_of(pixels))


@contextlib.contextmanager
def _opened_tiff(path: Path, role: Role) -> Iterator[Scene]:
    """Open a TIFF that is read in windows; a colour table becomes colours, an alpha band is left out."""
    with opened(path) as dataset:
        bands = [band for band, held in zip(dataset.indexes, dataset.colorinterp, strict=True) if held.name != "alpha"]
        if not bands or np.dtype(dataset.dtypes[0]).kind not in "buif":
            raise InputError(f"{path} holds {dataset.dtypes[0]}; whole numbers or floats are needed")
        if role == "labels" and len(bands) > 1:
            raise InputError(f"{path} has {len(bands)} channels; a label image holds one class id a pixel")
        table = None
        if role == "images" and len(bands) == 1 and dataset.colorinterp[0].name == "palette":
            colours = dataset.colormap(1)
            table = np.array([colours.get(index, (0, 0, 0))[:3] for index in range(max(colours) + 1)], np.uint8)

        def rows(start: int, stop: int) -> NDArray[Any]:
            held = read_window(dataset, path, start, stop, bands)
            return table[held[0]] if table is not None else held.transpose(1, 2, 0)

        size, channels = (dataset.height, dataset.width), 3 if table is not None else len(bands)
        block = dataset.block_shapes[0][0]
        yield Scene(path.stem, size, channels, rows, block, georeference_of(dataset), is_tiff=True)
