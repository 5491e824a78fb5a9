"""Scenes: pictures of any size, each of its own, read in strips of rows."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError, PlanError
from engine.sources.base import Source
from engine.sources.decode import decode, orientation_of, shape_of
from engine.sources.georeference import Georeference, gdal_path
from engine.sources.layout import Role, layout_of
from engine.sources.naming import is_glob
from engine.sources.open import KEYS, PAIRED_KEY, open_array, open_source, split_key
from engine.sources.parquet import tables_of
from engine.sources.pictures import SUFFIXES, Once, picture_files, shape_in_words
from engine.sources.range_file import RangeFile
from engine.sources.ranges import WebFile, check_ranges, is_web
from engine.sources.rasters import RASTERS, opened_raster, raster_suffix
from engine.sources.reading import PLAIN, Reading, grey
from engine.sources.remote import RemoteFile, locate
from engine.sources.scene import Rows, Scene, with_nan
from engine.sources.spec import is_url, shown, split_url

# Rasters that may have an EXIF orientation.
TIFF = (".tif", ".tiff")
# Suffixes of pictures and rasters; rasters are read in windows.
READ = tuple(dict.fromkeys((*SUFFIXES, *RASTERS)))


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
        whole: whether a scene, or one of them, is decoded as a whole and not in windows.
        nodata: the value that each states for pixels without data, None for none; empty where none can say it.
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
    whole: bool = False
    nodata: Sequence[float | None] = ()

    @property
    def size(self) -> tuple[int, int] | None:
        """Return the (height, width) that all share, or None."""
        return self.sizes[0] if len(set(self.sizes)) == 1 else None


def open_scenes(spec: str | Path, role: Role = "images", reading: Reading = PLAIN) -> Scenes:
    """Open a picture, a folder or pattern of pictures of any sizes, or an array of images or of one scene.

    Args:
        spec: as :func:`engine.sources.open.open_source` takes it, or a raster: its path or URL.
        role: whether they are images or label maps.
        reading: what is stated about images. An array of two axes is one scene; one of three is one scene where the
            layout says so or the members take as many channels as its first or last axis has elements.

    Raises:
        InputError: nothing there, unusable, or a package is missing.
    """
    from engine.sources.zarr_store import Checked, looks_like_zarr
    from engine.sources.zarr_store import open_array as open_zarr

    path, key = split_key(str(spec))
    if is_url(str(spec)) and raster_suffix(str(spec)):
        check_ranges(str(spec))
        name = PurePosixPath(shown(str(spec)).split("?")[0]).stem
        return _picture_scenes(shown(str(spec)), {name: str(spec)}, role, reading, alone=True)
    store = _store_of(str(spec))
    if (is_url(str(spec)) and store is None) or (path.exists() and tables_of(path)):
        return _source_scenes(open_source(spec, role, reading=reading), role)
    if store is not None:
        path = Path(store.name)
        key = split_url(str(spec))[1]
    label = str(store or path) + (f":{key}" if key else "")
    if store is not None or looks_like_zarr(path):
        stored = open_zarr(store or path, key, KEYS[role], role, reading.missing_chunks)
        # Chunks as long as the scene would hold all of it in memory: then fewer rows, decoded anew for each strip.
        return _array_scenes(Checked(stored, label), stored.shape, label, path.stem, role, reading, stored.chunks)
    if path.is_dir() or is_glob(str(path)):
        return _picture_scenes(str(path), picture_files(path, READ), role, reading, alone=False)
    if not path.exists():
        raise InputError(f"no such file or folder: {path}")
    if path.suffix.lower() in READ:
        return _picture_scenes(str(path), {path.stem: path}, role, reading, alone=True)
    if path.suffix.lower() == ".npy":
        array = open_array(path, key, role)
        return _array_scenes(array, array.shape, label, path.stem, role, reading)
    return _source_scenes(open_source(spec, role, reading=reading), role)


def _store_of(spec: str) -> RemoteFile | None:
    """Return the Zarr store that a URL names; None for anything else, and for web servers, which list no chunks."""
    url = split_url(spec)[0] if is_url(spec) else ""
    if not url or is_web(url) or PurePosixPath(shown(url).split("?")[0]).suffix.lower() != ".zarr":
        return None
    return locate(url)[0]


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

    kept = {name: getattr(scenes, name)[:limit] for name in ("ids", "sizes", "places", "files", "nodata")}
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
    kind = np.asarray(array[:0]).dtype

    def rows(index: int) -> Rows:
        def read(start: int, stop: int) -> NDArray[Any]:
            found = layout.rows(array, index, start, stop)
            return grey(found) if becomes_grey else found

        return read

    def each() -> Generator[Scene, None, None]:
        for index, name in enumerate(ids):
            read, valid = _with_gaps(rows(index), kind, role)
            yield Scene(name, layout.size, channels, read, block, valid=valid)

    return Scenes(label, ids, [layout.size] * len(ids), channels, each, layout.alone, named=layout.alone)


def _source_scenes(source: Source, role: Role) -> Scenes:
    """Return the images of a source, each held whole while its turn lasts."""

    def each() -> Generator[Scene, None, None]:
        for batch in source.batches(1):
            rows, valid = _with_gaps(_rows_of(batch.pixels[0]), batch.pixels.dtype, role)
            yield Scene(batch.ids[0], source.size, source.channels, rows, valid=valid)

    sizes = [source.size] * len(source)
    return Scenes(source.name, source.ids, sizes, source.channels, each, named=source.named, whole=True)


def _with_gaps(rows: Rows, kind: np.dtype[Any], role: Role) -> tuple[Rows, Rows | None]:
    """Return a reader, and one of the pixels that hold data; None where all do."""
    return with_nan(rows) if role == "images" and kind.kind == "f" else (rows, None)


def _rows_of(pixels: NDArray[Any]) -> Rows:
    return lambda start, stop: pixels[start:stop]


def _picture_scenes(name: str, files: Mapping[str, Path | str], role: Role, reading: Reading, alone: bool) -> Scenes:
    if reading.layout and role == "images":
        raise InputError(f"--image-layout {reading.layout}: {name} is pictures, whose axes are known: leave it out")
    found = [_header(path, role, reading) for path in files.values()]
    shapes = [header.shape for header in found]
    channels = shapes[0][2]
    repeated = reading.grey_as_rgb and role == "images" and {shape[2] for shape in shapes} == {1, 3}
    if repeated:
        channels = 3
    first = Path(next(iter(files.values())))
    for path, shape in zip(files.values(), shapes, strict=True):
        if shape[2] != channels and not (repeated and shape[2] == 1):
            raise InputError(
                f"{path} is {shape_in_words(shape)}, {first.name} is {shape_in_words(shapes[0])}: "
                "all must have the same channels"
            )
    note = Once()

    def each() -> Generator[Scene, None, None]:
        for id_, path in files.items():
            with _opened(path, role, reading, note) as scene:
                yield _as_asked(replace(scene, id=id_), channels, role, reading)

    return Scenes(
        name,
        list(files),
        [(shape[0], shape[1]) for shape in shapes],
        channels,
        each,
        alone,
        named=True,
        places=[header.place for header in found],
        files=list(files.values()),
        tagged_alpha=found[0].tagged_alpha,
        whole=not all(map(raster_suffix, files.values())),
        nodata=[header.nodata for header in found],
    )


def _as_asked(scene: Scene, channels: int, role: Role, reading: Reading) -> Scene:
    """Return a scene with its channels made like those of the set."""
    rows = scene.rows
    if role == "images" and reading.rgb_as_grey and scene.channels == 3:
        return replace(scene, channels=1, rows=lambda start, stop: grey(rows(start, stop)))
    if scene.channels == 1 and channels == 3:
        return replace(scene, channels=3, rows=lambda start, stop: np.repeat(rows(start, stop), 3, axis=2))
    return scene


def _opened(path: Path | str, role: Role, reading: Reading, note: Once) -> contextlib.AbstractContextManager[Scene]:
    if raster_suffix(path):
        return opened_raster(path, role, reading.alpha)
    return _opened_picture(Path(path), role, reading, note)


@dataclass(frozen=True)
class _Header:
    """What a picture's header says: shape as read, place, whether the last band is tagged as alpha, nodata value."""

    shape: tuple[int, int, int]
    place: Georeference | None = None
    tagged_alpha: bool = False
    nodata: float | None = None


