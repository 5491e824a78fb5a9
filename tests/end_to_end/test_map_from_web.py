"""A small map from a web server to a mask and to polygons, cut off and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.runs.durable import scenes as durable_scenes
from tests.conftest import Result
from tests.engine.sources.test_georeference import noise, write_tiff
from tests.helpers.nets import save_member
from tests.helpers.range_server import serving
from tests.helpers.runs import Dying, content

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
geopandas = pytest.importorskip("geopandas")
Engine = Callable[..., Result]
SIZE = (300, 520)


def test_a_map_of_four_bands(tmp_path: Path, engine: Engine, dying: Dying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 8)
    dying.prefix = "maskfuse-tiles"
    for part in ("web", "whole", "cut", "models"):
        (tmp_path / part).mkdir()
    down, across = np.mgrid[: SIZE[0], : SIZE[1]]
    gone = across < 40 + down // 3
    pixels = np.where(gone, 0, 1 + noise(4, *SIZE, kind="u2") * 300).astype("u2")
    place = {"crs": "EPSG:32633", "transform": rasterio.transform.from_origin(500000, 5000000, 10, 5)}
    write_tiff(tmp_path / "web" / "map.tif", pixels, nodata=0, tiled=True, blockxsize=64, blockysize=64, **place)
    for seed in range(2):
        path = tmp_path / "models" / f"{seed}.onnx"
        save_member(path, seed, channels=4, promised={"scale": 1 / 65535, "ignored_class": None})
    with serving(tmp_path / "web") as (address, asked):
        run = ("ensemble", "-m", tmp_path / "models", "-i", f"{address}/map.tif", "--tile", "64x64", "--workers", 1)
        for goal in ("mask.tif", "mask.gpkg"):
            done = engine(*run, "-o", tmp_path / "whole" / goal, "--batch-size", 4)
            assert done.code == 0, done.err
            dying.at(60)
            assert engine(*run, "-o", tmp_path / "cut" / goal, "--batch-size", 4).code == 2
            dying.at(1 << 30)
            done = engine(*run, "-o", tmp_path / "cut" / goal, "--batch-size", 4, "--resume")
            assert done.code == 0 and "resuming after" in done.err, done.err
            assert content(tmp_path / "cut" / goal) == content(tmp_path / "whole" / goal)
    assert asked and all(part.startswith("bytes=") for part in asked)
    with rasterio.open(tmp_path / "whole" / "mask.tif") as mask:
        labels, nodata = mask.read(1), mask.nodata
        assert (mask.crs, mask.transform) == (place["crs"], place["transform"])
        assert mask.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and mask.overviews(1)
        smaller = [mask.read(1, out_shape=(SIZE[0] // by, SIZE[1] // by)) for by in mask.overviews(1)]
    np.testing.assert_array_equal(labels == nodata, gone)
    assert all(set(np.unique(held)) <= set(np.unique(labels)) for held in smaller)
    found = geopandas.read_file(tmp_path / "whole" / "mask.gpkg")
    sums = found.groupby("class_id")["area"].sum()
    classes = sorted(set(np.unique(labels).tolist()) - {0, nodata})
    assert len(classes) > 1 and sorted(sums.index) == classes
    for value in classes:
        assert sums[value] == 50 * (labels == value).sum()
        assert found[found["class_id"] == value].geometry.area.sum() == pytest.approx(sums[value])
