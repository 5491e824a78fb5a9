"""Scenes on Ray: byte-identical to a local run, resumable in either place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.runs.durable import scenes as durable
from engine.runs.on_ray import scenes as on_ray
from tests.conftest import Result
from tests.helpers.clusters import local_cluster
from tests.helpers.world import World

Engine = Callable[..., Result]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_cluster():
        yield


@pytest.fixture
def arguments(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """A run over three scenes of different sizes, with true labels, in small blocks."""
    monkeypatch.setattr(on_ray, "BLOCK_ROWS", 3)
    draw = np.random.default_rng(0)
    for kind, most in (("images", 240), ("labels", 5)):
        (tmp_path / kind).mkdir()
        for index, size in enumerate(((41, 30), (8, 16), (70, 17))):
            Image.fromarray(draw.integers(0, most, size).astype(np.uint8)).save(tmp_path / kind / f"{index}.png")
    scenes = ("-m", world.models, "-i", tmp_path / "images", "--labels", tmp_path / "labels")
    return ("ensemble", *scenes, "--tile", "8x16", "--strategy", "vote", "--json")


def content(goal: Path) -> dict[str, bytes]:
    record = goal.with_name(goal.name + ".json").read_bytes()
    return {"record": record, **{path.name: path.read_bytes() for path in sorted(goal.iterdir())}}


def test_masks_and_scores_are_those_of_a_local_run(
    cluster: None, arguments: tuple[object, ...], tmp_path: Path, engine: Engine
) -> None:
    told = []
    for name, more in (("here", ()), ("ray", ("--on", "ray", "--workers", 2))):
        done = engine(*arguments, "--min-region", 4, "-o", tmp_path / name, *more)
        assert done.code == 0, done.err
        told.append(json.loads(done.out))
    assert content(tmp_path / "here") == content(tmp_path / "ray")
    for run in told:
        for row in run["scores"]:
            del row["images_per_second"]
    for key in ("images", "scores", "class_share", "tie_rate", "members"):
        assert told[0][key] == told[1][key], key


def test_a_run_begun_in_one_place_ends_in_the_other(
    cluster: None, arguments: tuple[object, ...], tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "MOST_TILES", 6)
    assert engine(*arguments, "-o", tmp_path / "whole").code == 0
    finish = durable.DurableScenes.finish_row
    ray = ("--on", "ray", "--workers", 1)
    for name, first, second in (("a", (), ray), ("b", ray, ())):
        count = 0

        def stop(work: durable.DurableScenes, *given: object) -> None:
            nonlocal count
            finish(work, *given)  # type: ignore[arg-type]
            count += 1
            if count == 12:
                raise KeyboardInterrupt

        monkeypatch.setattr(durable.DurableScenes, "finish_row", stop)
        assert engine(*arguments, "-o", tmp_path / name, *first).code != 0
        monkeypatch.setattr(durable.DurableScenes, "finish_row", finish)
        done = engine(*arguments, "-o", tmp_path / name, *second, "--resume")
        assert done.code == 0, done.err
        assert "resuming after" in done.err
        assert content(tmp_path / name) == content(tmp_path / "whole")


def test_what_is_refused(arguments: tuple[object, ...], tmp_path: Path, engine: Engine) -> None:
    done = engine(*arguments, "-o", tmp_path / "m", "--on", "ray", "--per-image", tmp_path / "rows.csv")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "--on ray writes masks alone: leave out" in done.err
