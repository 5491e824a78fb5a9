"""Masks keep the names and the order of the images they were made of, in whatever form: scores pair them by these."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.evaluate import evaluate
from tests.helpers.runs import Engine
from tests.helpers.world import World

IDS = ["c", "b_10", "a", "b_2", "9", "0", "z"]


@pytest.fixture
def table(world: World, tmp_path: Path) -> Path:
    """The images with names that no sorting gives, each in the row of its label map."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"id": IDS, "image": [image.tobytes() for image in world.images], "height": [8] * 7, "width": [16] * 7}
    pq.write_table(pa.table(columns), tmp_path / "images.parquet")
    return tmp_path / "images.parquet"


def truths(world: World, folder: Path) -> list[str]:
    """The true masks as rows in the images' order, and as files named as they are."""
    (folder / "truth").mkdir()
    for name, labels in zip(IDS, world.labels, strict=True):
        Image.fromarray(labels).save(folder / "truth" / f"{name}.png")
    np.save(folder / "truth.npy", world.labels)
    return [str(world.labels_file), str(folder / "truth.npy"), str(folder / "truth")]


@pytest.mark.parametrize("form", ["m.csv", "m.rle.csv", "m.npy", "m.npz", "m.zarr", "m", "m.v2/"])
@pytest.mark.parametrize("tile", [(), ("--tile", "8x16")])
def test_masks_are_paired_with_the_truth_of_their_image(
    form: str, tile: tuple[str, ...], world: World, table: Path, tmp_path: Path, engine: Engine
) -> None:
    line = ("ensemble", "-m", world.models, "-i", table, "-o", f"{tmp_path}/{form}", *tile)
    assert engine(*line).code == 0
    assert engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "rows.npy", *tile).code == 0
    want = evaluate(str(tmp_path / "rows.npy"), str(world.labels_file)).score.confusion
    for truth in truths(world, tmp_path):
        got = evaluate(str(tmp_path / form), truth).score.confusion
        np.testing.assert_array_equal(got, want, truth)


def test_a_record_names_images_only_where_the_masks_lose_them(
    world: World, table: Path, tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / "sorted").mkdir()
    for index, image in enumerate(world.images):
        Image.fromarray(image).save(tmp_path / "sorted" / f"i_{index}.png")
    held = {}
    for source in (table, tmp_path / "sorted", world.images_file):
        for form in ("m.npy", "m", "m.csv"):
            goal = tmp_path / f"{source.name.replace('.', '-')}_{form}"
            assert engine("ensemble", "-m", world.models, "-i", source, "-o", goal).code == 0
            record = json.loads(goal.with_name(f"{goal.name}.json").read_text())
            held[source.name, form] = record.get("ids")
    named = [f"i_{index}" for index in range(7)]
    assert held == {
        ("images.parquet", "m.npy"): IDS,
        ("images.parquet", "m"): IDS,
        ("images.parquet", "m.csv"): None,
        ("sorted", "m.npy"): named,
        ("sorted", "m"): None,
        ("sorted", "m.csv"): None,
        ("images.npz", "m.npy"): None,
        ("images.npz", "m"): None,
        ("images.npz", "m.csv"): None,
    }


@pytest.mark.parametrize("form", ["m.npy", "m.npz", "m"])
def test_masks_as_members_meet_their_images(
    form: str, world: World, table: Path, tmp_path: Path, engine: Engine
) -> None:
    """The same masks again, as the one member of a vote, over the images as a folder and as rows."""
    assert engine("ensemble", "-m", world.models, "-i", table, "-o", tmp_path / form, "--no-suppress").code == 0
    (tmp_path / "pictures").mkdir()
    for name, image in zip(IDS, world.images, strict=True):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{name}.png")
    for source in (table, tmp_path / "pictures", world.images_file):
        goal = tmp_path / f"{source.name.replace('.', '-')}.csv"
        line = ("-m", tmp_path / form, "-i", source, "-o", goal, "--strategy", "vote", "--no-suppress", "--classes", 5)
        done = engine("ensemble", *line)
        assert done.code == 0, done.err
        same = evaluate(str(goal), str(tmp_path / form)).score.confusion
        assert same.sum() == np.trace(same) == world.images.size, source


def test_masks_whose_files_are_others_than_the_record_says(
    world: World, table: Path, tmp_path: Path, engine: Engine
) -> None:
    assert engine("ensemble", "-m", world.models, "-i", table, "-o", tmp_path / "m").code == 0
    truth = truths(world, tmp_path)[2]
    want = evaluate(str(tmp_path / "m"), truth).score.confusion
    (tmp_path / "m" / "more.png").write_bytes((tmp_path / "m" / "a.png").read_bytes())
    np.testing.assert_array_equal(evaluate(str(tmp_path / "m"), truth).score.confusion, want)