def _header(path: Path | str, role: Role, reading: Reading) -> _Header:
    if not raster_suffix(path):
        return _Header(shape_of(Path(path), role, reading))
    gdal_path(path)  # refuses URLs that are not read in parts
    turned = raster_suffix(path) in TIFF and reading.exif == "apply"
    if turned and orientation_of(path if isinstance(path, Path) else _stream(path)) != 1:
        raise InputError(
            f"{shown(str(path))} is a TIFF with an EXIF orientation, and tiles are read as stored: save it upright, or "
            'state exif = "ignore" in the plan\'s [input]'
        )
    with opened_raster(path, role, reading.alpha) as scene:
        channels = 1 if role == "images" and reading.rgb_as_grey and scene.channels == 3 else scene.channels
        return _Header((*scene.size, channels), scene.georeference, scene.tagged_alpha, scene.nodata)


def _stream(url: str) -> IO[bytes]:
    """Return a file behind a URL as a stream of which parts are fetched."""
    return io.BufferedReader(RangeFile(WebFile(url) if is_web(url) else locate(url)[0]))


@contextlib.contextmanager
def _opened_picture(path: Path, role: Role, reading: Reading, note: Once) -> Iterator[Scene]:
    """Decode a picture whole: PNG and JPEG cannot be read in parts."""
    pixels = decode(path, role, reading=reading, note=note)
    yield Scene(path.stem, (pixels.shape[0], pixels.shape[1]), pixels.shape[2], _rows_of(pixels))
