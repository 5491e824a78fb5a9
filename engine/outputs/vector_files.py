"""Polygons of a mask in files: GeoPackage, GeoJSON (through pyogrio) and GeoParquet (through pyarrow)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYER = "mask"
# GeoPackages hold the time of the last change: fixed, so that the same mask is the same file.
FIXED_TIME = "1970-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class Layer:
    """How polygons are made.

    Attributes:
        classes: names of all classes.
        left_out: classes without polygons.
        min_area: smaller polygons are left out, in squared units of the coordinate reference system.
    """

    classes: Sequence[str]
    left_out: frozenset[int]
    min_area: float = 0.0


@dataclass(frozen=True)
class Polygons:
    """Some polygons of a mask.

    Attributes:
        shapes: shapely polygons, exterior rings counter-clockwise.
        classes: int32 class numbers.
        areas: float64, in squared units of the coordinate reference system.
    """

    shapes: NDArray[Any]
    classes: NDArray[np.int32]
    areas: NDArray[np.float64]

    def fields(self, layer: Layer, unit: str) -> dict[str, NDArray[Any]]:
        """Return the columns beside the geometry."""
        names = np.array([layer.classes[index] for index in self.classes], object)
        units = np.array([unit] * len(names), object)
        return {"class_id": self.classes, "class": names, "area": self.areas, "unit": units}


def write_ogr(path: Path, parts: Iterator[Polygons], layer: Layer, unit: str, crs: Any) -> None:
    """Write a GeoPackage or GeoJSON."""
    import pyogrio
    import pyogrio.raw
    import shapely

    driver = {".gpkg": "GPKG", ".geojson": "GeoJSON"}[path.suffix]
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_TIME})
    try:
        for index, part in enumerate(_at_least_one(parts)):
            columns = part.fields(layer, unit)
            pyogrio.raw.write(
                path,
                shapely.to_wkb(part.shapes),
                list(columns.values()),
                list(columns),
                layer=LAYER,
                driver=driver,
                geometry_type="Polygon",
                crs=None if crs is None else crs.to_wkt(),
                append=index > 0,
            )
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def write_parquet(path: Path, parts: Iterator[Polygons], layer: Layer, unit: str, crs: Any) -> None:
    """Write GeoParquet 1.1 (https://geoparquet.org/releases/v1.1.0/): WKB, the reference system as PROJJSON."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    column = {"encoding": "WKB", "geometry_types": ["Polygon"], "orientation": "counterclockwise"}
    stated = {**column, "crs": None if crs is None else crs.to_dict(projjson=True)}
    about = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": stated}}
    kinds = [("class_id", pa.int32()), ("class", pa.string()), ("area", pa.float64()), ("unit", pa.string())]
    schema = pa.schema([*kinds, ("geometry", pa.binary())], metadata={"geo": json.dumps(about)})
    with pq.ParquetWriter(path, schema) as writer:
        for part in _at_least_one(parts):
            columns = [pa.array(column) for column in part.fields(layer, unit).values()]
            table = pa.table([*columns, pa.array(list(shapely.to_wkb(part.shapes)), pa.binary())], schema=schema)
            writer.write_table(table)


def _at_least_one(parts: Iterator[Polygons]) -> Iterator[Polygons]:
    """Yield the parts; one without polygons where there are none, so that the file has its columns."""
    first = next(parts, None)
    yield first if first is not None else Polygons(np.empty(0, object), np.empty(0, np.int32), np.empty(0))
    yield from parts


# What writes polygons, by the suffix of the file.
VECTOR_FORMS: dict[str, Callable[[Path, Iterator[Polygons], Layer, str, Any], None]] = {
    ".gpkg": write_ogr,
    ".geojson": write_ogr,
    ".parquet": write_parquet,
}
