"""The mask of a scene as polygons per class: GeoPackage, GeoParquet and GeoJSON.

The rows of the mask go to a temporary GeoTIFF, which GDAL turns into polygons row by row: memory grows with the
polygons and not with the pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.row_files import TIFF_BLOCK, RowFile
from engine.outputs.scenes import SceneWriter
from engine.outputs.vector_files import VECTOR_FORMS, Layer, Polygons
from engine.sources.georeference import Georeference, quiet
from engine.sources.scene import Scene, void_label
from engine.utils import console
from engine.utils.console import first_line
from engine.utils.files import temporary_name
from engine.utils.optional import require

# Polygons that are written together.
CHUNK = 4096


def check_vectors(output: Path) -> None:
    """Refuse an output for which a package is missing.

    Raises:
        OutputError: naming the package.
    """
    form = output.suffix.lower()
    for package in ("rasterio", "shapely", *(() if form == ".parquet" else ("pyogrio",))):
        require(package, "geo", f"writing {output} needs {package}", OutputError)
    if form == ".parquet":
        require("pyarrow", "parquet", f"writing {output} needs pyarrow", OutputError)


class VectorRows(RowFile):
    """A mask on its way to polygons: rows are gathered in a temporary GeoTIFF of two bands."""

    def __init__(self, path: Path, scene: Scene, layer: Layer, void: int | None) -> None:
        """Open the temporary file; arguments as of :class:`engine.outputs.row_files.RowFile`, and the layer."""
        self._layer, self._unit = layer, area_unit(scene.georeference)
        super().__init__(path, scene.size, len(layer.classes), scene.georeference, void)

    def _open(self, georeference: Georeference | None) -> None:
        import rasterio

        self._place = georeference or Georeference()
        if self._path.suffix == ".geojson":
            _check_named(self._place.crs)
        self._rows, self._block = self._path.with_name(f"{self._path.name}.rows"), TIFF_BLOCK
        profile = {"height": self._size[0], "width": self._size[1], "count": 2, "dtype": "uint8", "compress": "deflate"}
        with quiet():
            self._file = rasterio.open(self._rows, "w", driver="GTiff", bigtiff="if_safer", blockysize=16, **profile)

    def _put(self, start: int, labels: NDArray[np.uint8]) -> None:
        from rasterio.windows import Window

        left_out = [*self._layer.left_out, *(() if self._nodata is None else (self._nodata,))]
        kept = np.isin(labels, left_out, invert=True).astype(np.uint8)
        self._file.write(np.stack([labels, kept]), window=Window(0, start, self._size[1], len(labels)))

    def _finish(self) -> None:
        self._file.close()
        counted = _Counted()
        try:
            self._write(counted)
        except (RuntimeError, ValueError, OSError) as error:  # what GDAL and pyarrow raise where the disk refuses
            raise OSError(first_line(error.__cause__ or error)) from None
        self._rows.unlink()
        console.say(counted.told(self._layer, self._unit))

    def _write(self, counted: _Counted) -> None:
        import rasterio

        with quiet(), rasterio.open(self._rows) as rows:
            parts = counted.chunks(_polygons(rows), self._place.transform, self._layer.min_area)
            VECTOR_FORMS[self._path.suffix](self._path, parts, self._layer, self._unit, self._place.crs)

    def abandon(self) -> None:
        """Close and remove the temporary file."""
        self._file.close()
        self._rows.unlink(missing_ok=True)


@dataclass
class _Counted:
    """What became of a mask's polygons."""

    kept: int = 0
    dropped: int = 0
    area: float = 0.0

    def chunks(self, polygons: Iterator[tuple[Any, int]], transform: Any, min_area: float) -> Iterator[Polygons]:
        """Yield polygons, some thousand at a time, without those that are too small.

        Areas are counted in whole pixels: exact, whatever the coordinates.

        Args:
            polygons: shapely polygons in (column, row), and their classes.
            transform: from these to coordinates; None leaves them.
            min_area: of the smallest polygon that is kept.
        """
        import shapely

        pixel = 1.0 if transform is None else abs(transform.determinant)
        while held := list(islice(polygons, CHUNK)):
            shapes = np.empty(len(held), object)
            shapes[:] = [shape for shape, _ in held]
            areas, classes = pixel * shapely.area(shapes), np.array([value for _, value in held], np.int32)
            large = areas >= min_area
            self.kept, self.dropped = self.kept + int(large.sum()), self.dropped + int((~large).sum())
            self.area += float(areas[large].sum())
            placed = (
                shapes[large] if transform is None else shapely.transform(shapes[large], partial(_placed, transform))
            )
            yield Polygons(shapely.orient_polygons(placed), classes[large], areas[large])

    def told(self, layer: Layer, unit: str) -> str:
        """Say what was written and what was not."""
        names = ", ".join(layer.classes[index] for index in sorted(layer.left_out))
        text = f"{self.kept:,} polygons of {self.area:.10g} {unit} in all; without polygons: {names}, and no data"
        small = f"; {self.dropped:,} smaller than min_area = {layer.min_area:g} {unit} were left out"
        return text + (small if layer.min_area else "")


def _polygons(rows: Any) -> Iterator[tuple[Any, int]]:
    """Yield shapely polygons in (column, row), and their classes."""
    import rasterio
    import shapely
    from rasterio.features import shapes

    for geometry, value in shapes(rasterio.band(rows, 1), mask=rasterio.band(rows, 2), connectivity=4):
        exterior, *holes = geometry["coordinates"]
        yield shapely.Polygon(exterior, holes), int(value)


def _placed(transform: Any, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the coordinates of float64 (points, 2) columns and rows."""
    columns, rows = points.T
    x = transform.a * columns + transform.b * rows + transform.c
    y = transform.d * columns + transform.e * rows + transform.f
    return np.stack([x, y], axis=1)


def area_unit(place: Georeference | None) -> str:
    """Return the unit of areas: squared units of the coordinate reference system, or pixels without one."""
    if place is None or place.transform is None:
        return "pixels"
    if place.crs is None:
        return "squared units"
    if place.crs.is_geographic:
        return "square degrees"
    unit = str(place.crs.linear_units or "unit")
    return "m2" if unit.lower() in ("metre", "meter", "m") else f"square {unit}"


def _check_named(crs: Any) -> None:
    if crs is not None and crs.to_authority() is None:
        raise OutputError(
            "GeoJSON names a coordinate reference system by its code, and the scene's has none: write .gpkg or .parquet"
        )


class VectorFile(SceneWriter):
    """The mask of one scene as polygons."""

    def __init__(self, output: Path, layer: Layer, record: Mapping[str, Any] | None = None) -> None:
        """Remember what is to be written; arguments as of :class:`engine.outputs.scenes.SceneWriter`."""
        super().__init__(output, 1, len(layer.classes), record)
        self._layer = layer
        self.partial = temporary_name(output, suffix=output.suffix.lower())

    def _row_file(self, scene: Scene) -> RowFile:
        return VectorRows(self.partial, scene, self._layer, void_label(scene, self.classes))

    def _remove(self) -> None:
        for path in (self.partial, *self.partial.parent.glob(f"{self.partial.name}-*")):
            path.unlink(missing_ok=True)
