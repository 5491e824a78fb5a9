"""``--unknown``: doubtful pixels have no class in masks of every form, and no score takes them for one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import Ensemble
from engine.errors import PlanError
from engine.runs.durable import images as durable
from engine.runs.durable import scenes as durable_scenes
from engine.sources.labels import open_labels
from tests.conftest import Result
from tests.end_to_end.test_evidence import expected
from tests.helpers.runs import Dying, command, cut_off
from tests.helpers.world import COUNT, HEIGHT, WIDTH, World

Engine = Callable[..., Result]
GIVEN = ("--weights", "2,1,0.5")


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(np.where(p > 0, p, 1))).sum(axis=1) / np.log(4)


@pytest.fixture(scope="module")
def doubted(world: World) -> tuple[float, np.ndarray, np.ndarray]:
    """A threshold between two pixels' doubts, the masks with all classes, and which pixels are unknown."""
    p = expected(world, "mean-prob", world.images)
    doubt = entropy(p)
    order = np.sort(doubt.ravel())
    middle = order.size * 2 // 3
    gap = middle + int(np.diff(order[middle : middle + 40]).argmax())
    threshold = float((order[gap] + order[gap + 1]) / 2)
    return threshold, p.argmax(axis=1).astype(np.uint8), doubt > threshold


def run(engine: Engine, world: World, output: Path, threshold: float, *more: object) -> Result:
    given = ("ensemble", "-m", world.models, "-i", world.images_file, "-o", output, *GIVEN, "--unknown", threshold)
    return engine(*given, "--strategy", "mean-prob", *more)


@pytest.mark.parametrize("form", [".npy", ".npz", ".csv", ".rle.csv", ".zarr", ""])
def test_masks_of_every_form_are_scored_on_covered_pixels(
    form: str, world: World, engine: Engine, tmp_path: Path, doubted: tuple[float, np.ndarray, np.ndarray]
) -> None:
    threshold, labels, unknown = doubted
    assert 0.1 < unknown.mean() < 0.5
    output = tmp_path / f"m{form}"
    done = run(engine, world, output, threshold)
    assert done.code == 0, done.err
    held = np.concatenate([batch.pixels for batch in open_labels(output).batches(64)]).reshape(labels.shape)
    np.testing.assert_array_equal(held, np.where(unknown, 254, labels))
    truth = world.labels
    found = json.loads(engine("evaluate", output, "--labels", world.labels_file, "--json").out)
    scored = truth != 0
    kept = scored & ~unknown
    assert found["unknown"] == {
        "scored_pixels": int(scored.sum()),
        "kept_pixels": int(kept.sum()),
        "wrong_pixels": int((kept & (labels != truth)).sum()),
        "coverage": pytest.approx(kept.sum() / scored.sum(), abs=1e-6),
        "selective_risk": pytest.approx((labels != truth)[kept].mean(), abs=1e-6),
    }
    ious = []
    for c in range(1, 5):
        guess, true = (labels == c) & kept, (truth == c) & kept
        ious.append((guess & true).sum() / (guess | true).sum())
    assert [row["iou"] for row in found["classes"][1:]] == pytest.approx(ious, abs=1e-6)
    assert found["miou"]["labelled"] == pytest.approx(np.mean(ious), abs=1e-6)


def test_the_run_tells_coverage_and_leaves_scores_of_all_pixels(
    world: World, engine: Engine, tmp_path: Path, doubted: tuple[float, np.ndarray, np.ndarray]
) -> None:
    threshold, labels, unknown = doubted
    table, scored = tmp_path / "t.csv", ("--labels", world.labels_file, "--json")
    done = run(engine, world, tmp_path / "m.npy", threshold, *scored, "--per-image", table)
    told = json.loads(done.out)["unknown"]
    truth, wrong = world.labels, labels != world.labels
    assert (told["value"], told["doubt"], told["pixels"]) == (254, "entropy", int(unknown.sum()))
    assert told["wrong_pixels"] == int((wrong & ~unknown & (truth != 0)).sum())
    assert f"unknown: {unknown.mean():.1%} of the pixels (entropy above {threshold:g})" in done.err
    plain = json.loads(
        engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", tmp_path / "n.npy", *GIVEN, "--strategy",
               "mean-prob", *scored).out
    )  # fmt: skip
    assert [row["miou"] for row in json.loads(done.out)["scores"]] == [row["miou"] for row in plain["scores"]]
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert [int(row["pixels (unknown)"]) for row in rows] == unknown.sum(axis=(1, 2)).tolist()
    for image, row in enumerate(rows):
        counts = np.bincount(labels[image][~unknown[image]], minlength=5)
        names = [name for name in row if name.startswith("pixels ") and "(" not in name]
        assert [int(row[name]) for name in names] == counts.tolist()
    record = json.loads((tmp_path / "m.npy.json").read_text("utf-8"))
    assert record["unknown"] == {"value": 254, "threshold": threshold, "doubt": "entropy"}
    assert record["plan"]["unknown"] == {"threshold": threshold, "doubt": "entropy"}


