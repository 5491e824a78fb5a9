"""Truth as people have it: void, sparse ids, colours, names with a suffix, other orders, different sizes.

Expected values are scikit-learn's confusion matrices of what pandas, NumPy and Pillow read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from engine.runs.plan import read_plan
from tests.conftest import Result
from tests.helpers.nets import save_member
from tests.helpers.world import World

Engine = Callable[..., Result]
IDS = (0, 7, 11, 33, 254)
VOID_SHARE = 0.2
NAMES = [f"img_{index}" for index in range(7)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def void(world: World) -> np.ndarray:
    """The pixels without a class."""
    return np.random.default_rng(8).random(world.labels.shape) < VOID_SHARE


def ran(done: Result) -> dict[str, Any]:
    assert done.code == 0, done.err
    held: dict[str, Any] = json.loads(done.out)
    return held


def predicted(world: World, engine: Engine, *more: object) -> np.ndarray:
    """Masks of the world's images as ``m.npz``, as NumPy reads them."""
    done = engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", "m.npz", "--overwrite", *more)
    assert done.code == 0, done.err
    with np.load("m.npz", allow_pickle=False) as archive:
        return archive["masks"]


def expected(labels: np.ndarray, masks: np.ndarray, counted: np.ndarray) -> list[list[int]]:
    return confusion_matrix(labels[counted], masks[counted], labels=range(5)).tolist()


@pytest.mark.parametrize(("value", "option"), [(255, ()), (99, ("--void", 99)), (255, ("--void", 255))])
def test_void_is_counted_nowhere(
    value: int, option: tuple[object, ...], world: World, engine: Engine, here: Path, void: np.ndarray
) -> None:
    np.savez("y.npz", labels=np.where(void, value, world.labels).astype(np.uint8))
    masks = predicted(world, engine)
    told = ran(engine("evaluate", "m.npz", "--labels", "y.npz", "--json", *option))
    assert told["confusion"] == expected(world.labels, masks, ~void)
    assert (told["void_pixels"], told["ignored_class"]) == (int(void.sum()), 0)
    given = ("-m", world.models, "-i", world.images_file, "--labels", "y.npz", *option)
    scores = ran(engine("ensemble", *given, "-o", "n.npz", "--json"))
    own = next(row for row in scores["scores"] if row["own"])
    assert own["miou"] == pytest.approx(told["miou"])
    assert scores["void_pixels"] == int(void.sum())
    table = engine("evaluate", "m.npz", "--labels", "y.npz", *option).out
    shown = "255" if value == 255 else "99, 255"
    assert f"ignored class: 0 (background); void: {shown} ({void.sum()} pixels, not counted)" in table


def test_void_in_compare_select_and_report(world: World, engine: Engine, here: Path, void: np.ndarray) -> None:
    np.savez("y.npz", labels=np.where(void, 255, world.labels).astype(np.uint8))
    given = ("-m", world.models, "-i", world.images_file, "--labels", "y.npz", "--folds", 3)
    told = ran(engine("compare", *given, "--no-ablation", "--json", "-o", "run.npz"))
    assert f"void: 255 ({void.sum()} pixels, not counted)" in told["void"]
    masks = predicted(world, engine, "--strategy", "vote")
    row = next(row for row in told["rows"] if row["name"] == "vote" and row["state"] == "suppressed")
    assert row["confusion"] == expected(world.labels, masks, ~void)
    assert engine("report", "run.npz").code == 0
    assert f"void: 255 ({void.sum()} pixels" in Path("report.html").read_text("utf-8")
    done = engine("select", *given, "-o", "plan.toml", "--strategies", "mean-prob", "--pixels", 400)
    assert done.code == 0, done.err
    assert f"void: 255 ({void.sum()} pixels" in " ".join(done.out.split())


def test_nothing_but_void_is_refused(world: World, engine: Engine, here: Path) -> None:
    np.savez("y.npz", labels=np.full_like(world.labels, 255))
    given = ("-m", world.models, "-i", world.images_file, "--labels", "y.npz", "--folds", 3)
    for command in ("compare", "select"):
        done = engine(command, *given, "-o", f"{command}.{'npz' if command == 'compare' else 'toml'}")
        assert done.code == 2
        assert "void" in done.err


