"""Rasters opened with rasterio and read in windows: GeoTIFF, JPEG 2000 and VRT, on this machine and behind URLs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.sources.georeference import gdal_path, georeference_of, opened, read_window
from engine.sources.layout import Role
from engine.sources.remote import RemoteFile
from engine.sources.scene import Rows, Scene
from engine.sources.spec import is_url
from engine.utils.memory import memory_bound, refusal

# Suffixes, and the GDAL driver that opens them; a Cloud Optimized GeoTIFF is a GeoTIFF.
RASTERS = {".tif": "GTiff", ".tiff": "GTiff", ".jp2": "JP2OpenJPEG", ".vrt": "VRT"}
Raster = Path | RemoteFile | str
# Tells which pixels of rows ``start`` to ``stop`` pass: bool (rows, width).
Test = Callable[[int, int], Any]


def raster_suffix(place: Raster) -> str:
    """Return the suffix of a path or URL where rasterio reads such files; empty otherwise."""
    name = PurePosixPath(str(place).split("?")[0]).name if is_url(str(place)) else Path(str(place)).name
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in RASTERS else ""


@contextlib.contextmanager
def opened_raster(place: Raster, role: Role, alpha: bool = False) -> Iterator[Scene]:
    """Open a raster that is read in windows; a colour table becomes colours.

    Args:
        place: path or URL.
        role: whether an image or a label map is wanted.
        alpha: whether the last band says which pixels hold data, and is no band of the picture.

    Raises:
        InputError: no raster, damaged, no numbers, several bands of labels, or no second band beside alpha.
    """
    with opened(place, RASTERS[raster_suffix(place)]) as dataset:
        yield _scene(dataset, place, role, alpha)


def _scene(dataset: Any, place: Raster, role: Role, alpha: bool) -> Scene:
    label, bands = gdal_path(place).label, list(dataset.indexes)
    if not bands or np.dtype(dataset.dtypes[0]).kind not in "buif":
        raise InputError(
            f"{label} holds {dataset.dtypes[0] if bands else 'no bands'}; whole numbers or floats are needed"
        )
    _check_blocks(dataset, label)
    if alpha and role == "images":
        if len(bands) < 2:
            raise InputError(f"{label} has one band, so none of it is alpha: leave alpha out of [input]")
        bands, alpha_band = bands[:-1], bands[-1]
    if role == "labels" and len(bands) > 1:
        raise InputError(f"{label} has {len(bands)} channels; a label image holds one class id per pixel")
    table = _colours(dataset) if role == "images" and len(bands) == 1 else None
    read = remembered(lambda start, stop: read_window(dataset, label, start, stop, bands))

    def rows(start: int, stop: int) -> NDArray[Any]:
        found = read(start, stop)
        return table[found[0]] if table is not None else found.transpose(1, 2, 0)

    tests = _tests(dataset, bands, read, label)
    if alpha and role == "images":
        tests.append(lambda start, stop: read_window(dataset, label, start, stop, [alpha_band])[0] != 0)

    def valid(start: int, stop: int) -> NDArray[np.bool_]:
        return np.logical_and.reduce([test(start, stop) for test in tests])

    size, channels = (dataset.height, dataset.width), 3 if table is not None else len(bands)
    name = PurePosixPath(label.split("?")[0]).stem
    return Scene(
        name,
        size,
        channels,
        rows,
        dataset.block_shapes[0][0],
        georeference_of(dataset),
        is_tiff=True,
        valid=valid if tests else None,
        nodata=dataset.nodata,
        tagged_alpha=not alpha and dataset.colorinterp[-1].name == "alpha",
    )


def _check_blocks(dataset: Any, label: str) -> None:
    """Refuse blocks that take more memory than is allowed: GDAL decodes a strip or tile as a whole.

    Raises:
        InputError: they do.
    """
    height, width = dataset.block_shapes[0]
    together = dataset.count if str(dataset.interleaving).endswith("pixel") else 1
    size = height * width * np.dtype(dataset.dtypes[0]).itemsize * together
    if size > memory_bound():
        raise InputError(refusal(label, f"is stored in blocks of {height}x{width} pixels, each of which takes", size))


def _colours(dataset: Any) -> NDArray[np.uint8] | None:
    """Return uint8 (colours, 3) of a band with a colour table; None where it has none."""
    if dataset.colorinterp[0].name != "palette":
        return None
    colours = dataset.colormap(1)
    return np.array([colours.get(index, (0, 0, 0))[:3] for index in range(max(colours) + 1)], np.uint8)


def raster_files(path: Path) -> list[Path]:
    """Return a raster's files on this machine: itself, its sidecars and, of a VRT, the files it is made of.

    Raises:
        InputError: it cannot be opened.
    """
    with opened(path, RASTERS[raster_suffix(path)]) as dataset:
        found = [Path(name) for name in dataset.files]
    return [path, *sorted(file for file in found if file.is_file() and file.resolve() != path.resolve())]


def remembered(read: Rows) -> Rows:
    """Return a reader that keeps what it read last: pixels and their validity come from the same rows."""
    last: dict[tuple[int, int], NDArray[Any]] = {}

    def kept(start: int, stop: int) -> NDArray[Any]:
        if (start, stop) not in last:
            last.clear()
            last[start, stop] = read(start, stop)
        return last[start, stop]

    return kept


def _tests(dataset: Any, bands: Sequence[int], read: Rows, label: str) -> list[Test]:
    """Return what must all hold where a pixel has data.

    0 and the largest value of whole numbers occur in pixels with data: those count as nodata in all bands at once only.
    """
    from rasterio.enums import MaskFlags

    tests: list[Test] = []
    flags = dataset.mask_flag_enums[0]
    if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags:
        tests.append(lambda start, stop: read_window(dataset, label, start, stop, 1, masks=True) != 0)
    kind = np.dtype(dataset.dtypes[bands[0] - 1])
    if kind.kind == "f":
        tests.append(lambda start, stop: ~np.isnan(read(start, stop)).any(axis=0))
    values = [dataset.nodatavals[band - 1] for band in bands]
    if any(_fits(value, kind) for value in values):
        # A value that the type cannot hold marks no pixel.
        stated = np.array([value if _fits(value, kind) else 0 for value in values]).astype(kind)[:, None, None]
        usable = np.array([_fits(value, kind) for value in values])[:, None, None]
        common = kind.kind != "f" and bool(np.isin(stated, (0, np.iinfo(kind).max)).any())
        gone = np.all if common else np.any
        tests.append(lambda start, stop: ~gone((read(start, stop) == stated) & usable, axis=0))
    return tests


def _fits(value: float | None, kind: np.dtype[Any]) -> bool:
    if value is None or np.isnan(value):
        return False
    if kind.kind == "f":
        return True
    if kind.kind == "b":
        return value in (0, 1)
    bounds = np.iinfo(kind)
    return bool(value == value // 1 and bounds.min <= value <= bounds.max)
