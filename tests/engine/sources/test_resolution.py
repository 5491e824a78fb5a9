"""Maps read at a ground resolution; rasterio's warper says what comes, and where labels lie afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.adapt.size import nearest
from engine.runs.durable import scenes as durable_scenes
from engine.sources.resolution import metres_per_pixel, resampled, taps
from engine.sources.scene import Scene
from engine.sources.scenes import open_scenes
from tests.conftest import Result
from tests.engine.sources.test_georeference import noise, write_tiff
from tests.helpers.nets import FIVE, save_member, save_net
from tests.helpers.reference import resampled_side
from tests.helpers.runs import Dying, content

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
Engine = Callable[..., Result]
UTM = "EPSG:32633"
SIZE = (90, 120)


def place(pixel: float, crs: str = UTM) -> dict[str, object]:
    return {"crs": crs, "transform": rasterio.transform.from_origin(500000, 5000000, pixel, pixel)}


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**31))
def test_a_side_equals_its_plain_twin(length: int, to: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, length).astype(float)
    index, weights = taps(length, to)
    np.testing.assert_allclose((weights * values[index]).sum(axis=1), resampled_side(values, to), atol=1e-9)


@pytest.mark.parametrize("size", [(36, 50), (45, 60), (7, 11), (200, 310), (90, 121)])
@pytest.mark.parametrize("kind", ["u1", "u2", "f4"])
def test_pixels_are_those_of_the_warper(size: tuple[int, int], kind: str) -> None:
    from rasterio.warp import Resampling, reproject

    pixels = noise(2, *SIZE, kind=kind)
    scene = Scene("s", SIZE, 2, lambda start, stop: pixels[:, start:stop].transpose(1, 2, 0), block=16)
    found = resampled(scene, size)
    got = np.concatenate([found.rows(start, min(start + 5, size[0])) for start in range(0, size[0], 5)])
    source = place(1)["transform"]
    assert isinstance(source, rasterio.Affine)
    wanted = np.zeros((2, *size), kind)
    how = Resampling.average if size < SIZE else Resampling.bilinear
    reproject(
        pixels, wanted, src_transform=source, dst_transform=source @ source.scale(SIZE[1] / size[1], SIZE[0] / size[0]),
        src_crs=UTM, dst_crs=UTM, resampling=how, tolerance=0,
    )  # fmt: skip
    assert got.dtype == kind
    np.testing.assert_allclose(got.transpose(2, 0, 1), wanted, atol=1 if kind[0] == "u" else 0.02)
    # One warp of the whole reads the same as strips do.
    np.testing.assert_array_equal(resampled(scene, size).rows(0, size[0]), got)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_every_pixel_with_data_has_one_read_for_it(read: int, stored: int, seed: int) -> None:
    valid = np.random.default_rng(seed).random((stored, 3)) < 0.3
    pixels = np.where(valid, 7, 255).astype("u1")[..., None]
    scene = Scene("s", (stored, 3), 1, lambda a, b: pixels[a:b], valid=lambda a, b: valid[a:b])
    found = resampled(scene, (read, 3))
    assert found.valid is not None
    rows, known = found.rows(0, read), found.valid(0, read)
    assert (rows[known] == 7).all()  # what stands for no data has no influence
    assert known[nearest(read, stored)][valid].all()


def test_places_say_how_large_pixels_are(tmp_path: Path) -> None:
    for crs, wanted in ((UTM, (2.0, 2.0)), ("EPSG:2263", (2 * 0.3048006096,) * 2), ("EPSG:4326", None)):
        path = write_tiff(tmp_path / "x.tif", noise(1, 8, 8), crs=crs, transform=rasterio.Affine(2, 0, 10, 0, -2, 40))
        (found,) = open_scenes(path).places
        assert metres_per_pixel(found) == (None if wanted is None else pytest.approx(wanted))
    turned = rasterio.Affine.translation(5, 5) @ rasterio.Affine.rotation(30) @ rasterio.Affine.scale(3, -0.5)
    path = write_tiff(tmp_path / "x.tif", noise(1, 8, 8), crs=UTM, transform=turned)
    assert metres_per_pixel(open_scenes(path).places[0]) == pytest.approx((0.5, 3))


def run(engine: Engine, models: Path, source: Path, goal: Path, *more: object) -> Result:
    return engine("ensemble", "-m", models, "-i", source, "-o", goal, "--tile", "32x32", "--workers", 1, *more)


def nets(folder: Path, resolution: float | None) -> Path:
    """Two nets of two channels: one states the resolution in its metadata, one in a file beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    save_member(folder / "0.onnx", 0, channels=2, promised={"resolution": resolution})
    save_net(folder / "1.onnx", seed=1, channels=2)
    facts = f'classes = {json.dumps(FIVE)}\nscale = "1/255"\nactivation = "logits"\nignored_class = 0\n'
    (folder / "1.toml").write_text(facts if resolution is None else f"{facts}resolution = {resolution}\n", "utf-8")
    return folder


