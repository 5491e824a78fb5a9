"""GeoTIFF scenes: read in windows, and the mask lies where the scene lay; rasterio is the judge."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.errors import InputError, OutputError
from engine.outputs.open import check_output
from engine.sources.reading import Reading
from engine.sources.scenes import open_scenes
from engine.utils.palette import colours
from tests.conftest import Result
from tests.helpers.world import World

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
Engine = Callable[..., Result]

# Mars as a sphere (IAU), metres.
MARS = (
    'PROJCS["Mars",GEOGCS["Mars 2000",DATUM["D_Mars",SPHEROID["Mars",3396190,0]],PRIMEM["0",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",180],UNIT["metre",1]]'
)
PLACE = rasterio.Affine(0.25, 0.0, 137.4, 0.0, -0.25, -4.6)


def write_tiff(path: Path, bands: np.ndarray, **profile: Any) -> Path:
    """Write (bands, height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    given = {"crs": rasterio.crs.CRS.from_wkt(MARS), "transform": PLACE, **profile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(
            path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
            dtype=bands.dtype, **{key: value for key, value in given.items() if value is not None},
        ) as dataset:  # fmt: skip
            dataset.write(bands)
    return path


def noise(*shape: int, kind: str = "u1") -> np.ndarray:
    return np.random.default_rng(5).integers(0, 200, shape).astype(kind)


def tile(engine: Engine, world: World, source: Path, goal: object, *more: object) -> Result:
    return engine("ensemble", "-m", world.models, "-i", source, "-o", goal, "--tile", "32x32", *more)


@pytest.mark.parametrize("size", [(40, 60), (300, 520)])
def test_the_mask_lies_where_the_scene_lay(size: tuple[int, int], world: World, tmp_path: Path, engine: Engine) -> None:
    source = write_tiff(tmp_path / "scene.tif", noise(1, *size), compress="deflate", tiled=False)
    done = tile(engine, world, source, tmp_path / "mask.tif", "--overlap", 0.25)
    assert done.code == 0, done.err
    assert "Warning" not in done.err
    with rasterio.open(source) as before, rasterio.open(tmp_path / "mask.tif") as after:
        assert after.crs == before.crs and after.crs.to_wkt() == before.crs.to_wkt()
        assert after.transform == before.transform == PLACE
        assert (after.shape, after.count, after.dtypes) == (size, 1, ("uint8",))
        assert [after.colormap(1)[index][:3] for index in range(5)] == colours(5)
        assert after.profile["compress"] == "deflate"
        labels = after.read(1)
    assert set(np.unique(labels)) <= {1, 2, 3, 4}
    tile(engine, world, source, tmp_path / "mask.npy", "--overlap", 0.25)
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), labels)
    evaluated = engine("evaluate", tmp_path / "mask.tif", "--labels", tmp_path / "mask.tif", "--json")
    assert evaluated.code == 0 and '"labelled": 1.0' in evaluated.out


def test_ground_control_points_are_kept(world: World, tmp_path: Path, engine: Engine) -> None:
    points = [rasterio.control.GroundControlPoint(r, c, c * 2.0, r * 3.0) for r, c in ((0, 0), (0, 39), (39, 0))]
    source = write_tiff(tmp_path / "scene.tif", noise(1, 40, 40), transform=None, crs=None)
    with rasterio.open(source, "r+") as dataset:
        dataset.gcps = (points, rasterio.crs.CRS.from_epsg(4326))
    assert tile(engine, world, source, tmp_path / "mask.tif").code == 0
    with rasterio.open(tmp_path / "mask.tif") as after:
        held, crs = after.gcps
    assert [(p.row, p.col, p.x, p.y) for p in held] == [(p.row, p.col, p.x, p.y) for p in points]
    assert crs == rasterio.crs.CRS.from_epsg(4326)


def test_a_folder_keeps_the_place_of_those_that_have_one(world: World, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "in").mkdir()
    write_tiff(tmp_path / "in" / "placed.tif", noise(1, 40, 60))
    write_tiff(tmp_path / "in" / "plain.tif", noise(1, 20, 30), crs=None, transform=None)
    Image.fromarray(noise(33, 35)).save(tmp_path / "in" / "picture.png")
    done = tile(engine, world, tmp_path / "in", tmp_path / "masks")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["picture.png", "placed.tif", "plain.png"]
    with rasterio.open(tmp_path / "masks" / "placed.tif") as after:
        assert after.transform == PLACE
    assert tile(engine, world, tmp_path / "in", tmp_path / "masks", "--overwrite").code == 0


