"""Probabilities and maps of doubt of image sets: arrays of all images, or a folder with a GeoTIFF each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutputError
from engine.outputs.arrays import NpyWriter, NpzWriter
from engine.outputs.base import FolderMixin, MaskWriter
from engine.outputs.map_rows import MAP_ROW_FILES, TiffMapRows
from engine.outputs.open import FOLDER, form_of
from engine.outputs.png import PngWriter, file_name
from engine.outputs.row_files import RowFile
from engine.outputs.scenes import SceneWriter
from engine.outputs.zarr_store import ZarrWriter, chunk_sides
from engine.sources.georeference import Georeference
from engine.sources.scene import Scene
from engine.utils.optional import require

MAP_FORMS = (".npy", ".npz", ".zarr", FOLDER)
MAP_FORMATS = ".npy, .npz, .zarr, or a folder (GeoTIFFs); .tif with --tile, for one scene"


@dataclass(frozen=True)
class Maps:
    """What maps hold.

    Attributes:
        key: ``scores`` or ``doubt``.
        kind: dtype.
        names: one per map of an image: the classes, or the name of the doubt.
        planes: whether an image has an axis of maps, one per name; otherwise it has one map.
    """

    key: str
    kind: str
    names: tuple[str, ...]
    planes: bool

    def shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Return the shape of what belongs to an image of (height, width)."""
        return (len(self.names), *size) if self.planes else size

    @property
    def record(self) -> dict[str, Any]:
        """Return it as plain JSON types."""
        scale = {"scale": 1 / 254, "no_data": 255} if self.kind == "uint8" else {}
        return {"maps": self.key, "dtype": self.kind, "names": list(self.names), **scale}


class _Described:
    """A writer of maps; mixed into a writer of masks."""

    maps: Maps

    def _more_entries(self) -> dict[str, NDArray[Any]]:
        return {"classes" if self.maps.planes else "doubt_map": np.array(list(self.maps.names), dtype=np.str_)}


class NpyMaps(_Described, NpyWriter):
    """One array (images, classes, height, width), or (images, height, width) of doubt."""


class NpzMaps(_Described, NpzWriter):
    """The same, compressed, with ``ids``, the names and ``metadata`` (JSON text)."""


class ZarrMaps(_Described, ZarrWriter):
    """The same in compressed chunks; ``ids`` and the names are its attributes."""

    def _created(self, ids: list[str]) -> Any:
        zarr = require("zarr", "zarr", f"writing {self.output.name} needs zarr", OutputError)
        *planes, height, width = self.size
        return zarr.create_array(
            store=self.partial,
            shape=(len(self.ids), *self.size),
            chunks=(self._block, *planes, *chunk_sides((height, width))),
            dtype=self.maps.kind,
            attributes={"ids": ids, **self.maps.record},
            config={"write_empty_chunks": True},
        )


class TiffMaps(_Described, PngWriter):
    """A folder with a GeoTIFF per image, one band per map, named as the input; encoded side by side.

    Attributes:
        places: where images lie, by id.
    """

    places: Mapping[str, Georeference] = {}

    def _encode(self, ids: Sequence[str], labels: NDArray[Any]) -> None:
        height, width = self.size[-2:]
        for name, values in zip(ids, labels, strict=True):
            path = self.partial / file_name(name, ".tif")
            path.parent.mkdir(parents=True, exist_ok=True)
            file = TiffMapRows(path, (height, width), self.maps, self.places.get(name))
            try:
                file.write(values.reshape(-1, height, width).swapaxes(0, 1))
                file.close()
            finally:
                file.abandon()


_WRITERS: dict[str, type[MaskWriter]] = {".npy": NpyMaps, ".npz": NpzMaps, ".zarr": ZarrMaps, FOLDER: TiffMaps}


def open_maps_writer(
    output: Path,
    ids: Sequence[str],
    size: tuple[int, int],
    maps: Maps,
    record: Mapping[str, Any] | None = None,
    places: Mapping[str, Georeference] | None = None,
) -> MaskWriter:
    """Choose the writer by the suffix of an output that was checked.

    Args:
        output: file or folder to make.
        ids: names of all images, in order.
        size: (height, width) of an image.
        maps: what is written.
        record: plain JSON values about the run; None for none.
        places: where images lie, by id, for a folder.
    """
    writer: Any = _WRITERS[form_of(output)](output, ids, maps.shape(size), len(maps.names), record)
    writer.maps, writer.kind, writer.key = maps, maps.kind, maps.key
    if places:
        writer.places = places
    return cast(MaskWriter, writer)


class _MapScenes(SceneWriter):
    """Writes maps of scenes row by row: takes (rows, maps, width) values."""

    maps: Maps

    def _rows_in(self, path: Path, suffix: str, scene: Scene) -> RowFile:
        file = MAP_ROW_FILES[suffix](path, scene.size, self.maps, scene.georeference)
        file.record = self.record
        return file


class OneMapFile(_MapScenes):
    """The maps of one scene in one file."""

    def _row_file(self, scene: Scene) -> RowFile:
        return self._rows_in(self.partial, self.output.suffix.lower(), scene)


class OneMapStore(FolderMixin, OneMapFile):
    """The maps of one scene as a .zarr folder."""


class MapFolder(FolderMixin, _MapScenes):
    """A folder with a GeoTIFF a scene, named as the input."""

    def _open(self) -> None:
        self.partial.mkdir()

    def _row_file(self, scene: Scene) -> RowFile:
        path = self.partial / file_name(scene.id, ".tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        return self._rows_in(path, ".tif", scene)


def open_map_scenes(output: Path, count: int, maps: Maps, record: Mapping[str, Any] | None = None) -> SceneWriter:
    """Choose the writer of maps of scenes by the suffix of an output that was checked; arguments as above."""
    form = form_of(output)
    kind = MapFolder if form == FOLDER else OneMapStore if form == ".zarr" else OneMapFile
    writer = kind(output, count, len(maps.names), record)
    writer.maps = maps
    return writer
