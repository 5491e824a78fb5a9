"""Runs that are cut off and go on: nothing lost, nothing doubled, nothing overwritten, and never another run's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import durable
from engine.errors import ModelError
from engine.journal import Journal, decode, encode, read_journal
from engine.locks import Lock, is_locked
from engine.resume import run_folder
from engine.sessions import Member
from tests.conftest import ROOT, Result
from tests.engine.conftest import World
from tests.engine.nets import save_member

Engine = Callable[..., Result]
COUNT = 40


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "MOST_IMAGES", 8)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Enough images for five shards."""
    pixels = np.random.default_rng(5).integers(0, 240, (COUNT, 8, 16)).astype(np.uint8)
    np.save(tmp_path / "images.npy", pixels)
    return tmp_path / "images.npy"


class Dying:
    """Lets each member's session fail for good from the n-th call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls, self.die_at, self.times = 0, 1 << 30, 1 << 30
        whole = Member.run

        def run(member: Member, *arguments: object, **named: object) -> None:
            # What is tried out before the run does not count.
            self.calls += threading.current_thread().name.startswith("maskfuse_")
            if self.die_at <= self.calls < self.die_at + self.times:
                raise ModelError(f"{member.path} fails: the device was lost")
            whole(member, *arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Member, "run", run)

    def at(self, call: int, times: int = 1 << 30) -> None:
        self.calls, self.die_at, self.times = 0, call, times


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Dying:
    return Dying(monkeypatch)


def command(world: World, images: Path, goal: Path, *more: object) -> tuple[object, ...]:
    return ("ensemble", "-m", world.models, "-i", images, "-o", goal, "--workers", 1, "--batch-size", 4, *more)


def resumed(done: Result) -> int:
    """How many images the run before had finished; how many of its last batches reached the disk is up to chance."""
    told = re.search(r"resuming behind (\d+) of 40 images\n", done.err)
    assert told is not None, done.err
    return int(told[1])


def content(path: Path) -> dict[str, bytes]:
    """Every file of a result, its record too."""
    found = sorted(path.rglob("*")) if path.is_dir() else [path]
    beside = path.with_name(path.name + ".json")
    return {file.name: file.read_bytes() for file in [*found, beside] if file.is_file()}


def cut_off(engine: Engine, dying: Dying, world: World, images: Path, goal: Path, *more: object) -> Result:
    """A run that ends in the seventh of its ten batches, after about three of its five shards."""
    dying.at(3 * 6 + 1)
    result = engine(*command(world, images, goal, *more))
    dying.at(1 << 30)
    assert result.code == 2
    return result


@pytest.mark.parametrize("name", ["masks.csv", "masks.rle.csv", "masks.npz", "masks.npy", "masks"])
def test_a_resumed_run_writes_what_an_undisturbed_one_writes(
    name: str, world: World, images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal, whole = tmp_path / name, tmp_path / "whole" / name
    whole.parent.mkdir()
    assert engine(*command(world, images, whole, "--batch-size", 3, "--workers", 2)).code == 0
    told = cut_off(engine, dying, world, images, goal).err
    assert "images are kept in" in told
    assert not goal.exists()
    before = dying.calls
    done = engine(*command(world, images, goal, "--resume"))
    assert done.code == 0, done.err
    kept = resumed(done)
    assert kept >= 8
    assert dying.calls - before == 3 * (COUNT - kept) // 4  # of each member, the batches that were left
    assert content(goal) == content(whole)
    assert not list(tmp_path.glob(".*"))


def test_scores_of_a_resumed_run_count_every_image(
    world: World, images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    truth = np.random.default_rng(6).integers(0, 5, (COUNT, 8, 16)).astype(np.uint8)
    np.save(tmp_path / "truth.npy", truth)
    more = ("--labels", tmp_path / "truth.npy", "--json", "--strategy", "vote")
    want = json.loads(engine(*command(world, images, tmp_path / "whole.npy", *more)).out)
    cut_off(engine, dying, world, images, tmp_path / "m.npy", *more)
    got = json.loads(engine(*command(world, images, tmp_path / "m.npy", "--resume", *more)).out)
    for told in (want, got):
        for row in told["scores"]:
            del row["images_per_second"]
    for key in ("images", "scores", "class_share", "tie_rate"):
        assert got[key] == want[key], key


def test_what_is_left_over_is_reported_and_stays(
    world: World, images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal = tmp_path / "m.csv"
    cut_off(engine, dying, world, images, goal)
    before = {path.name: path.read_bytes() for path in run_folder(goal).iterdir()}
    for more in ((), ("--overwrite",)):
        refused = engine(*command(world, images, goal, *more))
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert re.search(r"(16|20|24) of 40 images are kept", refused.err)
        assert "--resume" in refused.err
        assert str(run_folder(goal)) in refused.err
    assert {path.name: path.read_bytes() for path in run_folder(goal).iterdir()} == before


def test_another_run_does_not_go_on(world: World, images: Path, tmp_path: Path, engine: Engine, dying: Dying) -> None:
    goal = tmp_path / "m.csv"
    cut_off(engine, dying, world, images, goal)
    pixels = np.load(images)
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
        (("--labels", images), ["the true labels differ", "none then"]),
    ):
        refused = engine(*command(world, images, goal, "--resume", *more))
        assert (refused.code, refused.err.count("\n")) == (2, 1), refused.err
        assert refused.err.startswith(f"error: cannot resume {goal}: ")
        for fact in facts:
            assert fact in refused.err
    moved = images.rename(tmp_path / "moved.npy")
    assert engine(*command(world, moved, goal, "--resume", "--batch-size", 5)).code == 0


def test_resuming_what_is_complete_or_was_never_begun(
    world: World, images: Path, tmp_path: Path, engine: Engine
) -> None:
    for name in ("m.csv", "m.npz"):
        goal = tmp_path / name
        fresh = engine(*command(world, images, goal, "--resume"))
        assert fresh.code == 0
        assert "nothing to resume: starting with the first image\n" in fresh.err
        before = content(goal), goal.stat().st_mtime_ns
        again = engine(*command(world, images, goal, "--resume"))
        assert again.code == 0
        assert f"{goal} is complete: nothing to resume\n" in again.err
        assert "wrote" not in again.err
        assert (content(goal), goal.stat().st_mtime_ns) == before
        other = engine(*command(world, images, goal, "--resume", "--strategy", "vote"))
        assert (other.code, "made by another run" in other.err) == (2, True)
        assert (content(goal), goal.stat().st_mtime_ns) == before


def test_a_kill_while_the_output_is_put_in_place(
    world: World, images: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask file is there, its record is not, the shards are."""
    goal = tmp_path / "m.csv"
    assert engine(*command(world, images, goal)).code == 0
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
        engine(*command(world, images, goal))
    monkeypatch.undo()
    assert durable.DurableRun.__exit__ is whole_exit
    assert goal.exists()
    assert "40 of 40 images are kept" in engine(*command(world, images, goal)).err
    assert engine(*command(world, images, goal, "--resume")).code == 0
    assert content(goal) == want
    assert not list(tmp_path.glob(".*"))