@pytest.mark.parametrize(("pixel", "read"), [(1.0, 2.5), (5.0, 2.0), (3.0, 90.0)])
def test_labels_are_those_of_a_warped_map_and_lie_on_its_own_pixels(
    pixel: float, read: float, tmp_path: Path, engine: Engine
) -> None:
    """The same map warped beforehand gives a mask that rasterio's nearest pixel brings back."""
    from rasterio.warp import Resampling, reproject

    pixels = np.kron(noise(2, 9, 12), np.ones((10, 10), "u1"))
    source = write_tiff(tmp_path / "map.tif", pixels, **place(pixel))
    done = run(engine, nets(tmp_path / "stated", read), source, tmp_path / "mask.tif")
    assert done.code == 0, done.err
    assert f"map is read at {read:g} m per pixel" in done.err
    with rasterio.open(tmp_path / "mask.tif") as mask, rasterio.open(source) as stored:
        found = mask.read(1)
        assert (mask.transform, mask.crs, mask.shape) == (stored.transform, stored.crs, SIZE)
    size = tuple(round(side * pixel / read) for side in SIZE)
    (scene,) = [resampled(scene, size).rows(0, size[0]) for scene in open_scenes(source).each()]
    own = rasterio.Affine.translation(500000, 5000000) @ rasterio.Affine.scale(pixel, -pixel)
    other = own @ rasterio.Affine.scale(SIZE[1] / size[1], SIZE[0] / size[0])
    warped = write_tiff(tmp_path / "warped.tif", scene.transpose(2, 0, 1), crs=UTM, transform=other)
    assert run(engine, nets(tmp_path / "plain", None), warped, tmp_path / "warped_mask.tif").code == 0
    with rasterio.open(tmp_path / "warped_mask.tif") as mask:
        back = np.zeros(SIZE, "u1")
        how = {"src_crs": UTM, "dst_crs": UTM, "resampling": Resampling.nearest}
        reproject(mask.read(1), back, src_transform=other, dst_transform=own, **how)
    # Where a centre lies on the edge of two pixels the warper takes either.
    edge = [(2 * np.arange(to) + 1) * length % (2 * to) == 0 for length, to in zip(size, SIZE, strict=True)]
    sure = ~(edge[0][:, None] | edge[1][None])
    assert sure.mean() > 0.6
    np.testing.assert_array_equal(found[sure], back[sure])


