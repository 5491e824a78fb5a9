"""Runs that are cut off and go on: nothing lost, nothing doubled, nothing overwritten, and never another run's."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from engine.runs.durable import images as durable
from engine.runs.durable.lock import Lock, is_locked
from engine.runs.durable.resume import run_folder
from tests.helpers.nets import save_member
from tests.helpers.runs import COUNT, Dying, Engine, command, content, cut_off, resumed
from tests.helpers.world import World


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 8)


@pytest.mark.parametrize("name", ["masks.csv", "masks.rle.csv", "masks.npz", "masks.npy", "masks"])
def test_a_resumed_run_writes_what_an_undisturbed_one_writes(
    name: str, world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal, whole = tmp_path / name, tmp_path / "whole" / name
    whole.parent.mkdir()
    assert engine(*command(world, many_images, whole, "--batch-size", 3, "--workers", 2)).code == 0
    told = cut_off(engine, dying, world, many_images, goal).err
    assert "images are kept in" in told
    assert not goal.exists()
    before = dying.calls
    done = engine(*command(world, many_images, goal, "--resume"))
    assert done.code == 0, done.err
    kept = resumed(done)
    assert kept >= 8
    assert dying.calls - before == 3 * (COUNT - kept) // 4  # of each member, the batches that were left
    assert content(goal) == content(whole)
    assert not list(tmp_path.glob(".*"))


def test_scores_of_a_resumed_run_count_every_image(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    truth = np.random.default_rng(6).integers(0, 5, (COUNT, 8, 16)).astype(np.uint8)
    np.save(tmp_path / "truth.npy", truth)
    more = ("--labels", tmp_path / "truth.npy", "--json", "--strategy", "vote")
    want = json.loads(engine(*command(world, many_images, tmp_path / "whole.npy", *more)).out)
    cut_off(engine, dying, world, many_images, tmp_path / "m.npy", *more)
    got = json.loads(engine(*command(world, many_images, tmp_path / "m.npy", "--resume", *more)).out)
    for told in (want, got):
        for row in told["scores"]:
            del row["images_per_second"]
    for key in ("images", "scores", "class_share", "tie_rate"):
        assert got[key] == want[key], key


def test_what_is_left_over_is_reported_and_stays(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal = tmp_path / "m.csv"
    cut_off(engine, dying, world, many_images, goal)
    before = {path.name: path.read_bytes() for path in run_folder(goal).iterdir()}
    for more in ((), ("--overwrite",)):
        refused = engine(*command(world, many_images, goal, *more))
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert re.search(r"(16|20|24) of 40 images are kept", refused.err)
        assert "--resume" in refused.err
        assert str(run_folder(goal)) in refused.err
    assert {path.name: path.read_bytes() for path in run_folder(goal).iterdir()} == before


def test_another_run_does_not_go_on(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal = tmp_path / "m.csv"
    cut_off(engine, dying, world, many_images, goal)
    pixels = np.load(many_images)
    pixels[39, 0, 0] ^= 1
    np.save(tmp_path / "other.npy", pixels)
    save_member(tmp_path / "d.onnx", 9)
    for more, facts in (
        (("-m", tmp_path / "d.onnx"), ["the members differ", "none then, d.onnx (", "now"]),
        (("--strategy", "vote"), ["the plan differs in strategy", "'mean-logit' then, 'vote' now"]),
        (("--suppress", "0,1"), ["the plan differs in suppress", "[0] then, [0, 1] now"]),
        (("--weights", "1,2,3"), ["the plan differs in members", "weights"]),
        (("-i", tmp_path / "other.npy"), ["the input differs"]),
        (("--limit", 39), ["number of images differs: 40 then, 39 now"]),
        (("--labels", many_images), ["the true labels differ", "none then"]),
    ):
        refused = engine(*command(world, many_images, goal, "--resume", *more))
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
        assert refused.err.startswith(f"error: cannot resume {goal}: ")
        for fact in facts:
            assert fact in refused.err
    moved = many_images.rename(tmp_path / "moved.npy")
    assert engine(*command(world, moved, goal, "--resume", "--batch-size", 5)).code == 0


def test_resuming_what_is_complete_or_was_never_begun(
    world: World, many_images: Path, tmp_path: Path, engine: Engine
) -> None:
    for name in ("m.csv", "m.npz"):
        goal = tmp_path / name
        fresh = engine(*command(world, many_images, goal, "--resume"))
        assert fresh.code == 0
        assert "nothing to resume: starting with the first image\n" in fresh.err
        before = content(goal), goal.stat().st_mtime_ns
        again = engine(*command(world, many_images, goal, "--resume"))
        assert again.code == 0
        assert f"{goal} is complete: nothing to resume\n" in again.err
        assert "wrote" not in again.err
        assert (content(goal), goal.stat().st_mtime_ns) == before
        other = engine(*command(world, many_images, goal, "--resume", "--strategy", "vote"))
        assert (other.code, "made by another run" in other.err) == (2, True)
        assert (content(goal), goal.stat().st_mtime_ns) == before


def test_a_kill_while_the_output_is_put_in_place(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask file is there, its record is not, the shards are."""
    goal = tmp_path / "m.csv"
    assert engine(*command(world, many_images, goal)).code == 0
    want = content(goal)
    goal.unlink()
    goal.with_name("m.csv.json").unlink()

    class KilledError(BaseException):
        pass

    def killed(work: durable.DurableRun, goal: Path) -> None:
        work._journal.close()
        work._lock.close()
        goal.with_name("m.csv.json").unlink()
        monkeypatch.setattr(durable.DurableRun, "__exit__", lambda *arguments: None)
        raise KilledError

    whole_exit = durable.DurableRun.__exit__
    monkeypatch.setattr(durable.DurableRun, "finish", killed)
    with pytest.raises(KilledError):
        engine(*command(world, many_images, goal))
    monkeypatch.undo()
    assert durable.DurableRun.__exit__ is whole_exit
    assert goal.exists()
    assert "40 of 40 images are kept" in engine(*command(world, many_images, goal)).err
    assert engine(*command(world, many_images, goal, "--resume")).code == 0
    assert content(goal) == want
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_shard_is_predicted_again(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal = tmp_path / "m.csv"
    cut_off(engine, dying, world, many_images, goal)
    shard = run_folder(goal) / "00000001.labels"
    held = bytearray(shard.read_bytes())
    held[100] ^= 1
    shard.write_bytes(held)
    done = engine(*command(world, many_images, goal, "--resume"))
    assert resumed(done) == 8
    assert engine(*command(world, many_images, tmp_path / "whole.csv")).code == 0
    assert goal.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_only_one_run_works_on_an_output(world: World, many_images: Path, tmp_path: Path, engine: Engine) -> None:
    goal = tmp_path / "m.csv"
    with Lock(run_folder(goal)):
        assert is_locked(run_folder(goal)) == f"process {os.getpid()}"
        refused = engine(*command(world, many_images, goal, "--resume"))
    assert (refused.code, refused.err) == (
        2,
        f"error: {goal} is being written by process {os.getpid()}: wait for it, or choose another name\n",
    )
    assert not is_locked(run_folder(goal))
    assert engine(*command(world, many_images, goal)).code == 0


def test_a_session_that_fails_once_is_asked_again(
    world: World, many_images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    assert engine(*command(world, many_images, tmp_path / "whole.csv")).code == 0
    dying.at(50, times=1)
    assert engine(*command(world, many_images, tmp_path / "m.csv")).code == 0
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    dying.at(5, times=2)
    refused = engine(*command(world, many_images, tmp_path / "n.csv"))
    assert refused.code == 2
    assert "the device was lost (tried twice, images 4 to 7)" in refused.err
    assert not list(tmp_path.glob("*n.csv*"))  # nothing worth keeping was finished
