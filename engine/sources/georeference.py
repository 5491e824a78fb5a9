"""Where on a planet a picture lies, kept from a GeoTIFF to its mask; and how GeoTIFFs are opened."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.utils.console import first_line
from engine.utils.optional import require

# What GDAL may keep of decoded blocks; its own default is a twentieth of the machine's memory.
CACHE_BYTES = 2**26


@dataclass(frozen=True)
class Georeference:
    """Where a picture lies.

    Attributes:
        crs: coordinate reference system, as rasterio holds it; None for none.
        transform: affine transform from (column, row) to coordinates; None for none.
        points: ground control points, and their coordinate reference system; empty for none.
    """

    crs: Any = None
    transform: Any = None
    points: tuple[list[Any], Any] = ((), None)  # type: ignore[assignment]


@contextlib.contextmanager
def bounded_cache() -> Iterator[None]:
    """Bound what GDAL keeps of the files that are open inside; does nothing where rasterio is not installed."""
    try:
        import rasterio
    except ImportError:
        yield
        return
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a TIFF with rasterio.

    Raises:
        InputError: the package is missing, or the file is no TIFF or damaged.
    """
    rasterio = require("rasterio", "geo", f"reading the scene {path} needs rasterio", InputError)
    try:
        with quiet():
            dataset = rasterio.open(path, driver="GTiff")
    except rasterio.errors.RasterioError as error:
        raise InputError(f"cannot read the scene {path} ({_reason(error)}): it is no TIFF, or damaged") from None
    with dataset:
        yield dataset


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep rasterio from warning of pictures without coordinates."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def read_window(dataset: Any, path: Path, start: int, stop: int, bands: list[int]) -> Any:
    """Return rows ``start`` to ``stop`` of some bands as (bands, rows, width).

    Raises:
        InputError: the file is damaged there.
    """
    from rasterio.errors import RasterioError
    from rasterio.windows import Window

    try:
        return dataset.read(bands, window=Window(0, start, dataset.width, stop - start))
    except RasterioError as error:
        raise InputError(
            f"cannot read rows {start} to {stop - 1} of {path} ({_reason(error)}): it is damaged, copy it again"
        ) from None


def georeference_of(dataset: Any) -> Georeference | None:
    """Return where a picture lies, or None where its file does not say."""
    points, points_crs = dataset.gcps
    transform = None if dataset.transform.is_identity else dataset.transform
    if dataset.crs is None and transform is None and not points:
        return None
    return Georeference(dataset.crs, transform, (list(points), points_crs))


def _reason(error: BaseException) -> str:
    # The reason GDAL gives is the cause of what rasterio raises.
    return first_line(error.__cause__ or error)
