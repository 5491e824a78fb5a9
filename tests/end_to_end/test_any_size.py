"""Images of different sizes: what ``compare`` and ``select`` say of them, against ``ensemble`` and ``evaluate``."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.compare.runfile import read_run
from tests.conftest import Result
from tests.helpers.world import World

Engine = Callable[..., Result]
SIZES = [(8, 16), (12, 10), (8, 16), (5, 7), (5, 7), (20, 9)]
VOID = 255


@pytest.fixture(scope="module")
def place(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and labels as folders of pictures and as Parquet, and each size in a folder by itself."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    folder = tmp_path_factory.mktemp("sizes")
    draw = np.random.default_rng(8)
    rows: list[dict[str, object]] = []
    for index, size in enumerate(SIZES):
        pixels = draw.integers(0, 240, size).astype(np.uint8)
        labels = draw.integers(0, 5, size).astype(np.uint8)
        labels[0, 0] = VOID
        encoded = []
        for name, array in (("images", pixels), ("labels", labels), (f"only/{size}", pixels)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / name / f"{index}.png")
            held = io.BytesIO()
            Image.fromarray(array).save(held, "png")
            encoded.append({"bytes": held.getvalue()})
        rows.append({"id": str(index), "image": encoded[0], "label": encoded[1]})
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "val.parquet")
    return folder


def by_size(engine: Engine, place: Path, goal: Path, *spec: object) -> dict[str, float]:
    """Predict each size by itself into one folder, and return its scores by ``evaluate``."""
    goal.mkdir()
    for index, only in enumerate(sorted((place / "only").iterdir())):
        done = engine("ensemble", *spec, "-i", only, "-o", goal.parent / f"{goal.name}-{index}")
        assert done.code == 0, done.err
        for path in (goal.parent / f"{goal.name}-{index}").glob("*.png"):
            path.rename(goal / path.name)
    done = engine("evaluate", goal, "--labels", place / "labels", "--classes", 5, "--ignored-class", 0, "--json")
    assert done.code == 0, done.err
    found: dict[str, float] = json.loads(done.out)["miou"]
    return found


def test_rows_of_a_comparison(world: World, place: Path, tmp_path: Path, engine: Engine) -> None:
    models = ("-m", world.models)
    alone = {
        name: by_size(engine, place, tmp_path / name, *models, "--strategy", name) for name in ("mean-prob", "staple")
    }
    folder = ("-i", place / "images", "--labels", place / "labels")
    table = ("-i", place / "val.parquet", "--labels", place / "val.parquet:label")
    asked = ("--folds", 2, "--gallery", 2, "--batch-size", 2, "--views", "d4", "--json")
    for spec, out in ((folder, "run.npz"), ((*table, "--no-ablation"), "table.npz")):
        done = engine("compare", *models, *spec, *asked, "-o", tmp_path / out)
        assert done.code == 0, done.err
        told = json.loads(done.out)
        assert (told["sizes"], told["height"], told["width"]) == (4, 20, 16)
        assert "255" in told["void"]
        for name, want in alone.items():
            row = next(r for r in told["rows"] if (r["name"], r["state"]) == (name, "suppressed"))
            assert sum(map(sum, row["confusion"])) == sum(h * w - 1 for h, w in SIZES)
            for convention, score in want.items():
                assert row["scores"][convention]["value"] == pytest.approx(score, abs=1e-6)
    run = read_run(tmp_path / "run.npz")
    for at, tile in enumerate(run.facts.tiles):
        assert (tile.height, tile.width) == SIZES[tile.index]
        with Image.open(place / "images" / f"{tile.index}.png") as image:
            np.testing.assert_array_equal(run.pictures.images[at, : tile.height, : tile.width, 0], np.asarray(image))
    done = engine("report", tmp_path / "run.npz", "--out", tmp_path / "run.html")
    assert done.code == 0, done.err
    assert "4 sizes up to 20&times;16" in (tmp_path / "run.html").read_text("utf-8")


def test_a_selection(world: World, place: Path, tmp_path: Path, engine: Engine) -> None:
    spec = ("-m", world.models, "-i", place / "images", "--labels", place / "labels", "--cache", tmp_path / "cache")
    spec = (*spec, "--views", "auto:both/d4")
    runs = []
    for name in ("one.toml", "two.toml"):
        done = engine("select", *spec, "-o", tmp_path / name, "--folds", 2, "--rounds", 4, "--calibrate", "--json")
        assert done.code == 0, done.err
        runs.append(json.loads(done.out))
    assert "9 of 9 members were found in the cache" in done.err
    assert runs[0]["steps"][0]["name"] == "+ views"
    assert runs[0]["plan_sha256"] == runs[1]["plan_sha256"]
    levels = {level["name"]: level for level in runs[0]["levels"]}
    mean = by_size(engine, place, tmp_path / "mean", "-m", world.models, "--strategy", "mean-prob")
    assert levels["mean of all members"]["same_images"] == pytest.approx(mean["keras-ignore"], abs=5e-3)  # from float16
    found = by_size(engine, place, tmp_path / "plan", "--plan", tmp_path / "one.toml")
    chosen = next(level for level in levels.values() if level["chosen"])
    assert chosen["same_images"] == pytest.approx(found["keras-ignore"], abs=5e-3)


def test_views_are_checked_for_every_size(world: World, place: Path, tmp_path: Path, engine: Engine) -> None:
    spec = ("-m", world.models, "-i", place / "images", "--labels", place / "labels")
    for more in (("compare",), ("select", "-o", tmp_path / "plan.toml")):
        done = engine(*more, *spec, "--views", "shift:5:0")
        assert done.code == 2
        assert "view shift:5:0 shows nothing of images of 5x7: shift by less" in done.err.splitlines()[-1]


def test_without_labels(world: World, place: Path, engine: Engine) -> None:
    done = engine("compare", "-m", world.models, "-i", place / "images", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["images"] == len(SIZES)
    assert all(sum(row["share"]) == pytest.approx(1) for row in told["rows"])


def test_a_label_map_of_another_size_is_named(world: World, place: Path, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "labels").mkdir()
    for path in (place / "labels").iterdir():
        with Image.open(path) as image:
            (image.rotate(90, expand=True) if path.stem == "3" else image).save(tmp_path / "labels" / path.name)
    for command in ("compare", "select"):
        more = ("-o", tmp_path / "plan.toml") if command == "select" else ()
        done = engine(command, "-m", world.models, "-i", place / "images", "--labels", tmp_path / "labels", *more)
        assert done.code == 2
        assert done.err.count("\n") == 1
        assert "label map of 3 is 7x5, the image 5x7" in done.err
