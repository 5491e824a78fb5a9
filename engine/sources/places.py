"""Whether truth and scene lie in the same place, and truth warped onto a scene where it is asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.metrics import VOID
from engine.sources.coding import MOST_ID, LabelCoding
from engine.sources.georeference import Georeference, gdal_path, georeference_of, opened, quiet, read_window
from engine.sources.joining import partners
from engine.sources.naming import is_glob
from engine.sources.pictures import picture_files
from engine.sources.rasters import RASTERS, raster_suffix, remembered
from engine.sources.scene import Scene
from engine.sources.scenes import Scenes
from engine.sources.spec import is_url
from engine.utils.sides import told_size

# Corners may differ by this share of a pixel: coordinates are stored rounded.
TOLERANCE = 0.01


def check_places(scenes: Scenes, truths: Scenes) -> None:
    """Refuse truth that lies elsewhere than its scene; where one of them does not say where it lies, nothing is known.

    Raises:
        InputError: naming the scene and both places.
    """
    for name, size, here, there in zip(scenes.ids, scenes.sizes, scenes.places, truths.places, strict=False):
        if here is None or there is None or same_place(here, there, size):
            continue
        raise InputError(
            f"{truths.name} lies at {place_in_words(there)}; the scene {name} of {scenes.name} lies at "
            f"{place_in_words(here)}: give the truth of this place, or warp it onto the scene with --align"
        )


def same_place(here: Georeference, there: Georeference, size: tuple[int, int]) -> bool:
    """Return whether two references put all corners of (height, width) pixels in the same place."""
    if (here.crs is None) != (there.crs is None) or (here.crs is not None and here.crs != there.crs):
        return False
    if here.transform is None or there.transform is None:
        return here.transform is there.transform
    pixel = max(abs(value) for value in (here.transform.a, here.transform.b, here.transform.d, here.transform.e))
    ours, theirs = (_corners(transform, size) for transform in (here.transform, there.transform))
    return bool(np.abs(ours - theirs).max() <= TOLERANCE * pixel)


def _corners(transform: Any, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the (x, y) of the corners of (height, width) pixels: float64 (4, 2)."""
    columns, rows = np.array([0, size[1], 0, size[1]]), np.array([0, 0, size[0], size[0]])
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    return np.stack([x, y], axis=1)


def place_in_words(place: Georeference) -> str:
    """Return coordinate reference system, upper left corner and pixel size in words."""
    crs = "no coordinate reference system" if place.crs is None else _crs_in_words(place.crs)
    if place.transform is None:
        return f"{crs}, control points" if place.points[0] else crs
    transform = place.transform
    return (
        f"{crs}, upper left corner {transform.c:.10g} {transform.f:.10g}, pixels of {transform.a:g} x {transform.e:g}"
    )


def _crs_in_words(crs: Any) -> str:
    code = crs.to_authority()
    return (
        ":".join(code) if code else str(crs.to_dict().get("proj", "unnamed")) + " (" + crs.to_wkt().split('"')[1] + ")"
    )


def aligned(truths: Scenes, scenes: Scenes, ids: Sequence[int] = (), colours: bool = False) -> Scenes:
    """Return truths warped onto their scenes by the nearest pixel; what lies outside a truth is void.

    Args:
        truths: the true label maps.
        scenes: the scenes, in the same order.
        ids: values of truths that are classes; empty for class numbers, with 255 for void.
        colours: whether truths hold red, green and blue in place of numbers.

    Raises:
        InputError: a file without coordinates, no raster, or one that does not overlap its scene.
    """
    files = truths.files
    if not files:
        raise InputError(f"--align: {truths.name} has no coordinates; GeoTIFFs are needed, one per scene")
    if len(files) != len(scenes.ids):
        raise InputError(f"{truths.name} holds {len(files)} label maps, {scenes.name} {len(scenes.ids)}: give one each")
    for file, name, place in zip(files, scenes.ids, scenes.places or [None] * len(files), strict=True):
        if place is None or place.crs is None or place.transform is None:
            raise InputError(f"--align: the scene {name} of {scenes.name} has no coordinates: leave out --align")
        if not raster_suffix(file):
            raise InputError(f"--align: {file} has no coordinates; a GeoTIFF is needed")

    def each() -> Generator[Scene, None, None]:
        for file, name, size, place in zip(files, scenes.ids, scenes.sizes, scenes.places, strict=True):
            assert place is not None
            with (
                _warped_colours(file, name, size, place) if colours else _warped(file, name, size, place, ids)
            ) as scene:
                yield scene

    return replace(truths, ids=list(scenes.ids), sizes=list(scenes.sizes), each=each, places=list(scenes.places))