def test_a_damaged_shard_is_predicted_again(
    world: World, images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    goal = tmp_path / "m.csv"
    cut_off(engine, dying, world, images, goal)
    shard = run_folder(goal) / "00000001.labels"
    held = bytearray(shard.read_bytes())
    held[100] ^= 1
    shard.write_bytes(held)
    done = engine(*command(world, images, goal, "--resume"))
    assert resumed(done) == 8
    assert engine(*command(world, images, tmp_path / "whole.csv")).code == 0
    assert goal.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_only_one_run_works_on_an_output(world: World, images: Path, tmp_path: Path, engine: Engine) -> None:
    goal = tmp_path / "m.csv"
    with Lock(run_folder(goal)):
        assert is_locked(run_folder(goal)) == f"process {os.getpid()}"
        refused = engine(*command(world, images, goal, "--resume"))
    assert (refused.code, refused.err) == (
        2,
        f"error: {goal} is being written by process {os.getpid()}: wait for it, or choose another name\n",
    )
    assert not is_locked(run_folder(goal))
    assert engine(*command(world, images, goal)).code == 0


def test_two_runs_that_start_at_once(world: World, images: Path, tmp_path: Path) -> None:
    """Whoever is late is refused, or finds the output there; never do both write."""
    goal = tmp_path / "m.csv"
    arguments = [sys.executable, "-m", "engine.cli", *map(str, command(world, images, goal))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    told = [run.communicate(timeout=120)[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes == [0, 2], told
    late = next(text for run, text in zip(runs, told, strict=True) if run.returncode == 2)
    assert "process" in late or "exists" in late
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "m.csv", "m.csv.json"]


def test_a_session_that_fails_once_is_asked_again(
    world: World, images: Path, tmp_path: Path, engine: Engine, dying: Dying
) -> None:
    assert engine(*command(world, images, tmp_path / "whole.csv")).code == 0
    dying.at(50, times=1)
    assert engine(*command(world, images, tmp_path / "m.csv")).code == 0
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    dying.at(5, times=2)
    refused = engine(*command(world, images, tmp_path / "n.csv"))
    assert refused.code == 2
    assert "the device was lost (tried twice, images 4 to 7)" in refused.err
    assert not list(tmp_path.glob("*n.csv*"))  # nothing worth keeping was finished


def test_a_full_disk_keeps_what_is_finished(
    world: World, images: Path, tmp_path: Path, process: Engine, engine: Engine
) -> None:
    """The system refuses to let any file grow beyond a size that the submission exceeds in mid-run."""
    goal = tmp_path / "m.csv"
    script = (
        "import resource, runpy, sys, engine.durable; engine.durable.MOST_IMAGES = 8;"
        "import engine.feed; engine.feed.MOST_MASKS = 4;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (7000, resource.RLIM_INFINITY)); sys.argv[0] = 'engine';"
        "runpy.run_module('engine.cli', run_name='__main__')"
    )
    refused = process(*command(world, images, goal), module=("-B", "-c", script))
    assert refused.code == 2
    told = refused.err.splitlines()[-1]
    assert told.startswith(f"error: cannot write {goal} (File too large): ")
    assert told.endswith(f"images are kept in {run_folder(goal)}: go on with --resume")
    assert not goal.exists()
    assert resumed(engine(*command(world, images, goal, "--resume"))) >= 8
    assert engine(*command(world, images, tmp_path / "whole.csv")).code == 0
    assert goal.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_killed_at_random_moments(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_and_resume", "--kills", "6", "--models", world.models,
         "--forms", "masks.csv", "masks.npz", "masks", "--signals", "KILL", "TERM"],
        cwd=ROOT, capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| masks")]
    assert [row[1].strip() for row in rows] == ["masks.csv", "masks.npz", "masks"]
    assert sum(int(row[2]) for row in rows) == 6


ENTRIES = st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9), max_size=3), max_size=5)


@given(ENTRIES, st.integers(0, 400), st.binary(max_size=40))
@settings(max_examples=150, deadline=None)
def test_a_torn_journal_keeps_its_whole_entries(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, object]], cut: int, garbage: bytes
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal"
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    journal.close()
    whole = path.read_bytes()
    assert read_journal(path) == (entries, [len(b"".join(map(encode, entries[: n + 1]))) for n in range(len(entries))])
    torn = whole[: max(0, len(whole) - cut)]
    path.write_bytes(torn + garbage)
    kept, ends = read_journal(path)
    whole_lines = torn.count(b"\n")
    assert kept[:whole_lines] == entries[:whole_lines]
    if decode(torn[(ends[-1] if ends else 0) :] + garbage.partition(b"\n")[0] + b"\n") is None:
        assert len(kept) == whole_lines
