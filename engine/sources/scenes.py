"""Scenes: pictures of any size, each of its own, read in strips of rows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.sources.base import Source
from engine.sources.georeference import Georeference
from engine.sources.layout import Role, layout_of
from engine.sources.open import KEYS, PAIRED_KEY, open_array, open_source, split_key
from engine.sources.parquet import tables_of
from engine.sources.pictures import FORMATS, SUFFIXES, decode, pictures_among, told_shape
from engine.sources.ranges import check_ranges
from engine.sources.rasters import RASTERS, opened_raster, raster_suffix
from engine.sources.scene import Rows, Scene, with_nan
from engine.sources.spec import is_url, shown


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
        places: where each of them lies, None for nowhere; empty where none of them says.
        files: the file or URL of each of them; empty where they are no files of their own.
        tagged_alpha: whether the last band of the first is tagged as alpha, and was taken as a band like the others.
    """

    name: str
    ids: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    channels: int
    each: Callable[[], Generator[Scene, None, None]]
    alone: bool = False
    named: bool = False
    places: Sequence[Georeference | None] = ()
    files: Sequence[Path | str] = ()
    tagged_alpha: bool = False

    @property
    def size(self) -> tuple[int, int] | None:
        """Return the (height, width) that all share, or None."""
        return self.sizes[0] if len(set(self.sizes)) == 1 else None


def open_scenes(spec: str | Path, role: Role = "images", alpha: bool = False) -> Scenes:
    """Open a picture, a folder of pictures of any sizes, or an array: of images, or of two axes as one scene.

    Args:
        spec: path or URL.
        role: whether images or label maps are wanted.
        alpha: whether the last band of a raster says which pixels hold data.

    Raises:
        InputError: nothing there, unusable, or a package is missing.
    """
    from engine.sources.zarr_store import Checked, looks_like_zarr
    from engine.sources.zarr_store import open_array as open_zarr

    path, key = split_key(str(spec))
    if is_url(str(spec)) and raster_suffix(str(spec)):
        check_ranges(str(spec))
        return _picture_scenes(shown(str(spec)), [str(spec)], role, True, alpha)
    if is_url(str(spec)) or (path.exists() and tables_of(path)):
        return _source_scenes(open_source(spec, role), role)
    label = f"{path}:{key}" if key else str(path)
    if looks_like_zarr(path):
        stored = open_zarr(path, key, KEYS[role])
        # Chunks as long as the scene would hold all of it in memory: then fewer rows, decoded anew for each strip.
        return _array_scenes(Checked(stored, label), stored.shape, label, path.stem, role, stored.chunks)
    if path.is_dir():
        return _picture_scenes(str(path), _folder_files(path), role, False, alpha)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.suffix.lower() in SUFFIXES or raster_suffix(path):
        return _picture_scenes(str(path), [path], role, True, alpha)
    if path.suffix.lower() == ".npy":
        array = open_array(path, key, role)
        return _array_scenes(array, array.shape, label, path.stem, role)
    return _source_scenes(open_source(spec, role), role)


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

    kept = {name: getattr(scenes, name)[:limit] for name in ("ids", "sizes", "places", "files")}
    return replace(scenes, each=each, **kept)


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
    kind = np.asarray(array[:0]).dtype

    def rows(index: int) -> Rows:
        if alone:
            return lambda start, stop: np.asarray(array[start:stop])[..., None]
        return lambda start, stop: layout.rows(array, index, start, stop)

    def each() -> Generator[Scene, None, None]:
        for index, name in enumerate(ids):
            read, valid = _with_gaps(rows(index), kind, role)
            yield Scene(name, layout.size, layout.channels, read, block, valid=valid)

    return Scenes(label, ids, [layout.size] * len(ids), layout.channels, each, alone, named=alone)


def _source_scenes(source: Source, role: Role) -> Scenes:
    """Return the images of a source, each held whole while its turn lasts."""

    def each() -> Generator[Scene, None, None]:
        for batch in source.batches(1):
            rows, valid = _with_gaps(_rows_of(batch.pixels[0]), batch.pixels.dtype, role)
            yield Scene(batch.ids[0], source.size, source.channels, rows, valid=valid)

    return Scenes(source.name, source.ids, [source.size] * len(source), source.channels, each, named=source.named)


def _with_gaps(rows: Rows, kind: np.dtype[Any], role: Role) -> tuple[Rows, Rows | None]:
    """Return a reader, and one of the pixels that hold data; None where all do."""
    return with_nan(rows) if role == "images" and kind.kind == "f" else (rows, None)


def _rows_of(pixels: NDArray[Any]) -> Rows:
    return lambda start, stop: pixels[start:stop]


def _folder_files(folder: Path) -> list[Path]:
    return pictures_among(sorted(folder.iterdir()), str(folder), (*SUFFIXES, *RASTERS))


def _picture_scenes(name: str, files: Sequence[Path | str], role: Role, alone: bool, alpha: bool) -> Scenes:
    found = [_header(path, role, alpha) for path in files]
    shapes = [shape for shape, _, _ in found]
    for path, shape in zip(files, shapes, strict=True):
        if shape[2] != shapes[0][2]:
            raise InputError(
                f"{path} is {told_shape(shape)}, {Path(files[0]).name} is {told_shape(shapes[0])}: "
                "all must have the same channels"
            )

    def each() -> Generator[Scene, None, None]:
        for path, name in zip(files, ids, strict=True):
            with _opened(path, role, alpha) as scene:
                yield replace(scene, id=name)

    sizes = [(shape[0], shape[1]) for shape in shapes]
    ids = [PurePosixPath(str(path).split("?")[0]).stem if isinstance(path, str) else path.stem for path in files]
    places = [place for _, place, _ in found]
    return Scenes(name, ids, sizes, shapes[0][2], each, alone, True, places, files, tagged_alpha=found[0][2])


def _opened(path: Path | str, role: Role, alpha: bool) -> contextlib.AbstractContextManager[Scene]:
    return opened_raster(path, role, alpha) if raster_suffix(path) else _opened_picture(Path(path), role)


def _header(path: Path | str, role: Role, alpha: bool) -> tuple[tuple[int, int, int], Georeference | None, bool]:
    """Return (height, width, channels) of a picture from its header, where it lies, and whether it is tagged alpha."""
    if raster_suffix(path):
        with opened_raster(path, role, alpha) as scene:
            return (*scene.size, scene.channels), scene.georeference, scene.tagged_alpha
    return _shape(Path(path), role), None, False


def _shape(path: Path, role: Role) -> tuple[int, int, int]:
    """Return (height, width, channels) of a PNG, JPEG and the like from its header."""
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