def test_groups_and_other_measures(
    world: World, engine: Engine, tmp_path: Path, doubted: tuple[float, np.ndarray, np.ndarray]
) -> None:
    threshold, labels, unknown = doubted
    groups = np.arange(COUNT) // 3
    np.save(tmp_path / "g.npy", groups)
    assert run(engine, world, tmp_path / "m.npy", threshold).code == 0
    given = ("evaluate", tmp_path / "m.npy", "--labels", world.labels_file, "--groups", tmp_path / "g.npy")
    found = json.loads(engine(*given, "--json").out)["unknown"]
    scored = world.labels != 0
    wrong = scored & ~unknown & (labels != world.labels)
    risks = [wrong[groups == g].sum() / scored[groups == g].sum() for g in range(3)]
    assert (found["groups"], found["group_risk"]) == (3, pytest.approx(np.mean(risks), abs=1e-6))
    assert "mean of 3 groups" in engine(*given).out.replace("\n", " ")
    # Another measure than the map that is written.
    asked = ("--doubt", tmp_path / "d.npy", "--doubt-type", "float32", "--doubt-map", "votes", "--overwrite")
    assert run(engine, world, tmp_path / "m.npy", 0.3, *asked).code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy") == 254, np.load(tmp_path / "d.npy") > 0.3)


def test_small_regions_are_cleaned_before(world: World, engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("cc3d")
    regions = ("--min-region", 6)
    assert run(engine, world, tmp_path / "all.npy", 1, *regions).code == 0
    assert run(engine, world, tmp_path / "m.npy", 0.6, *regions).code == 0
    assert run(engine, world, tmp_path / "plain.npy", 0.6).code == 0
    held, unknown = np.load(tmp_path / "m.npy"), np.load(tmp_path / "plain.npy") == 254
    assert unknown.any()
    np.testing.assert_array_equal(held, np.where(unknown, 254, np.load(tmp_path / "all.npy")))


@pytest.mark.parametrize("cleaned", [(), ("--min-region", 6)])
def test_scenes_are_resumed_and_scored(
    cleaned: tuple[object, ...],
    world: World,
    engine: Engine,
    tmp_path: Path,
    dying: Dying,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if cleaned:
        pytest.importorskip("cc3d")
    scene = np.concatenate([*world.images] * 2)
    np.save(tmp_path / "s.npy", scene)
    truth = np.concatenate([*world.labels] * 2)
    np.save(tmp_path / "t.npy", truth)
    tiled = ("--tile", f"{HEIGHT}x{WIDTH}", "--overlap", 0, "--batch-size", 1, "--workers", 1, *cleaned)
    given = ("ensemble", "-m", world.models, "-i", tmp_path / "s.npy", *tiled)
    asked = ("--unknown", 0.6, "--labels", tmp_path / "t.npy", "--json")
    whole = engine(*given, "-o", tmp_path / "whole.npy", *asked)
    assert whole.code == 0, whole.err
    every = engine(*given, "-o", tmp_path / "all.npy")
    assert every.code == 0, every.err
    labels, held = np.load(tmp_path / "all.npy"), np.load(tmp_path / "whole.npy")
    unknown = held == 254
    assert 0.02 < unknown.mean() < 0.98
    np.testing.assert_array_equal(held[~unknown], labels[~unknown])
    told = json.loads(whole.out)["unknown"]
    kept = (truth != 0) & ~unknown
    assert (told["pixels"], told["kept_pixels"]) == (int(unknown.sum()), int(kept.sum()))
    assert told["wrong_pixels"] == int((kept & (labels != truth)).sum())
    monkeypatch.setattr(durable_scenes, "MOST_TILES", 2)
    dying.prefix = "maskfuse-tiles"
    dying.at(20)
    assert engine(*given, "-o", tmp_path / "m.npy", *asked).code != 0
    dying.at(1 << 30)
    done = engine(*given, "-o", tmp_path / "m.npy", *asked, "--resume")
    assert done.code == 0, done.err
    assert "resuming after" in done.err
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), held)
    assert json.loads(done.out)["unknown"] == told