def test_ids_in_and_out(world: World, engine: Engine, here: Path, void: np.ndarray) -> None:
    table = np.array(IDS, np.uint8)
    np.savez("y.npz", labels=np.where(void, 255, table[world.labels]).astype(np.uint8))
    masks = predicted(world, engine)
    refused = engine("evaluate", "m.npz", "--labels", "y.npz")
    assert refused.code == 2
    assert "--label-ids 0,7,11,33,254" in refused.err
    stated = ("--label-ids", ",".join(map(str, IDS)))
    told = ran(engine("evaluate", "m.npz", "--labels", "y.npz", "--json", *stated))
    assert told["confusion"] == expected(world.labels, masks, ~void)
    members = "".join(f'[[members]]\nmodel = "{file.as_posix()}"\n' for file in sorted(world.models.iterdir()))
    Path("plan.toml").write_text(f"[labels]\nids = {list(IDS)}\noutput_ids = true\n{members}")
    given = ("ensemble", "--plan", "plan.toml", "-i", world.images_file, "--labels", "y.npz")
    for goal in ("ids.npz", "ids.csv", "ids.rle.csv", "ids"):
        assert engine(*given, "-o", goal).code == 0
        again = ran(engine("evaluate", goal, "--labels", "y.npz", "--json"))
        assert again["confusion"] == told["confusion"], goal
    with np.load("ids.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["masks"], table[masks])
    rows = pandas.read_csv("ids.csv", index_col="id").to_numpy().reshape(masks.shape)
    np.testing.assert_array_equal(rows, table[masks])
    np.testing.assert_array_equal(np.asarray(Image.open("ids/3.png")), table[masks[3]])
    runs = pandas.read_csv("ids.rle.csv")
    assert {int(name.rpartition("_")[2]) for name in runs["id_class"]} == set(IDS)
    more = engine(*given, "-o", "ids.npz", "--resume")
    assert "is complete" in more.err


def test_ids_of_a_scene_in_tiles(world: World, engine: Engine, here: Path) -> None:
    scene = np.tile(world.images[0], (5, 3))
    Image.fromarray(scene).save("scene.png")
    labels = np.tile(world.labels[0], (5, 3))
    Image.fromarray(np.array(IDS, np.uint8)[labels]).save("truth.png")
    given = ("ensemble", "-m", world.models, "-i", "scene.png", "--tile", "8x16", "--labels", "truth.png", "--json")
    assert engine(*given, "-o", "a.png").code == 2
    Image.fromarray(((labels > 2) * 255).astype(np.uint8)).save("two.png")
    two = engine(*("two.png" if word == "truth.png" else word for word in given), "-o", "a.png")
    assert two.code == 2
    assert "two.png holds the ids 0 and 255 alone" in two.err
    told = ran(engine(*given, "-o", "b.png", "--label-ids", ",".join(map(str, IDS))))
    masks = np.asarray(Image.open("b.png"))
    own = next(row for row in told["scores"] if row["own"])
    matrix = confusion_matrix(labels.ravel(), masks.ravel(), labels=range(5))[1:].astype(float)
    hits = np.diag(matrix[:, 1:])
    iou = hits / (matrix.sum(axis=1) + matrix[:, 1:].sum(axis=0) - hits)
    assert own["miou"]["labelled"] == pytest.approx(iou.mean(), abs=1e-6)


def test_colours(world: World, engine: Engine, here: Path, void: np.ndarray) -> None:
    names = ["background", "soil", "bedrock", "sand", "big rock"]
    colours = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (224, 224, 192)], np.uint8)
    Path("truth").mkdir()
    for name, labels, none in zip(NAMES, world.labels, void, strict=True):
        Image.fromarray(colours[np.where(none, 5, labels)]).save(f"truth/{name}.png")
    lines = [f"{r},{g},{b},{name}\n" for name, (r, g, b) in zip([*names, "void"], colours.tolist(), strict=True)]
    # In another order than the classes: the names decide.
    Path("p.csv").write_text("".join(lines[::-1]))
    masks = predicted(world, engine)
    told = ran(engine("evaluate", "m.npz", "--labels", "truth", "--palette", "p.csv", "--json"))
    assert told["confusion"] == expected(world.labels, masks, ~void)
    assert told["void_pixels"] == int(void.sum())
    np.save("bare.npy", masks)
    Path("p.csv").write_text("".join(lines))
    bare = ran(engine("evaluate", "bare.npy", "--labels", "truth", "--palette", "p.csv", "--json"))
    assert bare["confusion"] == told["confusion"]
    assert [row["name"] for row in bare["classes"]] == names
    Path("p.csv").write_text("".join(lines[:2] + lines[3:]))
    refused = engine("evaluate", "bare.npy", "--labels", "truth", "--palette", "p.csv")
    assert refused.code == 2
    assert "the colour (0, 128, 0)" in refused.err


def test_a_suffix_and_another_order_are_joined(world: World, engine: Engine, here: Path) -> None:
    for folder, suffix, stack in (("tiles", "", world.images), ("truth", "_mask", world.labels)):
        Path(folder).mkdir()
        for name, array in zip(NAMES, stack, strict=True):
            Image.fromarray(array).save(f"{folder}/{name}{suffix}.png")
    done = engine("ensemble", "-m", world.models, "-i", "tiles", "--labels", "truth", "-o", "masks", "--json")
    assert done.code == 0, done.err
    assert done.err.count("truth: joined by id, img_0_mask is the label map of img_0\n") == 1
    masks = np.stack([np.asarray(Image.open(f"masks/{name}.png")) for name in NAMES])
    own = next(row for row in json.loads(done.out)["scores"] if row["own"])
    told = ran(engine("evaluate", "masks", "--labels", "truth", "--json"))
    assert told["confusion"] == confusion_matrix(world.labels.ravel(), masks.ravel(), labels=range(5)).tolist()
    assert own["miou"] == pytest.approx(told["miou"])
    rows = pandas.DataFrame(world.labels.reshape(7, -1), index=pandas.Index(NAMES, name="id"))
    rows.iloc[::-1].to_csv("y.csv")
    assert ran(engine("evaluate", "masks", "--labels", "y.csv", "--json"))["confusion"] == told["confusion"]


