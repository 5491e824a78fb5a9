"""Where on a planet a picture lies, kept from a GeoTIFF to its mask; and how GeoTIFFs are opened."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from engine.errors import InputError
from engine.sources.answers import CONNECT_SECONDS, SILENCE_SECONDS
from engine.sources.spec import is_url, scrubbed, shown
from engine.utils.console import first_line
from engine.utils.optional import require

# What GDAL may keep of decoded blocks; its own default is a twentieth of the machine's memory.
CACHE_BYTES = 2**26
# How GDAL reads parts of files behind URLs: https://gdal.org/en/stable/user/virtual_file_systems.html.
_PREFIXES = {
    "http": "/vsicurl/",
    "https": "/vsicurl/",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
}
_RETRIES = {"GDAL_HTTP_MAX_RETRY": "2", "GDAL_HTTP_RETRY_DELAY": "0.5"}
# A server that connects and sends next to nothing for so long is given up.
_RETRIES |= {"GDAL_HTTP_CONNECTTIMEOUT": f"{CONNECT_SECONDS:.0f}", "GDAL_HTTP_LOW_SPEED_LIMIT": "1"}
_RETRIES |= {"GDAL_HTTP_LOW_SPEED_TIME": f"{SILENCE_SECONDS:.0f}"}
# No listing of the folder; so many bytes hold the index of most files.
_REMOTE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_INGESTED_BYTES_AT_OPEN": "32768", **_RETRIES}
# JPEG 2000 states its nodata value in a file beside it alone (.aux.xml), which is asked for by its name.
_BESIDE = {"GDAL_DISABLE_READDIR_ON_OPEN": "TRUE"}


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
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES, **_RETRIES):
        yield


@dataclass(frozen=True)
class GdalPath:
    """What GDAL calls a file, and what messages call it.

    Attributes:
        path: a path, or one of GDAL's own (``/vsicurl/https://...``); may hold secrets.
        label: the path, or the URL without secrets.
    """

    path: str = field(repr=False)
    label: str


def gdal_path(place: object) -> GdalPath:
    """Return what GDAL calls a path or URL.

    Raises:
        InputError: a URL of a kind that GDAL does not read in parts.
    """
    text = str(getattr(place, "url", place))
    if not is_url(text):
        return GdalPath(text, text)
    scheme, _, rest = text.partition("://")
    prefix = _PREFIXES.get(scheme.lower())
    if prefix is None or not rest:
        known = ", ".join(f"{name}://" for name in _PREFIXES)
        raise InputError(f"{shown(text)}: a scene is read in parts from {known}; copy it to this machine")
    return GdalPath(prefix + (text if prefix == "/vsicurl/" else rest), shown(text))


@contextlib.contextmanager
def opened(place: object, driver: str = "GTiff") -> Iterator[Any]:
    """Open a raster with rasterio.

    Args:
        place: path or URL.
        driver: the driver of GDAL that opens it.

    Raises:
        InputError: the package is missing, or the file is no such raster or damaged.
    """
    found = gdal_path(place)
    rasterio = require("rasterio", "geo", f"reading the scene {found.label} needs rasterio", InputError)
    beside = {} if driver == "GTiff" else _BESIDE
    options = {**_REMOTE, **beside, **_store(found.path)} if found.path.startswith("/vsi") else {}
    # Left before anything is yielded: generators end in any order, and GDAL's settings are a stack.
    with rasterio.Env(**options), quiet():
        try:
            dataset = rasterio.open(found.path, driver=driver)
        except Exception as error:  # of rasterio, or of GDAL where rasterio lets it through
            what = {"GTiff": "TIFF", "VRT": "VRT"}.get(driver, "JPEG 2000")
            raise InputError(
                f"cannot read the scene {found.label} ({reason(error, str(place))}): it is no {what}, or damaged"
            ) from None
    with dataset:
        yield dataset


def _store(path: str) -> dict[str, str]:
    """Return GDAL's settings for another S3 store than Amazon's, as boto3 and s3fs find it in the environment."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    place = urlsplit(url)
    if not path.startswith(_PREFIXES["s3"]) or not place.netloc or "AWS_S3_ENDPOINT" in os.environ:
        return {}
    secure = "NO" if place.scheme == "http" else "YES"
    endpoint = place.netloc + place.path.rstrip("/")
    return {"AWS_S3_ENDPOINT": endpoint, "AWS_HTTPS": secure, "AWS_VIRTUAL_HOSTING": "FALSE"}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep rasterio from warning of pictures without coordinates."""
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def read_window(dataset: Any, label: str, start: int, stop: int, bands: Any, masks: bool = False) -> Any:
    """Return rows ``start`` to ``stop`` of some bands as (bands, rows, width), or of one as (rows, width).

    Args:
        dataset: an open raster.
        label: what messages call it.
        start: the first row.
        stop: the row behind the last one.
        bands: numbers from 1, or one of them.
        masks: read the bands' masks instead: uint8, 0 where there is no data.

    Raises:
        InputError: the file is damaged there.
    """
    from rasterio.windows import Window

    window = Window(0, start, dataset.width, stop - start)
    try:
        return dataset.read_masks(bands, window=window) if masks else dataset.read(bands, window=window)
    except Exception as error:  # of rasterio, or of GDAL where rasterio lets it through
        what = "the mask of rows" if masks else "rows"
        raise InputError(
            f"cannot read {what} {start} to {stop - 1} of {label} ({reason(error, label)}): "
            "it is damaged, copy it again"
        ) from None


def georeference_of(dataset: Any) -> Georeference | None:
    """Return where a picture lies, or None where its file does not say."""
    points, points_crs = dataset.gcps
    transform = None if dataset.transform.is_identity else dataset.transform
    if dataset.crs is None and transform is None and not points:
        return None
    return Georeference(dataset.crs, transform, (list(points), points_crs))


def reason(error: BaseException, place: str) -> str:
    """Return the reason GDAL gives, which is the cause of what rasterio raises, without secrets of a URL."""
    return scrubbed(first_line(error.__cause__ or error), place)
