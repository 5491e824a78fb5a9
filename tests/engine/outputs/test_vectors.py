"""Polygons of masks, read back with geopandas; their areas are the pixels' areas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import OutputError
from engine.outputs.vector_files import Layer
from engine.outputs.vectors import VectorFile, area_unit, check_vectors
from engine.sources.georeference import Georeference
from engine.sources.scene import Scene
from tests.conftest import Result
from tests.engine.sources.test_georeference import MARS, noise, write_tiff
from tests.helpers.world import World

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
geopandas = pytest.importorskip("geopandas")
shapely = pytest.importorskip("shapely")
Engine = Callable[..., Result]
CRS = rasterio.crs.CRS
UTM = Georeference(CRS.from_epsg(32633), rasterio.transform.from_origin(500000, 5000000, 10, 5))
NAMES = ("background", "soil", "bedrock", "sand", "big rock")
FORMS = (".gpkg", ".parquet", ".geojson")
SIZE = (70, 90)


@pytest.fixture
def labels() -> np.ndarray:
    """Patches of five classes, a ring with a hole, and pixels that touch at corners only."""
    found = np.kron(np.random.default_rng(3).integers(0, 5, (7, 9)), np.ones((10, 10), int)).astype("u1")
    found[20:50, 20:50] = 1
    found[30:40, 30:40] = 2
    found[60:70, 60:70] = np.indices((10, 10)).sum(0) % 2 + 3
    found[:, 80:] = 255
    return found


def save(path: Path, labels: np.ndarray, place: Georeference | None, **how: Any) -> Path:
    height, width = labels.shape
    scene = Scene(
        "s", (height, width), 1, lambda start, stop: labels[start:stop, :, None], georeference=place,
        valid=lambda start, stop: labels[start:stop] != 255,
    )  # fmt: skip
    with VectorFile(path, Layer(NAMES, **{"left_out": frozenset({0}), **how})) as writer:
        writer.begin(scene)
        for start in range(0, height, 7):
            writer.write_rows(labels[start : start + 7])
        writer.end()
    return path


def read(path: Path) -> Any:
    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


@pytest.mark.parametrize("form", FORMS)
def test_areas_and_classes_are_those_of_the_mask(form: str, labels: np.ndarray, tmp_path: Path) -> None:
    found = read(save(tmp_path / f"m{form}", labels, UTM))
    assert found.crs.to_epsg() == 32633
    assert list(found.columns) == ["class_id", "class", "area", "unit", "geometry"]
    assert set(found["unit"]) == {"m2"} and found.geometry.is_valid.all()
    np.testing.assert_allclose(found.geometry.area, found["area"])
    for index, name in enumerate(NAMES):
        mine = found[found["class_id"] == index]
        assert set(mine["class"]) <= {name}
        assert mine["area"].sum() == pytest.approx(0 if index == 0 else 50 * (labels == index).sum())
        # Drawn back, they are the pixels.
        if len(mine):
            drawn = rasterio.features.rasterize(mine.geometry, SIZE, transform=UTM.transform)
            np.testing.assert_array_equal(drawn == 1, labels == index)
    assert all(shape.exterior.is_ccw and not any(hole.is_ccw for hole in shape.interiors) for shape in found.geometry)
    assert any(shape.interiors for shape in found.geometry)
    # Corners do not join: connectivity 4.
    assert (found["area"] == 50).sum() >= 90


@pytest.mark.parametrize("form", FORMS)
def test_the_same_mask_is_the_same_file_and_small_polygons_are_left_out(
    form: str, labels: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (save(tmp_path / f"{name}{form}", labels, UTM) for name in "ab")
    assert first.read_bytes() == second.read_bytes().replace(b"b" + form.encode(), b"a" + form.encode())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{form}", f"b{form}"]
    whole, large = read(first), read(save(tmp_path / f"c{form}", labels, UTM, min_area=51, left_out=frozenset({0, 2})))
    kept = whole[(whole["area"] >= 51) & (whole["class_id"] != 2)]
    assert sorted(large["area"]) == sorted(kept["area"])
    assert "without polygons: background, bedrock, and no data" in capsys.readouterr().err
    empty = read(save(tmp_path / f"d{form}", np.zeros((9, 9), "u1"), UTM))
    assert len(empty) == 0


def test_units_and_places(labels: np.ndarray, tmp_path: Path) -> None:
    degrees = Georeference(CRS.from_epsg(4326), rasterio.transform.from_origin(10, 50, 0.01, 0.01))
    found = read(save(tmp_path / "d.gpkg", labels, degrees))
    assert set(found["unit"]) == {"square degrees"}
    assert found["area"].sum() == pytest.approx(1e-4 * np.isin(labels, (1, 2, 3, 4)).sum())
    plain = read(save(tmp_path / "p.parquet", labels, None))
    assert plain.crs is None and set(plain["unit"]) == {"pixels"}
    assert plain["area"].sum() == np.isin(labels, (1, 2, 3, 4)).sum()
    mars = Georeference(CRS.from_wkt(MARS), UTM.transform)
    for form in (".gpkg", ".parquet"):
        assert "Mars" in read(save(tmp_path / f"m{form}", labels, mars)).crs.to_wkt()
    with pytest.raises(OutputError, match=r"names a coordinate reference system by its code.*write \.gpkg"):
        save(tmp_path / "m.geojson", labels, mars)
    feet = Georeference(CRS.from_epsg(2263), UTM.transform)
    assert (
        area_unit(feet) == "square US survey foot" and area_unit(Georeference(None, UTM.transform)) == "squared units"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.gpkg", "m.gpkg", "m.parquet", "p.parquet"]


def test_a_run_writes_polygons_of_what_it_would_have_masked(world: World, tmp_path: Path, engine: Engine) -> None:
    pixels = noise(1, 60, 80)
    pixels[0][:, :20] = 250
    place = {"crs": UTM.crs, "transform": UTM.transform}
    source = write_tiff(tmp_path / "scene.tif", pixels, nodata=250, **place)
    members = "".join(f'[[members]]\nmodel = "{path}"\n' for path in sorted(world.models.iterdir()))
    (tmp_path / "plan.toml").write_text(f"[output]\nmin_area = 100\n\n{members}", "utf-8")
    for goal in ("m.tif", "m.gpkg"):
        given = ("--plan", tmp_path / "plan.toml", "-i", source, "-o", tmp_path / goal, "--tile", "32x32")
        done = engine("ensemble", *given)
        assert done.code == 0, done.err
    assert "smaller than min_area = 100 m2 were left out" in done.err
    found = read(tmp_path / "m.gpkg")
    with rasterio.open(tmp_path / "m.tif") as mask:
        labels = mask.read(1)
    pieces = rasterio.features.shapes(labels.astype("i4"), connectivity=4)  # in pixels, of 50 m2
    areas = [50 * shapely.geometry.shape(geometry).area for geometry, value in pieces if value not in (0, 250)]
    assert sorted(found["area"]) == pytest.approx(sorted(area for area in areas if area >= 100))
    record = json.loads((tmp_path / "m.gpkg.json").read_text())
    assert record["output"] == {"min_area": 100}
    again = engine("ensemble", *given, "--resume")
    assert again.code == 0, again.err


def test_missing_packages_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, goal, extra in (
        ("shapely", "m.gpkg", "geo"), ("pyogrio", "m.geojson", "geo"), ("pyarrow", "m.parquet", "parquet")
    ):  # fmt: skip
        check_vectors(tmp_path / goal)
        with monkeypatch.context() as without, pytest.raises(OutputError, match=rf"needs {package}: .*\[{extra}\]"):
            without.setitem(sys.modules, package, None)
            check_vectors(tmp_path / goal)
