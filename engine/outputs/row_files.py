"""Masks of scenes, written some rows at a time: .png, .tif, .npy and .zarr."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.arrays import write_header
from engine.outputs.png import PngStream
from engine.outputs.zarr_store import chunk_sides, create
from engine.sources.georeference import Georeference, quiet
from engine.utils.console import first_line
from engine.utils.optional import require
from engine.utils.palette import colours

TIFF_BLOCK = 256
# Forms without blocks of their own are written some rows at a time.
STREAM_BYTES = 1 << 18


class RowFile(ABC):
    """One mask on its way to disk; rows are gathered until they fill the form's own blocks."""

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        classes: int,
        georeference: Georeference | None = None,
        nodata: int | None = None,
    ) -> None:
        """Open the file.

        Args:
            path: file or folder to make.
            size: (height, width) of the mask.
            classes: number of classes.
            georeference: where the scene lies; forms that cannot say it leave it out.
            nodata: the value of pixels without data; None where there are none.

        Raises:
            OSError: the system refuses.
        """
        self._path, self._size, self._classes, self._nodata = path, size, classes, nodata
        self._held = np.empty((0, size[1]), np.uint8)
        self._placed = 0
        self._block = max(1, STREAM_BYTES // size[1])
        self._open(georeference)

    def write(self, labels: NDArray[np.uint8]) -> None:
        """Append uint8 (rows, width) labels."""
        self._held = np.concatenate([self._held, labels]) if len(self._held) else labels
        whole = len(self._held) // self._block * self._block
        # Block by block: how many rows come at a time never shows in the file.
        for start in range(0, whole, self._block):
            self._put(self._placed, self._held[start : start + self._block])
            self._placed += self._block
        if whole:
            self._held = self._held[whole:].copy()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        if len(self._held):
            self._put(self._placed, self._held)
            self._held = self._held[:0]
        self._finish()

    @abstractmethod
    def _open(self, georeference: Georeference | None) -> None: ...

    @abstractmethod
    def _put(self, start: int, labels: NDArray[np.uint8]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the file without finishing it; may be called after :meth:`close` as well."""


class _StreamRows(RowFile):
    stream: IO[bytes]

    def _open(self, georeference: Georeference | None) -> None:
        self.stream = self._path.open("wb")

    def abandon(self) -> None:
        """Close the stream as it is."""
        self.stream.close()


class PngRows(_StreamRows):
    """A palette PNG."""

    def _open(self, georeference: Georeference | None) -> None:
        super()._open(georeference)
        # Every value of an indexed picture needs a colour: those from the last class up to nodata get one as well.
        colours_needed = self._classes if self._nodata is None else max(self._classes, self._nodata + 1)
        self._picture = PngStream(self.stream, self._size, colours_needed)

    def _put(self, start: int, labels: NDArray[np.uint8]) -> None:
        self._picture.write(labels)

    def _finish(self) -> None:
        self._picture.close()
        self.stream.close()


class NpyRows(_StreamRows):
    """A uint8 array (height, width)."""

    def _open(self, georeference: Georeference | None) -> None:
        super()._open(georeference)
        write_header(self.stream, self._size)

    def _put(self, start: int, labels: NDArray[np.uint8]) -> None:
        self.stream.write(np.ascontiguousarray(labels).data)

    def _finish(self) -> None:
        self.stream.close()


class ZarrRows(RowFile):
    """A uint8 Zarr array (height, width)."""

    def _open(self, georeference: Georeference | None) -> None:
        chunks = chunk_sides(self._size)
        self._block = chunks[0]
        stated = {} if self._nodata is None else {"nodata": self._nodata}
        self._array = create(self._path, self._size, chunks, self._classes, stated)

    def _put(self, start: int, labels: NDArray[np.uint8]) -> None:
        self._array[start : start + len(labels)] = labels

    def _finish(self) -> None: ...

    def abandon(self) -> None:
        """Do nothing: each chunk is a file of its own."""


class TiffRows(RowFile):
    """A GeoTIFF with a colour table, compressed, in blocks that are read alone; BigTIFF where it must be.

    A mask that is larger than a block in either direction becomes a Cloud Optimized GeoTIFF: its smaller copies
    (overviews) take the most frequent class of each square, so they show no class that the mask lacks there.
    """

    def _open(self, georeference: Georeference | None) -> None:
        rasterio = require("rasterio", "geo", f"writing {self._path.name} needs rasterio", OutputError)
        height, width = self._size
        # Blocks of a GeoTIFF are multiples of 16; a mask smaller than one is stored in strips.
        blocked = min(self._size) >= TIFF_BLOCK
        layout: dict[str, Any] = {"tiled": blocked}
        if blocked:
            layout |= {"blockxsize": TIFF_BLOCK, "blockysize": TIFF_BLOCK}
        self._block = TIFF_BLOCK
        place = georeference or Georeference()
        profile: dict[str, Any] = {"height": height, "width": width, "count": 1, "dtype": "uint8"}
        profile |= {"compress": "deflate", "bigtiff": "if_safer", "nodata": self._nodata, **layout}
        profile |= {key: value for key, value in (("crs", place.crs), ("transform", place.transform)) if value}
        # A COG is a copy: its overviews stand in front of the mask, and come of all of it.
        self._copied = max(self._size) > TIFF_BLOCK
        self._rows = self._path.with_name(f"{self._path.name}.rows") if self._copied else self._path
        with quiet():
            self._file = rasterio.open(self._rows, "w", driver="GTiff", **profile)
        if place.points[0]:
            self._file.gcps = place.points
        table = {index: (*colour, 255) for index, colour in enumerate(colours(self._classes))}
        self._file.write_colormap(1, table if self._nodata is None else table | {self._nodata: (0, 0, 0, 0)})

    def _put(self, start: int, labels: NDArray[np.uint8]) -> None:
        from rasterio.windows import Window

        self._file.write(labels, 1, window=Window(0, start, self._size[1], len(labels)))

    def _finish(self) -> None:
        self._file.close()
        if not self._copied:
            return
        from rasterio.errors import RasterioError
        from rasterio.shutil import copy

        # Stated, for the driver would average a mask without a colour table.
        resampling = {"overview_resampling": "mode", "resampling": "nearest", "warp_resampling": "nearest"}
        try:
            with quiet():
                copy(
                    self._rows,
                    self._path,
                    driver="COG",
                    compress="deflate",
                    blocksize=TIFF_BLOCK,
                    bigtiff="if_safer",
                    **resampling,
                )
        except RasterioError as error:
            raise OSError(first_line(error.__cause__ or error)) from None
        self._rows.unlink()

    def abandon(self) -> None:
        """Close the file; what is missing in it stays empty."""
        self._file.close()
        if self._copied:
            self._rows.unlink(missing_ok=True)


ROW_FILES: dict[str, type[RowFile]] = {
    ".png": PngRows,
    ".tif": TiffRows,
    ".tiff": TiffRows,
    ".npy": NpyRows,
    ".zarr": ZarrRows,
}