def test_gaps_truth_and_resuming_are_on_the_maps_own_pixels(
    tmp_path: Path, engine: Engine, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 4)
    dying.prefix = "maskfuse-tiles"
    pixels = noise(2, 200, 230)
    down, across = np.mgrid[:200, :230]
    gone = across < 20 + down // 3
    pixels[:, gone] = 250
    source = write_tiff(tmp_path / "map.tif", pixels, nodata=250, **place(1))
    models = nets(tmp_path / "nets", 1.7)
    more = ("--batch-size", 1, "--strategy", "vote")
    assert run(engine, models, source, tmp_path / "first.tif", *more).code == 0
    with rasterio.open(tmp_path / "first.tif") as mask:
        labels = mask.read(1)
    np.testing.assert_array_equal(labels == 250, gone)
    write_tiff(tmp_path / "truth.tif", labels[None], nodata=250, **place(1))
    scored = ("--labels", tmp_path / "truth.tif", "--json")
    (tmp_path / "whole").mkdir(), (tmp_path / "cut").mkdir()
    whole = run(engine, models, source, tmp_path / "whole" / "m.gpkg", *more, *scored)
    assert whole.code == 0, whole.err
    own = next(row for row in json.loads(whole.out)["scores"] if row["own"])
    assert own["miou"]["foreground"] == 1.0
    dying.at(30)
    assert run(engine, models, source, tmp_path / "cut" / "m.gpkg", *more, *scored).code == 2
    dying.at(1 << 30)
    done = run(engine, models, source, tmp_path / "cut" / "m.gpkg", *more, *scored, "--resume")
    assert done.code == 0 and "resuming after" in done.err, done.err
    assert content(tmp_path / "cut" / "m.gpkg") == content(tmp_path / "whole" / "m.gpkg")
    assert [row["miou"] for row in json.loads(done.out)["scores"]] == [
        row["miou"] for row in json.loads(whole.out)["scores"]
    ]


def test_what_is_not_read_at_a_resolution_is_said(tmp_path: Path, engine: Engine) -> None:
    models = nets(tmp_path / "nets", 2.5)
    near = write_tiff(tmp_path / "near.tif", noise(2, *SIZE), **place(2.4))
    done = run(engine, models, near, tmp_path / "near_mask.tif")
    assert (done.code, "is read at" in done.err) == (0, False), done.err
    nowhere = write_tiff(tmp_path / "nowhere.tif", noise(2, *SIZE), crs=None, transform=None)
    done = run(engine, models, nowhere, tmp_path / "nowhere_mask.tif")
    assert (done.code, "nowhere has no coordinates and is read as stored" in done.err) == (0, True), done.err
    degrees = {"crs": "EPSG:4326", "transform": rasterio.transform.from_origin(10, 50, 0.1, 0.1)}
    source = write_tiff(tmp_path / "degrees.tif", noise(2, *SIZE), **degrees)
    done = run(engine, models, source, tmp_path / "m.tif")
    assert (
        done.code,
        'are degrees: warp it to a projected reference system, or state resolution = "ignore"' in done.err,
    ) == (2, True)
    members = "".join(f'[[members]]\nmodel = "{path}"\n' for path in sorted(models.glob("*.onnx")))
    (tmp_path / "plan.toml").write_text(f'[input]\nresolution = "ignore"\n\n{members}', "utf-8")
    done = engine(
        "ensemble", "--plan", tmp_path / "plan.toml", "-i", source, "-o", tmp_path / "m.tif", "--tile", "32x32"
    )
    assert done.code == 0, done.err
    stated = (models / "1.toml").read_text()
    (models / "1.toml").write_text(stated.replace("2.5", "5"))
    done = run(engine, models, near, tmp_path / "x.tif")
    assert (done.code, "0.onnx reads maps at 2.5 m per pixel" in done.err) == (2, True), done.err
    (models / "1.toml").write_text(stated.replace("2.5", "-1"))
    done = run(engine, models, near, tmp_path / "x.tif")
    assert (done.code, "resolution: -1 is not a number of metres per pixel" in done.err) == (2, True), done.err
    (models / "1.toml").write_text(stated)
    (tmp_path / "set").mkdir()
    write_tiff(tmp_path / "set" / "a.tif", noise(2, 32, 32), **place(1))
    done = engine("ensemble", "-m", models, "-i", tmp_path / "set", "-o", tmp_path / "masks")
    assert (done.code, "warning: a has pixels of 1 x 1 m, the members read 2.5 m per pixel" in done.err) == (0, True), (
        done.err
    )
