"""Nets that output labels in ``compare`` and ``select``, against ``ensemble`` and ``evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.compare.runfile import read_run
from engine.runs.plan import read_plan
from tests.conftest import Result
from tests.helpers.foreign_nets import save_foreign
from tests.helpers.nets import save_net

Engine = Callable[..., Result]
FACTS = ("--scale", "1/255", "--classes", "grass,road,roof")
LEFT_OUT = "left out: mean-logit, mean-prob"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two nets of maps, one of labels, images, and labels that all of them half know."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for seed in range(2):
        save_net(tmp_path / "nets" / f"{seed}.onnx", 3, seed=seed)
    save_foreign(tmp_path / "nets" / "labels.onnx", head="argmax")
    draw = np.random.default_rng(6)
    np.savez("val.npz", images=draw.integers(0, 256, (6, 16, 32), dtype=np.uint8))
    with np.load("val.npz") as held:
        images = held["images"]
    np.savez("val.npz", images=images, labels=draw.integers(0, 3, images.shape, dtype=np.uint8))
    return tmp_path


def scored(engine: Engine, out: str, *spec: object) -> dict[str, float]:
    done = engine("ensemble", "-i", "val.npz", "-o", out, *spec)
    assert done.code == 0, done.err
    done = engine("evaluate", out, "--labels", "val.npz", "--ignored-class", "none", "--json")
    assert done.code == 0, done.err
    found: dict[str, float] = json.loads(done.out)["miou"]
    return found


def test_rows_are_votes_and_the_others_are_left_out(here: Path, engine: Engine) -> None:
    spec = ("-m", "nets", "-i", "val.npz", *FACTS, "--suppress", "0", "--folds", 2)
    done = engine("compare", *spec, "--labels", "val.npz", "--json", "-o", "run.npz")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["left_out"].startswith(LEFT_OUT)
    rows = {(row["name"], row["state"]): row for row in told["rows"]}
    assert {name for name, state in rows if state == "suppressed"} == {"0", "1", "vote", "staple"}
    assert [state for name, state in rows if name == "labels"] == ["raw"]
    for strategy in ("vote", "staple"):
        for state, suppress in (("suppressed", ("--suppress", "0")), ("raw", ("--no-suppress",))):
            want = scored(engine, f"{strategy}-{state}.npz", "-m", "nets", *FACTS, "--strategy", strategy, *suppress)
            found = rows[strategy, state]["scores"]
            assert {name: held["value"] for name, held in found.items()} == pytest.approx(want, abs=1e-6)
    alone = scored(engine, "alone.npz", "-m", "nets/labels.onnx", *FACTS)
    assert rows["labels", "raw"]["scores"]["labelled"]["value"] == pytest.approx(alone["labelled"], abs=1e-6)
    assert [curve["name"] for curve in told["curves"]][:3] == ["0", "1", "mean of members with probabilities"]
    assert read_run(Path("run.npz")).facts.flips == "none"
    assert engine("report", "run.npz", "--out", "run.html").code == 0
    assert LEFT_OUT in Path("run.html").read_text("utf-8")
    assert LEFT_OUT in " ".join(engine("compare", *spec).out.split())


def test_a_selection_of_votes(here: Path, engine: Engine) -> None:
    spec = ("-m", "nets", "-i", "val.npz", "--labels", "val.npz", *FACTS, "--suppress", "0", "--folds", 2, "--json")
    done = engine("select", *spec, "-o", "plan.toml", "--metric", "labelled")
    assert done.code == 0, done.err
    assert LEFT_OUT in done.err
    told = json.loads(done.out)
    levels = {level["name"]: level for level in told["levels"]}
    vote = scored(engine, "vote.npz", "-m", "nets", *FACTS, "--strategy", "vote", "--suppress", "0")
    assert levels["vote of all members"]["same_images"] == pytest.approx(vote["labelled"], abs=2e-3)  # from float16
    assert {level["choice"]["strategy"] for level in told["levels"]} <= {"vote", "staple", "mean-logit"}
    for level in told["levels"]:  # labels have no other class than the suppressed one
        assert set(level["choice"]["weights"]) != {"labels"}
    chosen = next(level for level in told["levels"] if level["chosen"])
    assert scored(engine, "plan.npz", "--plan", "plan.toml")["labelled"] == pytest.approx(
        chosen["same_images"], abs=2e-3
    )
    assert read_plan(Path("plan.toml")).suppress == (0,)


def test_labels_alone(here: Path, engine: Engine) -> None:
    save_foreign(Path("other.onnx"), head="argmax4", seed=1)
    spec = ("-m", "nets/labels.onnx", "-m", "other.onnx", "-i", "val.npz", "--labels", "val.npz", *FACTS, "--folds", 2)
    done = engine("compare", *spec, "--json", "-o", "run.npz")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert {row["name"] for row in told["rows"]} == {"labels", "other", "vote", "staple"}
    assert not told["curves"]
    assert engine("report", "run.npz", "--out", "run.html").code == 0
    done = engine("select", *spec, "-o", "plan.toml", "--json")
    assert done.code == 0, done.err
    done = engine("ensemble", "--plan", "plan.toml", "-i", "val.npz", "-o", "masks.npz")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--strategies", "mean-prob,vote"], "--strategies mean-prob,vote: labels outputs labels"),
        (["--calibrate"], "--calibrate: labels outputs labels"),
        (["--rankseg"], "--rankseg: labels outputs labels"),
        (["--flips", "horizontal"], "leave out --views"),
        (["--views", "auto:d4"], "no mean over views: leave out --views"),
    ],
)
def test_what_labels_lack_is_refused(here: Path, engine: Engine, more: list[str], told: str) -> None:
    done = engine("select", "-m", "nets", "-i", "val.npz", "--labels", "val.npz", *FACTS, "-o", "plan.toml", *more)
    assert done.code == 2
    assert [line for line in done.err.splitlines() if "it votes" not in line] == [done.err.splitlines()[-1]]
    assert told in done.err.splitlines()[-1]
    assert not Path("plan.toml").exists()
