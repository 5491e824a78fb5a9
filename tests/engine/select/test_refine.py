"""The last steps of a selection: views and clean-up per class, each decided without the fold it is scored on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.fusion.cleanup import ClassCleanup
from engine.fusion.evidence import Evidence
from engine.metrics import confusion_matrices
from engine.select.cache import log_probabilities
from engine.select.calibrate import calibrate
from engine.select.command import plan_of
from engine.select.crossfit import Fitted, Level, assign_folds
from engine.select.deadline import Deadline
from engine.select.options import view_sets
from engine.select.pool import Choice, Pool
from engine.select.refine import BY_CLASS, VIEWED, refine
from engine.select.rows import single
from engine.select.whole_images import score
from tests.conftest import Result
from tests.helpers.nets import FIVE, save_member

SIZE, TILES = (12, 14), 12


class Member:
    """As much of a member as a pool looks at."""

    is_set, name = False, "net"


def logs_of(labels: np.ndarray, sure: float, seed: int) -> np.ndarray:
    """What a member says that sees labels (tiles, height, width) through a little noise."""
    shown = np.eye(len(FIVE), dtype=np.float32)[labels.reshape(len(labels), -1)].transpose(0, 2, 1)
    noise = np.random.default_rng(seed).normal(0, 0.2, shown.shape)
    return log_probabilities((sure * shown + noise).astype(np.float32))


def pool_of(truth: np.ndarray, shown: np.ndarray, viewed: dict[str, np.ndarray] | None = None) -> Pool:
    others = {name: [logs_of(labels, 6, 5), logs_of(labels, 6, 6)] for name, labels in (viewed or {}).items()}
    return Pool(
        [Member(), Member()], [logs_of(shown, 6, 1), logs_of(shown, 6, 2)], truth.reshape(len(truth), -1),  # type: ignore[list-item]
        np.arange(TILES) // 2, SIZE, FIVE, 0, frozenset({0}), viewed=others,
    )  # fmt: skip


def fitted_of(pool: Pool, folds: np.ndarray) -> Fitted:
    """A selection that has chosen the mean of both."""
    choice = Choice("mean-prob", (1, 1), pool.decoding)
    found = pool.confusions(choice)
    alone = np.stack([pool.confusions(single(pool, member)) for member in range(2)])
    level = Level("mean of all members", choice, (choice,) * 3, found, found)
    return Fitted((level,), 0, None, alone, 1)


def scenes() -> np.ndarray:
    truth = np.ones((TILES, *SIZE), np.uint8)
    truth[:, :, 7:] = 2
    truth[:, 4:9, 1:6] = 3
    truth[:, 10:, 10:] = 4
    return truth


@pytest.fixture
def folds() -> np.ndarray:
    return assign_folds(scenes().reshape(TILES, -1), np.arange(TILES) // 2, 3, 5, 0)


def test_regions_and_holes_of_single_classes(folds: np.ndarray) -> None:
    pytest.importorskip("cc3d")
    truth, shown = scenes(), scenes()
    # Class 3 is seen with a hole and with specks; a small region of class 4 is right and stays.
    shown[:, 6, 3] = 1
    shown[:, 2, 10] = 3
    truth[:, 1, 1] = shown[:, 1, 1] = 4
    pool = pool_of(truth, shown)
    done = refine(pool, fitted_of(pool, folds), folds, "labelled")
    (step,) = done.steps
    assert (step.name, step.kept) == (BY_CLASS, True)
    assert step.before < step.after == pytest.approx(1)
    level = done.fitted.best
    assert level.name == BY_CLASS
    found = {item.class_id: item for item in level.choice.decoding.cleanup}
    assert (found[1].min_region, found[2].fill_holes) == (8, True)
    assert not {3, 4} & set(found)
    np.testing.assert_array_equal(pool.labels(level.choice, np.arange(TILES)), pool.truth)
    for fold, choice in enumerate(level.fold_choices):
        own = np.flatnonzero(folds == fold)
        np.testing.assert_array_equal(level.cross[own], pool.confusions(choice, own))
    assert done.fitted.tried > 20


def test_a_least_probability_of_a_class_that_is_seen_where_it_is_not(folds: np.ndarray) -> None:
    pytest.importorskip("cc3d")
    truth = scenes()
    pool = pool_of(truth, truth)
    # Half of the left side is taken for class 4, but not surely.
    unsure = truth.copy()
    unsure[:, 9:, :5] = 4
    other = logs_of(unsure, 1.5, 3) + 1.0 * np.eye(5, dtype=np.float32)[truth.reshape(TILES, -1)].transpose(0, 2, 1)
    other = log_probabilities(other.astype(np.float32))
    mixed = np.where((unsure != truth).reshape(TILES, 1, -1), other, pool.logs[0])
    pool = replace(pool, logs=[mixed, mixed])
    done = refine(pool, fitted_of(pool, folds), folds, "labelled")
    assert done.steps[0].kept
    found = {item.class_id: item for item in done.fitted.best.choice.decoding.cleanup}
    assert found[4].threshold > 0
    assert done.steps[0].after > done.steps[0].before + 0.05
    # Labels have no probabilities: beside a member that outputs them no threshold is tried.
    voted = replace(pool, voters=frozenset({0}))
    held = refine(voted, fitted_of(voted, folds), folds, "labelled")
    assert not any(item.threshold for item in held.fitted.best.choice.decoding.cleanup)


def test_thresholds_and_doubt_of_a_choice_with_a_temperature() -> None:
    """No label depends on the temperature of written probabilities; doubt does, and is as before the clean-up."""
    shown = scenes()
    pool = pool_of(shown, shown)
    pool = replace(pool, logs=[logs_of(shown, 1.5, 1), logs_of(shown, 1.5, 2)])
    plain = Choice("mean-prob", (1, 1), pool.decoding)
    cool = replace(plain, decoding=replace(pool.decoding, cleanup=(ClassCleanup(4, 0.55),)))
    warm = replace(cool, decoding=replace(cool.decoding, temperature=3.0))
    tiles = np.arange(TILES)
    assert (pool.labels(cool, tiles) != pool.labels(plain, tiles)).any()
    np.testing.assert_array_equal(pool.labels(warm, tiles), pool.labels(cool, tiles))
    np.testing.assert_array_equal(pool.confusions(warm), pool.confusions(cool))
    np.testing.assert_array_equal(
        pool.confusions(cool), confusion_matrices(pool.truth[tiles], pool.labels(cool, tiles), len(FIVE))
    )
    asked = Evidence(doubt="entropy", doubt_type="float32")
    labels, found = pool.explained(warm, tiles, asked)
    np.testing.assert_array_equal(labels, pool.labels(cool, tiles))
    as_if_plain = pool.explained(replace(warm, decoding=replace(warm.decoding, cleanup=())), tiles, asked)[1]
    np.testing.assert_array_equal(found.doubt, as_if_plain.doubt)


def test_nothing_is_kept_where_it_does_not_help_other_folds(folds: np.ndarray) -> None:
    pytest.importorskip("cc3d")
    truth, shown = scenes(), scenes()
    # What cleans up one fold spoils the others.
    shown[folds == 0, 2, 10] = 3
    truth[folds != 0, 2, 10] = shown[folds != 0, 2, 10] = 3
    pool = pool_of(truth, shown)
    done = refine(pool, fitted_of(pool, folds), folds, "labelled")
    assert not done.steps[0].kept
    assert done.fitted.best.name == "mean of all members"
    assert not refine(pool, fitted_of(pool, folds), folds, "labelled", clean_up=False).steps


def test_views_are_kept_where_they_help(folds: np.ndarray) -> None:
    truth, shown = scenes(), scenes()
    shown[:, 3:6, 5:9] = 4
    better, worse = scenes(), shown.copy()
    worse[:, 0:3] = 4
    pool = pool_of(truth, shown, {"both": worse, "d4": better})
    done = refine(pool, fitted_of(pool, folds), folds, "labelled", clean_up=False)
    (step,) = done.steps
    assert (step.name, step.kept, step.after) == (VIEWED, True, pytest.approx(1))
    level = done.fitted.best
    assert {level.choice.views, *(choice.views for choice in level.fold_choices)} == {"d4"}
    left_out = pool_of(truth, shown, {"both": worse})
    done = refine(left_out, fitted_of(left_out, folds), folds, "labelled", clean_up=False)
    assert (done.steps[0].kept, done.fitted.best.choice.views) == (False, "")
    assert score(pool, done.fitted.best.cross, "labelled") == done.steps[0].after
    # What is calibrated afterwards is what the members say in these views.
    kept = refine(pool, fitted_of(pool, folds), folds, "labelled", clean_up=False).fitted
    calibrated = calibrate(pool, kept, folds, "labelled", 500)
    assert calibrated is not None
    plain = calibrate(replace(pool, logs=pool.viewed["d4"], viewed={}), fitted_of(pool, folds), folds, "labelled", 500)
    assert plain is not None
    np.testing.assert_allclose(calibrated.before.sums, plain.before.sums)


def test_a_budget_that_is_over_tries_nothing(folds: np.ndarray) -> None:
    pool = pool_of(scenes(), scenes(), {"d4": scenes()})
    done = refine(pool, fitted_of(pool, folds), folds, "labelled", deadline=Deadline.after(-1))
    assert done.steps == ()
    assert done.fitted.tried == 1


def test_what_views_may_be_tried() -> None:
    assert view_sets(None) == view_sets("none") == ("none", ())
    assert view_sets("rotate180,horizontal,vertical") == ("both", ())
    assert view_sets("auto") == ("none", ("horizontal", "both", "d4"))
    assert view_sets("auto:d4/none/scale:1.5,shift:1:2/d4") == ("none", ("d4", "shift:1:2,scale:1.5"))


def test_what_is_kept_stands_in_the_plan(world: object, tmp_path: Path) -> None:
    from engine import Ensemble
    from engine.runs.plan import read_plan, write_plan
    from engine.runs.provenance import plan_hash

    ensemble = Ensemble.open(world.models)  # type: ignore[attr-defined]
    pool = replace(pool_of(scenes(), scenes()), members=ensemble.members[:2], classes=ensemble.classes)
    cleanup = (ClassCleanup(1, 0.4, 9), ClassCleanup(4, largest=True, fill_holes=True))
    choice = Choice("mean-prob", (1, 1), replace(pool.decoding, cleanup=cleanup), views="scale:1.5,shift:1:2")
    plan, digest = plan_of(pool, choice)
    write_plan(tmp_path / "e.toml", plan)
    assert replace(read_plan(tmp_path / "e.toml"), members=()) == replace(plan, members=())
    assert plan.cleanup == {
        "soil": {"threshold": 0.4, "min_region": 9},
        "big rock": {"largest": True, "fill_holes": True},
    }
    assert plan.views == ("shift:1:2", "scale:1.5")
    from engine.runs.opened import open_ensemble
    from engine.runs.options import Options

    again = open_ensemble(read_plan(tmp_path / "e.toml"), Options(), None)
    assert plan_hash(again) == digest
    assert again.variant.decoding.cleanup == cleanup
    for change in (
        {"views": ["d4"]},
        {"views": ["d4"], "view_mean": "probabilities"},
        {"cleanup": {1: {"threshold": 0.5}}},
    ):
        assert plan_hash(Ensemble.open(world.models, **change)) != plan_hash(ensemble)  # type: ignore[attr-defined]
    assert plan_hash(Ensemble.open(world.models, cleanup={"soil": {}})) == plan_hash(ensemble)  # type: ignore[attr-defined]
    assert plan_hash(Ensemble.open(world.models, views=["vertical", "rotate180", "horizontal"])) == plan_hash(  # type: ignore[attr-defined]
        Ensemble.open(world.models, flips="both")  # type: ignore[attr-defined]
    )


def test_a_view_that_a_net_does_not_take_is_left_out_by_auto_and_refused_by_name(
    tmp_path: Path, engine: Callable[..., Result]
) -> None:
    draw = np.random.default_rng(0)
    for seed in range(2):
        save_member(tmp_path / f"{seed}.onnx", seed, size=SIZE, promised={"size": SIZE})
    images = draw.integers(0, 240, (TILES, *SIZE)).astype(np.uint8)
    np.savez(tmp_path / "val.npz", images=images, labels=scenes(), groups=np.arange(TILES) // 2)
    val = tmp_path / "val.npz"
    given = ("-m", tmp_path, "-i", f"{val}:images", "--labels", f"{val}:labels", "--groups", f"{val}:groups")
    few = ("--folds", 2, "--rounds", 1, "--pixels", 500, "--no-bias", "--json", "--no-clean-up")
    done = engine("select", *given, "-o", tmp_path / "e.toml", *few, "--views", "auto")
    assert done.code == 0, done.err
    assert "--views auto does not try d4: view transpose makes 14x12 of 12x14, and 0.onnx takes 12x14 alone" in done.err
    assert [step["name"] for step in json.loads(done.out)["steps"]] == [VIEWED]
    assert "+ views, cross-fitted: " in done.err
    refused = engine("select", *given, "-o", tmp_path / "f.toml", *few, "--views", "auto:both/d4")
    assert refused.code == 2
    assert "leave that view out, or add --fit pad" in refused.err.splitlines()[-1]
    assert not (tmp_path / "f.toml").exists()
