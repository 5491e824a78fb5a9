"""Scenes: pictures of any size, each of its own, read in strips of rows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.sources.base import Source
from engine.sources.georeference import Georeference, georeference_of, opened, read_window
from engine.sources.layout import Role, layout_of
from engine.sources.open import KEYS, PAIRED_KEY, open_array, open_source, split_key
from engine.sources.parquet import tables_of
from engine.sources.pictures import FORMATS, SUFFIXES, decode, picture_files, told_shape
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


def open_scenes(spec: str | Path, role: Role = "images") -> Scenes:
    """Open a picture, a folder of pictures of any sizes, or an array: of images, or of two axes as one scene.

    Raises:
        InputError: nothing there, unusable, or a package is missing.
    """
    from engine.sources.zarr_store import Checked, looks_like_zarr
    from engine.sources.zarr_store import open_array as open_zarr

    path, key = split_key(str(spec))
    if is_url(str(spec)) or (path.exists() and tables_of(path)):
        return _source_scenes(open_source(spec, role))
    label = f"{path}:{key}" if key else str(path)
    if looks_like_zarr(path):
        stored = open_zarr(path, key, KEYS[role])
        # Chunks as long as the scene would hold all of it in memory: then fewer rows, decoded anew for each strip.
        return _array_scenes(Checked(stored, label), stored.shape, label, path.stem, role, stored.chunks)
    if path.is_dir():
        return _picture_scenes(str(path), picture_files(path), role, alone=False)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.suffix.lower() in SUFFIXES:
        return _picture_scenes(str(path), [path], role, alone=True)
    if path.suffix.lower() == ".npy":
        array = open_array(path, key, role)
        return _array_scenes(array, array.shape, label, path.stem, role)
    return _source_scenes(open_source(spec, role))


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
    array: Any, shape: tuple[int, ...], label: str, stem: str, role: Role, chunks: tuple[int, ...] = ()
) -> Scenes:
    """Return the scenes of an array that can be read in parts."""
    alone = len(shape) == 2
    layout = layout_of((1, *shape) if alone else shape, role, label, paired=label.endswith(f":{PAIRED_KEY}"))
    ids = [stem] if alone else [str(index) for index in range(shape[0])]
    rows_axis = {"HW": 1, "HWC": 1, "CHW": 2, "PHW": 2}[layout.axes] - (1 if alone else 0)
    block = chunks[rows_axis] if chunks else 1

    def rows(index: int) -> Rows:
        if alone:
            return lambda start, stop: np.asarray(array[start:stop])[..., None]
        return lambda start, stop: layout.rows(array, index, start, stop)

    def each() -> Generator[Scene, None, None]:
        for index, name in enumerate(ids):
            yield Scene(name, layout.size, layout.channels, rows(index), block)

    return Scenes(label, ids, [layout.size] * len(ids), layout.channels, each, alone, named=alone)


def _source_scenes(source: Source) -> Scenes:
    """Return the images of a source, each held whole while its turn lasts."""

    def each() -> Generator[Scene, None, None]:
        for batch in source.batches(1):
            yield Scene(batch.ids[0], source.size, source.channels, _rows_of(batch.pixels[0]))

    return Scenes(source.name, source.ids, [source.size] * len(source), source.channels, each, named=source.named)


def _rows_of(pixels: NDArray[Any]) -> Rows:
    return lambda start, stop: pixels[start:stop]


def _picture_scenes(name: str, files: Sequence[Path], role: Role, alone: bool) -> Scenes:
    shapes = [_shape(path, role) for path in files]
    for path, shape in zip(files, shapes, strict=True):
        if shape[2] != shapes[0][2]:
            raise InputError(
                f"{path} is {told_shape(shape)}, {files[0].name} is {told_shape(shapes[0])}: "
                "all must have the same channels"
            )

    def each() -> Generator[Scene, None, None]:
        for path in files:
            with (_opened_tiff if path.suffix.lower() in TIFF else _opened_picture)(path, role) as scene:
                yield scene

    sizes = [(shape[0], shape[1]) for shape in shapes]
    return Scenes(name, [path.stem for path in files], sizes, shapes[0][2], each, alone, named=True)


def _shape(path: Path, role: Role) -> tuple[int, int, int]:
    """Return (height, width, channels) of a picture from its header."""
    if path.suffix.lower() in TIFF:
        with _opened_tiff(path, role) as scene:
            return (*scene.size, scene.channels)
    from PIL import Image, UnidentifiedImageError

    try:
        with _large_pictures(), Image.open(path, formats=FORMATS) as image:
            grey = role == "labels" or image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;")
            return (image.height, image.width, 1 if grey else 3)
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to decode whole ({error}): save it as GeoTIFF or Zarr") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"cannot read the image {path} ({error}): replace it or take it out") from None


@contextlib.contextmanager
def _opened_picture(path: Path, role: Role) -> Iterator[Scene]:
    """Decode a picture whole: PNG and JPEG cannot be read in parts."""
    with _large_pictures():
        pixels = decode(path, role)
    yield Scene(path.stem, (pixels.shape[0], pixels.shape[1]), pixels.shape[2], _rows_of(pixels))


@contextlib.contextmanager
def _large_pictures() -> Iterator[None]:
    """Keep Pillow from warning of large pictures; what it refuses is still refused."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


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