def test_a_resumed_run_is_the_same_and_refuses_another_threshold(
    world: World, engine: Engine, tmp_path: Path, many_images: Path, dying: Dying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 8)
    whole, goal, asked = tmp_path / "whole.npy", tmp_path / "m.npy", ("--unknown", 0.6)
    assert engine(*command(world, many_images, whole, *asked)).code == 0
    cut_off(engine, dying, world, many_images, goal, *asked)
    for other in ((), ("--unknown", 0.61)):
        refused = engine(*command(world, many_images, goal, "--resume", *other))
        assert refused.code == 2
        assert "the plan differs in unknown" in refused.err
    assert engine(*command(world, many_images, goal, "--resume", *asked)).code == 0
    assert goal.read_bytes() == whole.read_bytes()


def test_plans_hold_a_threshold_and_say_when_its_bound_is_gone(world: World, engine: Engine, tmp_path: Path) -> None:
    plan = tmp_path / "p.toml"
    table = '[unknown]\nthreshold = 0.6\ndoubt = "margin"\nrisk = 0.2\ngroups = 9\n'
    plan.write_text(f'strategy = "mean-prob"\n{table}\n[[members]]\nmodel = "{world.models.as_posix()}"\n', "utf-8")
    given = ("ensemble", "--plan", plan, "-i", world.images_file, "--overwrite", "-o")
    done = engine(*given, tmp_path / "m.npy")
    assert done.code == 0, done.err
    assert "bounds the expected share of wrong pixels of a new group by 0.2 (conformal, 9 groups)" in done.err
    changed = engine(*given, tmp_path / "n.npy", "--strategy", "vote")
    assert "--strategy changes what the plan's risk of 0.2 was calibrated with" in changed.err
    assert "bounds" not in changed.err.replace("bound holds", "")
    stated = engine(*given, tmp_path / "n.npy", "--unknown", 0.6)
    assert "conformal" not in stated.err
    np.testing.assert_array_equal(np.load(tmp_path / "n.npy"), np.load(tmp_path / "m.npy"))


def test_in_python(world: World, doubted: tuple[float, np.ndarray, np.ndarray]) -> None:
    threshold, labels, unknown = doubted
    files = sorted(world.models.glob("*.onnx"))
    expected_masks = np.where(unknown, 254, labels)
    opened = Ensemble.open(files, strategy="mean-prob", weights=[2, 1, 0.5])
    np.testing.assert_array_equal(opened.predict(world.images, unknown=threshold), expected_masks)
    own = Ensemble.open(files, strategy="mean-prob", weights=[2, 1, 0.5], unknown=threshold)
    np.testing.assert_array_equal(own.predict(world.images), expected_masks)
    found = opened.predict(world.images, doubt="margin", unknown=0.5, doubt_type="float32")
    np.testing.assert_array_equal(found.masks == 254, found.doubt > 0.5)
    with pytest.raises(PlanError, match="unknown 2: a doubt from 0"):
        opened.predict(world.images, unknown=2)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("-o", "m.json"), "cannot tell unknown pixels from background"),
        (("-o", "m.rle.csv", "--rle", "kaggle"), "cannot tell unknown pixels from background"),
        (("-o", "m.npy", "--early-exit", "--strategy", "vote"), "--unknown: not every member runs"),
        (("-o", "m.npy", "--doubt-map", "anger"), "--doubt-map anger; allowed are"),
    ],
)
def test_what_cannot_be_is_refused(
    more: tuple[object, ...], told: str, world: World, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = engine("ensemble", "-m", world.models, "-i", world.images_file, "--unknown", 0.5, *more)
    assert done.code == 2
    assert told in done.err
    assert not list(tmp_path.iterdir())


def test_borders_of_unknown_pixels_are_refused(world: World, engine: Engine, tmp_path: Path) -> None:
    assert run(engine, world, tmp_path / "m.npy", 0.5).code == 0
    done = engine("evaluate", tmp_path / "m.npy", "--labels", world.labels_file, "--surfaces")
    assert (done.code, "leave out --surfaces" in done.err) == (2, True)
    (tmp_path / "m.npy.json").unlink()
    # Without its record nobody knows what 254 is: it is refused, not scored.
    done = engine("evaluate", tmp_path / "m.npy", "--labels", world.labels_file, "--classes", 5)
    assert (done.code, "254" in done.err) == (2, True)
