"""Runs in processes of their own: two at once, on a full disk, killed, on disks and with sessions that fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runs.durable.resume import run_folder
from tests.conftest import ROOT
from tests.helpers.runs import Engine, command, resumed
from tests.helpers.world import World


def test_two_runs_that_start_at_once(world: World, many_images: Path, tmp_path: Path) -> None:
    """Whoever is late is refused, or finds the output there; never do both write."""
    goal = tmp_path / "m.csv"
    arguments = [sys.executable, "-m", "engine.cli", *map(str, command(world, many_images, goal))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    told = [run.communicate(timeout=120)[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes == [0, 2], told
    late = next(text for run, text in zip(runs, told, strict=True) if run.returncode == 2)
    assert "process" in late or "exists" in late
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.npy", "m.csv", "m.csv.json"]


def test_a_full_disk_keeps_what_is_finished(
    world: World, many_images: Path, tmp_path: Path, process: Engine, engine: Engine
) -> None:
    """The system refuses to let any file grow beyond a size that the submission exceeds in mid-run."""
    goal = tmp_path / "m.csv"
    script = (
        "import resource, runpy, sys, engine.runs.durable.images; engine.runs.durable.images.MOST_IMAGES = 8;"
        "import engine.outputs.blocks; engine.outputs.blocks.MOST_MASKS = 4;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (7000, resource.RLIM_INFINITY)); sys.argv[0] = 'engine';"
        "runpy.run_module('engine.cli', run_name='__main__')"
    )
    refused = process(*command(world, many_images, goal), module=("-B", "-c", script))
    assert refused.code == 2
    told = refused.err.splitlines()[-1]
    assert told.startswith(f"error: cannot write {goal} (File too large): ")
    assert told.endswith(f"images are kept in {run_folder(goal)}: go on with --resume")
    assert not goal.exists()
    assert resumed(engine(*command(world, many_images, goal, "--resume"))) >= 8
    assert engine(*command(world, many_images, tmp_path / "whole.csv")).code == 0
    assert goal.read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_killed_at_random_moments(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability.kill_and_resume", "--kills", "6", "--models", world.models,
         "--forms", "masks.csv", "masks.npz", "masks", "--signals", "KILL", "TERM"],
        cwd=ROOT, capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if line.startswith("| masks")]
    assert [row[1].strip() for row in rows] == ["masks.csv", "masks.npz", "masks"]
    assert sum(int(row[3]) for row in rows) == 6


def test_killed_and_resumed_with_one_process_number(world: World) -> None:
    """As in containers, where the killed run and the next one both have number 1."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability.kill_and_resume", "--kills", "2", "--models", world.models,
         "--forms", "masks.zarr", "masks", "--one-pid", "--images", "24"],
        cwd=ROOT, capture_output=True, text=True, timeout=400, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split("|")[5].strip() for line in done.stdout.splitlines() if "| masks" in line] == ["1 of 1"] * 2


def test_faults_of_the_disk_and_of_sessions(tmp_path: Path) -> None:
    """A few of those that the page about reliability lists; each run is as the program is, its system calls are not."""
    some = ["in the journal", "EIO on fsync of the output", "in mid-run", "cut off", "short writes of m", "once", "NaN"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability.faults", "--json", tmp_path / "f.json", "--only", *some],
        cwd=ROOT, capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "f.json").read_text())
    assert len(rows) == 8
    assert all(row["identical"] and row["as_promised"] for row in rows)
