"""Scores, doubt and tables as files, against ONNX Runtime and NumPy in float64, whatever the form and after a kill."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from engine import Ensemble
from engine.errors import PlanError
from engine.runs.durable import images as durable
from engine.runs.durable import scenes as durable_scenes
from tests.conftest import Result
from tests.helpers.nets import save_net
from tests.helpers.runs import Dying, command, content, cut_off
from tests.helpers.world import COUNT, HEIGHT, WIDTH, World

Engine = Callable[..., Result]
WEIGHTS = (2.0, 1.0, 0.5)


def member_logits(world: World, images: np.ndarray) -> np.ndarray:
    """Logits of the three nets by ONNX Runtime alone, float64 (members, images, classes, height, width)."""
    given = (images.astype(np.float32) * np.float32(1 / 255))[:, None]
    files = sorted(world.models.glob("*.onnx"))
    return np.stack([onnxruntime.InferenceSession(file).run(["out"], {"image": given})[0] for file in files]).astype(
        np.float64
    )


def softmax(z: np.ndarray, axis: int) -> np.ndarray:
    terms = np.exp(z - z.max(axis=axis, keepdims=True))
    return terms / terms.sum(axis=axis, keepdims=True)


def expected(world: World, strategy: str, images: np.ndarray) -> np.ndarray:
    """Probabilities per class with class 0 suppressed, float64."""
    z, w = member_logits(world, images), np.array(WEIGHTS) / sum(WEIGHTS)
    if strategy == "mean-logit":
        p = softmax(np.einsum("mnchw,m->nchw", z, w)[:, 1:], 1)
    else:
        p = np.einsum("mnchw,m->nchw", softmax(z, 2), w)[:, 1:]
        p /= p.sum(axis=1, keepdims=True)
    return np.pad(p, ((0, 0), (1, 0), (0, 0), (0, 0)))


def read(path: Path, key: str) -> np.ndarray:
    """An array of any form, as other programs read it."""
    if path.suffix == ".npz":
        with np.load(path) as held:
            return held[key]
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".zarr":
        return np.asarray(pytest.importorskip("zarr").open_array(path, mode="r"))
    tifffile = pytest.importorskip("tifffile")
    if path.is_dir():
        return np.stack([tifffile.imread(path / f"{index}.tif") for index in range(COUNT)])
    return tifffile.imread(path)


def given(world: World, *more: object) -> tuple[object, ...]:
    return ("ensemble", "-m", world.models, "-i", world.images_file, "--weights", "2,1,0.5", "--workers", 1, *more)


@pytest.mark.parametrize("form", [".npy", ".npz", ".zarr", "/"])
@pytest.mark.parametrize("strategy", ["mean-logit", "mean-prob"])
def test_files_hold_what_onnxruntime_and_numpy_compute(
    strategy: str, form: str, world: World, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ("--scores", f"s{form}", "--doubt", f"d{form}", "--doubt-type", "float32")
    done = engine(*given(world, "-o", "m.npy", "--strategy", strategy, *asked))
    assert done.code == 0, done.err
    p = expected(world, strategy, world.images)
    got = read(Path(f"s{form.strip('/')}"), "scores")
    assert got.dtype == (np.float16 if form != "/" else got.dtype)
    assert (got[:, 0] == 0).all()
    np.testing.assert_allclose(got.astype(np.float64), p, rtol=2**-10, atol=1e-6)
    np.testing.assert_array_equal(got.argmax(axis=1), np.load("m.npy"))
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / np.log(4)
    np.testing.assert_allclose(read(Path(f"d{form.strip('/')}"), "doubt"), entropy, atol=2e-6)
    record = Path(f"s{form.strip('/')}.json")
    if record.exists():
        held = json.loads(record.read_text("utf-8"))
        assert (held["maps"], held["names"][0], len(held["names"])) == ("scores", "background", 5)
        assert held["evidence"] == {"scores": "float16", "doubt": "entropy", "doubt_type": "float32"}


def test_doubt_of_the_members(world: World, engine: Engine, tmp_path: Path) -> None:
    q = softmax(member_logits(world, world.images)[:, :, 1:], 2)
    w = np.array(WEIGHTS) / sum(WEIGHTS)
    nats = lambda p, axis: -(p * np.log(p)).sum(axis=axis)  # noqa: E731
    mutual = nats(np.einsum("mnchw,m->nchw", q, w), 1) - np.einsum("mnhw,m->nhw", nats(q, 2), w)
    for name, value in (("mutual-information", mutual / np.log(4)), ("votes", None)):
        done = engine(*given(world, "-o", tmp_path / "m.npy", "--doubt", tmp_path / "d.npy", "--doubt-map", name,
                             "--overwrite"))  # fmt: skip
        assert done.code == 0, done.err
        if value is None:
            against = q.argmax(axis=2) + 1 != np.load(tmp_path / "m.npy")
            value = np.einsum("mnhw,m->nhw", against, w)
        got = np.load(tmp_path / "d.npy")
        assert got.dtype == np.uint8
        np.testing.assert_allclose(got, value * 254, atol=0.51)


def test_a_row_per_image(world: World, engine: Engine, tmp_path: Path) -> None:
    files = ("--per-image", tmp_path / "t.csv", "--scores", tmp_path / "s.npy", "--scores-type", "float32")
    done = engine(*given(world, "-o", tmp_path / "m.npy", "--labels", world.labels_file, *files))
    assert done.code == 0, done.err
    masks, scores = np.load(tmp_path / "m.npy"), np.load(tmp_path / "s.npy")
    with (tmp_path / "t.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == [str(index) for index in range(COUNT)]
    for index, row in enumerate(rows):
        assert [int(row[f"pixels {name}"]) for name in ("background", "soil")] == [0, (masks[index] == 1).sum()]
        assert float(row["mean score"]) == pytest.approx(scores[index].max(axis=0).mean(), rel=1e-5)
        counted = world.labels[index] != 0
        truth, guess = world.labels[index][counted], masks[index][counted]
        assert float(row["iou sand"]) == pytest.approx(
            jaccard_score(truth, guess, labels=[3], average="macro", zero_division=0), rel=1e-5
        )
        matrix = confusion_matrix(truth, guess, labels=range(1, 5))
        union = matrix.sum(axis=0) + matrix.sum(axis=1) - np.diag(matrix)
        assert float(row["miou labelled"]) == pytest.approx(np.mean(np.diag(matrix) / union), rel=1e-5)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert engine(*given(world, "-o", tmp_path / "n.npy", "--per-image", tmp_path / "t.parquet")).code == 0
    table = parquet.read_table(tmp_path / "t.parquet")
    assert table["pixels soil"].to_pylist() == [(mask == 1).sum() for mask in masks]


@pytest.mark.parametrize("form", [".npz", ".npy"])
def test_a_resumed_run_writes_the_same_evidence(
    form: str,
    world: World,
    many_images: Path,
    tmp_path: Path,
    engine: Engine,
    dying: Dying,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 8)
    (tmp_path / "whole").mkdir()

    def asked(folder: Path) -> tuple[object, ...]:
        return ("--scores", folder / f"s{form}", "--doubt", folder / f"d{form}", "--per-image", folder / "t.csv")

    whole, goal = tmp_path / "whole" / "m.npy", tmp_path / "m.npy"
    more = ("--batch-size", 3, "--workers", 2, *asked(whole.parent))
    assert engine(*command(world, many_images, whole, *more)).code == 0
    cut_off(engine, dying, world, many_images, goal, *asked(tmp_path))
    assert not (tmp_path / f"s{form}").exists()
    refused = engine(*command(world, many_images, goal, "--resume"))
    assert (refused.code, "scores and doubt differ" in refused.err) == (2, True)
    done = engine(*command(world, many_images, goal, "--resume", *asked(tmp_path)))
    assert done.code == 0, done.err
    assert "resuming after" in done.err
    for name in ("m.npy", f"s{form}", f"d{form}", "t.csv"):
        assert content(tmp_path / name) == content(whole.parent / name), name
    assert not list(tmp_path.glob(".*"))
    told = engine(*command(world, many_images, goal, "--resume", *asked(tmp_path)))
    assert (told.code, "is complete: nothing to resume" in told.err) == (0, True)
    (tmp_path / f"s{form}").unlink()
    told = engine(*command(world, many_images, goal, "--resume", *asked(tmp_path)))
    assert (told.code, "is missing: run with --overwrite" in told.err) == (2, True)


@pytest.mark.parametrize("form", [".tif", ".npy", ".npz", ".zarr"])
def test_scenes_blended_and_resumed(
    form: str, world: World, tmp_path: Path, engine: Engine, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 16)
    dying.prefix = "maskfuse-tiles"
    image = np.random.default_rng(8).integers(0, 240, (90, 100)).astype(np.uint8)
    np.save(tmp_path / "scene.npy", image)
    (tmp_path / "whole").mkdir()

    def run(folder: Path, *more: object) -> Result:
        files = ("--scores", folder / f"s{form}", "--doubt", folder / f"d{form}", "--per-image", folder / "t.csv")
        scene = ("-i", tmp_path / "scene.npy", "-o", folder / "m.npy", "--tile", "16x32", "--workers", 1)
        return engine("ensemble", "-m", world.models, *scene, "--batch-size", 2, "--weights", "2,1,0.5", *files, *more)

    done = run(tmp_path / "whole")
    assert done.code == 0, done.err
    got, masks = read(tmp_path / "whole" / f"s{form}", "scores"), np.load(tmp_path / "whole" / "m.npy")
    assert got.shape == (5, 90, 100)
    np.testing.assert_array_equal(got.argmax(axis=0), masks)
    # The nets see one pixel around; at the border alone a mirrored image differs from none.
    p = expected(world, "mean-logit", image[None])[0]
    np.testing.assert_allclose(got[:, :-1, :-1].astype(np.float64), p[:, :-1, :-1], rtol=2**-10, atol=2e-5)
    entropy = -(p * np.log(np.where(p > 0, p, 1))).sum(axis=0) / np.log(4)
    assert np.abs(read(tmp_path / "whole" / f"d{form}", "doubt") / 254 - entropy)[:-1, :-1].max() < 0.51 / 254
    dying.at(80)
    assert run(tmp_path).code == 2
    dying.at(1 << 30)
    done = run(tmp_path, "--resume")
    assert done.code == 0, done.err
    assert "resuming after" in done.err
    for name in ("m.npy", f"s{form}", f"d{form}", "t.csv"):
        assert content(tmp_path / name) == content(tmp_path / "whole" / name), name
    if form == ".npz":
        with np.load(tmp_path / "s.npz") as held:
            assert json.loads(str(held["metadata"]))["maps"] == "scores"
            assert held["classes"].tolist()[0] == "background"
    assert not list(tmp_path.glob(".*"))


def test_pixels_without_data_and_areas(world: World, tmp_path: Path, engine: Engine) -> None:
    rasterio = pytest.importorskip("rasterio")
    image = np.random.default_rng(8).integers(1, 240, (40, 60)).astype(np.uint8)
    image[:, :7] = 250
    (tmp_path / "scenes").mkdir()
    profile = {"driver": "GTiff", "height": 40, "width": 60, "count": 1, "dtype": "uint8", "nodata": 250}
    profile |= {"crs": "EPSG:32633", "transform": rasterio.Affine(2, 0, 500000, 0, -3, 4600000)}
    for name in "ab":
        with rasterio.open(tmp_path / "scenes" / f"{name}.tif", "w", **profile) as file:
            file.write(image, 1)
    files = ("--scores", tmp_path / "s", "--doubt", tmp_path / "d", "--per-image", tmp_path / "t.csv")
    done = engine("ensemble", "-m", world.models, "-i", tmp_path / "scenes", "-o", tmp_path / "m", "--tile", "16x32",
                  "--min-region", 3, *files)  # fmt: skip
    assert done.code == 0, done.err
    with rasterio.open(tmp_path / "s" / "b.tif") as file, rasterio.open(tmp_path / "d" / "b.tif") as doubt:
        assert (file.crs.to_epsg(), file.transform, file.descriptions[1]) == (32633, profile["transform"], "soil")
        held, shown = file.read(), doubt.read(1)
        assert (doubt.nodata, np.isnan(file.nodata)) == (255, True)
    assert np.isnan(held[:, :, :7]).all()
    assert not np.isnan(held[:, :, 7:]).any()
    assert (shown[:, :7] == 255).all()
    assert shown[:, 7:].max() <= 254
    with (tmp_path / "t.csv").open(newline="") as stream:
        row = list(csv.DictReader(stream))[1]
    assert int(row["pixels"]) == 40 * 53
    assert float(row["m2 soil"]) == int(row["pixels soil"]) * 6
    assert float(row["mean entropy"]) == pytest.approx(shown[:, 7:].mean() / 254, rel=1e-5)


def test_several_labels_a_pixel(tmp_path: Path, world: World, engine: Engine) -> None:
    save_net(tmp_path / "n.onnx", 3, seed=1, end="sigmoid")
    facts = ("--scale", "1/255", "--activation", "probabilities", "--multi-label", "--classes", "a,b,c")
    files = ("-o", tmp_path / "m.npy", "--scores", tmp_path / "s.npy", "--per-image", tmp_path / "t.csv")
    done = engine("ensemble", "-m", tmp_path / "n.onnx", "-i", world.images_file, *facts, *files)
    assert done.code == 0, done.err
    pixels = (world.images.astype(np.float32) * np.float32(1 / 255))[:, None]
    p = onnxruntime.InferenceSession(tmp_path / "n.onnx").run(["out"], {"image": pixels})[0]
    got = np.load(tmp_path / "s.npy")
    np.testing.assert_allclose(got.astype(float), p, rtol=2**-10, atol=1e-6)
    np.testing.assert_array_equal(got > 0.5, np.load(tmp_path / "m.npy"))


def test_in_python(world: World) -> None:
    ensemble = Ensemble.open(world.models, weights=WEIGHTS)
    plain = ensemble.predict(world.images)
    masks, scores, doubt = ensemble.predict(world.images, scores=True, doubt="margin", doubt_type="float32")
    np.testing.assert_array_equal(masks, plain)
    assert (scores.dtype, scores.shape) == (np.float16, (COUNT, 5, HEIGHT, WIDTH))
    np.testing.assert_allclose(scores, expected(world, "mean-logit", world.images), rtol=2**-10, atol=1e-6)
    top = np.sort(expected(world, "mean-logit", world.images), axis=1)
    np.testing.assert_allclose(doubt, 1 - (top[:, -1] - top[:, -2]), atol=2e-6)
    with pytest.raises(PlanError, match="early_exit"):
        Ensemble.open(world.models, strategy="vote", early_exit=_exact()).predict(world.images, scores=True)


def _exact() -> Any:
    from engine.inference.early_exit import EarlyExit

    return EarlyExit()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--scores", "s.png"), "allowed are .npy"),
        (("--scores", "m.npy"), "is what --output writes"),
        (("--scores", "s.npy", "--doubt", "s.npy"), "is what --scores writes"),
        (("--scores-type", "float32"), "--scores-type without --scores"),
        (("--doubt-map", "votes"), "--doubt-map without --doubt"),
        (("--scores", "s.npy", "--scores-type", "int8"), "allowed are float16 and float32"),
        (("--doubt", "d.npy", "--doubt-map", "fear"), "allowed are entropy"),
        (("--per-image", "t.txt"), ".csv or .parquet"),
        (("--scores", "s.npy", "--early-exit", "--strategy", "vote"), "leave out --early-exit"),
        (("--scores", "s.npy", "--on", "ray"), "--on ray writes masks alone"),
        (("--scores", "s.tif"), "with --tile"),
        (("--scores", "no/s.npy"), "no such folder"),
    ],
)
def test_what_cannot_be_written_is_refused(
    more: tuple[object, ...], told: str, world: World, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", "m.npy", *more)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert told in done.err
    assert not list(tmp_path.iterdir())