@contextlib.contextmanager
def _warped(
    file: Path | str, name: str, size: tuple[int, int], place: Georeference, ids: Sequence[int]
) -> Iterator[Scene]:
    with _placed(file, name, size, place, 1) as (dataset, label), contextlib.ExitStack() as stack:
        own = dataset.nodata
        # Around the truth lies void. Its own nodata value may be a class (0), so it is told apart afterwards.
        kind = np.dtype(dataset.dtypes[0])
        largest = VOID if kind.kind == "f" else min(VOID, np.iinfo(kind).max)
        smallest = 0 if kind.kind == "u" else -VOID if kind.kind == "f" else max(-VOID, np.iinfo(kind).min)
        free = (value for value in range(largest, smallest - 1, -1) if value not in ids)
        void = next(free, None)
        if void is None:
            raise InputError(f"--align: {label} has no value left for pixels outside it: warp it yourself")
        warped = stack.enter_context(_warper(dataset, size, place, nodata=void))
        read = remembered(lambda start, stop: read_window(warped, label, start, stop, [1])[0])

        def valid(start: int, stop: int) -> NDArray[np.bool_]:
            labels = read(start, stop)
            inside = labels != void
            return inside if own is None else inside & (labels != own)

        yield Scene(
            name, size, 1, lambda start, stop: read(start, stop)[..., None], 1, place, True, valid=valid, nodata=own
        )


@contextlib.contextmanager
def _warped_colours(file: Path | str, name: str, size: tuple[int, int], place: Georeference) -> Iterator[Scene]:
    with (
        _placed(file, name, size, place, 3) as (dataset, label),
        _warper(dataset, size, place, add_alpha=True) as warped,
    ):
        read = remembered(lambda start, stop: read_window(warped, label, start, stop, [1, 2, 3, 4]))
        yield Scene(
            name,
            size,
            3,
            lambda start, stop: read(start, stop)[:3].transpose(1, 2, 0),
            1,
            place,
            True,
            valid=lambda start, stop: read(start, stop)[3] != 0,
        )


@contextlib.contextmanager
def _placed(
    file: Path | str, name: str, size: tuple[int, int], place: Georeference, channels: int
) -> Iterator[tuple[Any, str]]:
    """Open truth that shows something of its scene; yield the dataset, and what messages call it."""
    label = gdal_path(file).label
    with opened(file, RASTERS[raster_suffix(file)]) as dataset:
        if dataset.crs is None or dataset.transform.is_identity:
            raise InputError(f"--align: {label} has no coordinates: leave out --align where it has the scene's size")
        if dataset.count != channels:
            needed = "one class id per pixel" if channels == 1 else "red, green and blue with --palette"
            raise InputError(f"{label} has {dataset.count} channels; a label image holds {needed}")
        _check_overlap(dataset, label, name, size, place)
        yield dataset, label


