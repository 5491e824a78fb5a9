"""Probabilities and maps of doubt of one scene, written some rows at a time: .npy, .npz, .zarr and .tif."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.arrays import write_header
from engine.outputs.row_files import TIFF_BLOCK, RowFile
from engine.outputs.sidecar import record_text
from engine.outputs.zarr_store import chunk_sides
from engine.sources.georeference import Georeference, quiet
from engine.sources.record import NPZ_KEY
from engine.utils.optional import require

if TYPE_CHECKING:
    from engine.outputs.maps import Maps

# What is gathered before it is written, in bytes.
BLOCK_BYTES = 1 << 22


class MapRows(RowFile):
    """Maps of one scene on their way to disk: takes (rows, maps, width) values.

    Attributes:
        record: plain JSON values about the run, for forms that hold them; None for none.
    """

    record: Mapping[str, Any] | None = None

    def __init__(self, path: Path, size: tuple[int, int], maps: Maps, georeference: Georeference | None = None) -> None:
        """Open the file.

        Args:
            path: file or folder to make.
            size: (height, width) of the scene.
            maps: what it holds.
            georeference: where the scene lies; forms that cannot say it leave it out.

        Raises:
            OSError: the system refuses.
        """
        self.maps = maps
        super().__init__(path, size, len(maps.names), georeference)

    def _open(self, georeference: Georeference | None) -> None:
        row = len(self.maps.names) * self._size[1] * np.dtype(self.maps.kind).itemsize
        self._block = max(1, BLOCK_BYTES // row)


class NpyMapRows(MapRows):
    """An array (maps, height, width), or (height, width) of doubt."""

    stream: IO[bytes]

    def _open(self, georeference: Georeference | None) -> None:
        super()._open(georeference)
        self.stream = self._path.open("wb")
        write_header(self.stream, self.maps.shape(self._size), self.maps.kind)
        self._start = self.stream.tell()

    def _put(self, start: int, labels: NDArray[Any]) -> None:
        height, width = self._size
        item = labels.dtype.itemsize
        for index in range(labels.shape[1]):
            self.stream.seek(self._start + (index * height + start) * width * item)
            self.stream.write(np.ascontiguousarray(labels[:, index]).data)

    def _finish(self) -> None:
        self.stream.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        self.stream.close()


class NpzMapRows(NpyMapRows):
    """The same, compressed at the end: an entry of an archive cannot be written at several places."""

    def _open(self, georeference: Georeference | None) -> None:
        self._target, self._path = self._path, self._path.with_name(f"{self._path.name}.rows")
        super()._open(georeference)

    def _finish(self) -> None:
        super()._finish()
        entries = {"classes" if self.maps.planes else "doubt_map": np.array(list(self.maps.names), dtype=np.str_)}
        if self.record is not None:
            entries[NPZ_KEY] = np.array(record_text(self.record))
        with zipfile.ZipFile(self._target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open(f"{self.maps.key}.npy", "w", force_zip64=True) as stream, self._path.open("rb") as held:
                shutil.copyfileobj(held, stream, BLOCK_BYTES)
            for name, array in entries.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)
        self._path.unlink()

    def abandon(self) -> None:
        """Remove what is not compressed."""
        super().abandon()
        self._path.unlink(missing_ok=True)


class ZarrMapRows(MapRows):
    """The same array in compressed chunks."""

    def _open(self, georeference: Georeference | None) -> None:
        zarr = require("zarr", "zarr", f"writing {self._path.name} needs zarr", OutputError)
        sides = chunk_sides(self._size)
        self._block = sides[0]
        shape = self.maps.shape(self._size)
        chunks = (1, *sides) if self.maps.planes else sides
        self._array = zarr.create_array(
            store=self._path,
            shape=shape,
            chunks=chunks,
            dtype=self.maps.kind,
            attributes=self.maps.record,
            config={"write_empty_chunks": True},
        )

    def _put(self, start: int, labels: NDArray[Any]) -> None:
        place = slice(start, start + len(labels))
        if self.maps.planes:
            self._array[:, place] = labels.swapaxes(0, 1)
        else:
            self._array[place] = labels[:, 0]

    def _finish(self) -> None: ...

    def abandon(self) -> None:
        """Do nothing: each chunk is a file of its own."""


class TiffMapRows(MapRows):
    """A GeoTIFF with one band per map, named by it; float16 as GDAL and tifffile read it (32-bit floats of 16 bits)."""

    def _open(self, georeference: Georeference | None) -> None:
        rasterio = require("rasterio", "geo", f"writing {self._path.name} needs rasterio", OutputError)
        height, width = self._size
        blocked = min(self._size) >= TIFF_BLOCK
        self._block = TIFF_BLOCK
        is_half = self.maps.kind == "float16"
        profile: dict[str, Any] = {"height": height, "width": width, "count": len(self.maps.names), "tiled": blocked}
        profile |= {"blockxsize": TIFF_BLOCK, "blockysize": TIFF_BLOCK} if blocked else {}
        profile |= {"dtype": "float32" if is_half else self.maps.kind, **({"nbits": 16} if is_half else {})}
        profile |= {"compress": "deflate", "zlevel": 1, "interleave": "band", "bigtiff": "if_safer"}
        profile["nodata"] = 255 if self.maps.kind == "uint8" else float("nan")
        place = georeference or Georeference()
        profile |= {key: value for key, value in (("crs", place.crs), ("transform", place.transform)) if value}
        with quiet():
            self._file = rasterio.open(self._path, "w", driver="GTiff", **profile)
        if place.points[0]:
            self._file.gcps = place.points
        for band, name in enumerate(self.maps.names, 1):
            self._file.set_band_description(band, name)
        if self.maps.kind == "uint8":
            self._file.scales = [1 / 254] * len(self.maps.names)

    def _put(self, start: int, labels: NDArray[Any]) -> None:
        from rasterio.windows import Window

        window = Window(0, start, self._size[1], len(labels))
        planes = labels.swapaxes(0, 1)
        self._file.write(planes.astype(np.float32) if planes.dtype == np.float16 else planes, window=window)

    def _finish(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        """Close the file; what is missing in it stays empty."""
        self._file.close()


MAP_ROW_FILES: dict[str, type[MapRows]] = {
    ".npy": NpyMapRows,
    ".npz": NpzMapRows,
    ".zarr": ZarrMapRows,
    ".tif": TiffMapRows,
    ".tiff": TiffMapRows,
}
