"""Truth of another place is refused with both named; --align warps it; rasterio.warp is the judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import InputError
from engine.sources.places import aligned, check_same_places, same_place
from engine.sources.scenes import open_scenes
from engine.sources.strips import Strips
from tests.conftest import Result
from tests.engine.sources.test_georeference import noise, write_tiff
from tests.helpers.world import World

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
warp = pytest.importorskip("rasterio.warp")
Engine = Callable[..., Result]
UTM = rasterio.crs.CRS.from_epsg(32633)
HERE = rasterio.transform.from_origin(500000, 5000000, 10, 10)
SIZE = (64, 96)


def write(path: Path, labels: np.ndarray, **how: Any) -> Path:
    return write_tiff(path, labels[None], **{"crs": UTM, "transform": HERE, **how})


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write(tmp_path / "scene.tif", noise(*SIZE))


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 5, SIZE).astype("u1")


def tile(engine: Engine, world: World, scene: Path, *more: object) -> Result:
    goal = scene.with_name("mask.tif")
    return engine("ensemble", "-m", world.models, "-i", scene, "-o", goal, "--tile", "32x32", "--overwrite", *more)


ELSEWHERE = {
    "corner": {"transform": rasterio.transform.from_origin(800000, 5000000, 10, 10)},
    "pixels": {"transform": rasterio.transform.from_origin(500000, 5000000, 20, 20)},
    "crs": {"crs": rasterio.crs.CRS.from_epsg(32634)},
}


@pytest.mark.parametrize("other", ELSEWHERE)
def test_truth_of_another_place_is_refused_by_every_command(
    other: str, world: World, scene: Path, truth: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    there = write(tmp_path / "truth.tif", truth, **ELSEWHERE[other])
    done = tile(engine, world, scene, "--labels", there)
    assert done.code == 2
    for words in ("EPSG:32633, upper left corner 500000 5000000, pixels of 10 x -10", "--align", str(there)):
        assert words in done.err
    assert sum(line.startswith("error") for line in done.err.splitlines()) == 1
    assert tile(engine, world, scene).code == 0
    done = engine("evaluate", scene.with_name("mask.tif"), "--labels", there)
    assert (done.code, "upper left corner 500000 5000000" in done.err) == (2, True), done.err
    for folder, file in (("in", scene), ("truth", there)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tif").write_bytes(file.read_bytes())
    for command in ("ensemble", "compare"):
        given = ("-m", world.models, "-i", tmp_path / "in", "--labels", tmp_path / "truth")
        out = ("-o", tmp_path / "masks") if command == "ensemble" else ("--out", tmp_path / "run.npz")
        done = engine(command, *given, *out)
        assert (done.code, "upper left corner 500000 5000000" in done.err) == (2, True), done.err


def test_rounded_coordinates_and_truth_without_any_are_taken(
    world: World, scene: Path, truth: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    near = rasterio.transform.from_origin(500000.0001, 5000000, 10, 10.0000001)
    assert tile(engine, world, scene, "--labels", write(tmp_path / "near.tif", truth, transform=near)).code == 0
    plain = write(tmp_path / "plain.tif", truth, crs=None, transform=None)
    assert tile(engine, world, scene, "--labels", plain).code == 0
    check_same_places(str(scene), str(plain))
    check_same_places(str(scene), str(tmp_path / "none.tif"))
    (found,) = open_scenes(scene).places
    assert found is not None and same_place(found, found, SIZE)


WARPED = {
    "shifted": {"transform": rasterio.transform.from_origin(499905, 5000123, 10, 10)},
    "coarse": {"transform": rasterio.transform.from_origin(500100, 4999900, 30, 25)},
    "another zone": {
        "crs": rasterio.crs.CRS.from_epsg(4326),
        "transform": rasterio.transform.from_origin(14.999, 45.155, 0.0001, 0.0001),
    },
}


@pytest.mark.parametrize("how", WARPED)
def test_align_warps_as_rasterio_does(
    how: str, world: World, scene: Path, truth: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    there = write(tmp_path / "truth.tif", truth, **WARPED[how])
    expected = np.full(SIZE, 255, "u1")
    with rasterio.open(there) as dataset:
        stored, crs, transform = dataset.read(1), dataset.crs, dataset.transform
    warp.reproject(
        stored, expected, src_crs=crs, src_transform=transform, dst_transform=HERE, dst_crs=UTM, dst_nodata=255,
        init_dest_nodata=True, resampling=warp.Resampling.nearest, tolerance=1e-9,
    )  # fmt: skip
    assert 0 < (expected == 255).sum() < expected.size
    scenes = open_scenes(scene)
    for found in aligned(open_scenes(there, "labels"), scenes).each():
        strips = Strips(found)
        rows, valid = zip(*(strips.read_valid(np.arange(start, start + 8)) for start in range(0, 64, 8)), strict=True)
        np.testing.assert_array_equal(np.concatenate(valid), expected != 255)
        np.testing.assert_array_equal(np.concatenate(rows)[..., 0], expected)
    done = tile(engine, world, scene, "--labels", there, "--align", "--no-suppress", "--json")
    assert done.code == 0, done.err
    with rasterio.open(scene.with_name("mask.tif")) as mask:
        labels = mask.read(1)
    inside = expected != 255
    hit = np.bincount(labels[inside & (labels == expected)], minlength=5)
    own = next(row for row in json.loads(done.out)["scores"] if row["own"])
    pairs = np.bincount(labels[inside], minlength=5) + np.bincount(expected[inside], minlength=5) - hit
    assert own["miou"]["all"] == pytest.approx(float(np.mean((hit / pairs)[pairs > 0])), abs=1e-6)


def test_align_without_overlap_or_coordinates_is_one_line(
    world: World, scene: Path, truth: np.ndarray, tmp_path: Path, engine: Engine
) -> None:
    far = write(tmp_path / "far.tif", truth, **ELSEWHERE["corner"])
    done = tile(engine, world, scene, "--labels", far, "--align")
    assert (done.code, "shows nothing of the scene" in done.err) == (2, True), done.err
    plain = write(tmp_path / "plain.tif", truth, crs=None, transform=None)
    done = tile(engine, world, scene, "--labels", plain, "--align")
    assert (done.code, "has no coordinates" in done.err) == (2, True), done.err
    assert "--align without --labels" in tile(engine, world, scene, "--align").err
    np.save(tmp_path / "truth.npy", truth)
    done = tile(engine, world, scene, "--labels", tmp_path / "truth.npy", "--align")
    assert (done.code, "GeoTIFFs are needed" in done.err) == (2, True), done.err
    untiled = engine("ensemble", "-m", world.models, "-i", scene, "--align")
    assert (untiled.code, "--align without --tile" in untiled.err) == (2, True)
    with pytest.raises(InputError, match="no coordinates: leave out --align"):
        aligned(open_scenes(far, "labels"), open_scenes(plain))


def test_a_folder_of_geotiffs_keeps_its_place_without_tiles(
    world: World, scene: Path, tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "in").mkdir()
    places = {name: rasterio.transform.from_origin(west, 50, 2, 3) for name, west in (("a", 0), ("b", 700))}
    for name, place in places.items():
        write(tmp_path / "in" / f"{name}.tif", noise(*SIZE), transform=place)
    write(tmp_path / "in" / "c.tif", noise(*SIZE), transform=None, crs=None)
    done = engine("ensemble", "-m", world.models, "-i", tmp_path / "in", "-o", tmp_path / "masks")
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["a.tif", "b.tif", "c.png"]
    np.savez(tmp_path / "in.npz", images=np.stack([noise(*SIZE)] * 3))
    engine("ensemble", "-m", world.models, "-i", tmp_path / "in.npz", "-o", tmp_path / "masks.npy")
    expected = np.load(tmp_path / "masks.npy")
    for index, (name, place) in enumerate(places.items()):
        with rasterio.open(tmp_path / "masks" / f"{name}.tif") as mask:
            assert (mask.crs, mask.transform) == (UTM, place)
            np.testing.assert_array_equal(mask.read(1), expected[index])
    write(tmp_path / "in" / "a.tif", noise(*SIZE), nodata=7)
    done = engine("ensemble", "-m", world.models, "-i", tmp_path / "in", "-o", tmp_path / "masks", "--overwrite")
    assert "states a nodata value (7); without --tile" in done.err
