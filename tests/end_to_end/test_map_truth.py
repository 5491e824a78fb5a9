"""Maps with gaps, scored against truth with ids of its own; rasterio alone writes the scenes and reads the masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.sources.coding import LabelCoding
from engine.sources.label_scenes import coded_scenes, open_scene_labels
from engine.sources.places import aligned, check_places, check_same_places
from engine.sources.reading import Reading
from engine.sources.scenes import open_scenes
from tests.conftest import Result
from tests.engine.sources.test_georeference import noise, write_tiff
from tests.helpers.world import World

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
Engine = Callable[..., Result]
SIZE = (64, 96)
EDGE = 30
IDS = np.array([0, 7, 11, 40, 90], "u1")


def placed(path: Path, pixels: np.ndarray, west: float = 0, nodata: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = rasterio.transform.from_origin(500000 + west, 5000000, 10, 10)
    return write_tiff(path, pixels, nodata=nodata, crs="EPSG:32633", transform=transform)


def planned(folder: Path, world: World, labels: str) -> Path:
    members = "".join(f'[[members]]\nmodel = "{path}"\n' for path in sorted(world.models.iterdir()))
    (folder / "plan.toml").write_text(f"{labels}\n{members}", "utf-8")
    return folder / "plan.toml"


def read(path: Path) -> tuple[np.ndarray, float | None]:
    with rasterio.open(path) as mask:
        return mask.read(1), mask.nodata


def predict(engine: Engine, plan: Path, source: Path, goal: Path, *more: object) -> Result:
    return engine("ensemble", "--plan", plan, "-i", source, "-o", goal, "--tile", "32x32", *more)


@pytest.mark.parametrize(("nodata", "void"), [(200, 200), (60, 255), (11, 255)])
def test_ids_of_masks_leave_pixels_without_data_alone(
    nodata: int, void: int, world: World, tmp_path: Path, engine: Engine
) -> None:
    """A nodata value that is one of the ids, or lies below the largest, is not used: readers would take it for one."""
    pixels = noise(1, *SIZE)
    pixels[pixels == nodata] += 1
    pixels[:, :, :EDGE] = nodata
    source = placed(tmp_path / "scene.tif", pixels, nodata=nodata)
    stated = f"[labels]\nids = {IDS.tolist()}\n"
    plain = predict(engine, planned(tmp_path, world, stated), source, tmp_path / "plain.tif")
    done = predict(engine, planned(tmp_path, world, stated + "output_ids = true\n"), source, tmp_path / "ids.tif")
    assert (plain.code, done.code) == (0, 0), plain.err + done.err
    labels, _ = read(tmp_path / "plain.tif")
    values, said = read(tmp_path / "ids.tif")
    assert said == void
    assert f"they have {void} in the mask" in done.err
    assert (values[:, :EDGE] == void).all()
    np.testing.assert_array_equal(values[:, EDGE:], IDS[labels[:, EDGE:]])


def test_polygons_have_the_ids_of_masks(world: World, tmp_path: Path, engine: Engine) -> None:
    geopandas = pytest.importorskip("geopandas")
    source = placed(tmp_path / "scene.tif", noise(1, *SIZE))
    plan = planned(tmp_path, world, f"[labels]\nids = {IDS.tolist()}\noutput_ids = true\n")
    for goal in ("mask.tif", "mask.gpkg"):
        done = predict(engine, plan, source, tmp_path / goal)
        assert done.code == 0, done.err
    values, _ = read(tmp_path / "mask.tif")
    found = geopandas.read_file(tmp_path / "mask.gpkg")
    record = json.loads((tmp_path / "mask.gpkg.json").read_text())
    names = dict(zip(IDS.tolist(), record["classes"], strict=True))
    assert set(found["class_id"]) == set(np.unique(values).tolist()) - {0, IDS[record["ignored_class"] or 0]}
    for value, rows in found.groupby("class_id"):
        assert rows["area"].sum() == 100 * (values == value).sum()
        assert set(rows["class"]) == {names[value]}


def stored(truth: Sequence[str], tmp_path: Path, scenes: Path) -> tuple[dict[str, np.ndarray], Path]:
    folder, held = tmp_path / "truth", {}
    for index, name in enumerate(truth):
        held[name] = IDS[np.random.default_rng(index).integers(0, 5, SIZE)]
        held[name][:8] = 99
        placed(scenes / f"{name}.tif", noise(1, *SIZE), west=2000 * index)
        placed(folder / f"{name}_mask.tif", held[name][None], west=2000 * index, nodata=99)
    return held, folder


def test_truth_in_another_order_keeps_its_place_and_its_gaps(tmp_path: Path) -> None:
    # "a_mask" comes behind "a-2_mask", and "a" in front of "a-2".
    held, folder = stored(["a", "a-2", "sub/a"], tmp_path, tmp_path / "scenes")
    scenes, coding = open_scenes(tmp_path / "scenes"), LabelCoding(ids=tuple(IDS.tolist()))
    assert [name + "_mask" for name in scenes.ids] != list(open_scenes(folder, "labels").ids)
    truths = open_scene_labels(str(folder), scenes, coding)
    assert list(truths.ids) == list(scenes.ids)
    assert [Path(file).stem for file in truths.files] == [Path(name).name + "_mask" for name in truths.ids]
    check_places(scenes, truths)
    check_same_places(str(tmp_path / "scenes"), str(folder))
    for found in (truths, aligned(truths, scenes, coding.ids)):
        seen = []
        for truth in coded_scenes(found, coding).each():
            expected = np.searchsorted(IDS, held[truth.id])
            expected[held[truth.id] == 99] = 255
            np.testing.assert_array_equal(truth.rows(0, SIZE[0])[..., 0], expected)
            seen.append(truth.id)
        assert seen == list(scenes.ids)


def test_255_may_be_a_class_of_truth_that_is_warped(tmp_path: Path) -> None:
    held = np.where(noise(1, *SIZE) % 2, 255, 0).astype("u1")
    scenes = open_scenes(placed(tmp_path / "scene.tif", noise(1, *SIZE), west=100))
    coding = LabelCoding(ids=(0, 255))
    truths = open_scene_labels(str(placed(tmp_path / "truth.tif", held)), scenes, coding)
    (rows,) = [scene.rows(0, SIZE[0]) for scene in coded_scenes(aligned(truths, scenes, coding.ids), coding).each()]
    np.testing.assert_array_equal(rows[:, :-10, 0], held[0, :, 10:] // 255)
    assert (rows[:, -10:] == 255).all()


def test_channels_are_made_alike_where_pixels_have_no_data(tmp_path: Path) -> None:
    pixels = noise(3, *SIZE) // 2
    pixels[:, :, :EDGE] = 250
    placed(tmp_path / "set" / "inner" / "one.tif", pixels, nodata=250)
    scenes = open_scenes(tmp_path / "set", reading=Reading(rgb_as_grey=True))
    assert (list(scenes.ids), scenes.channels) == (["inner/one"], 1)
    assert scenes.places[0] is not None
    for scene in scenes.each():
        assert scene.valid is not None
        np.testing.assert_array_equal(scene.valid(0, SIZE[0]), np.broadcast_to(np.arange(96) >= EDGE, SIZE))
        assert scene.rows(0, SIZE[0]).shape == (*SIZE, 1)


def test_masks_of_folders_inside_folders_keep_their_place(world: World, tmp_path: Path, engine: Engine) -> None:
    placed(tmp_path / "set" / "inner" / "one.tif", noise(1, *SIZE))
    placed(tmp_path / "set" / "two.tif", noise(1, *SIZE), west=500)
    for more in ((), ("--tile", "32x32")):
        goal = tmp_path / f"masks{len(more)}"
        done = engine("ensemble", "-m", world.models, "-i", tmp_path / "set", "-o", goal, *more)
        assert done.code == 0, done.err
        for name in ("inner/one.tif", "two.tif"):
            with rasterio.open(goal / name) as mask, rasterio.open(tmp_path / "set" / name) as scene:
                assert (mask.crs, mask.transform) == (scene.crs, scene.transform)
