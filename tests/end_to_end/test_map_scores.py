"""Scores of maps with gaps and of truth that lies elsewhere; rasterio and scikit-learn say what must come."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Result
from tests.engine.sources.test_georeference import noise, write_tiff
from tests.helpers.world import World

rasterio = pytest.importorskip("rasterio", reason="GeoTIFFs need the extra geo")
warp = pytest.importorskip("rasterio.warp", reason="GeoTIFFs need the extra geo")
metrics = pytest.importorskip("sklearn.metrics")
Engine = Callable[..., Result]
SIZE = (64, 96)
EDGE = 30
UTM = "EPSG:32633"
COLOURS = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 10], [10, 10, 200], [90, 90, 0]], "u1")


def place(west: float = 0, pixel: float = 10) -> dict[str, object]:
    return {"crs": UTM, "transform": rasterio.transform.from_origin(500000 + west, 5000000, pixel, pixel)}


def confusion(engine: Engine, masks: object, truth: object, *more: object) -> np.ndarray:
    done = engine("evaluate", masks, "--labels", truth, "--json", *more)
    assert done.code == 0, done.err
    return np.array(json.loads(done.out)["confusion"])


def expected(truth: np.ndarray, mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    return metrics.confusion_matrix(truth[known], mask[known], labels=range(5))


@pytest.mark.parametrize("goal", ["m.tif", "m.png", "m.npy", "m.zarr", "masks"])
def test_pixels_without_data_are_not_scored_whatever_stands_for_them(
    goal: str, world: World, tmp_path: Path, engine: Engine
) -> None:
    pixels = noise(1, *SIZE)
    pixels[:, :, :EDGE] = 250
    located = {} if goal == "masks" else place()
    source = write_tiff(tmp_path / "in" / "a.tif", pixels, nodata=250, **({"crs": None, "transform": None} | located))
    given = source.parent if goal == "masks" else source
    done = engine("ensemble", "-m", world.models, "-i", given, "-o", tmp_path / goal, "--tile", "32x32")
    assert done.code == 0, done.err
    assert (
        engine("ensemble", "-m", world.models, "-i", source, "-o", tmp_path / "plain.tif", "--tile", "32x32").code == 0
    )
    with rasterio.open(tmp_path / "plain.tif") as mask:
        labels = mask.read(1)
    truth = np.random.default_rng(1).integers(0, 5, SIZE).astype("u1")
    truth[:5] = 99
    known = (truth != 99) & (labels != 250)
    assert known.sum() == (SIZE[0] - 5) * (SIZE[1] - EDGE)
    wanted = expected(truth, labels, known)
    # What truth states for pixels without data is void without an option.
    stated = write_tiff(
        tmp_path / "truth" / "a.tif", truth[None], nodata=99, **({"crs": None, "transform": None} | located)
    )
    labelled = stated.parent if goal == "masks" else stated
    np.testing.assert_array_equal(confusion(engine, tmp_path / goal, labelled), wanted)
    np.save(tmp_path / "truth.npy", truth if goal != "masks" else truth[None])
    np.testing.assert_array_equal(confusion(engine, tmp_path / goal, tmp_path / "truth.npy", "--void", 99), wanted)


def test_masks_of_others_state_their_own_nodata_value(tmp_path: Path, engine: Engine) -> None:
    draw = np.random.default_rng(2)
    labels, truth = (draw.integers(0, 5, SIZE).astype("u1") for _ in range(2))
    labels[:, :EDGE] = 77
    masks = write_tiff(tmp_path / "masks" / "a.tif", labels[None], nodata=77, **place())
    write_tiff(tmp_path / "truth" / "a.tif", truth[None], **place())
    wanted = expected(truth, labels, labels != 77)
    for more in ((), ("--classes", 5)):
        np.testing.assert_array_equal(confusion(engine, masks.parent, tmp_path / "truth", *more), wanted)
    # A nodata value that is a class is this class.
    write_tiff(tmp_path / "truth" / "a.tif", truth[None], nodata=0, **place())
    np.testing.assert_array_equal(confusion(engine, masks.parent, tmp_path / "truth"), wanted)


def warped(pixels: np.ndarray, source: dict[str, object], target: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
    """Bands warped by the nearest pixel, and where there are any."""
    from rasterio.warp import Resampling, reproject

    inside, bands = np.zeros(SIZE, "u1"), np.zeros((len(pixels), *SIZE), pixels.dtype)
    for given, out in ((np.ones((1, *pixels.shape[1:]), "u1"), inside[None]), (pixels, bands)):
        reproject(
            given, out, src_crs=source["crs"], dst_crs=target["crs"], src_transform=source["transform"],
            dst_transform=target["transform"], resampling=Resampling.nearest, tolerance=0, src_nodata=None,
        )  # fmt: skip
    return bands, inside > 0


@pytest.mark.parametrize("colours", [False, True])
def test_truth_that_lies_elsewhere_is_warped(colours: bool, world: World, tmp_path: Path, engine: Engine) -> None:
    source = write_tiff(tmp_path / "a.tif", noise(1, *SIZE), **place())
    assert engine("ensemble", "-m", world.models, "-i", source, "-o", tmp_path / "m.tif", "--tile", "32x32").code == 0
    with rasterio.open(tmp_path / "m.tif") as mask:
        labels = mask.read(1)
    other = {"crs": "EPSG:32634", "transform": rasterio.transform.from_origin(27000, 5018000, 7, 7)}
    with rasterio.open(source) as scene:
        west, _, _, north = warp.transform_bounds(UTM, other["crs"], *scene.bounds)
    other["transform"] = rasterio.transform.from_origin(west + 100, north - 50, 7, 7)
    truth = np.random.default_rng(3).integers(0, 5, (110, 120)).astype("u1")
    stored = COLOURS[truth].transpose(2, 0, 1) if colours else truth[None]
    write_tiff(tmp_path / "truth.tif", stored, **other)
    more = ["--align"]
    if colours:
        lines = [f"class {index},{','.join(map(str, colour))}" for index, colour in enumerate(COLOURS.tolist())]
        (tmp_path / "colours.csv").write_text("\n".join(lines))
        more += ["--palette", str(tmp_path / "colours.csv")]
    bands, inside = warped(truth[None], other, place())
    assert 0.3 < inside.mean() < 0.95
    wanted = expected(bands[0], labels, inside)
    found = confusion(engine, tmp_path / "m.tif", tmp_path / "truth.tif", *more)
    # A pixel whose centre lies on the edge of two may be either's.
    assert found.sum() == wanted.sum() and np.abs(found - wanted).sum() <= 4
    refused = engine("evaluate", tmp_path / "m.tif", "--labels", tmp_path / "truth.tif", *more[1:])
    assert (refused.code, "engine evaluate warps it with --align" in refused.err) == (2, True), refused.err
    scored = ("--labels", tmp_path / "truth.tif", "--tile", "32x32", "--json", *more)
    done = engine("ensemble", "-m", world.models, "-i", source, "-o", tmp_path / "again.tif", *scored)
    assert done.code == 0, done.err
    own = next(row for row in json.loads(done.out)["scores"] if row["own"])
    ious = [wanted[k, k] / (wanted[k].sum() + wanted[:, k].sum() - wanted[k, k]) for k in range(1, 5)]
    assert own["miou"]["foreground"] == pytest.approx(np.mean(ious), abs=0.003)
    np.save(tmp_path / "m.npy", labels)
    done = engine("evaluate", tmp_path / "m.npy", "--labels", tmp_path / "truth.tif", *more)
    assert (done.code, "has no coordinates" in done.err) == (2, True), done.err
