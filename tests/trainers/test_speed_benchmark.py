"""The benchmark that sets training beside an older commit refuses what it cannot measure, before it measures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def bench(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.bench_trainers", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--against", "--scores"), "the scores of generated tiles say nothing; give --against and --data"),
        (("--scores", "--data", "tiles.npz"), "give --against and --data"),
        (("--against", "--only", "pan,pin"), "--only: pin unknown; give some of unet"),
    ],
)
def test_a_comparison_that_says_nothing_is_refused(root: Path, options: tuple[str, ...], message: str) -> None:
    done = bench(root, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_commit_is_one_line(root: Path) -> None:
    if not (root / ".git").exists():
        pytest.skip("no repository here: an older commit cannot be read")
    done = bench(root, "--against", "no-such-commit", "--only", "pan", "--quick")
    assert done.returncode == 1
    assert done.stderr.startswith("against: 'no-such-commit' cannot be read (")
    assert len(done.stderr.splitlines()) == 1
