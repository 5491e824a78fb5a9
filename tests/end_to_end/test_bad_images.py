"""Images that cannot be read or predicted: an error that names them, or left out, listed, and never a silent hole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest
from PIL import Image

from engine import Ensemble
from engine.errors import ModelError, NotFiniteError
from engine.inference.prediction import BadImages, Predicted
from engine.inference.retry import attempt
from engine.runs.durable import images as durable
from engine.sources.base import Batch
from tests.conftest import Result
from tests.helpers.nets import save_member
from tests.helpers.world import World

Engine = Callable[..., Result]
COUNT = 20


@pytest.fixture
def poisoned(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """Two members, one of which computes NaN for images 3, 4 and 17."""
    models = tmp_path / "models"
    models.mkdir()
    save_member(models / "sound.onnx", 1)
    save_member(models / "poisoned.onnx", 2, poisoned=True)
    pixels = np.random.default_rng(8).integers(0, 240, (COUNT, 8, 16)).astype(np.uint8)
    pixels[[3, 4, 17], 0, 0] = 255
    np.savez(tmp_path / "x.npz", images=pixels)
    return models, tmp_path / "x.npz", pixels


def test_an_error_names_the_member_and_every_such_image_of_the_batch(
    poisoned: tuple[Path, Path, np.ndarray], tmp_path: Path, engine: Engine
) -> None:
    models, images, _ = poisoned
    run = engine("ensemble", "-m", models, "-i", images, "-o", tmp_path / "m.csv", "--batch-size", 10)
    assert run.code == 2
    assert "member poisoned computes NaN or infinity for images 3, 4: " in run.err
    assert "--on-bad-image skip" in run.err


@pytest.mark.parametrize("name", ["m.csv", "m.npz", "m.npy", "m"])
def test_what_is_left_out_is_listed_and_the_result_is_not_called_whole(
    name: str, poisoned: tuple[Path, Path, np.ndarray], tmp_path: Path, engine: Engine
) -> None:
    models, images, pixels = poisoned
    goal = tmp_path / name
    arguments = ("ensemble", "-m", models, "-i", images, "-o", goal, "--on-bad-image", "skip", "--batch-size", 3)
    run = engine(*arguments)
    assert run.code == 3
    assert run.err.splitlines()[-1] == (
        f"INCOMPLETE: 3 of 20 images could not be predicted and are missing from {tmp_path / f'incomplete-{name}'}; "
        f"{goal} was not written; see {goal}.skipped.txt"
    )
    assert not goal.exists()
    rows = [line.split("\t") for line in Path(f"{goal}.skipped.txt").read_text().splitlines()]
    assert rows[0] == ["index", "id", "reason"]
    assert [row[:2] for row in rows[1:]] == [["3", "3"], ["4", "4"], ["17", "17"]]
    assert {row[2] for row in rows[1:]} == {"member poisoned computes NaN or infinity"}
    kept = np.delete(np.arange(COUNT), [3, 4, 17])
    want = Ensemble.open(models).predict(pixels[kept])
    ids, masks = _read(tmp_path / f"incomplete-{name}")
    np.testing.assert_array_equal(masks.reshape(want.shape), want)
    assert ids in ([], [str(index) for index in kept])
    refused = engine(*arguments)
    assert (refused.code, "exists: add --overwrite" in refused.err) == (2, True)
    again = engine(*arguments, "--resume")
    assert (again.code, "is complete: nothing to resume" in again.err) == (3, True)
    assert "3 of 20 images" in again.err


def _read(goal: Path) -> tuple[list[str], np.ndarray]:
    beside = goal if goal.suffix == ".npz" else goal.with_name(goal.name + ".json")
    record = json.loads(np.load(goal)["metadata"].item() if goal.suffix == ".npz" else beside.read_text())
    assert (record["images"], record["skipped"]) == (COUNT, 3)
    if goal.suffix == ".csv":
        table = pandas.read_csv(goal, dtype={"id": str})
        return list(table["id"]), table.iloc[:, 1:].to_numpy()
    if goal.suffix == ".npz":
        return list(np.load(goal)["ids"]), np.load(goal)["masks"]
    if goal.suffix == ".npy":
        return [], np.load(goal)
    files = sorted(goal.iterdir(), key=lambda file: int(file.stem))
    return [file.stem for file in files], np.stack([np.asarray(Image.open(file)) for file in files])


def test_without_a_bad_image_the_result_is_the_usual_one(world: World, tmp_path: Path, engine: Engine) -> None:
    for name, more in (("a", ()), ("b", ("--on-bad-image", "skip"))):
        (tmp_path / name).mkdir()
        run = engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / name / "m.csv", *more)
        assert run.code == 0
    for name in ("m.csv", "m.csv.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["m.csv", "m.csv.json"]


def test_a_run_that_a_bad_image_ended_goes_on_without_it(
    poisoned: tuple[Path, Path, np.ndarray], tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 4)
    models, images, pixels = poisoned
    pixels[[3, 4], 0, 0] = 0
    np.savez(images, images=pixels)
    arguments = ("ensemble", "-m", models, "-i", images, "-o", tmp_path / "m.csv", "--batch-size", 2, "--workers", 1)
    assert "images are kept in" in engine(*arguments).err
    run = engine(*arguments, "--resume", "--on-bad-image", "skip")
    assert run.code == 3
    assert "resuming after" in run.err
    assert list(pandas.read_csv(tmp_path / "incomplete-m.csv")["id"]) == [*range(17), 18, 19]


def test_pictures_that_cannot_be_read(world: World, tmp_path: Path, engine: Engine) -> None:
    folder = tmp_path / "tiles"
    folder.mkdir()
    for index, image in enumerate(world.images):
        Image.fromarray(image).save(folder / f"{index}.png")
    (folder / "0.png").write_text("no picture")
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:60])
    Image.fromarray(world.images[5][:4]).save(folder / "5.png")
    arguments = ("ensemble", "-m", world.models, "-i", folder, "-o", tmp_path / "m.npy")
    assert engine(*arguments).code == 2
    run = engine(*arguments, "--on-bad-image", "skip", "--batch-size", 2)
    assert run.code == 3, run.err
    want = Ensemble.open(world.models).predict(world.images[[1, 2, 4, 6]])
    np.testing.assert_array_equal(np.load(tmp_path / "incomplete-m.npy"), want)
    listed = (tmp_path / "m.npy.skipped.txt").read_text().splitlines()
    assert [line.split("\t")[1] for line in listed[1:]] == ["0", "3", "5"]
    assert "4x16" in listed[3]


def test_nothing_but_bad_images(poisoned: tuple[Path, Path, np.ndarray], tmp_path: Path, engine: Engine) -> None:
    models, images, pixels = poisoned
    np.savez(images, images=np.full_like(pixels, 255))
    run = engine("ensemble", "-m", models, "-i", images, "-o", tmp_path / "m.csv", "--on-bad-image", "skip")
    assert run.code == 3, run.err
    assert len((tmp_path / "incomplete-m.csv").read_text().splitlines()) == 1
    assert "20 of 20" in run.err


def test_skipping_replaces_neither_the_input_nor_an_older_list(world: World, tmp_path: Path, engine: Engine) -> None:
    images = tmp_path / "in.npy"
    np.save(images, world.images)
    before = images.read_bytes()
    skipping = ("ensemble", "-m", world.models, "-i", images, "--on-bad-image", "skip")
    refused = engine(*skipping, "-o", images, "--overwrite")
    assert (refused.code, refused.err) == (
        2,
        f"error: {images} is what --input reads: choose another name for the masks\n",
    )
    assert images.read_bytes() == before
    older = tmp_path / "m.csv.skipped.txt"
    older.write_text("older")
    refused = engine(*skipping, "-o", tmp_path / "m.csv")
    assert (refused.code, refused.err.startswith(f"error: {older} exists: add --overwrite")) == (2, True)
    assert older.read_text() == "older"


def test_an_unknown_way_with_bad_images_is_refused(world: World, tmp_path: Path, engine: Engine) -> None:
    run = engine(
        "ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "m.csv", "--on-bad-image", "x"
    )
    assert (run.code, run.err) == (2, "error: --on-bad-image x; allowed are fail and skip\n")


def test_a_batch_is_done_again_once_and_only_for_what_may_pass() -> None:
    batch = Batch(8, ["a", "b"], np.zeros((2, 4, 4, 1), np.uint8))
    good = Predicted(8, ["a", "b"], np.zeros((2, 16), np.uint8))
    for error, calls in ((ModelError("lost"), 2), (MemoryError(), 2), (RuntimeError("x"), 2)):
        outcomes: list[BaseException | Predicted] = [error, good]
        assert attempt(_worker(outcomes), batch, None) is good
        assert not outcomes
        outcomes = [error] * 3
        with pytest.raises(ModelError, match="twice"):
            attempt(_worker(outcomes), batch, None)
        assert len(outcomes) == 3 - calls
    outcomes = [NotFiniteError("m", [1], ["b"])] * 2
    with pytest.raises(NotFiniteError):
        attempt(_worker(outcomes), batch, None)
    assert len(outcomes) == 1
    part = attempt(_worker([NotFiniteError("m", [1], ["b"]), good]), batch, None, BadImages())
    assert part.skipped == [(9, "b", "member m computes NaN or infinity")]


def _worker(outcomes: list[BaseException | Predicted]) -> Callable[..., Predicted]:
    def work(batch: Batch, truth: object) -> Predicted:
        outcome = outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return work