def _warper(dataset: Any, size: tuple[int, int], place: Georeference, **how: Any) -> Any:
    """Return truth as its scene lies, by the nearest pixel; to be closed."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    grid = {"crs": place.crs, "transform": place.transform, "height": size[0], "width": size[1]}
    with quiet():
        # All but exact for each pixel (0 is refused): windows then show what one warp of the whole does.
        return WarpedVRT(dataset, resampling=Resampling.nearest, src_nodata=None, tolerance=1e-9, **grid, **how)


def _check_overlap(dataset: Any, label: str, name: str, size: tuple[int, int], place: Georeference) -> None:
    """Refuse truth that shows nothing of its scene."""
    from rasterio.errors import RasterioError
    from rasterio.transform import array_bounds
    from rasterio.warp import transform_bounds

    west, south, east, north = array_bounds(size[0], size[1], place.transform)
    try:
        left, bottom, right, top = transform_bounds(dataset.crs, place.crs, *dataset.bounds)
        across = max(left, right) <= min(west, east) or min(left, right) >= max(west, east)
        apart = across or max(bottom, top) <= min(south, north) or min(bottom, top) >= max(south, north)
    except RasterioError:  # the one projection does not reach where the other lies
        apart = True
    if apart:
        theirs = Georeference(dataset.crs, dataset.transform)
        raise InputError(
            f"--align: {label} at {place_in_words(theirs)} shows nothing of the scene {name} at "
            f"{place_in_words(place)}: give the truth of this place"
        )


@dataclass(frozen=True)
class Placed:
    """Where a raster lies.

    Attributes:
        size: (height, width).
        place: its reference.
        nodata: the value that it states for pixels without data; None for none.
    """

    size: tuple[int, int]
    place: Georeference | None
    nodata: float | None


def places_of(spec: str) -> dict[str, Placed]:
    """Return where the rasters of an input on this machine lie, by id: of one file or of a folder.

    What cannot be opened is left out, for its reader says why; so is everything where rasterio is not installed.
    """
    path = Path(spec)
    if is_url(spec) or not (path.exists() or is_glob(spec)):
        return {}
    files = {path.stem: path}
    if is_glob(spec) or (path.is_dir() and path.suffix.lower() != ".zarr"):
        files = {}
        with contextlib.suppress(InputError):
            files = picture_files(path)
    found = {}
    for name, file in files.items():
        if raster_suffix(file):
            with contextlib.suppress(InputError), opened(file, RASTERS[raster_suffix(file)]) as dataset:
                size = (dataset.height, dataset.width)
                found[name] = Placed(size, georeference_of(dataset), dataset.nodata)
    return found


def with_nodata(coding: LabelCoding, spec: str, classes: int) -> LabelCoding:
    """Return the coding of label maps or masks with the nodata values that their rasters state.

    A value that is a class as well stays that class: of class numbers 0 to ``classes`` - 1, of ids each of them.

    Args:
        coding: what is stated about them.
        spec: a file or a folder.
        classes: number of classes; 0 where nobody says, and then 0 alone is one for certain.
    """
    if coding.palette is not None:
        return coding
    own = set(coding.ids) or set(range(classes or 1))
    stated = {raster.nodata for raster in places_of(spec).values() if raster.nodata is not None}
    found = {int(value) for value in stated if value // 1 == value and abs(value) <= MOST_ID} - own
    return replace(coding, no_data=tuple(sorted({*coding.no_data, *found})))


@dataclass(frozen=True)
class _Ids:
    """Names of rasters, as :func:`engine.sources.joining.partners` takes them."""

    name: str
    ids: Sequence[str]


def check_same_places(images: str, labels: str) -> None:
    """Refuse label maps that lie elsewhere than images or masks of the same name, where both say where they lie.

    Raises:
        InputError: naming both places.
    """
    here, there = places_of(images), places_of(labels)
    pairs = [(here[name], there[name], name) for name in here if name in there]
    with contextlib.suppress(InputError):  # names that do not fit are reported where label maps are joined
        order, _ = partners(_Ids(images, list(here)), _Ids(labels, list(there)))
        theirs = list(there.values())
        pairs = [(here[name], theirs[index], name) for name, index in zip(here, order, strict=True)]
    if len(here) == len(there) == 1:
        ((name, ours),), ((_, only),) = here.items(), there.items()
        pairs = [(ours, only, name)]
    for ours, other, name in pairs:
        if ours.place is None or other.place is None:
            continue
        if ours.size != other.size or not same_place(ours.place, other.place, ours.size):
            raise InputError(
                f"{labels} lies at {place_in_words(other.place)} ({told_size(other.size)}); {name} of {images} lies "
                f"at {place_in_words(ours.place)} ({told_size(ours.size)}): give the truth of this place; "
                "engine evaluate warps it with --align, engine ensemble with --tile and --align"
            )
