"""Finished submissions and mask folders of other tools as members of a vote beside nets, against a vote in NumPy."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pandas
import pytest
from PIL import Image

from engine.outputs.open import open_writer
from engine.sources.labels import open_labels
from tests.conftest import Result
from tests.helpers import reference
from tests.helpers.nets import save_member
from tests.helpers.runs import Dying, command, content, cut_off, resumed
from tests.helpers.world import World

Engine = Callable[..., Result]
COUNT, SIZE, CLASSES = 6, (8, 12), 5
# img_10 stands before img_2 in the order of the alphabet.
NAMES = [f"img_{index}" for index in (0, 1, 2, 10, 11, 20)]


@dataclass(frozen=True)
class Place:
    """A folder with images, one net, and the masks of two other tools in every form."""

    folder: Path
    net: Path
    first: np.ndarray
    second: np.ndarray
    logits: np.ndarray

    def expected(
        self, members: list[object], weights: list[float] | None = None, suppress: int | None = 0
    ) -> np.ndarray:
        """The vote of label maps and logits, members one by one, in NumPy."""
        stacked = np.stack([item if np.ndim(item) == 4 else one_hot(item) for item in members])
        allowed = np.arange(CLASSES) != (-1 if suppress is None else suppress)
        flat = stacked.reshape(len(members), COUNT, CLASSES, -1).astype(np.float32)
        return reference.vote_labels(flat, weights, allowed, "fused")[0].reshape(COUNT, *SIZE)


def one_hot(labels: object) -> np.ndarray:
    return np.eye(CLASSES, dtype=np.float32)[np.asarray(labels)].transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("masks as members")
    draw = np.random.default_rng(5)
    images = draw.integers(0, 240, (COUNT, *SIZE)).astype(np.uint8)
    first, second = draw.integers(0, CLASSES, (2, COUNT, *SIZE)).astype(np.uint8)
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for name, image, mask in zip(NAMES, images, second, strict=True):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    np.save(folder / "images.npy", images)
    np.savez_compressed(folder / "second.npz", masks=second)
    np.save(folder / "second.npy", second)
    # As pandas writes a submission, with the rows in an order of their own.
    table = pandas.DataFrame(first.reshape(COUNT, -1), index=pandas.Index(NAMES, name="id"))
    table.iloc[[3, 1, 5, 0, 2, 4]].to_csv(folder / "first.csv")
    for name, rle in (("kaggle.rle.csv", "kaggle"), ("rows.rle.csv", "rows"), ("coco.json", "coco")):
        with open_writer(folder / name, NAMES, SIZE, CLASSES, rle=rle) as writer:
            writer.write(NAMES, second.reshape(COUNT, -1))
    net = save_member(folder / "net.onnx", 0)
    session = onnxruntime.InferenceSession(net, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": images[:, None].astype(np.float32) / 255})[0]
    return Place(folder, net, first, second, logits)


def ran(engine: Engine, goal: Path, images: Path, *members: object, more: tuple[object, ...] = ()) -> np.ndarray:
    named = [item for member in members for item in ("-m", member)]
    done = engine("ensemble", *named, "-i", images, "-o", goal, *more)
    assert done.code == 0, done.err
    source = open_labels(goal)
    found = np.concatenate([batch.pixels for batch in source.batches(4)]).reshape(COUNT, *SIZE)
    if NAMES[0] not in source.ids:
        return found
    return found[[list(source.ids).index(name) for name in NAMES]]


@pytest.mark.parametrize("weights", [None, [3, 2.5, 2], [1, 5, 1]])
@pytest.mark.parametrize("suppressed", [True, False])
def test_csv_folder_and_net_vote(
    engine: Engine, place: Place, tmp_path: Path, weights: list[float] | None, suppressed: bool
) -> None:
    more = () if suppressed else ("--no-suppress",)
    more += () if weights is None else ("--weights", ",".join(map(str, weights)))
    members = (place.folder / "first.csv", place.net, place.folder / "masks")
    found = ran(engine, tmp_path / "m.csv", place.folder / "images", *members, more=(*more, "--batch-size", 4))
    wanted = place.expected([place.first, place.logits, place.second], weights, 0 if suppressed else None)
    np.testing.assert_array_equal(found, wanted)


FORMS = ["masks", "second.npz", "second.npz:masks", "second.npy", "kaggle.rle.csv", "rows.rle.csv", "coco.json"]


@pytest.mark.parametrize(("form", "images"), [(form, images) for form in FORMS for images in ("images", "images.npy")])
def test_every_form_gives_the_same_vote(engine: Engine, place: Place, tmp_path: Path, form: str, images: str) -> None:
    """Where names meet the rows of an array, the masks are those of the images in the order of both."""
    found = ran(engine, tmp_path / "m.csv", place.folder / images, place.net, place.folder / form)
    logits, second = place.logits, place.second
    ids = list(open_labels(place.folder / "masks").ids)
    order = [NAMES.index(name) for name in ids]
    if (form, images) == ("masks", "images.npy"):
        second = second[order]
    elif form.startswith("second") and images == "images":
        second = second[np.argsort(order)]
    np.testing.assert_array_equal(found, place.expected([logits, second]))


def test_the_order_in_which_names_meet_rows_is_said(engine: Engine, place: Place, tmp_path: Path) -> None:
    done = engine(
        "ensemble",
        "-m",
        place.net,
        "-m",
        place.folder / "second.npy",
        "-i",
        place.folder / "images",
        "-o",
        tmp_path / "m.csv",
    )
    assert done.code == 0, done.err
    assert "its masks are those of" in done.err
    assert "row by row, in the order img_0, img_1, " in done.err


def test_masks_alone_vote_and_ties_go_to_the_lower_class(engine: Engine, place: Place, tmp_path: Path) -> None:
    members = (place.folder / "first.csv", place.folder / "masks")
    found = ran(engine, tmp_path / "m.csv", place.folder / "images", *members, more=("--classes", "5"))
    np.testing.assert_array_equal(found, np.minimum(place.first, place.second))
    by_weight = ran(
        engine, tmp_path / "w.csv", place.folder / "images", *members, more=("--classes", "5", "--weights", "1,2")
    )
    np.testing.assert_array_equal(by_weight, place.second)


def test_a_plan_names_masks_with_weights_and_the_record_their_checksum(
    engine: Engine, place: Place, tmp_path: Path
) -> None:
    plan = place.folder / "ensemble.toml"
    tables = (("first.csv", 2.5), ("masks", 2), ("net.onnx", 3))
    plan.write_text(
        'strategy = "vote"\n' + "".join(f'[[members]]\nmodel = "{name}"\nweight = {w}\n' for name, w in tables)
    )
    done = engine("ensemble", "--plan", plan, "-i", place.folder / "images", "-o", tmp_path / "m.csv")
    assert done.code == 0, done.err
    found = pandas.read_csv(tmp_path / "m.csv", index_col="id").loc[NAMES].to_numpy().reshape(COUNT, *SIZE)
    wanted = place.expected([place.first, place.second, place.logits], [2.5, 2, 3])
    np.testing.assert_array_equal(found, wanted)
    record = json.loads((tmp_path / "m.csv.json").read_text())
    assert [member["name"] for member in record["members"]] == ["first.csv", "masks", "net"]
    assert [member["runtime"] for member in record["members"]][:2] == ["masks", "masks"]
    sums = {member["sha256"] for member in record["members"]}
    assert len(sums) == 3
    assert {held["masks"] for held in record["plan"]["members"] if "masks" in held} < sums


def test_staple_takes_masks_too(engine: Engine, place: Place, tmp_path: Path) -> None:
    """Two raters that agree outvote a third by any estimate of reliability."""
    members = (place.folder / "masks", place.folder / "coco.json", place.folder / "first.csv")
    more = ("--classes", "5", "--strategy", "staple")
    found = ran(engine, tmp_path / "m.csv", place.folder / "images", *members, more=more)
    np.testing.assert_array_equal(found, place.second)


def test_scores_and_a_preview_of_a_vote_with_masks(engine: Engine, place: Place, tmp_path: Path) -> None:
    """The table has each member alone; the masks themselves as truth give it 1."""
    done = engine(
        *("ensemble", "-m", place.net, "-m", place.folder / "masks", "-i", place.folder / "images", "--json"),
        *(
            "--labels",
            place.folder / "masks",
            "--no-suppress",
            "-o",
            tmp_path / "m.csv",
            "--preview",
            tmp_path / "p.png",
        ),
    )
    assert done.code == 0, done.err
    assert (tmp_path / "p.png").stat().st_size > 0
    scores = {row["name"]: row["miou"] for row in json.loads(done.out)["scores"]}
    assert scores["masks"]["labelled"] == 1
    assert scores["net"]["labelled"] < 1


def test_a_limit_takes_the_first_images(engine: Engine, place: Place, tmp_path: Path) -> None:
    more = ("--limit", "2", "--classes", "5")
    done = engine(
        "ensemble",
        "-m",
        place.folder / "second.npy",
        "-i",
        place.folder / "images.npy",
        "-o",
        tmp_path / "m.npy",
        *more,
    )
    assert done.code == 0, done.err
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), place.second[:2])


def test_a_run_that_was_cut_off_goes_on_to_the_same_bytes(
    engine: Engine,
    place: Place,
    world: World,
    many_images: Path,
    dying: Dying,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.runs.durable.images.MOST_IMAGES", 8)
    masks = np.random.default_rng(0).integers(0, 5, np.load(many_images).shape[:3]).astype(np.uint8)
    file, goal, whole = tmp_path / "other.npy", tmp_path / "m.csv", tmp_path / "whole.csv"
    np.save(file, masks)
    done = engine(*command(world, many_images, whole, "-m", file))
    assert done.code == 0, done.err
    cut_off(engine, dying, world, many_images, goal, "-m", file)
    np.save(file, (masks + 1) % 5)
    refused = engine(*command(world, many_images, goal, "-m", file, "--resume"))
    assert refused.code == 2
    assert "the members differ: other.npy (" in refused.err
    np.save(file, masks)
    done = engine(*command(world, many_images, goal, "-m", file, "--resume"))
    assert resumed(done) >= 8
    assert content(goal)["m.csv"] == content(whole)["whole.csv"]


REFUSED = {
    "mean": (["--strategy", "mean-logit"], "first.csv outputs labels, which mean-logit cannot fuse: use"),
    "flips": (["--flips", "horizontal"], "first.csv outputs labels, which have no mean over views"),
    "early exit": (["--early-exit"], "first.csv holds finished masks, which cost nothing to run"),
    "stage": (["--vote-stage", "members"], "first.csv outputs labels, so it has no second choice"),
    "ray": (["--on", "ray"], "first.csv holds finished masks, which are read on this machine alone"),
    "tiles": (["--tile", "8x8"], "first.csv holds masks, which are members of engine ensemble"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_masks_cannot_do_is_refused_in_one_line(engine: Engine, place: Place, tmp_path: Path, case: str) -> None:
    more, message = REFUSED[case]
    members = ("-m", place.net, "-m", place.folder / "first.csv")
    output = tmp_path / ("out/" if case == "tiles" else "m.csv")
    done = engine("ensemble", *members, "-i", place.folder / "images", "-o", output, *more)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1


def bad(place: Place, folder: Path, case: str) -> Path:
    """Make masks that do not fit, or a folder that is no member."""
    if case == "label":
        np.save(folder / "bad.npy", np.where(place.second == 4, 5, place.second))
    elif case == "void":
        np.savez(folder / "bad.npz", masks=np.where(place.second == 4, 255, place.second).astype(np.uint8))
        return folder / "bad.npz"
    elif case == "size":
        np.save(folder / "bad.npy", place.second.transpose(0, 2, 1))
    elif case == "count":
        np.save(folder / "bad.npy", place.second[:5])
    elif case == "missing":
        table = pandas.DataFrame(place.first.reshape(COUNT, -1), index=pandas.Index([*NAMES[:5], "z"], name="id"))
        table.to_csv(folder / "bad.csv")
        return folder / "bad.csv"
    elif case == "both":
        (folder / "bad").mkdir()
        (folder / "bad" / "a.onnx").write_bytes(place.net.read_bytes())
        Image.fromarray(place.first[0]).save(folder / "bad" / "m.png")
        return folder / "bad"
    return folder / "bad.npy"


BAD = {
    "label": "bad.npy: label map 0 holds 5; allowed are 0 to 4",
    "void": "holds 255; allowed are 0 to 4",
    "size": "bad.npy holds masks of 12x8,",
    "count": "holds 5 masks, ",
    "missing": "bad.csv has no mask of image img_20 of",
    "both": "holds nets (a.onnx) and masks (m.png): name the files",
}


@pytest.mark.parametrize("case", BAD)
def test_masks_that_do_not_fit_are_refused_in_one_line(engine: Engine, place: Place, tmp_path: Path, case: str) -> None:
    member = bad(place, tmp_path, case)
    done = engine("ensemble", "-m", place.net, "-m", member, "-i", place.folder / "images", "-o", tmp_path / "m.csv")
    assert done.code == 2
    assert BAD[case] in done.err
    assert done.err.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "m.csv").exists()


def test_masks_alone_need_the_classes(engine: Engine, place: Place, tmp_path: Path) -> None:
    done = engine("ensemble", "-m", place.folder / "first.csv", "-i", place.folder / "images", "-o", tmp_path / "m.csv")
    assert done.code == 2
    assert "no member is a net, so nothing says which classes there are: add --classes" in done.err


@pytest.mark.parametrize("command", ["compare", "inspect", "bench"])
def test_other_commands_take_nets_alone(engine: Engine, place: Place, command: str) -> None:
    masks = place.folder / "first.csv"
    more = (masks,) if command == "inspect" else ("-m", masks, "-i", place.folder / "images")
    done = engine(command, *more)
    assert done.code == 2
    assert "first.csv holds masks, which are members of engine ensemble alone" in done.err


@pytest.mark.parametrize(("name", "rle"), [("m.rle.csv", "kaggle"), ("m.json", "coco"), ("m.rle.csv", "rows")])
def test_ensemble_writes_run_lengths_that_evaluate_reads(
    engine: Engine, place: Place, tmp_path: Path, name: str, rle: str
) -> None:
    ran(engine, tmp_path / "m.npy", place.folder / "images.npy", place.net)
    done = engine("ensemble", "-m", place.net, "-i", place.folder / "images.npy", "-o", tmp_path / name, "--rle", rle)
    assert done.code == 0, done.err
    assert json.loads((tmp_path / f"{name}.json").read_text())["rle"] == rle
    done = engine("evaluate", tmp_path / name, "--labels", tmp_path / "m.npy", "--json", "--rle", rle)
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    assert 1.0 in [value for value in scores["miou"].values() if isinstance(value, float)], scores
    again = engine("ensemble", "-m", place.net, "-i", place.folder / "images.npy", "-o", tmp_path / name, "--resume")
    assert again.code == 2
    assert "made by another run" in again.err


@pytest.mark.parametrize("command", ["ensemble", "compare"])
def test_truth_of_a_competition_scores_as_the_same_masks_do(
    engine: Engine, place: Place, tmp_path: Path, command: str
) -> None:
    """Foreground rows alone, in another order than the images."""
    images = place.folder / "images"
    head, *lines = (place.folder / "kaggle.rle.csv").read_text().splitlines()
    truth = tmp_path / "train.csv"
    truth.write_text("\n".join([head, *(line for line in lines[::-1] if not line.endswith(","))]) + "\n")
    found = []
    for index, labels in enumerate((place.folder / "masks", truth, place.folder / "coco.json")):
        more = ("-o", tmp_path / f"{index}.csv") if command == "ensemble" else ()
        done = engine(command, "-m", place.net, "-i", images, "--labels", labels, "--json", *more)
        assert done.code == 0, done.err
        table = json.loads(done.out)
        rows, key = ("scores", "miou") if command == "ensemble" else ("rows", "scores")
        found.append({row["name"]: row[key] for row in table[rows]})
    assert found[0] == found[1] == found[2]
