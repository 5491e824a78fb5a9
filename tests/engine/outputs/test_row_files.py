"""GeoTIFF masks: a Cloud Optimized GeoTIFF from one block up, whose overviews show no class that is not there."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from engine.outputs.row_files import TiffRows
from engine.sources.georeference import Georeference

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
PLACE = Georeference(rasterio.crs.CRS.from_epsg(32633), rasterio.transform.from_origin(500000, 5000000, 10, 10))


def save(path: Path, labels: np.ndarray, classes: int, nodata: int | None) -> Path:
    file = TiffRows(path, (labels.shape[0], labels.shape[1]), classes, PLACE, nodata)
    for start in range(0, len(labels), 100):
        file.write(labels[start : start + 100])
    file.close()
    file.abandon()
    return path


@pytest.mark.parametrize("nodata", [None, 255])
def test_overviews_hold_the_most_frequent_class_of_each_square(nodata: int | None, tmp_path: Path) -> None:
    """Classes 0 and 4 side by side would average to 2, which nowhere stands."""
    draw = np.random.default_rng(1)
    labels = np.kron(draw.choice([0, 4], (150, 200)), np.ones((4, 4), int)).astype("u1")
    if nodata is not None:
        labels[:100] = nodata
    path = save(tmp_path / "m.tif", labels, 5, nodata)
    with rasterio.open(path) as mask:
        np.testing.assert_array_equal(mask.read(1), labels)
        assert (mask.nodata, mask.crs, mask.transform) == (nodata, PLACE.crs, PLACE.transform)
        assert mask.overviews(1) == [2, 4] and mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert mask.block_shapes == [(256, 256)]
    for level in (0, 1):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path, overview_level=level) as small:
                found = small.read(1)
        assert set(np.unique(found)) <= {0, 4, nodata}
        # Squares of 4x4 are of one class: each overview repeats it.
        np.testing.assert_array_equal(found, labels[:: 2 << level, :: 2 << level])
    assert [path.name for path in tmp_path.iterdir()] == ["m.tif"]


def test_the_same_mask_is_the_same_file_and_a_small_one_has_no_overviews(tmp_path: Path) -> None:
    labels = np.random.default_rng(1).integers(0, 5, (300, 310)).astype("u1")
    first, second = (save(tmp_path / f"{name}.tif", labels, 5, 255).read_bytes() for name in "ab")
    assert first == second
    small = save(tmp_path / "s.tif", labels[:256, :256], 5, None)
    with rasterio.open(small) as mask:
        assert mask.overviews(1) == []
    assert struct.unpack("<H", small.read_bytes()[2:4]) == (42,)  # a classic TIFF
