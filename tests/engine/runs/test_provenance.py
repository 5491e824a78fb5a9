"""Every result says what made it: plan, hash and checksums, inside an .npz and beside anything else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine import Ensemble
from engine.runs.provenance import plan_hash, resolved_plan
from tests.conftest import Result
from tests.helpers.nets import save_net, save_specialists
from tests.helpers.world import World

Engine = Callable[..., Result]
GOALS = ("masks.csv", "masks.npy", "masks.npz", "masks")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def record_of(goal: Path) -> dict:
    if goal.suffix == ".npz":
        with np.load(goal, allow_pickle=False) as archive:
            return json.loads(archive["metadata"].item())
    return json.loads(goal.with_name(goal.name + ".json").read_text())


def run(engine: Engine, world: World, goal: Path, *more: object) -> Result:
    return engine("ensemble", "-m", world.models, "-i", world.images_file, "-o", goal, *more)


@pytest.mark.parametrize("name", GOALS)
def test_every_form_carries_it(name: str, world: World, tmp_path: Path, engine: Engine) -> None:
    goal = tmp_path / name
    assert run(engine, world, goal, "--strategy", "vote", "--weights", "1,2,1").code == 0
    told = record_of(goal)
    ensemble = Ensemble.open(world.models, strategy="vote", weights=[1, 2, 1])
    assert told["plan_sha256"] == plan_hash(ensemble)
    assert told["plan"] == resolved_plan(ensemble)
    assert (told["plan"]["strategy"], told["plan"]["suppress"], told["images"]) == ("vote", [0], 7)
    files = {file["name"]: file["sha256"] for member in told["members"] for file in member["files"]}
    assert files == {f"{letter}.onnx": sha256(world.models / f"{letter}.onnx") for letter in "abc"}
    assert str(tmp_path) not in json.dumps(told)
    beside = set() if goal.suffix == ".npz" else {f"{name}.json"}
    assert {path.name for path in tmp_path.iterdir()} == {name} | beside


def test_a_plan_file_and_the_same_options_give_one_hash(world: World, tmp_path: Path, engine: Engine) -> None:
    plan = tmp_path / "e.toml"
    plan.write_text(
        'strategy = "mean-prob"\nbias = [0, 0, 0.5, 0, 0]\nflips = "horizontal"\n'
        + "".join(f'[[members]]\nmodel = "{world.models}/{name}.onnx"\nweight = {weight}\n' for name, weight in
                  (("c", 1), ("a", 3), ("b", 1)))
    )  # fmt: skip
    options = ("--strategy", "mean-prob", "--bias", "0,0,.5,0,0", "--flips", "horizontal", "--weights", "6,2,2")
    assert run(engine, world, tmp_path / "one.npy", *options).code == 0
    assert engine("ensemble", "--plan", plan, "-i", world.images_file, "-o", tmp_path / "two.npy").code == 0
    assert record_of(tmp_path / "one.npy")["plan_sha256"] == record_of(tmp_path / "two.npy")["plan_sha256"]
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy"))


def test_whatever_may_change_a_label_changes_the_hash(world: World, tmp_path: Path) -> None:
    for change in (
        {"strategy": "vote"},
        {"weights": [1, 2, 1]},
        {"suppress": ()},
        {"suppress": (0, 2)},
        {"threshold": 0.5},
        {"bias": (0.0, 0.0, 1.0, 0.0, 0.0)},
        {"prior": (1.0, 1.0, 1.0, 1.0, 2.0)},
        {"vote_stage": "fused"},
        {"min_region": 4},
        {"flips": "both"},
    ):
        assert plan_hash(Ensemble.open(world.models, **change)) != plan_hash(Ensemble.open(world.models)), change
    alone, paths = Ensemble.open(world.models), sorted(world.models.glob("*.onnx"))
    assert plan_hash(Ensemble.open(paths[::-1])) == plan_hash(alone)
    assert plan_hash(Ensemble.open(paths[:2])) != plan_hash(alone)
    pool = [*paths, save_specialists(tmp_path / "five")]
    assert plan_hash(Ensemble.open(pool)) != plan_hash(alone)
    moved = tmp_path / "elsewhere.onnx"
    moved.write_bytes(paths[0].read_bytes())
    assert plan_hash(Ensemble.open(moved)) == plan_hash(Ensemble.open(paths[0]))


def test_what_is_stated_of_a_foreign_file_is_in_the_hash(world: World, tmp_path: Path) -> None:
    model = save_net(tmp_path / "net.onnx")
    stated = {"classes": ["a", "b", "c", "d", "e"], "input_layout": "NCHW", "activation": "logits"}
    hashes = {
        plan_hash(Ensemble.open(model, stated={**stated, "scale": scale}, sample=world.images[0][..., None]))
        for scale in (1.0, 1 / 255)
    }
    assert len(hashes) == 2


@pytest.mark.parametrize("name", ["masks.csv", "masks"])
def test_a_sidecar_is_guarded_like_its_result(name: str, world: World, tmp_path: Path, engine: Engine) -> None:
    goal, beside = tmp_path / name, tmp_path / f"{name}.json"
    beside.write_text("{}")
    for more, told in (((), "add --overwrite"), (("--overwrite",), "and is none")):
        refused = run(engine, world, goal, *more)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert f"{beside}" in refused.err
        assert told in refused.err
    assert beside.read_text() == "{}"
    assert not goal.exists()
    beside.unlink()
    assert run(engine, world, goal).code == 0
    first = record_of(goal)
    assert run(engine, world, goal, "--overwrite", "--strategy", "vote").code == 0
    assert record_of(goal)["plan_sha256"] != first["plan_sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}.json"}


def test_a_failed_run_leaves_no_sidecar(world: World, tmp_path: Path, engine: Engine) -> None:
    np.savez(tmp_path / "labels.npz", labels=np.full_like(world.labels, 9))
    assert run(engine, world, tmp_path / "m.csv", "--labels", tmp_path / "labels.npz").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["labels.npz"]
