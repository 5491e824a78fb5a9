"""`trainers fit` of this tree beside that of an older commit, in alternating rounds of whole commands."""

from __future__ import annotations

import csv
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCORE_SEEDS, SCORE_EPOCHS = (0, 1, 2), 10


@dataclass(frozen=True)
class Run:
    """What one `trainers fit` took.

    Attributes:
        images_per_s: median over the epochs after the first, which traces the graph; as ``history.csv`` tells.
        processor: seconds of user and system time of the whole command: start, training, validation, records.
        memory: largest resident size, MiB.
        score: validation score of the best epoch, the ignored class suppressed.
    """

    images_per_s: float
    processor: float
    memory: float
    score: float


@dataclass(frozen=True)
class Subject:
    """A tree to measure: its label in the table, its folder, and options of `fit` that it alone is given."""

    label: str
    tree: Path
    options: tuple[str, ...] = ()


def timed(subject: Subject, arch: str, options: Sequence[str]) -> Run:
    """Run one `trainers fit` of a tree in a process of its own.

    Raises:
        SystemExit: the command failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "net.keras"
        command = [sys.executable, "-m", "trainers.cli", "fit", arch, *options, *subject.options, "--out", str(out)]
        environment = {**os.environ, "PYTHONPATH": str(subject.tree)}
        with (Path(folder) / "log").open("w+") as log:
            # From the temporary folder: `-m` puts the working folder before PYTHONPATH.
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                raise SystemExit(f"{subject.label}: {shlex.join(command)} failed: {log.read()[-2000:]}")
        epochs = list(csv.DictReader(out.with_name("net.history.csv").open()))
        result = tomllib.loads(out.with_name("net.run.toml").read_text())["result"]
    speed = statistics.median(float(epoch["images_per_s"]) for epoch in (epochs[1:] or epochs))
    # macOS counts bytes, Linux KiB.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Run(speed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit, float(result["validation_suppressed"]))


def alternating(subjects: Sequence[Subject], arch: str, options: Sequence[str], rounds: int) -> dict[str, list[Run]]:
    """Return the runs of each subject; the order is turned from round to round, so that neither always goes first."""
    found: dict[str, list[Run]] = {subject.label: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            run = timed(subject, arch, [*options, "--seed", str(number)])
            found[subject.label].append(run)
            told = f"{run.images_per_s:.1f} images/s, {run.processor:.1f} processor s, {run.memory:.0f} MiB"
            print(f"{arch} round {number + 1} {subject.label}: {told}, score {run.score:.4f}", flush=True)
    return found


def speed_row(arch: str, labels: tuple[str, str], runs: dict[str, list[Run]]) -> list[str]:
    """Return a line of the table: medians of both subjects, and how many times as fast the second one is."""

    def median(label: str, name: str) -> float:
        return statistics.median(getattr(run, name) for run in runs[label])

    cells = [arch]
    for name, digits in (("images_per_s", 1), ("processor", 1), ("memory", 0)):
        cells += [f"{median(label, name):.{digits}f}" for label in labels]
        if name != "memory":
            before, now = (median(label, name) for label in labels)
            cells.append(f"{now / before if name == 'images_per_s' else before / now:.2f}")
    return cells


def score_row(arch: str, labels: tuple[str, str], runs: dict[str, list[Run]]) -> list[str]:
    """Return a line of the table: the scores of each seed, their means and the difference."""
    scores = [[run.score for run in runs[label]] for label in labels]
    means = [statistics.fmean(each) for each in scores]
    listed = [", ".join(f"{score:.4f}" for score in each) for each in scores]
    return [arch, *listed, *(f"{mean:.4f}" for mean in means), f"{means[1] - means[0]:+.4f}"]