@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("tiled", [False, True])
def test_windows_are_what_the_file_holds(kind: str, tiled: bool, tmp_path: Path) -> None:
    bands = noise(3, 70, 90, kind=kind)
    path = write_tiff(tmp_path / "x.tif", bands, tiled=tiled, **({"blockxsize": 32, "blockysize": 32} if tiled else {}))
    scenes = open_scenes(path)
    assert (scenes.size, scenes.channels, scenes.alone) == ((70, 90), 3, True)
    opened = scenes.each()
    scene = next(opened)
    got = np.concatenate([scene.rows(start, min(70, start + 9)) for start in range(0, 70, 9)])
    np.testing.assert_array_equal(got, bands.transpose(1, 2, 0))
    assert got.dtype == bands.dtype


def test_a_band_tagged_alpha_is_a_band_unless_stated_and_a_colour_table_becomes_colours(tmp_path: Path) -> None:
    bands = noise(4, 8, 9)
    bands[3, :2] = 0
    path = write_tiff(tmp_path / "rgba.tif", bands, photometric="rgb", alpha="yes")
    for scene in open_scenes(path).each():
        assert scene.valid is None
        np.testing.assert_array_equal(scene.rows(0, 8), bands.transpose(1, 2, 0))
    for scene in open_scenes(path, reading=Reading(alpha=True)).each():
        assert scene.valid is not None
        np.testing.assert_array_equal(scene.rows(0, 8), bands[:3].transpose(1, 2, 0))
        np.testing.assert_array_equal(scene.valid(0, 8), bands[3] != 0)
    with pytest.raises(InputError, match="has one band, so none of it is alpha"):
        open_scenes(write_tiff(tmp_path / "one.tif", noise(1, 8, 9)), reading=Reading(alpha=True))
    path = write_tiff(tmp_path / "p.tif", noise(1, 8, 9) % 4)
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {index: (index, 10 * index, 20 * index, 255) for index in range(256)} )  # fmt: skip
    index = noise(1, 8, 9)[0] % 4
    for scene in open_scenes(path).each():
        assert scene.channels == 3
        np.testing.assert_array_equal(scene.rows(0, 8), np.stack([index, 10 * index, 20 * index], axis=-1))
    for labels in open_scenes(path, "labels").each():
        np.testing.assert_array_equal(labels.rows(0, 8)[..., 0], index)


def test_damage_is_one_line_and_nothing_is_left(world: World, tmp_path: Path, engine: Engine) -> None:
    source = write_tiff(tmp_path / "scene.tif", noise(1, 200, 300), compress="deflate", blockysize=16)
    data = bytearray(source.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    source.write_bytes(data)
    done = tile(engine, world, source, tmp_path / "mask.tif")
    assert done.code == 2
    assert "it is damaged, copy it again" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]
    source.write_bytes(data[:100])
    assert "error: cannot read the scene" in tile(engine, world, source, tmp_path / "mask.tif").err


def test_pictures_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "c.tif", noise(1, 8, 9).astype(np.complex64))
    with pytest.raises(InputError, match="holds complex64; whole numbers or floats are needed"):
        open_scenes(path)
    with pytest.raises(InputError, match="has 3 channels; a label image"):
        open_scenes(write_tiff(tmp_path / "rgb.tif", noise(3, 8, 9)), "labels")


def test_a_missing_package_is_one_line(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tiff(tmp_path / "x.tif", noise(1, 8, 9))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(InputError, match=r"reading the scene .* needs rasterio: pip install 'maskfuse\[geo\]'"):
        open_scenes(path)


def test_missing_packages_are_told_before_anything_runs(
    tmp_path: Path, world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(noise(33, 35)).save(tmp_path / "in.png")
    for package, goal, extra in (("rasterio", "m.tif", "geo"), ("zarr", "m.zarr", "zarr")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            done = tile(engine, world, tmp_path / "in.png", tmp_path / goal)
        assert done.code == 2
        assert f"needs {package}: pip install 'maskfuse[{extra}]'" in done.err
    with monkeypatch.context() as without, pytest.raises(OutputError, match="needs zarr"):
        without.setitem(sys.modules, "zarr", None)
        check_output(tmp_path / "m.zarr", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]
