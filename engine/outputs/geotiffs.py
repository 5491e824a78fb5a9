"""A folder of masks that lie where their images lay: GeoTIFFs, and PNGs of images without coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.outputs.png import PngWriter, file_name
from engine.outputs.row_files import TiffRows
from engine.sources.georeference import Georeference


class GeoTiffWriter(PngWriter):
    """A folder with a mask per image, named as the input; encoded side by side.

    Attributes:
        places: where images lie, by id; the others become PNGs.
    """

    holds = "GeoTIFFs"
    places: Mapping[str, Georeference] = {}

    def _encode(self, ids: Sequence[str], labels: NDArray[np.uint8]) -> None:
        height, width = self.size
        for name, row in zip(ids, labels, strict=True):
            if name not in self.places:
                super()._encode([name], row[None])
                continue
            path = self.partial / file_name(name, ".tif")
            path.parent.mkdir(parents=True, exist_ok=True)
            file = TiffRows(path, (height, width), self.classes, self.places[name])
            try:
                file.write(row.reshape(self.size))
                file.close()
            finally:
                file.abandon()