def test_the_record_beside_the_masks_says_what_is_ignored(world: World, engine: Engine, here: Path) -> None:
    save_member(Path("net.onnx"), promised={"ignored_class": 3})
    assert engine("ensemble", "-m", "net.onnx", "-i", world.images_file, "-o", "m.csv").code == 0
    done = engine("evaluate", "m.csv", "--labels", world.labels_file)
    assert "ignored class: 3 (sand); void: no pixels" in done.out
    assert "trap" not in done.err
    told = ran(engine("evaluate", "m.csv", "--labels", world.labels_file, "--json"))
    assert told["ignored_class"] == 3
    assert [row["name"] for row in told["classes"]] == ["background", "soil", "bedrock", "sand", "big rock"]
    other = engine("evaluate", "m.csv", "--labels", world.labels_file, "--ignored-class", 0)
    assert "--ignored-class 0 is used, though the record of m.csv says ignored class 3" in other.err
    assert "ignored class: 0 (background)" in other.out
    named = engine("evaluate", "m.csv", "--labels", world.labels_file, "--classes", "a,b,c,d,e")
    assert "--classes a,b,c,d,e is used, though the record of m.csv says classes background,soil" in named.err


def test_masks_of_different_sizes_are_read_back(world: World, engine: Engine, here: Path) -> None:
    draw = np.random.default_rng(4)
    sizes = {"a": (8, 16), "b": (24, 20), "c": (9, 40)}
    for folder, high in (("tiles", 240), ("truth", 5)):
        Path(folder).mkdir()
        for name, size in sizes.items():
            Image.fromarray(draw.integers(0, high, size).astype(np.uint8)).save(f"{folder}/{name}.png")
    given = ("-m", world.models, "-i", "tiles", "--labels", "truth")
    assert engine("ensemble", *given, "-o", "masks", "--tile", "8x16").code == 0
    told = ran(engine("evaluate", "masks", "--labels", "truth", "--json"))
    pairs = [
        [np.asarray(Image.open(f"{folder}/{name}.png")).ravel() for name in sizes] for folder in ("truth", "masks")
    ]
    truth, masks = (np.concatenate(side) for side in pairs)
    assert told["confusion"] == confusion_matrix(truth, masks, labels=range(5)).tolist()
    Image.fromarray(np.zeros((9, 9), np.uint8)).save("truth/b.png")
    wrong = engine("evaluate", "masks", "--labels", "truth")
    assert wrong.code == 2
    assert "masks: the mask of b is 24x20, its label map 9x9" in wrong.err


def test_a_selected_plan_keeps_what_the_truth_holds(world: World, engine: Engine, here: Path) -> None:
    np.savez("y.npz", labels=np.array(IDS, np.uint8)[world.labels])
    given = ("-m", world.models, "-i", world.images_file, "--labels", "y.npz", "--folds", 3, "--pixels", 400)
    done = engine("select", *given, "-o", "plan.toml", "--label-ids", ",".join(map(str, IDS)), "--void", 255)
    assert done.code == 0, done.err
    assert (read_plan(Path("plan.toml")).labels.ids, read_plan(Path("plan.toml")).labels.void) == (IDS, 255)
    assert engine("ensemble", "--plan", "plan.toml", "-i", world.images_file, "--labels", "y.npz").code == 0


def test_foreign_masks_with_ids_of_their_own(world: World, engine: Engine, here: Path) -> None:
    table, draw = np.array(IDS, np.uint8), np.random.default_rng(6)
    masks = draw.integers(0, 5, world.labels.shape)
    np.save("y.npy", table[world.labels])
    np.save("ids.npy", table[masks])
    np.save("numbers.npy", masks.astype(np.uint8))
    every = np.ones(masks.shape, bool)
    for name, told in (("ids.npy", "as --label-ids"), ("numbers.npy", "as class numbers")):
        done = engine("evaluate", name, "--labels", "y.npy", "--label-ids", ",".join(map(str, IDS)), "--json")
        assert ran(done)["confusion"] == expected(world.labels, masks, every)
        assert told in done.err
    gap = engine("evaluate", "ids.npy", "--labels", "y.npy")
    assert gap.code == 2
    assert "y.npy holds the ids 0,7,11,33,254, with gaps: add --label-ids 0,7,11,33,254" in gap.err


def test_void_in_a_preview_is_paper(world: World, engine: Engine, here: Path) -> None:
    np.savez("y.npz", labels=np.full_like(world.labels, 255))
    given = ("ensemble", "-m", world.models, "-i", world.images_file, "--labels", "y.npz", "--preview")
    assert engine(*given, "void.png", "--void", 255).code == 0
    np.savez("y.npz", labels=world.labels)
    assert engine(*given, "full.png", "--overwrite").code == 0
    void, full = (np.asarray(Image.open(name).convert("RGB")).astype(int) for name in ("void.png", "full.png"))
    differs = (void != full).any(axis=2)
    assert differs.any()
    assert (void[differs] == 255).all()
