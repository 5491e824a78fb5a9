"""Scenes with pixels without data, end to end; rasterio alone writes the scenes and reads the masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.inference.ensemble import Ensemble
from engine.runs.durable import scenes as durable_scenes
from tests.conftest import Result
from tests.engine.sources.test_georeference import PLACE, noise, write_tiff
from tests.helpers.nets import save_member
from tests.helpers.range_server import serving
from tests.helpers.runs import Dying, content
from tests.helpers.world import World

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
Engine = Callable[..., Result]
SIZE = (64, 96)
EDGE = 30


def ensemble(engine: Engine, models: Path, source: object, goal: object, *more: object) -> Result:
    return engine("ensemble", "-m", models, "-i", source, "-o", goal, "--tile", "32x32", *more)


def gapped(path: Path, kind: str, nodata: float | None, **how: Any) -> tuple[Path, np.ndarray]:
    """A scene whose left columns hold no data, stated in one of many ways; and its pixels."""
    pixels = noise(1, *SIZE, kind=kind) + np.array(1, kind)
    if nodata is not None:
        pixels[:, :, :EDGE] = nodata
    return write_tiff(path, pixels, nodata=nodata, **how), pixels[0]


def read(path: Path) -> tuple[np.ndarray, float | None]:
    with rasterio.open(path) as mask:
        return mask.read(1), mask.nodata


@pytest.mark.parametrize(
    ("kind", "nodata", "label"),
    [("f4", -9999, 255), ("u1", 0, 255), ("u1", 250, 250), ("f4", np.nan, 255), ("i2", -1, 255)],
)
def test_no_class_where_nothing_is_and_no_influence_beside_it(
    kind: str, nodata: float, label: int, world: World, tmp_path: Path, engine: Engine
) -> None:
    """The valid part alone, mirrored at its edge with np.pad as far as the nets see, gives the same labels."""
    source, pixels = gapped(tmp_path / "scene.tif", kind, nodata)
    done = ensemble(engine, world.models, source, tmp_path / "mask.tif")
    assert done.code == 0, done.err
    assert f"no data: {64 * EDGE:,} of {64 * 96:,} pixels; they have {label} in the mask" in done.err
    labels, stated = read(tmp_path / "mask.tif")
    assert stated == label
    assert (labels[:, :EDGE] == label).all()
    valid = pixels[:, EDGE:]
    mirrored = np.pad(valid, ((0, 0), (EDGE, 0)), mode="reflect")
    np.save(tmp_path / "mirrored.npy", mirrored)
    alone = ensemble(engine, world.models, tmp_path / "mirrored.npy", tmp_path / "alone.npy")
    assert alone.code == 0, alone.err
    assert (np.load(tmp_path / "alone.npy")[:, EDGE:] != labels[:, EDGE:]).sum() == 0


def test_an_internal_mask_and_alpha_on_request(world: World, tmp_path: Path, engine: Engine) -> None:
    pixels = noise(1, *SIZE)
    source = write_tiff(tmp_path / "masked.tif", pixels)
    gone = np.zeros(SIZE, bool)
    gone[20:50, 40:] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as dataset:
        dataset.write_mask(~gone)
    assert not source.with_name("masked.tif.msk").exists()
    assert ensemble(engine, world.models, source, tmp_path / "mask.tif").code == 0
    labels, stated = read(tmp_path / "mask.tif")
    np.testing.assert_array_equal(labels == 255, gone)
    assert stated == 255
    # A last band tagged alpha is a band; only the plan makes it alpha.
    alpha = write_tiff(tmp_path / "alpha.tif", np.stack([pixels[0], np.where(gone, 0, 200).astype("u1")]), alpha="yes")
    (tmp_path / "two").mkdir()
    save_member(tmp_path / "two" / "net.onnx", channels=2)
    done = ensemble(engine, tmp_path / "two", alpha, tmp_path / "two.tif")
    assert (done.code, "tagged as alpha and goes to the nets like the others" in done.err) == (0, True), done.err
    refused = ensemble(engine, world.models, alpha, tmp_path / "no.tif")
    assert (refused.code, "[input] alpha = true" in refused.err) == (2, True), refused.err
    assert (read(tmp_path / "two.tif")[0] < 5).all()
    members = "".join(f'[[members]]\nmodel = "{path}"\n' for path in sorted(world.models.iterdir()))
    (tmp_path / "plan.toml").write_text(f"[input]\nalpha = true\n\n{members}", "utf-8")
    done = engine(
        "ensemble", "--plan", tmp_path / "plan.toml", "-i", alpha, "-o", tmp_path / "one.tif", "--tile", "32x32"
    )
    assert done.code == 0, done.err
    np.testing.assert_array_equal(read(tmp_path / "one.tif")[0], labels)
    assert json.loads((tmp_path / "one.tif.json").read_text())["input"] == {"alpha": True}


def test_whole_numbers_that_pixels_have_too_count_in_all_bands_only(tmp_path: Path) -> None:
    from engine.sources.scenes import open_scenes

    bands = np.array([[[0, 0, 3]], [[0, 5, 6]]], "u1")
    for scene in open_scenes(write_tiff(tmp_path / "zero.tif", bands, nodata=0)).each():
        assert scene.valid is not None
        np.testing.assert_array_equal(scene.valid(0, 1), [[False, True, True]])
    for scene in open_scenes(write_tiff(tmp_path / "other.tif", np.where(bands == 0, 9, bands), nodata=9)).each():
        assert scene.valid is not None
        np.testing.assert_array_equal(scene.valid(0, 1), [[False, False, True]])
    for scene in open_scenes(write_tiff(tmp_path / "no.tif", bands, nodata=None)).each():
        assert scene.valid is None


def test_empty_tiles_never_reach_a_net(
    world: World, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.inference.tiles.blend import TiledRun

    source, _ = gapped(tmp_path / "scene.tif", "f4", -9999)
    with rasterio.open(source, "r+") as dataset:
        dataset.write(np.full((1, 32, 96), -9999, "f4"), window=rasterio.windows.Window(0, 0, 96, 32))
    seen = []
    work = TiledRun._work
    monkeypatch.setattr(TiledRun, "_work", lambda self, tiles: (seen.extend(tiles.batch.ids), work(self, tiles))[1])
    done = ensemble(engine, world.models, source, tmp_path / "mask.tif", "--overlap", 0)
    assert done.code == 0, done.err
    assert sorted(seen) == [f"scene (row 32, column {column})" for column in (0, 32, 64)]
    labels, _ = read(tmp_path / "mask.tif")
    np.testing.assert_array_equal(labels == 255, np.arange(96)[None] * np.ones((64, 1)) < EDGE * (np.arange(64) >= 32)[:, None] + 96 * (np.arange(64) < 32)[:, None])  # fmt: skip  # noqa: E501
    everything = write_tiff(tmp_path / "empty.tif", np.full((1, 40, 40), -1, "i2"), nodata=-1)
    done = ensemble(engine, world.models, everything, tmp_path / "none.tif")
    assert (done.code, "holds no data at any pixel" in done.err) == (2, True)


@pytest.mark.parametrize("more", [(), ("--min-region", 40), ("--strategy", "staple")])
def test_scores_leave_out_what_has_no_data_or_no_truth(
    more: tuple[object, ...], world: World, tmp_path: Path, engine: Engine
) -> None:
    """Confusion counted with NumPy over the pixels that have data and truth."""
    source, _ = gapped(tmp_path / "scene.tif", "u1", 250)
    truth = np.random.default_rng(4).integers(0, 5, SIZE).astype("u1")
    truth[50:] = 99  # no class: the tag makes it void
    write_tiff(tmp_path / "truth.tif", truth[None], nodata=99)
    given = ("--labels", tmp_path / "truth.tif", "--no-suppress", "--json", *more)
    done = ensemble(engine, world.models, source, tmp_path / "mask.tif", *given)
    assert done.code == 0, done.err
    labels, _ = read(tmp_path / "mask.tif")
    assert (labels[:, :EDGE] == 250).all() and (labels[:, EDGE:] < 5).all()
    counted = (labels != 250) & (truth != 99)
    expected = np.zeros((5, 5), int)
    np.add.at(expected, (truth[counted], labels[counted]), 1)
    found = next(row for row in json.loads(done.out)["scores"] if row["own"])
    union = expected.sum(0) + expected.sum(1) - np.diag(expected)
    assert found["miou"]["all"] == pytest.approx(float(np.mean(np.diag(expected) / union)), abs=1e-6)


def test_a_nodata_value_that_is_a_class_marks_pixels_of_this_class(
    world: World, tmp_path: Path, engine: Engine
) -> None:
    source = write_tiff(tmp_path / "scene.tif", noise(1, *SIZE))
    assert ensemble(engine, world.models, source, tmp_path / "mask.tif").code == 0
    with rasterio.open(tmp_path / "mask.tif") as mask:
        write_tiff(tmp_path / "truth.tif", mask.read(), nodata=1)
    done = ensemble(engine, world.models, source, tmp_path / "again.tif", "--labels", tmp_path / "truth.tif", "--json")
    assert done.code == 0, done.err
    own = next(row for row in json.loads(done.out)["scores"] if row["own"])
    assert own["miou"]["foreground"] == 1.0


@pytest.mark.parametrize("goal", ["mask.png", "mask.npy", "mask.zarr", "mask.tif", "mask.gpkg"])
def test_a_resumed_run_gives_the_same_bytes(
    goal: str, world: World, tmp_path: Path, engine: Engine, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 4)
    dying.prefix = "maskfuse-tiles"
    height, width = 300, 340  # larger than a block of a TIFF
    pixels = noise(1, height, width)
    down, across = np.mgrid[:height, :width]
    pixels[0][across < 40 + down // 5] = 250
    source = write_tiff(tmp_path / "scene.tif", pixels, nodata=250)
    (tmp_path / "whole").mkdir(), (tmp_path / "cut").mkdir()
    given = ("--tile", "64x64", "--overlap", 0.25, "--workers", 1, "--batch-size", 2)
    run = ("ensemble", "-m", world.models, "-i", source, *given)
    assert engine(*run, "-o", tmp_path / "whole" / goal).code == 0
    dying.at(40)
    assert engine(*run, "-o", tmp_path / "cut" / goal).code == 2
    dying.at(1 << 30)
    done = engine(*run, "-o", tmp_path / "cut" / goal, "--resume")
    assert done.code == 0 and "resuming after" in done.err, done.err
    assert content(tmp_path / "cut" / goal) == content(tmp_path / "whole" / goal)
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [goal, f"{goal}.json"]
    if goal == "mask.png":
        with Image.open(tmp_path / "cut" / goal) as mask:
            labels = np.asarray(mask)
            assert len(mask.getpalette("RGB")) // 3 > 250
        np.testing.assert_array_equal(labels == 250, across < 40 + down // 5)


def test_a_scene_from_a_web_server_is_read_in_parts(world: World, tmp_path: Path, engine: Engine) -> None:
    pixels = noise(1, 512, 1024, kind="u1")
    pixels[0][np.arange(1024)[None] < np.arange(512)[:, None] // 4] = 250
    (tmp_path / "web").mkdir()
    source = write_tiff(tmp_path / "web" / "scene.tif", pixels, nodata=250, tiled=True, blockxsize=64, blockysize=64)
    (tmp_path / "there").mkdir()
    local = engine("ensemble", "-m", world.models, "-i", source, "-o", tmp_path / "here.tif", "--tile", "128x128")
    assert local.code == 0, local.err
    with serving(tmp_path / "web") as (address, asked):
        run = ("ensemble", "-m", world.models, "-i", f"{address}/scene.tif?key=secret", "--tile", "128x128")
        done = engine(*run, "-o", tmp_path / "there" / "mask.tif")
        assert done.code == 0, done.err
        parts = [part for part in asked if part.startswith("bytes=")]
        assert len(parts) > 3 and "" not in asked
        again = engine(*run, "-o", tmp_path / "there" / "mask.tif", "--resume")
        assert again.code == 0, again.err
        missing = engine(*run[:4], f"{address}/none.tif", *run[5:], "-o", tmp_path / "x.tif")
    assert (missing.code, "no such file or folder" in missing.err, "none.tif" in missing.err) == (2, True, True)
    np.testing.assert_array_equal(read(tmp_path / "there" / "mask.tif")[0], read(tmp_path / "here.tif")[0])
    assert "secret" not in done.err + (tmp_path / "there" / "mask.tif.json").read_text()
    with serving(tmp_path / "web", ranges=False) as (address, _):
        whole = engine(*run[:4], f"{address}/scene.tif", *run[5:], "-o", tmp_path / "x.tif")
    assert (whole.code, "sends no parts of a file (Range requests)" in whole.err) == (2, True)
    odd = engine(*run[:4], "ftp://example.org/scene.tif", *run[5:], "-o", tmp_path / "x.tif")
    assert (odd.code, "a scene is read in parts from http://, https://, s3://" in odd.err) == (2, True)


def test_a_vrt_and_jpeg_2000_are_read_in_windows(world: World, tmp_path: Path, engine: Engine) -> None:
    pixels = noise(1, *SIZE)
    source = write_tiff(tmp_path / "scene.tif", pixels, nodata=None)
    from rasterio.shutil import copy

    copy(source, tmp_path / "scene.vrt", driver="VRT")
    copy(source, tmp_path / "scene.jp2", driver="JP2OpenJPEG", quality=100, reversible="YES")
    assert ensemble(engine, world.models, source, tmp_path / "tif.tif").code == 0
    expected, _ = read(tmp_path / "tif.tif")
    for form in ("vrt", "jp2"):
        done = ensemble(engine, world.models, tmp_path / f"scene.{form}", tmp_path / f"{form}.tif")
        assert done.code == 0, done.err
        np.testing.assert_array_equal(read(tmp_path / f"{form}.tif")[0], expected)
        with rasterio.open(tmp_path / f"{form}.tif") as mask:
            assert mask.transform == PLACE
    from engine.sources.fingerprint import fingerprint

    before = fingerprint(str(tmp_path / "scene.vrt"))
    write_tiff(source, pixels[:, ::-1])
    assert fingerprint(str(tmp_path / "scene.vrt")) != before


def test_a_broken_mask_band_is_one_line(world: World, tmp_path: Path, engine: Engine) -> None:
    source = write_tiff(tmp_path / "scene.tif", noise(1, 200, 300), blockysize=16)
    draw = np.random.default_rng(2)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(source, "r+") as dataset:
        before = source.stat().st_size
        dataset.write_mask(draw.random((200, 300)) < 0.5)
    data = bytearray(source.read_bytes())
    # What stands behind the picture is the mask, compressed.
    middle = (before + len(data)) // 2
    data[middle - 1500 : middle + 1500] = b"\xff" * 3000
    source.write_bytes(data)
    done = ensemble(engine, world.models, source, tmp_path / "mask.tif")
    assert done.code == 2, done.err
    assert "cannot read the mask of rows" in done.err or "cannot read the scene" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["scene.tif"]


def test_the_members_see_a_tile_with_data(world: World, tmp_path: Path) -> None:
    """The first tile holds none: what is inferred from pixels comes of the first that does."""
    from engine.inference.tiles.grid import Tiling
    from engine.runs.scene_job import _first_tile
    from engine.sources.scenes import open_scenes

    pixels = noise(1, *SIZE, kind="f4")
    pixels[:, :40] = np.nan
    tile = next(_first_tile(open_scenes(write_tiff(tmp_path / "s.tif", pixels)), Tiling((32, 32), 0)).batches(1))
    assert np.isfinite(tile.pixels).all()
    np.testing.assert_array_equal(tile.pixels[0, 8:, :, 0], pixels[0, 40:64, :32])
    assert len(Ensemble.open(world.models).members) == 3
